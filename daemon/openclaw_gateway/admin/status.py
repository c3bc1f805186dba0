"""``status``: how one gateway is, or every one on this host. Looks only; takes no lock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from openclaw_gateway.admin.judge.advice import steps
from openclaw_gateway.admin.judge.state import FINAL, State, StatusCode
from openclaw_gateway.admin.judge.verdict import Verdict, judge
from openclaw_gateway.admin.look import units
from openclaw_gateway.admin.look.facts import Facts, ProcessDetails
from openclaw_gateway.admin.look.gather import gather
from openclaw_gateway.admin.look.rivals import Home, Trace, enabled_rivals, homes, traces
from openclaw_gateway.admin.look.selection import Scope, Selection, select
from openclaw_gateway.admin.look.subject import Subject, held, names_of, resolve, stands_by
from openclaw_gateway.admin.render import Paint, screen, table
from openclaw_gateway.admin.report import Report, document, to_json
from openclaw_gateway.claim.baseport import Holder

_PAUSE_S = 0.25
_LOOKS = 3
Seen = TypeVar("Seen")
Holders = Mapping[int, Holder]


class Status(NamedTuple):
    """One gateway, seen and judged."""

    facts: Facts
    verdict: Verdict


def look(
    selection: Selection, *, wait_s: float = 0.0, holders: Callable[[], Holders] = held
) -> Status:
    """
    See how a gateway is.

    Args:
        selection: Which one is meant.
        wait_s: Look again for so many seconds until it is healthy; ends early in a state that only
            a person can end.
        holders: Returns who holds which base port.
    """

    def see(now: Holders) -> Status:
        subject = resolve(selection, now)
        facts = gather(subject, now, enabled_rivals(subject))
        return Status(facts, judge(facts))

    deadline_s = time.monotonic() + wait_s
    while True:
        status = _at_rest(see, holders)
        left_s = deadline_s - time.monotonic()
        if status.verdict.is_healthy or status.verdict.state in FINAL or left_s <= 0:
            return status
        time.sleep(min(_PAUSE_S, left_s))


def look_at_all(
    environ: Mapping[str, str], *, accounts: Callable[[], Sequence[Home]] = homes
) -> list[Status]:
    """
    See every gateway of this host: each profile that left a trace, and whoever else holds a base port.

    Args:
        environ: The caller's environment.
        accounts: Returns those who may have profiles in their homes.
    """
    own_home = environ.get("HOME") or os.path.expanduser("~")
    left = list(traces(own_home, accounts()))
    return _at_rest(lambda holders: _see_all(environ, left, holders), held)


def _at_rest(see: Callable[[Holders], Seen], look_again: Callable[[], Holders]) -> Seen:
    """
    Look until the holders of base ports are the same before and after, so that the parts fit together.

    On a machine where gateways start and end all the time, the third look counts as it is.
    """
    holders = look_again()
    for _ in range(_LOOKS):
        seen = see(holders)
        before, holders = holders, look_again()
        if holders == before:
            break
    return seen


def _see_all(
    environ: Mapping[str, str], found_traces: Sequence[Trace], holders: Holders
) -> list[Status]:
    near = [trace.profile for trace in found_traces if trace.state_dir is None]
    shown = units.show([*(unit for name in near for unit in names_of(name)), units.ANY_GATEWAY])
    # A unit that was asked for by its name and matches the pattern as well comes twice.
    standing_by = tuple({unit.name: unit for unit in shown.units if stands_by(unit)}.values())
    found = []
    for name, state_dir in found_traces:
        if state_dir is not None:
            # Another user's: neither our variables nor the system's units say anything of it.
            theirs = select(
                {"HOME": os.path.dirname(state_dir)},
                scope=Scope.SYSTEM,
                flags={"--profile": name, "--state-dir": state_dir},
            )
            found.append(_one(theirs, holders, units.Reply((), shown.problem)))
            continue
        own = {unit.name: unit for unit in shown.units if unit.name in names_of(name)}
        answer = units.Reply((*own.values(), *standing_by), shown.problem)
        profile = select(environ, scope=Scope.SYSTEM, flags={"--profile": name})
        found.append(_one(profile, holders, answer))
    covered = {
        status.facts.subject.place.port for status in found if status.facts.displaced_by is None
    }
    guards = {unit.name: unit for unit in shown.units if units.guarded_account(unit.name)}
    for port in sorted(set(holders) - covered):
        # One that has ended since we looked is no gateway to list.
        anyone = select(environ, scope=Scope.SYSTEM, flags={"--port": str(port)})
        status = _one(anyone, holders, units.Reply(tuple(guards.values()), shown.problem))
        if status.verdict.state is not State.STOPPED:
            found.append(status)
    for name in guards.keys() - {status.facts.subject.unit_name for status in found}:
        account = select(environ, guard=units.guarded_account(name))
        found.append(_one(account, holders, units.Reply((guards[name],), shown.problem)))
    return found


def _one(selection: Selection, holders: Holders, answer: units.Reply) -> Status:
    subject = resolve(selection, holders, shown=answer)
    facts = gather(subject, holders, ())
    return Status(facts, judge(facts))


def contenders(statuses: Sequence[Status]) -> Iterator[tuple[str, int]]:
    """
    Yield the gateways that run or are enabled, and the port that each is configured for.

    They are named by profile, or where that is unknown or another's too by state directory.
    """
    names = [_title(status.facts.subject) for status in statuses]
    for status, name in zip(statuses, names, strict=True):
        if _should_run(status):
            is_unique = name is not None and names.count(name) == 1
            who = name if name and is_unique else status.facts.lock.state_dir
            yield who, status.facts.subject.configured_port


def contested(statuses: Sequence[Status]) -> Iterator[str]:
    """Say which ports two profiles want, before it hurts."""
    wanted: dict[int, list[str]] = {}
    for name, port in contenders(statuses):
        wanted.setdefault(port, []).append(name)
    for port, names in sorted(wanted.items()):
        if len(names) > 1:
            yield f"port {port} is wanted by the profiles {', '.join(names)}: only one can have it"


def report(selection: Selection, *, wait_s: float, as_json: bool, paint: Paint) -> Report:
    """Be ``status``. Arguments as for ``look``; exits with a ``StatusCode``."""
    status = look(selection, wait_s=wait_s)
    lines = document(_values(status)) if as_json else screen(*status, paint)
    return Report(lines, status.verdict.exit_code)


def report_all(environ: Mapping[str, str], *, as_json: bool, paint: Paint) -> Report:
    """Be ``status --all``. Exits with 0 if every gateway that should run is well, else with 1."""
    seen = look_at_all(environ)
    statuses = [status for status in seen if is_wanted(status)]
    left = [status for status in seen if is_left_over(status)]
    quarrels = list(contested(statuses))
    well = all(status.verdict.is_healthy or not _should_run(status) for status in statuses)
    code = StatusCode.HEALTHY if well and not quarrels else StatusCode.UNWELL
    if as_json:
        values = {
            "gateways": [_values(status) for status in statuses],
            "contested": quarrels,
            "left_over": [
                {
                    "profile": status.facts.subject.profile_name,
                    "state_dir": status.facts.lock.state_dir,
                }
                for status in left
            ],
        }
        return Report(document(values), code)
    notes = [*map(paint.warn, quarrels), *(paint.dim(_left_over(status)) for status in left)]
    return Report([*overview(statuses), *notes], code)


def is_wanted(status: Status) -> bool:
    """
    Whether a gateway belongs into the list of all: it runs, is enabled, has settings, or is the default one.

    The default one is always there to be started; but where it is not meant to run and another
    gateway has its port, it is that one that people know as theirs.
    """
    subject, should_run = status.facts.subject, _should_run(status)
    if subject.guarded_account:
        return should_run
    idle = not should_run and subject.profile is None
    return not is_left_over(status) and not (idle and status.facts.displaced_by is not None)


def is_left_over(status: Status) -> bool:
    """Whether a profile was removed and its state has stayed: no settings, no unit to start it, nothing that runs."""
    subject = status.facts.subject
    return subject.profile is not None and not subject.place.has_config and not _should_run(status)


def _left_over(status: Status) -> str:
    where = status.facts.lock.state_dir
    return f"{where}: left over by the profile {status.facts.subject.profile}, which nothing starts"


def _should_run(status: Status) -> bool:
    """Whether anyone counts on it: a unit that is enabled, or something that is more than stopped."""
    return _is_enabled(status) or status.verdict.state is not State.STOPPED


def _is_enabled(status: Status) -> bool:
    unit = status.facts.subject.unit
    return unit is not None and unit.is_enabled


def overview(statuses: Sequence[Status]) -> Iterator[str]:
    """Yield one line a gateway, and a heading; narrow enough for a terminal where names and paths are usual."""
    shown = {status.facts.subject.unit_name for status in statuses}
    rows = [("PROFILE", "PORT", "STATE", "PID", "RUN BY", "STATE DIRECTORY")]
    for facts, verdict in statuses:
        owner = facts.owner or facts.process
        rows.append(
            (
                _title(facts.subject) or "-",
                str(facts.subject.place.port),
                verdict.state.value,
                str(owner.pid) if owner else "-",
                _run_by(owner) if owner else "-",
                facts.lock.state_dir,
            )
        )
        rows += (
            (
                facts.subject.profile_name or "-",
                "",
                "standby",
                str(each.pid),
                str(each.manager),
                each.unit,
            )
            for each in facts.standbys
            if each.unit not in shown
        )
    return table(rows)


def _title(subject: Subject) -> str | None:
    """Return the name of a gateway in a list: its profile, or whose it guards; ``None`` where that is unknown."""
    account = subject.guarded_account
    return f"guard@{account}" if account else subject.profile_name


def _run_by(owner: ProcessDetails) -> str:
    """Name the manager that runs a process, and else the account."""
    is_service = owner.unit is not None and owner.unit.endswith(".service")
    return str(owner.manager) if is_service else owner.user or "?"


def _running_version(facts: Facts) -> str | None:
    record = facts.lock.record
    is_its = record is not None and facts.owner is not None and facts.displaced_by is None
    return record.version if record and is_its else None


def _values(status: Status) -> dict[str, object]:
    facts, verdict = status
    return {
        "state": verdict.state.value,
        "reason": verdict.reason,
        "exit_code": int(verdict.exit_code),
        "profile": facts.subject.profile_name,
        "port": facts.subject.place.port,
        "configured_port": facts.subject.configured_port,
        "versions": {
            "running": _running_version(facts),
            "cli": facts.cli_version,
        },
        "unit_name": facts.subject.unit_name,
        "unit": to_json(facts.subject.unit),
        "process": to_json(facts.process),
        "owner": to_json(facts.owner),
        "guarded": to_json(facts.guarded),
        "lock": to_json(facts.lock),
        "listeners": to_json(facts.listeners),
        "connections": to_json(facts.connections),
        "health": to_json(facts.health),
        "parked_behind_pid": facts.parked_behind,
        "last_exit": to_json(facts.last_exit),
        "rivals": to_json(facts.rivals),
        "standbys": to_json(facts.standbys),
        "disagreements": list(verdict.disagreements),
        "next_start": list(verdict.next_start),
        "unseen": list(facts.unseen),
        "next": to_json(steps(facts, verdict)),
    }
