"""Ask for each fact about a gateway at its own source, so that they can disagree.

Nothing is changed, no lock taken, and what can't be seen is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping

from openclaw_gateway.admin.look import credentials
from openclaw_gateway.admin.look.facts import (
    Facts,
    ListenerFact,
    LockFact,
    ProcessDetails,
    Rival,
    Standby,
)
from openclaw_gateway.admin.look.history import Exit, duplicate_of, is_readable, last_exits
from openclaw_gateway.admin.look.locks import names_living
from openclaw_gateway.admin.look.subject import Subject
from openclaw_gateway.admin.look.units import SYSTEM, Unit, manager_of, user_name
from openclaw_gateway.claim.baseport import Holder
from openclaw_gateway.claim.listener import BACKLOG
from openclaw_gateway.claim.lockfile import read_record
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import HealthFact, check
from openclaw_gateway.host import process
from openclaw_gateway.host.address import reachable
from openclaw_gateway.host.ports import Listening, connections, listening
from openclaw_gateway.host.process import PROC
from openclaw_gateway.supervisor.events import STANDBY_STATUS

_MAX_ASKED = 4
_BESIDE_TIMEOUT_S = 0.5
CGROUP_ROOT = "/sys/fs/cgroup"


def gather(subject: Subject, holders: Mapping[int, Holder], rivals: tuple[Rival, ...]) -> Facts:
    """Ask the kernel and the gateway; takes at most the 2 s of a health check, and 0.1 s as a rule."""
    port, unit = subject.place.port, subject.unit
    holder = holders.get(port)
    displaced_by = _displacing(subject, holder)
    lock = _lock(holder, _state_dir(subject, holder, displaced_by))
    main_pid = _main_pid(subject, lock, displaced_by)
    main = look_at(main_pid) if main_pid else None
    owner = main if main_pid == lock.port_pid else _look_at_owner(lock)
    child_pid = lock.record.child_pid if lock.record and not displaced_by else None
    family = _family(lock, child_pid)
    known = (lock.port_pid, main_pid, *family)
    listeners = _mark_kept(unit, _listeners(port, [pid for pid in known if pid]))
    strangers = _strangers(listeners, set(known))
    if owner is not None:
        listeners = _ask_beside(listeners, {fact.pid for fact in strangers})
    return Facts(
        subject=subject,
        process=main,
        owner=owner,
        guarded=_guarded(listeners, family),
        lock=lock,
        listeners=listeners,
        strangers=strangers,
        connections=connections(port),
        health=_ask(subject, main, lock, listeners),
        parked_behind=_parked_behind(unit),
        last_exit=_last_exit(unit),
        rivals=rivals,
        standbys=tuple(_behind(owner, subject)),
        unseen=tuple(_unseen(subject, lock, listeners)),
        credentials=credentials.of_unit(unit) if unit else (),
        displaced_by=displaced_by,
        viewer_uid=os.geteuid(),
        viewer=user_name(os.geteuid()),
        reads_journal=is_readable(subject.manager),
    )


def _displacing(subject: Subject, holder: Holder | None) -> str | None:
    """Return the state directory of a port's holder, if that is another gateway than the one that is meant."""
    record = holder.record if holder else None
    runs = subject.unit is not None and subject.unit.main_pid is not None
    return None if runs or record is None or subject.is_of(record) else record.state_dir


def _state_dir(subject: Subject, holder: Holder | None, displaced_by: str | None) -> str:
    """Return the directory whose lock counts: a gateway without a unit may have been told of another."""
    record = holder.record if holder else None
    runs = subject.unit is not None and subject.unit.main_pid is not None
    if runs or displaced_by or record is None or record.state_dir is None:
        return subject.place.state_dir
    return record.state_dir


def _family(lock: LockFact, child_pid: int | None) -> tuple[int, ...]:
    """Return the pids of a guarded program: the guard's child first, then all that came of it."""
    if child_pid is None or lock.port_pid is None:
        return ()
    below = [pid for pid in process.descendants(lock.port_pid) if pid != child_pid]
    return (child_pid, *below)


def _guarded(listeners: tuple[ListenerFact, ...], family: tuple[int, ...]) -> ProcessDetails | None:
    """Look at the one of a guarded family that listens; a launcher may stand in front of it. Else at the first."""
    serving = [fact.pid for fact in listeners if fact.pid in family]
    pid = next((pid for pid in (*serving, *family) if pid), None)
    return look_at(pid) if pid else None


def _main_pid(subject: Subject, lock: LockFact, displaced_by: str | None) -> int | None:
    """Return the gateway's pid: by its unit's word, else as the holder of the port or of the state."""
    by_unit = subject.unit.main_pid if subject.unit else None
    return by_unit or (None if displaced_by else lock.port_pid) or lock.state_pid


def _behind(owner: ProcessDetails | None, subject: Subject) -> Iterator[Standby]:
    """Yield the units that stand by behind an owner: each says so in its status."""
    for unit in subject.standbys if owner else ():
        if owner and unit.status_text.startswith(f"{STANDBY_STATUS}pid {owner.pid} "):
            yield Standby(unit.name, unit.manager, unit.main_pid)


def _look_at_owner(lock: LockFact) -> ProcessDetails | None:
    return look_at(lock.port_pid) if lock.port_pid else None


def _strangers(
    listeners: tuple[ListenerFact, ...], known: set[int | None]
) -> tuple[ProcessDetails, ...]:
    """Look at those who listen beside the gateway; one who has left meanwhile is none."""
    theirs = [fact for fact in listeners if not fact.is_kept]
    pids = dict.fromkeys(fact.pid for fact in theirs if fact.pid and fact.pid not in known)
    return tuple(fact for fact in map(look_at, pids) if fact)


def _mark_kept(unit: Unit | None, listeners: tuple[ListenerFact, ...]) -> tuple[ListenerFact, ...]:
    """
    Mark those that a service manager keeps for the unit's next start.

    While the unit runs, its main process is who has them. Before that they are seen in the manager's
    hands, or, by those who may not look there, in nobody's.
    """
    if unit is None or unit.kept == 0 or unit.main_pid is not None:
        return listeners
    return tuple(
        fact._replace(is_kept=fact.pid is None or process.is_service_manager(fact.pid))
        for fact in listeners
    )


def _ask_beside(listeners: tuple[ListenerFact, ...], pids: set[int]) -> tuple[ListenerFact, ...]:
    """
    Ask those who listen beside the gateway, on other addresses of its port, whether they are gateways too.

    Programs that take none of our locks can be there: nothing that we hold keeps them from it.
    """
    asked = [fact for fact in listeners if fact.pid in pids][:_MAX_ASKED]
    answers = {
        fact: check(reachable(fact.host), fact.port, timeout_s=_BESIDE_TIMEOUT_S).health
        for fact in asked
    }
    return tuple(fact._replace(answers=answers.get(fact)) for fact in listeners)


def _ask(
    subject: Subject,
    main: ProcessDetails | None,
    lock: LockFact,
    listeners: tuple[ListenerFact, ...],
) -> HealthFact:
    """
    Ask for the gateway's health, unless asking would change or tell nothing.

    A connection to a socket unit would start the service, one to what systemd keeps would wait for
    the next start, and one from here would not reach another network.
    """
    host = _asked_host(listeners, (lock.record and lock.record.host) or subject.place.host)
    awaited = subject.socket is not None and main is None
    kept = bool(listeners) and all(fact.is_kept for fact in listeners)
    if awaited or kept or (main is not None and not main.same_network):
        return HealthFact(host, subject.place.port, Health.UNKNOWN, 0.0)
    return check(host, subject.place.port)


def _unseen(subject: Subject, lock: LockFact, listeners: tuple[ListenerFact, ...]) -> list[str]:
    notes = []
    if subject.unit_problem:
        notes.append(f"unit: {subject.unit_problem}")
    if subject.place.problem:
        notes.append(f"configuration: {subject.place.problem}")
    if lock.problem:
        notes.append(f"lock of the state directory: {lock.problem}")
    if any(fact.pid is None and not fact.is_kept for fact in listeners):
        uid = os.geteuid()
        notes.append(f"listener: whose it is can't be seen by uid {uid}; root sees it")
    return notes


def _parked_behind(unit: Unit | None) -> int | None:
    if unit is None or unit.active_state != "failed" or unit.exit_status != 78:
        return None
    return duplicate_of(unit.invocation_id)


def _last_exit(unit: Unit | None) -> Exit | None:
    if unit is None or unit.restarts == 0 or unit.main_pid is None:
        return None
    return next(iter(last_exits(unit, count=1)), None)


def look_at(pid: int, *, proc: str = PROC, cgroup_root: str = CGROUP_ROOT) -> ProcessDetails | None:
    """
    Describe a process; ``None`` if it is gone.

    See Also:
        proc_pid_stat(5), proc_pid_status(5), proc_pid_limits(5), cgroups(7).
    """
    facts = process.facts(pid, proc=proc)
    if facts is None:
        return None
    status = _fields(f"{proc}/{pid}/status")
    manager_uid = process.user_manager_of(pid, proc=proc)
    description = process.describe(pid, proc=proc)
    resident, threads = status.get("VmRSS", "").split(" ")[0], status.get("Threads", "")
    started_s = facts.start_ticks / os.sysconf("SC_CLK_TCK")
    return ProcessDetails(
        pid=pid,
        command=description.command,
        user=description.user,
        unit=description.unit,
        manager=SYSTEM if manager_uid is None else manager_of(manager_uid),
        age_s=max(time.clock_gettime(time.CLOCK_BOOTTIME) - started_s, 0.0),
        is_stopped=status.get("State", "")[:1] in ("T", "t"),
        memory_bytes=int(resident) * 1024 if resident.isdecimal() else None,
        threads=int(threads) if threads.isdecimal() else None,
        descriptors=_count(f"{proc}/{pid}/fd"),
        descriptor_limit=_descriptor_limit(f"{proc}/{pid}/limits"),
        oom_kills=_oom_kills(process.control_group(pid, proc=proc), cgroup_root),
        same_network=_same_network(pid, proc),
    )


def _fields(path: str) -> dict[str, str]:
    """Read a file of ``Name:<blank>value`` lines; empty if it is hidden or gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            pairs = (line.partition(":") for line in file)
            return {name: value.strip() for name, _, value in pairs}
    except OSError:
        return {}


def _count(directory: str) -> int | None:
    try:
        return len(os.listdir(directory))
    except OSError:
        return None


def _descriptor_limit(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            words = next((line.split() for line in file if line.startswith("Max open files")), [])
    except OSError:
        return None
    return int(words[3]) if len(words) > 3 and words[3].isdecimal() else None


def _oom_kills(control_group: str, root: str) -> int | None:
    if control_group in ("", "/"):
        return None
    try:
        with open(f"{root}{control_group}/memory.events", encoding="ascii") as file:
            counts = dict(line.split() for line in file)
    except (OSError, ValueError):
        return None
    return int(counts.get("oom_kill", "0"))


def _same_network(pid: int, proc: str) -> bool:
    """Whether a process shares our network namespace; if we may not look, assume so. network_namespaces(7)."""
    try:
        return os.path.samestat(os.stat(f"{proc}/{pid}/ns/net"), os.stat(f"{proc}/self/ns/net"))
    except OSError:
        return True


def _lock(who: Holder | None, state_dir: str) -> LockFact:
    state_pid, uid, problem, is_missing = None, None, None, False
    try:
        info = os.stat(state_dir)
    except FileNotFoundError:
        is_missing = True
    except OSError as error:
        problem = f"{state_dir}: {os.strerror(error.errno or 0)}"
    else:
        uid = info.st_uid
        state_pid = process.flock_holder(info.st_dev, info.st_ino)
    record = who.record if who else None
    if record is None and state_pid is not None and who is None:
        record = read_record(state_dir, uid=uid)
    elif record is None and who is not None and state_pid == who.pid:
        # A holder that is stopped or starting tells nothing; its file may.
        record = read_record(state_dir, uid=uid)
    return LockFact(
        port_pid=who.pid if who else None,
        port_uid=who.uid if who else None,
        state_dir=state_dir,
        state_pid=state_pid,
        record=record,
        is_own_record=names_living(record) if record else None,
        problem=problem,
        is_missing=is_missing,
    )


def _listeners(port: int, likely: list[int]) -> tuple[ListenerFact, ...]:
    limit = min(BACKLOG, _somaxconn())
    return tuple(
        ListenerFact(found.host, found.port, found.uid, _pid_of(found, likely), found.queued, limit)
        for found in listening(port)
    )


def _pid_of(found: Listening, likely: list[int]) -> int | None:
    """Find whose socket it is: first among those whom we expect, then among all, which takes longer."""
    wanted = f"socket:[{found.inode}]"
    for pid in likely:
        try:
            for fd in os.listdir(f"{PROC}/{pid}/fd"):
                if os.readlink(f"{PROC}/{pid}/fd/{fd}") == wanted:
                    return pid
        except OSError:
            continue
    return process.socket_owner(found.inode)


def _somaxconn() -> int:
    try:
        with open(f"{PROC}/sys/net/core/somaxconn", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return BACKLOG


def _asked_host(listeners: tuple[ListenerFact, ...], configured: str) -> str:
    """Return the address to ask at: the configured one, or another on which someone listens."""
    hosts = [fact.host for fact in listeners]
    return reachable(configured if configured in hosts or not hosts else hosts[0])
