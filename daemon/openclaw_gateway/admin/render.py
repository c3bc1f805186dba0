"""Facts and verdict as people read them: a word, a reason, the facts line by line, what to type next."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from openclaw_gateway.admin.judge import exits
from openclaw_gateway.admin.judge.advice import steps
from openclaw_gateway.admin.judge.state import StatusCode
from openclaw_gateway.admin.judge.verdict import Verdict
from openclaw_gateway.admin.look.facts import Facts, ListenerFact, ProcessDetails
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.client.answer import Health
from openclaw_gateway.protocol.role import Role

_LABEL_WIDTH = 10
_GREEN, _YELLOW, _RED, _BOLD, _DIM = "32", "33", "31", "1", "2"
_TONES = {
    StatusCode.HEALTHY: _GREEN,
    StatusCode.STARTING: _YELLOW,
    StatusCode.UNKNOWN: _YELLOW,
    StatusCode.UNWELL: _RED,
    StatusCode.NOT_RUNNING: _RED,
}


class Paint:
    """Colours for a terminal, or none."""

    def __init__(self, *, coloured: bool) -> None:
        self._coloured = coloured

    def _with(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text

    def tone(self, code: StatusCode, text: str) -> str:
        """Colour a state by how well it is."""
        return self._with(f"{_BOLD};{_TONES[code]}", text)

    def bold(self, text: str) -> str:
        """Make text stand out."""
        return self._with(_BOLD, text)

    def dim(self, text: str) -> str:
        """Make text stand back."""
        return self._with(_DIM, text)

    def warn(self, text: str) -> str:
        """Colour a warning."""
        return self._with(_YELLOW, text)

    def bad(self, text: str) -> str:
        """Colour an error."""
        return self._with(_RED, text)

    def good(self, text: str) -> str:
        """Colour what is well."""
        return self._with(_GREEN, text)


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to use colours: on a terminal that has them, unless ``NO_COLOR`` is set to anything."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def screen(facts: Facts, verdict: Verdict, paint: Paint) -> list[str]:
    """Return the lines that ``status`` shows."""
    title = "openclaw-gateway" + (f" ({facts.subject.profile})" if facts.subject.profile else "")
    word = paint.tone(verdict.exit_code, verdict.state.upper())
    code = paint.dim(f"(exit {int(verdict.exit_code)})")
    lines = [f"{paint.bold(title)}  {word}: {verdict.reason}  {code}"]
    fails = [paint.bad(f"will fail: {text}") for text in verdict.next_start]
    lines += _block("Restart", fails, paint)
    lines += _block("Unit", _unit_lines(facts), paint)
    lines += _block("Process", _process_lines(facts.process), paint)
    if facts.guarded is not None:
        lines += _block("Guarded", _process_lines(facts.guarded), paint)
    lines += _block("Standby", _standbys(facts), paint)
    lines += _block("Cluster", _cluster(facts.health.role), paint)
    lines += _block("Lock", _lock_lines(facts), paint)
    lines += _block("Listener", [_listeners(facts)], paint)
    lines += _block("Health", [_health(facts)], paint)
    lines += _block("Last exit", _last_exit(facts), paint)
    lines += _block("Conflict", [paint.warn(text) for text in verdict.disagreements], paint)
    lines += _block("Not seen", [paint.dim(text) for text in facts.unseen], paint)
    commands = [
        paint.bold(step.command) + (paint.dim(f"   # {step.why}") if step.why else "")
        for step in steps(facts, verdict)
    ]
    return lines + _block("Next", commands, paint)


def _block(label: str, texts: Sequence[str], paint: Paint) -> list[str]:
    labels = [label.ljust(_LABEL_WIDTH)] + [" " * _LABEL_WIDTH] * len(texts)
    return [
        f"{paint.bold(mark)}{text}" if mark.strip() else f"{mark}{text}"
        for mark, text in zip(labels, texts, strict=False)
    ]


def _unit_lines(facts: Facts) -> list[str]:
    unit = facts.subject.unit
    if unit is None:
        return [
            f"{facts.subject.unit_name} ({facts.subject.manager}): {facts.subject.unit_problem or 'none for this port'}"
        ]
    name = f"{unit.name} ({unit.manager})"
    if unit.load_state != "loaded" and unit.main_pid is None:
        return [f"{name} {unit.load_state}"]
    enabled = f", {unit.enabled}" if unit.enabled else ""
    state = unit.active_state
    if unit.active_state not in ("active", "inactive") and unit.sub_state != unit.active_state:
        state += f" ({unit.sub_state})"
    age_s = unit.active_age_s if unit.active_age_s is not None else unit.changed_age_s
    lines = [f"{name} {state}{_since(age_s)}{enabled}, restarts {unit.restarts}"]
    details = []
    if unit.startup_s is not None:
        details.append(f"ready in {unit.startup_s:.2f} s")
    if unit.watchdog_s and unit.watchdog_age_s is not None:
        details.append(
            f"watchdog {span(unit.watchdog_s)}, last ping {span(unit.watchdog_age_s)} ago"
        )
    details.append(f"KillMode={unit.kill_mode}")
    lines.append(" · ".join(details))
    drop_ins = ", ".join(os.path.basename(path) for path in unit.drop_ins) or "none"
    pending = "yes" if unit.needs_daemon_reload else "no"
    lines.append(f"drop-ins: {drop_ins} · daemon-reload pending: {pending}")
    return lines


def _standbys(facts: Facts) -> list[str]:
    return [f"{each.unit} ({each.manager}), pid {each.pid}" for each in facts.standbys]


def _cluster(role: Role | None) -> list[str]:
    if role is None:
        return []
    if not role.active:
        where = f", at {role.url}" if role.url else ""
        return [f"{role.name}: standby; {role.reason}{where}"]
    since = f" since {moment(role.since_ms / 1000)}" if role.since_ms is not None else ""
    return [f"{role.name}: {role.reason}{since}"]


def _process_lines(fact: ProcessDetails | None) -> list[str]:
    if fact is None:
        return ["none"]
    parts = [
        f"pid {fact.pid} uid {fact.user or '?'}",
        fact.command,
        fact.unit_of_manager,
        f"up {span(fact.age_s)}" if fact.age_s is not None else None,
        f"{fact.memory_bytes / 1e6:.0f} MB" if fact.memory_bytes is not None else None,
        f"{fact.descriptors}/{fact.descriptor_limit} fds" if fact.descriptors is not None else None,
        f"threads {fact.threads}" if fact.threads is not None else None,
        f"OOM kills {fact.oom_kills}" if fact.oom_kills is not None else None,
        "STOPPED by a signal" if fact.is_stopped else None,
    ]
    return [" · ".join(part for part in parts if part)]


def _lock_lines(facts: Facts) -> list[str]:
    lock, lines = facts.lock, []
    if lock.port_pid is None:
        lines.append(f"port {facts.subject.place.port}: held by nobody")
    else:
        agrees = ""
        if lock.is_own_record is not None:
            agrees = (
                " (kernel lock + start time agree)" if lock.is_own_record else " (stale record)"
            )
        is_other = facts.owner is not None and facts.owner != facts.process
        who = str(facts.owner) if is_other else f"pid {lock.port_pid}"
        lines.append(f"port {facts.subject.place.port}: held by {who}{agrees}")
    if lock.problem is None:
        who = f"held by pid {lock.state_pid}" if lock.state_pid else "held by nobody"
        lines.append(f"state directory {lock.state_dir}: {who}")
    if lock.record is not None and lock.port_pid is not None:
        lines.append(_record(lock.record))
    return lines


def _record(record: LockRecord) -> str:
    parts = [
        f"phase {record.phase}" if record.phase else None,
        f"config {record.config_path}" if record.config_path else None,
        f"since {record.created_at}" if record.created_at else None,
    ]
    return " · ".join(part for part in parts if part)


def _listeners(facts: Facts) -> str:
    if not facts.listeners:
        return f"nobody listens on port {facts.subject.place.port}"
    ours = {fact.pid for fact in (facts.process, facts.guarded) if fact is not None}
    parts = [_listener(fact, ours) for fact in facts.listeners]
    counts = facts.connections
    parts.append(f"{counts.established} connection{'' if counts.established == 1 else 's'}")
    if counts.half_closed:
        parts.append(f"{counts.half_closed} in CLOSE_WAIT")
    if any(fact.pid in ours for fact in facts.listeners):
        queued = sum(fact.queued for fact in facts.listeners)
        parts.append(f"accept queue {queued}/{facts.listeners[0].backlog}")
    return " · ".join(parts)


def _listener(fact: ListenerFact, ours: set[int]) -> str:
    host = f"[{fact.host}]" if ":" in fact.host else fact.host
    whose = f"uid {fact.uid}" if fact.pid is None else f"pid {fact.pid}"
    if fact.is_kept:
        return f"{host}:{fact.port} kept by systemd, {fact.queued} waiting"
    what = " (ours)" if fact.pid in ours else ""
    if fact.answers is not None:
        what = f" ({fact.answers})"
    return f"{host}:{fact.port} {whose}{what}"


def _health(facts: Facts) -> str:
    health = facts.health
    record = facts.lock.record
    running = record.version if record and facts.owner else None
    versions = f"running {running or 'an unknown version'}, this CLI {facts.cli_version}"
    if health.health is not Health.HEALTHY:
        return f"/healthz: {health.health} · this CLI {facts.cli_version}"
    ready = {True: "200", False: "503", None: "not a gateway's"}[health.ready]
    return f"/healthz exact, {health.took_s * 1000:.0f} ms · /readyz {ready} · {versions}"


def _last_exit(facts: Facts) -> list[str]:
    unit, last = facts.subject.unit, facts.last_exit
    if last is not None:
        status, cause = exits.of_exit(last)
        said = f": {cause}" if cause else ""
        return [f"{last.kind} with {status} at {last.at.astimezone():%Y-%m-%d %H:%M:%S}{said}"]
    if unit is None or unit.exit_kind == 0 or unit.main_pid is not None:
        return []
    how, said = exits.signal_name(unit.exit_status), unit.status_text
    if unit.exit_kind == 1:
        how = f"code {exits.named(unit.exit_status)}"
        said = said or exits.meaning(unit.exit_status)
    said = f": {said}" if said and unit.result != "success" else ""
    return [f"{how}, result {unit.result}{_since(unit.exited_age_s, word='at')}{said}"]


def _since(age_s: float | None, *, word: str = "since") -> str:
    if age_s is None:
        return ""
    then = time.localtime(time.time() - age_s)
    day = "" if age_s < 43200 else "%Y-%m-%d "
    return f" {word} {time.strftime(f'{day}%H:%M', then)} ({span(age_s)})"


def moment(at_s: float) -> str:
    """Return a time by the wall clock, seconds since 1970, and how long ago that is."""
    day = "" if time.time() - at_s < 43200 else "%Y-%m-%d "
    shown = time.strftime(f"{day}%H:%M:%S", time.localtime(at_s))
    return f"{shown} ({span(max(time.time() - at_s, 0))})"


def span(seconds: float) -> str:
    """Return a duration as a person says it: ``4 s``, ``2 h 4 m``, ``3 d 2 h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows in aligned columns; the last one runs free."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[-1]]).rstrip()
