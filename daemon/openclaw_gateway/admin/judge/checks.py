"""What doctor checks: each check reads what was found and says what is wrong with it. Pure.

Each yields findings, worst or not; one that yields none, or only findings that say "ok", found nothing
wrong. Numbers and names of checks are for scripts, and never change: a new check goes to the end.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from openclaw_gateway.admin.judge.advice import ours, steps
from openclaw_gateway.admin.judge.disagreements import contending, gives_way, lost
from openclaw_gateway.admin.judge.state import StatusCode
from openclaw_gateway.admin.judge.verdict import Verdict, gave_up_starting
from openclaw_gateway.errors import ExitCode
from openclaw_gateway.host.address import is_loopback, url

if TYPE_CHECKING:
    from openclaw_gateway.admin.look.facts import Facts
    from openclaw_gateway.admin.look.history import Exit
    from openclaw_gateway.admin.look.locks import LockDirectory
    from openclaw_gateway.admin.look.peer import Peer
    from openclaw_gateway.admin.look.place import Place
    from openclaw_gateway.admin.look.secrets import Secrets
    from openclaw_gateway.admin.look.units import Manager, Unit
    from openclaw_gateway.admin.look.verify import Verified

_STOP_S = 10.0
"""More than an honest stop takes: 3 s of goodbyes and what comes after."""
_MIN_FREE_BYTES = 50_000_000
_MIN_FREE_INODES = 1000
_CLOCK_STEP_S = 60.0
_NEAR_PORTS = 20
"""OpenClaw's neighbours of a base port: browser control and its like have ports of their own above it."""


class Severity(StrEnum):
    """How bad it is; in rising order."""

    OK = "ok"
    NOTE = "note"
    UNSEEN = "unseen"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """What a check found."""

    severity: Severity
    evidence: str
    command: str = ""
    """One command that mends it or shows more; empty if there is none."""


class Storage(NamedTuple):
    """Room on the state directory's file system; ``None`` if it could not be asked."""

    free_bytes: int
    free_inodes: int | None
    """``None`` where the file system does not count them."""


class Examination(NamedTuple):
    """Everything that doctor looked at."""

    facts: Facts
    verdict: Verdict
    neighbours: tuple[tuple[Unit, Place], ...]
    """The units of the same name in other managers, as far as these could be asked, and what each wants."""
    unit_problems: tuple[str, ...]
    """Which managers could not be asked, and why."""
    locks: LockDirectory
    secrets: Secrets
    storage: Storage | None
    exits: tuple[Exit, ...]
    journal_problem: str | None
    """Why the journal tells us nothing of the unit; ``None`` if it does."""
    lingers: bool | None
    """Whether the user's manager outlives the last session; ``None`` for a system unit."""
    is_wsl: bool
    suspended_s: float
    """Since boot."""
    clock_step_s: float | None
    """How far the wall clock moved against the others since the gateway began; ``None`` if unknown."""
    ports: tuple[tuple[str, int], ...]
    """Each profile that is enabled or runs, and the port it wants."""
    verified: Verified
    """What systemd finds wrong in the unit's files."""
    peer: Peer
    """OpenClaw's own gateway on this machine."""


Findings = Iterator[Finding]


def _state(seen: Examination) -> Findings:
    if not seen.verdict.is_healthy:
        advice = steps(seen.facts, seen.verdict)
        severity = (
            Severity.WARNING if seen.verdict.exit_code is StatusCode.STARTING else Severity.ERROR
        )
        evidence = f"{seen.verdict.state}: {seen.verdict.reason}"
        # "doctor" is where we are.
        command = next((step.command for step in advice if " doctor" not in step.command), "")
        yield Finding(severity, evidence, command)


def _disagreements(seen: Examination) -> Findings:
    for sentence in seen.verdict.disagreements:
        yield Finding(Severity.WARNING, sentence, "openclaw-gateway status --all")


def _two_managers(seen: Examination) -> Findings:
    facts, port = seen.facts, seen.facts.subject.place.port
    named = set()
    for rival in contending(facts):
        named.add(rival.manager)
        evidence = f"{rival.unit} ({rival.manager}) is enabled too and wants port {port}"
        command = _systemctl(seen, rival.manager, f"disable --now {rival.unit}")
        yield Finding(Severity.ERROR, evidence, command)
    winner = gives_way(facts)
    if winner is not None:
        named.add(winner.manager)
        own = f"{facts.subject.unit_name} ({facts.subject.manager})"
        evidence = f"{own} is enabled too and wants port {port}, which {winner.unit} ({winner.manager}) has"
        command = _systemctl(
            seen, facts.subject.manager, f"disable --now {facts.subject.unit_name}"
        )
        yield Finding(Severity.ERROR, evidence, command)
    for unit, place in seen.neighbours:
        is_active = unit.active_state in ("active", "activating", "reloading")
        runs_owner = facts.owner is not None and unit.main_pid == facts.owner.pid
        if is_active and not runs_owner and place.port == port and unit.manager not in named:
            evidence = (
                f"{unit.name} ({unit.manager}) is {unit.active_state} as well, for port {port}"
            )
            command = _systemctl(seen, unit.manager, f"disable --now {unit.name}")
            yield Finding(Severity.WARNING, evidence, command)
    for problem in seen.unit_problems:
        yield Finding(Severity.UNSEEN, problem)


def _restart_policy(seen: Examination) -> Findings:
    for unit in _services(seen):
        edit = _edit(seen, unit)
        if unit.restart not in ("always", "on-failure"):
            yield Finding(
                Severity.WARNING, f"{unit.name}: Restart={unit.restart}: a crash stays down", edit
            )
        elif ExitCode.CONFIG not in unit.prevents:
            evidence = (
                f"{unit.name}: RestartPreventExitStatus lacks 78: a duplicate restarts for ever"
            )
            yield Finding(Severity.ERROR, evidence, edit)
        if unit.kill_mode in ("process", "none"):
            evidence = f"{unit.name}: KillMode={unit.kill_mode}: children outlive a stop"
            yield Finding(Severity.WARNING, evidence, edit)


def _timeouts(seen: Examination) -> Findings:
    for unit in _services(seen):
        start_s, stop_s = unit.start_timeout_s, unit.stop_timeout_s
        attempt_s = seen.facts.subject.place.health_timeout_s
        if start_s is not None and start_s < attempt_s:
            evidence = f"{unit.name}: TimeoutStartSec={start_s:g}s, and a start may wait {attempt_s:g} s for an owner"
            yield Finding(Severity.WARNING, evidence, _edit(seen, unit))
        if stop_s is not None and stop_s < _STOP_S:
            evidence = (
                f"{unit.name}: TimeoutStopSec={stop_s:g}s, and goodbyes take up to {_STOP_S:g} s"
            )
            yield Finding(Severity.WARNING, evidence, _edit(seen, unit))


def _start_limit(seen: Examination) -> Findings:
    for unit in _services(seen):
        window_s, burst = unit.start_limit_interval_s, unit.start_limit_burst
        if not window_s or not burst:
            yield Finding(
                Severity.WARNING,
                f"{unit.name}: no start limit: failures loop for ever",
                _edit(seen, unit),
            )
            continue
        needed_s = burst * (seen.facts.subject.place.health_timeout_s + (unit.restart_s or 0.0))
        if window_s <= needed_s:
            evidence = (
                f"{unit.name}: StartLimitIntervalSec={window_s:g}s can't hold {burst} attempts, "
                f"which take {needed_s:g} s where an owner never gets healthy: the limit never trips"
            )
            yield Finding(Severity.WARNING, evidence, _edit(seen, unit))


def _latch(seen: Examination) -> Findings:
    for unit in _services(seen):
        if gave_up_starting(unit):
            evidence = (
                f"{unit.name} gave up after {unit.restarts} restarts: it starts no more by itself"
            )
            reset = _systemctl(seen, unit.manager, f"reset-failed {unit.name}")
            command = f"{reset} && {_systemctl(seen, unit.manager, f'start {unit.name}')}"
            yield Finding(Severity.ERROR, evidence, command)


def _reload_pending(seen: Examination) -> Findings:
    for unit in _services(seen):
        if unit.needs_daemon_reload:
            evidence = f"{unit.name} or a drop-in of it changed on disk since it was loaded"
            yield Finding(
                Severity.WARNING,
                evidence,
                _systemctl(seen, unit.manager, "daemon-reload"),
            )


def _overrides(seen: Examination) -> Findings:
    place = seen.facts.subject.place
    if place.problem and place.is_readable:
        yield Finding(Severity.ERROR, place.problem, _config(seen))
    elif place.problem:
        yield Finding(Severity.UNSEEN, place.problem)
    for unit in _services(seen):
        for name in sorted(unit.environment):
            if name in _OVERRIDING:
                evidence = f"{unit.name} sets {name}, which overrides {place.config_path}"
                yield Finding(
                    Severity.NOTE,
                    evidence,
                    _systemctl(seen, unit.manager, f"cat {unit.name}"),
                )


_OVERRIDING = ("OPENCLAW_CONFIG_PATH", "OPENCLAW_GATEWAY_PORT", "OPENCLAW_STATE_DIR")


def _lock_directory(seen: Examination) -> Findings:
    locks = seen.locks
    if locks.problem:
        severity = Severity.NOTE if locks.is_missing else Severity.UNSEEN
        yield Finding(severity, f"{locks.state_dir}: {locks.problem}")
        return
    for fault in locks.faults:
        sudo = "" if seen.facts.viewer_uid in (0, locks.uid) else "sudo "
        yield Finding(Severity.ERROR, fault.sentence, sudo + shlex.join(fault.command))
    if locks.storage:
        evidence = (
            f"{locks.state_dir} lies on {locks.storage}: its locks may not exclude another host"
        )
        yield Finding(Severity.WARNING, evidence, "openclaw-gateway run --state-dir DIR")
    for file in locks.files:
        if file.is_leftover:
            who = f"pid {file.record.pid}" if file.record else "nobody that it names"
            evidence = f"{file.path}: left over by {who}; harmless, the next start takes it"
            yield Finding(Severity.NOTE, evidence, _ours("doctor", seen, "--fix"))
        elif file.holder_pid is not None:
            yield Finding(Severity.OK, f"{file.path}: held by pid {file.holder_pid}")
        elif file.record is not None:
            evidence = f"{file.path}: its record names pid {file.record.pid}, which lives"
            yield Finding(Severity.OK, evidence)


def _port_holders(seen: Examination) -> Findings:
    facts = seen.facts
    if facts.displaced_by is not None:
        port = facts.subject.place.port
        evidence = f"port {port} is held by a gateway with the state directory {facts.displaced_by}"
        yield Finding(Severity.ERROR, evidence, f"openclaw-gateway status --port={port}")
    for fact in facts.strangers:
        places = [url(found.host, found.port) for found in facts.listeners if found.pid == fact.pid]
        evidence = f"{', '.join(places)} is held by {fact}"
        yield Finding(Severity.ERROR, evidence, f"ps -fp {fact.pid}")
    unseen = [url(found.host, found.port) for found in facts.listeners if found.pid is None]
    if unseen:
        uids = ", ".join(sorted({str(fact.uid) for fact in facts.listeners if fact.pid is None}))
        evidence = f"{', '.join(unseen)}: held by a process of uid {uids} that we may not look into"
        yield Finding(Severity.UNSEEN, evidence, "sudo " + _ours("doctor", seen))


def _half_closed(seen: Examination) -> Findings:
    facts = seen.facts
    queued = max((found.queued for found in facts.listeners), default=0)
    backlog = facts.listeners[0].backlog if facts.listeners else 0
    if facts.connections.half_closed > backlog // 8:
        evidence = f"{facts.connections.half_closed} clients are gone, and their connections not closed (CLOSE_WAIT)"
        yield Finding(Severity.WARNING, evidence, _ours("logs", seen, "--since", "1h"))
    if queued > backlog // 2:
        evidence = f"{queued} of {backlog} places in the accept queue are taken: nobody accepts"
        yield Finding(Severity.ERROR, evidence, _ours("logs", seen, "--since", "1h"))


def _secrets(seen: Examination) -> Findings:
    for problem in seen.secrets.problems:
        yield Finding(Severity.UNSEEN, problem)
    for path, mode in seen.secrets.open_files:
        evidence = f"{path} holds a secret, and others may read it (mode {mode:04o})"
        yield Finding(Severity.ERROR, evidence, f"chmod 600 {shlex.quote(path)}")
    for unit, variable in seen.secrets.in_units:
        evidence = f"{unit.name} sets {variable}: anyone can read it with systemctl show"
        yield Finding(Severity.ERROR, evidence, _edit(seen, unit))


def _exposure(seen: Examination) -> Findings:
    place = seen.facts.subject.place
    wide = [found for found in seen.facts.listeners if not is_loopback(found.host)]
    if place.auth == "none":
        severity = Severity.ERROR if wide else Severity.NOTE
        evidence = "no authentication: whoever reaches the port is let in"
        yield Finding(severity, evidence, _config(seen))
    elif wide:
        where = url(wide[0].host, wide[0].port)
        evidence = f"{where} is open to the network, without encryption: tokens can be overheard"
        yield Finding(Severity.NOTE, evidence, _config(seen))


def _exits(seen: Examination) -> Findings:
    if seen.facts.subject.unit is None:
        yield _no_unit(seen)
    elif seen.journal_problem:
        yield Finding(Severity.UNSEEN, seen.journal_problem)
    command = _ours("logs", seen, "-n", "200")
    for end in seen.exits:
        requested = end.kind == "exited" and end.status in ("0", "SUCCESS")
        if not requested:
            at = end.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
            cause = f": {end.cause}" if end.cause else ""
            evidence = f"{at} {end.kind} with {end.status}{cause}"
            yield Finding(Severity.NOTE, evidence, command)
            command = ""


def _linger(seen: Examination) -> Findings:
    if seen.facts.subject.unit is None:
        yield _no_unit(seen)
    elif seen.lingers is False:
        user = seen.facts.subject.manager.user
        evidence = f"the user unit of {user} ends with the last session"
        yield Finding(Severity.WARNING, evidence, f"loginctl enable-linger {user}")
    if seen.is_wsl:
        yield Finding(
            Severity.NOTE, "on WSL not even lingering keeps the virtual machine up when idle"
        )


def _disk(seen: Examination) -> Findings:
    room, where = seen.storage, seen.facts.lock.state_dir
    if room is None:
        why = seen.locks.problem or "its file system can't be asked"
        yield Finding(Severity.UNSEEN, f"{where}: {why}")
        return
    if room.free_bytes < _MIN_FREE_BYTES:
        evidence = f"{room.free_bytes / 1e6:.0f} MB are free at {where}"
        yield Finding(Severity.ERROR, evidence, f"df -h {shlex.quote(where)}")
    if room.free_inodes is not None and room.free_inodes < _MIN_FREE_INODES:
        yield Finding(
            Severity.ERROR,
            f"{room.free_inodes} inodes are free at {where}",
            f"df -i {shlex.quote(where)}",
        )


def _clock(seen: Examination) -> Findings:
    if seen.suspended_s > 1:
        yield Finding(
            Severity.NOTE, f"the machine was suspended for {seen.suspended_s:.0f} s since boot"
        )
    if seen.clock_step_s is not None and abs(seen.clock_step_s) > _CLOCK_STEP_S:
        evidence = f"the wall clock moved by {seen.clock_step_s:+.0f} s since the gateway began"
        yield Finding(Severity.NOTE, evidence, "timedatectl")


def _neighbours(seen: Examination) -> Findings:
    ports = sorted(seen.ports, key=lambda item: item[1])
    for (name, port), (other, next_port) in pairwise(ports):
        if port == next_port:
            evidence = f"the profiles {name} and {other} want the same port {port}"
            yield Finding(Severity.ERROR, evidence, "openclaw-gateway status --all")
        elif next_port - port < _NEAR_PORTS:
            evidence = f"the ports of {name} ({port}) and {other} ({next_port}) are closer than {_NEAR_PORTS}"
            yield Finding(Severity.WARNING, evidence, "openclaw-gateway status --all")


def _next_start(seen: Examination) -> Findings:
    place, unit = seen.facts.subject.place, seen.facts.subject.unit
    if unit is not None and unit.load_error:
        evidence = f"systemd refuses {unit.name} as it stands: {unit.load_error}"
        yield Finding(Severity.ERROR, evidence, f"systemd-analyze verify {unit.name}")
    for fault in seen.verified.faults:
        severity = Severity.WARNING if fault.is_ignored else Severity.ERROR
        command = _systemctl(seen, unit.manager, f"cat {unit.name}") if unit else ""
        yield Finding(severity, fault.sentence, command)
    if seen.verified.problem:
        yield Finding(Severity.UNSEEN, seen.verified.problem)
    for warning in place.warnings:
        yield Finding(Severity.WARNING, warning, _config(seen))


def _credentials(seen: Examination) -> Findings:
    unit = seen.facts.subject.unit
    if unit is None:
        yield _no_unit(seen)
        return
    for credential, why in lost(seen.facts):
        did = "was not" if credential.came is False else "won't be"
        evidence = f"{credential.source} {did} handed over to {unit.name}: {why}"
        verb = "restart" if credential.is_asked_for else "edit"
        yield Finding(
            Severity.ERROR, evidence, _systemctl(seen, unit.manager, f"{verb} {unit.name}")
        )
    if seen.facts.viewer_uid != 0 and unit.manager.is_system and seen.facts.credentials:
        yield Finding(Severity.UNSEEN, "the credentials of a system unit are for root to see")


def _openclaw_itself(seen: Examination) -> Findings:
    subject, peer = seen.facts.subject, seen.peer
    unit = subject.unit
    if unit is None or not unit.manager.is_system or subject.profile is not None:
        return
    for found in (*peer.commands, *peer.units):
        whose = "OpenClaw's own command" if found in peer.commands else "a unit that OpenClaw wrote"
        evidence = (
            f"{found} is {whose}: its gateway start, restart and install refuse while there is a "
            f"system unit {unit.name}, disabled or masked as well"
        )
        idle = unit.active_state == "inactive" and not unit.enabled.startswith("enabled")
        divert = f"dpkg-divert --local --rename --add {shlex.quote(unit.fragment_path)}"
        sudo = "" if seen.facts.viewer_uid == 0 else "sudo "
        yield Finding(Severity.NOTE, evidence, sudo + divert if idle and unit.fragment_path else "")


class Check(NamedTuple):
    """One check."""

    number: int
    name: str
    passed: str
    """What to say if it found nothing."""
    look: Callable[[Examination], Findings]
    of_units: bool = False
    """Whether it has nothing to go by where no unit was seen."""

    def run(self, seen: Examination) -> tuple[Finding, ...]:
        """Return what it found; where it could not look, that it could not."""
        if self.of_units and not any(_services(seen)):
            return (_no_unit(seen),)
        return tuple(self.look(seen))


CHECKS = (
    Check(1, "state", "a healthy gateway answers", _state),
    Check(2, "disagreements", "unit, lock, listener and health answer agree", _disagreements),
    Check(3, "two-managers", "no unit of another manager wants the port", _two_managers),
    Check(4, "restart-policy", "crashes restart, 78 does not, stops leave nothing behind", _restart_policy, of_units=True),
    Check(5, "time-outs", "start and stop time-outs are long enough", _timeouts, of_units=True),
    Check(6, "start-limit", "the start limit trips", _start_limit, of_units=True),
    Check(7, "start-limit-latch", "no unit has given up", _latch, of_units=True),
    Check(8, "daemon-reload", "units are loaded as they are on disk", _reload_pending, of_units=True),
    Check(9, "overrides", "nothing overrides the configuration", _overrides),
    Check(10, "lock-directory", "locks are where they should be, and only ours", _lock_directory),
    Check(11, "port-holders", "nobody else listens on the port", _port_holders),
    Check(12, "connections", "connections are accepted and closed", _half_closed),
    Check(13, "secrets", "no secret lies open", _secrets),
    Check(14, "exposure", "only this machine reaches the port", _exposure),
    Check(15, "last-exits", "no unasked exit in the journal", _exits, of_units=True),
    Check(16, "linger", "the unit does not depend on a session", _linger),
    Check(17, "disk", "there is room for the state", _disk),
    Check(18, "clock", "the clock is steady", _clock),
    Check(19, "profiles", "every profile has a port of its own, with room above it", _neighbours),
    Check(20, "next-start", "systemd and the gateway take their files as they stand", _next_start),
    Check(21, "credentials", "every credential that lies ready reaches the gateway", _credentials),
    Check(22, "openclaw-itself", "no command of OpenClaw's own minds our unit's name", _openclaw_itself),
)  # fmt: skip


def _no_unit(seen: Examination) -> Finding:
    why = seen.facts.subject.unit_problem or "no unit is loaded for this port"
    return Finding(Severity.UNSEEN, f"no unit: {why}")


def _services(seen: Examination) -> Iterator[Unit]:
    """Yield the subject's own unit, if there is one: those of others are for their own doctor."""
    unit = seen.facts.subject.unit
    if unit is not None and unit.is_loaded:
        yield unit


def _edit(seen: Examination, unit: Unit) -> str:
    return _systemctl(seen, unit.manager, f"edit {unit.name}")


def _systemctl(seen: Examination, manager: Manager, words: str) -> str:
    return f"{manager.command(seen.facts.viewer_uid)} {words}"


def _ours(verb: str, seen: Examination, *options: str) -> str:
    return ours(verb, seen.facts, *options)


def _config(seen: Examination) -> str:
    """Return the command that shows the settings: the unit's, which the caller's own are not."""
    subject = seen.facts.subject
    if subject.unit is None:
        return _ours("config", seen)
    words = [f"--profile={subject.profile}"] if subject.profile else []
    sudo = "" if seen.facts.viewer_uid == 0 or not subject.manager.is_system else "sudo "
    scope = "--system" if subject.manager.is_system else "--user"
    return " ".join((f"{sudo}openclaw-gateway config", scope, *words))
