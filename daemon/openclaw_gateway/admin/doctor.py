"""``doctor``: look at everything that has ever gone wrong, say what does, and the one command for each."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from openclaw_gateway.admin.judge.checks import CHECKS, Check
from openclaw_gateway.admin.judge.finding import Examination, Finding, Severity, Storage
from openclaw_gateway.admin.look import cluster, peer, units
from openclaw_gateway.admin.look.facts import Facts
from openclaw_gateway.admin.look.history import is_kept, last_exits
from openclaw_gateway.admin.look.locks import LockDirectory, remove_leftovers, survey
from openclaw_gateway.admin.look.place import Place, place_of
from openclaw_gateway.admin.look.rivals import homes
from openclaw_gateway.admin.look.secrets import look_for_secrets
from openclaw_gateway.admin.look.selection import Selection
from openclaw_gateway.admin.look.units import SYSTEM, Manager, Unit, manager_of
from openclaw_gateway.admin.look.verify import Verified, verify
from openclaw_gateway.admin.render import Paint
from openclaw_gateway.admin.report import Report, document, to_json
from openclaw_gateway.admin.status import contenders, look, look_at_all
from openclaw_gateway.errors import StorageError

_RUN_USER = "/run/user"
_LINGER = "/var/lib/systemd/linger"
_EXITS = 10


def report(selection: Selection, *, as_json: bool, fix: bool, paint: Paint) -> Report:
    """
    Be ``doctor``.

    Args:
        selection: Which gateway is meant.
        as_json: Print one JSON document.
        fix: After the list, remove what is proven to be left over, and nothing else.
        paint: Colours.

    Returns:
        Exits with 0 if nothing is worse than a note, 1 for warnings and errors.
    """
    seen = examine(selection)
    results = [(check, check.run(seen)) for check in CHECKS]
    bad = any(
        finding.severity in (Severity.WARNING, Severity.ERROR)
        for _, findings in results
        for finding in findings
    )
    mended = list(_mend(seen.locks)) if fix else []
    if as_json:
        checks = [_values(check, findings) for check, findings in results]
        state = {"state": seen.verdict.state.value, "reason": seen.verdict.reason}
        more = {"locks": to_json(seen.locks.files), "mended": mended}
        return Report(document({**state, "checks": checks, **more}), int(bad))
    lines = [line for check, findings in results for line in _lines(check, findings, paint)]
    if fix:
        lines += ["", *(mended or ["nothing to mend that is proven to be safe"])]
    return Report(lines, int(bad))


def _mend(locks: LockDirectory) -> Iterator[str]:
    try:
        yield from remove_leftovers(locks)
    except StorageError as error:
        yield f"not mended: {error}"


def _values(check: Check, findings: tuple[Finding, ...]) -> dict[str, object]:
    return {
        "number": check.number,
        "name": check.name,
        "severity": _worst(findings).value,
        "findings": to_json(findings),
    }


def _worst(findings: tuple[Finding, ...]) -> Severity:
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.OK)


def _lines(check: Check, findings: tuple[Finding, ...], paint: Paint) -> Iterator[str]:
    tones = {
        Severity.OK: paint.good,
        Severity.NOTE: paint.bold,
        Severity.UNSEEN: paint.dim,
        Severity.WARNING: paint.warn,
        Severity.ERROR: paint.bad,
    }
    head = f"{check.number:2}  {check.name:17}"
    if _worst(findings) is Severity.OK:
        yield f"{head} {tones[Severity.OK]('ok     ')}  {check.passed}"
        head = " " * len(head)
    for finding in findings:
        yield f"{head} {tones[finding.severity](f'{finding.severity:7}')}  {finding.evidence}"
        head = " " * len(head)
        if finding.command:
            yield f"{head}          {paint.bold(finding.command)}"


def examine(selection: Selection) -> Examination:
    """Look at everything that ``checks`` judges. Reads only; may start a ``systemctl show`` for each manager."""
    facts, verdict = look(selection)
    unit = facts.subject.unit
    neighbours, problems = _neighbours(facts)
    found = (facts.subject.unit, *(unit for unit, _ in neighbours))
    is_user_unit = facts.subject.unit is not None and not facts.subject.manager.is_system
    return Examination(
        facts=facts,
        verdict=verdict,
        neighbours=neighbours,
        unit_problems=problems,
        locks=survey(facts.lock.state_dir, account=_account(facts.subject.unit)),
        secrets=look_for_secrets(facts, tuple(filter(None, found))),
        storage=_room(facts.lock.state_dir),
        exits=tuple(last_exits(facts.subject.unit, count=_EXITS)) if facts.subject.unit else (),
        journal_problem=_journal_problem(facts),
        lingers=os.path.exists(f"{_LINGER}/{facts.subject.manager.user}") if is_user_unit else None,
        is_wsl=_is_wsl(),
        suspended_s=time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC),
        clock_step_s=_clock_step_s(facts),
        verified=verify(unit) if unit else Verified(()),
        peer=peer.find(selection.environ.get("PATH", ""), [home.path for home in homes()]),
        ports=tuple(contenders(look_at_all(selection.environ))),
        cluster=cluster.look(facts.subject.place),
    )  # fmt: skip


def _account(unit: Unit | None) -> int | None:
    """Return the uid that a unit's gateway runs as; ``None`` if there is no unit, or no such user."""
    from pwd import getpwnam

    if unit is None:
        return None
    if unit.manager.uid is not None:
        return unit.manager.uid
    try:
        return getpwnam(unit.user or "root").pw_uid
    except KeyError:
        return None


def _journal_problem(facts: Facts) -> str | None:
    if not is_kept():
        return "no journal is kept on this system"
    if not facts.reads_journal:
        return f"the journal is closed to {manager_of(os.geteuid()).user}"
    return None


def _neighbours(facts: Facts) -> tuple[tuple[tuple[Unit, Place], ...], tuple[str, ...]]:
    """Ask every other manager that we may ask about its unit of the same name, and see what that wants."""
    found: list[tuple[Unit, Place]] = []
    problems = []
    for manager in (SYSTEM, *_user_managers()):
        if manager == facts.subject.manager:
            continue
        answer = units.show([facts.subject.unit_name], manager)
        theirs = [unit for unit in answer.units if unit.is_loaded and unit.is_used]
        found += [(unit, place_of(unit, facts.subject.profile)) for unit in theirs]
        if answer.problem and answer.problem != units.NO_SYSTEMD:
            problems.append(f"units of {manager}: {answer.problem}")
    return tuple(found), tuple(problems)


def _user_managers() -> Iterator[Manager]:
    """Yield the managers of users that run and that we may ask: our own, or as root all."""
    try:
        names = os.listdir(_RUN_USER)
    except FileNotFoundError:
        return
    own = os.geteuid()
    for name in sorted(names):
        if (
            name.isdecimal()
            and own in (0, int(name))
            and os.path.isdir(f"{_RUN_USER}/{name}/systemd")
        ):
            yield manager_of(int(name))


def _room(state_dir: str) -> Storage | None:
    try:
        space = os.statvfs(state_dir)
    except OSError:
        return None
    return Storage(space.f_bavail * space.f_frsize, space.f_favail if space.f_files else None)


def _is_wsl() -> bool:
    try:
        with open("/proc/sys/kernel/osrelease", encoding="ascii", errors="replace") as file:
            return "microsoft" in file.read().lower()
    except OSError:
        return False


def _clock_step_s(facts: Facts) -> float | None:
    """Compare when the gateway says that it began with how long it has run by the boot's clock."""
    record, owner = facts.lock.record, facts.owner
    if record is None or record.created_at is None or owner is None or owner.age_s is None:
        return None
    try:
        created = datetime.fromisoformat(record.created_at)
    except ValueError:
        return None
    if created.tzinfo is None:
        return None
    return (datetime.now(UTC) - created).total_seconds() - owner.age_s
