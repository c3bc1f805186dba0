"""What doctor checks: each check reads what was found and says what is wrong with it. Pure.

Each yields findings, worst or not; one that yields none, or only findings that say "ok", found nothing
wrong. Numbers and names of checks are for scripts, and never change: a new check goes to the end.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from openclaw_gateway.admin.judge import cluster_checks, unit_checks
from openclaw_gateway.admin.judge.advice import as_root, steps
from openclaw_gateway.admin.judge.disagreements import contending, gives_way
from openclaw_gateway.admin.judge.finding import Examination, Finding, Findings, Severity
from openclaw_gateway.admin.judge.state import StatusCode
from openclaw_gateway.host.address import is_loopback, url

_MIN_FREE_BYTES = 50_000_000
_MIN_FREE_INODES = 1000
_CLOCK_STEP_S = 60.0
_NEAR_PORTS = 20
"""OpenClaw's neighbours of a base port: browser control and its like have ports of their own above it."""


def _state(seen: Examination) -> Findings:
    if not seen.verdict.is_healthy:
        advice = steps(seen.facts, seen.verdict)
        severity = (
            Severity.WARNING if seen.verdict.exit_code is StatusCode.STARTING else Severity.ERROR
        )
        evidence = f"{seen.verdict.state}: {seen.verdict.reason}"
        here = seen.ours("doctor")
        command = next((step.command for step in advice if step.command != here), "")
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
        command = seen.systemctl(rival.manager, f"disable --now {rival.unit}")
        yield Finding(Severity.ERROR, evidence, command)
    winner = gives_way(facts)
    if winner is not None:
        named.add(winner.manager)
        own = f"{facts.subject.unit_name} ({facts.subject.manager})"
        evidence = f"{own} is enabled too and wants port {port}, which {winner.unit} ({winner.manager}) has"
        command = seen.systemctl(facts.subject.manager, f"disable --now {facts.subject.unit_name}")
        yield Finding(Severity.ERROR, evidence, command)
    for unit, place in seen.neighbours:
        is_active = unit.active_state in ("active", "activating", "reloading")
        runs_owner = facts.owner is not None and unit.main_pid == facts.owner.pid
        if is_active and not runs_owner and place.port == port and unit.manager not in named:
            evidence = (
                f"{unit.name} ({unit.manager}) is {unit.active_state} as well, for port {port}"
            )
            command = seen.systemctl(unit.manager, f"disable --now {unit.name}")
            yield Finding(Severity.WARNING, evidence, command)
    for problem in seen.unit_problems:
        yield Finding(Severity.UNSEEN, problem)


def _overrides(seen: Examination) -> Findings:
    place = seen.facts.subject.place
    if place.problem and place.is_readable:
        yield Finding(Severity.ERROR, place.problem, seen.config())
    elif place.problem:
        yield Finding(Severity.UNSEEN, place.problem)
    for unit in seen.services():
        for name in sorted(unit.environment):
            if name in _OVERRIDING:
                evidence = f"{unit.name} sets {name}, which overrides {place.config_path}"
                yield Finding(
                    Severity.NOTE,
                    evidence,
                    seen.systemctl(unit.manager, f"cat {unit.name}"),
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
    if locks.other:
        owner = f"pid {locks.other.pid or 'unknown'}"
        evidence = f"{locks.other.path}: held by {owner}, a gateway of OpenClaw's own"
        yield Finding(Severity.OK, evidence)
    for found in locks.strange:
        evidence = (
            f"{found.path} {found.problem}: OpenClaw's own gateway refuses to run with it, "
            "and we take it for nobody's"
        )
        yield Finding(Severity.WARNING, evidence, shlex.join(("ls", "-ld", found.path)))
    for file in locks.files:
        if file.is_leftover:
            who = f"pid {file.record.pid}" if file.record else "nobody that it names"
            evidence = f"{file.path}: left over by {who}; harmless, the next start takes it"
            yield Finding(Severity.NOTE, evidence, seen.ours("doctor", "--fix"))
        elif file.holder_pid is not None:
            yield Finding(Severity.OK, f"{file.path}: held by pid {file.holder_pid}")
        elif file.record is not None and not locks.other:
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
    unseen = [fact for fact in facts.listeners if fact.pid is None and not fact.is_kept]
    if unseen:
        places = [url(fact.host, fact.port) for fact in unseen]
        uids = ", ".join(sorted({str(fact.uid) for fact in unseen}))
        evidence = f"{', '.join(places)}: held by a process of uid {uids} that we may not look into"
        yield Finding(Severity.UNSEEN, evidence, as_root("doctor", seen.facts))


def _half_closed(seen: Examination) -> Findings:
    facts = seen.facts
    queued = max((found.queued for found in facts.listeners), default=0)
    backlog = facts.listeners[0].backlog if facts.listeners else 0
    if facts.connections.half_closed > backlog // 8:
        evidence = f"{facts.connections.half_closed} clients are gone, and their connections not closed (CLOSE_WAIT)"
        yield Finding(Severity.WARNING, evidence, seen.ours("logs", "--since", "1h"))
    if queued > backlog // 2:
        evidence = f"{queued} of {backlog} places in the accept queue are taken: nobody accepts"
        yield Finding(Severity.ERROR, evidence, seen.ours("logs", "--since", "1h"))


def _secrets(seen: Examination) -> Findings:
    for problem in seen.secrets.problems:
        yield Finding(Severity.UNSEEN, problem)
    for file in seen.secrets.open_files:
        evidence = f"{file.path} holds a secret, and others may read it (mode {file.mode:04o})"
        sudo = "" if seen.facts.viewer_uid in (0, file.owner_uid) else "sudo "
        path = shlex.quote(file.path)
        command = f"{sudo}chmod 600 {path}"
        if file.group is not None:
            # With 600 the gateway itself could not read it at its next start.
            command = f"{sudo}chgrp {shlex.quote(file.group)} {path} && {sudo}chmod 640 {path}"
        yield Finding(Severity.ERROR, evidence, command)
    for unit, variable in seen.secrets.in_units:
        evidence = f"{unit.name} sets {variable}: anyone can read it with systemctl show"
        yield Finding(Severity.ERROR, evidence, seen.edit(unit))


def _exposure(seen: Examination) -> Findings:
    place = seen.facts.subject.place
    wide = [found for found in seen.facts.listeners if not is_loopback(found.host)]
    if place.auth == "none":
        severity = Severity.ERROR if wide else Severity.NOTE
        evidence = "no authentication: whoever reaches the port is let in"
        yield Finding(severity, evidence, seen.config())
    elif wide:
        where = url(wide[0].host, wide[0].port)
        evidence = f"{where} is open to the network, without encryption: tokens can be overheard"
        yield Finding(Severity.NOTE, evidence, seen.config())


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
        if self.of_units and not any(seen.services()):
            return (seen.no_unit(),)
        return tuple(self.look(seen))


CHECKS = (
    Check(1, "state", "a healthy gateway answers", _state),
    Check(2, "disagreements", "unit, lock, listener and health answer agree", _disagreements),
    Check(3, "two-managers", "no unit of another manager wants the port", _two_managers),
    Check(4, "restart-policy", "crashes restart, 78 does not, stops leave nothing behind", unit_checks.restart_policy, of_units=True),
    Check(5, "time-outs", "start and stop time-outs are long enough", unit_checks.timeouts, of_units=True),
    Check(6, "start-limit", "the start limit trips", unit_checks.start_limit, of_units=True),
    Check(7, "start-limit-latch", "no unit has given up", unit_checks.latch, of_units=True),
    Check(8, "daemon-reload", "units are loaded as they are on disk", unit_checks.reload_pending, of_units=True),
    Check(9, "overrides", "nothing overrides the configuration", _overrides),
    Check(10, "lock-directory", "locks are where they should be, and only ours", _lock_directory),
    Check(11, "port-holders", "nobody else listens on the port", _port_holders),
    Check(12, "connections", "connections are accepted and closed", _half_closed),
    Check(13, "secrets", "no secret lies open", _secrets),
    Check(14, "exposure", "only this machine reaches the port", _exposure),
    Check(15, "last-exits", "no unasked exit in the journal", unit_checks.exits, of_units=True),
    Check(16, "linger", "the unit does not depend on a session", unit_checks.linger),
    Check(17, "disk", "there is room for the state", _disk),
    Check(18, "clock", "the clock is steady", _clock),
    Check(19, "profiles", "every profile has a port of its own, with room above it", _neighbours),
    Check(20, "next-start", "systemd and the gateway take their files as they stand", unit_checks.next_start),
    Check(21, "credentials", "every credential that lies ready reaches the gateway", unit_checks.credentials),
    Check(22, "openclaw-itself", "no command of OpenClaw's own minds our unit's name", unit_checks.openclaw_itself),
    Check(23, "cluster", "etcd is as a cluster needs it, where there is one", cluster_checks.cluster),
)  # fmt: skip
