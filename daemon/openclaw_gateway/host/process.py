"""What the kernel says of a process: start ticks, boot, namespace, command, unit, locks.

All of it explains a lock and none of it overrules one; see flock(2) and ``claim.decision``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from errno import EACCES, ENOENT, EPERM, EROFS
from typing import NamedTuple

PROC = "/proc"
_COMM_BYTES = 15


class ProcessFacts(NamedTuple):
    """One line of ``/proc/<pid>/stat``, as far as it identifies a process."""

    pid: int
    start_ticks: int
    """Field 22, clock ticks since boot: with the pid and the boot id, as unique as Linux gets."""


class Description(NamedTuple):
    """What a person wants to know of a process; a field that can't be read is ``None``."""

    pid: int
    command: str | None
    user: str | None
    unit: str | None

    def __str__(self) -> str:
        """``pid 812 (claw-gateway, user openclaw, unit openclaw-gateway.service)``."""
        parts = [self.command, self.user and f"user {self.user}", self.unit and f"unit {self.unit}"]
        known = ", ".join(part for part in parts if part)
        return f"pid {self.pid} ({known})" if known else f"pid {self.pid}"


def _read(path: str, limit_bytes: int = 65536) -> bytes | None:
    """Read a file of the process table; ``None`` if the process is gone or not ours to see."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(limit_bytes)
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return None


def facts(pid: int, *, proc: str = PROC) -> ProcessFacts | None:
    """
    Read what identifies ``pid``; ``None`` if there is no such process or it is hidden from us.

    See Also:
        proc_pid_stat(5). The command stands in parentheses and may hold any byte, so the fields
        are counted from the last ``)``.
    """
    stat = _read(f"{proc}/{pid}/stat")
    if stat is None:
        return None
    fields = stat[stat.rfind(b")") + 2 :].split()
    return ProcessFacts(pid, int(fields[19])) if len(fields) > 19 else None


def boot_id(*, proc: str = PROC) -> str:
    """Return this boot's id, 36 ASCII characters, or ``""`` where the kernel shows none. random(4)."""
    return (_read(f"{proc}/sys/kernel/random/boot_id") or b"").decode("ascii").strip()


def pid_namespace(*, proc: str = PROC) -> int:
    """Return the inode of our PID namespace; 0 if unreadable. A pid means nothing in another. namespaces(7)."""
    try:
        return os.stat(f"{proc}/self/ns/pid").st_ino
    except OSError:
        return 0


def take_name(comm: str, *, proc: str = PROC) -> None:
    """
    Give the calling process's first thread another name, of at most 15 bytes, as ps(1) shows it.

    A courtesy: where ``/proc`` is missing, read-only or closed to us the old one stays. proc_pid_comm(5).
    """
    try:
        with open(f"{proc}/self/comm", "wb", buffering=0) as file:
            file.write(comm.encode("ascii"))
    except OSError as error:
        if error.errno not in (ENOENT, EACCES, EPERM, EROFS):
            raise


def unit_of(pid: int | str, *, proc: str = PROC) -> str | None:
    """
    Return the systemd unit that ``pid`` (or ``"self"``) runs in, ``None`` if in none or unreadable.

    See Also:
        proc_pid_cgroup(5), cgroups(7). The innermost ``.service`` or ``.scope`` is the unit.
    """
    for part in reversed(control_group(pid, proc=proc).split("/")):
        if part.endswith((".service", ".scope")):
            return part
    return None


def user_manager_of(pid: int | str, *, proc: str = PROC) -> int | None:
    """Return the uid whose systemd user manager ``pid`` runs under; ``None`` if under none. user@.service(5)."""
    for part in control_group(pid, proc=proc).split("/"):
        name, at, uid = part.removesuffix(".service").partition("@")
        if name == "user" and at and uid.isdecimal():
            return int(uid)
    return None


def control_group(pid: int | str, *, proc: str = PROC) -> str:
    """Return the path of the control group that systemd put ``pid`` in; ``""`` if unreadable. proc_pid_cgroup(5)."""
    paths = {}
    for line in (_read(f"{proc}/{pid}/cgroup") or b"").decode("utf-8", "replace").splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    # Version 2 has no name; beside version 1, systemd keeps a hierarchy of its own, and in a
    # container whichever of the two it does not use there shows the root.
    known = [path for path in (paths.get("name=systemd"), paths.get("")) if path]
    return next((path for path in known if path != "/"), known[0] if known else "")


def describe(
    pid: int, *, uid: int | None = None, unit: str | None = None, proc: str = PROC
) -> Description:
    """
    Say who ``pid`` is, as far as we may see.

    Args:
        pid: The process.
        uid: Its user where already known, say from ``SO_PEERCRED``.
        unit: Its unit where already known, say from its lock record.
    """
    if uid is None:
        try:
            uid = os.stat(f"{proc}/{pid}").st_uid
        except OSError:
            uid = None
    return Description(pid, _command(pid, proc), _user_name(uid), unit_of(pid, proc=proc) or unit)


def _command(pid: int, proc: str) -> str | None:
    """Return the name of the program; the kernel keeps 15 bytes of it, so look for the rest. proc_pid_comm(5)."""
    name = (_read(f"{proc}/{pid}/comm") or b"").strip()
    for word in (_read(f"{proc}/{pid}/cmdline") or b"").split(b"\0")[:2]:
        base = word[word.rfind(b"/") + 1 :]
        if len(name) == _COMM_BYTES and base.startswith(name):
            name = base
    return name.decode("utf-8", "replace") or None


def _user_name(uid: int | None) -> str | None:
    if uid is None:
        return None
    from pwd import getpwuid

    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def flock_holder(device: int, inode: int, *, proc: str = PROC) -> int | None:
    """
    Return the pid that the kernel has on record for a ``flock`` on an inode, without taking a lock.

    It is the process that took the lock; if a child inherited the descriptor, that process may be
    gone. ``None`` if nobody holds one, or its holder lives outside our PID namespace.

    See Also:
        proc_locks(5): ``1: FLOCK  ADVISORY  WRITE 812 fe:00:12345 0 EOF``.
    """
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    for line in (_read(f"{proc}/locks", 4 << 20) or b"").decode("ascii", "replace").splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == wanted:
            pid = int(fields[4])
            return pid if pid > 0 else None
    return None


def socket_owner(inode: int, *, proc: str = PROC) -> int | None:
    """
    Return a pid that holds the socket with this inode; ``None`` if none that we may look into does.

    A service manager may have a copy of a socket that another process serves: it is named only where
    there is nobody else. Walks the descriptors of every process: for the moment when something went
    wrong.
    """
    wanted = f"socket:[{inode}]"
    keeper = None
    for pid in filter(str.isdigit, os.listdir(proc)):
        try:
            for fd in os.listdir(f"{proc}/{pid}/fd"):
                if os.readlink(f"{proc}/{pid}/fd/{fd}") == wanted:
                    if not is_service_manager(int(pid), proc=proc):
                        return int(pid)
                    keeper = int(pid)
                    break
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    return keeper


def describe_socket(inode: int, *, uid: int, proc: str = PROC) -> tuple[int | None, str]:
    """
    Say whose a socket is, and its pid: what ``describe`` says, or that it is out of our sight.

    Args:
        inode: The socket's.
        uid: Whose it is by the kernel's table of sockets, which hides that from nobody.
    """
    pid = socket_owner(inode, proc=proc)
    return pid, str(describe(pid, uid=uid, proc=proc)) if pid else f"a process of uid {uid}"


def is_service_manager(pid: int, *, proc: str = PROC) -> bool:
    """Say whether a process is systemd, the system's or a user's, by its name. proc_pid_comm(5)."""
    return _read(f"{proc}/{pid}/comm") == b"systemd\n"


def descendants(pid: int, *, proc: str = PROC) -> Iterator[int]:
    """
    Yield every process below ``pid``, as they are now; one that comes or goes meanwhile may be missed.

    See Also:
        proc_pid_task_children(5): reading all of ``/proc`` instead costs 10 ms.
    """
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for task in os.listdir(f"{proc}/{current}/task"):
                with (
                    suppress(FileNotFoundError, ProcessLookupError),
                    open(f"{proc}/{current}/task/{task}/children", encoding="ascii") as children,
                ):
                    below = [int(word) for word in children.read().split()]
                    yield from below
                    waiting += below


def socket_inodes(pids: Iterable[int], *, proc: str = PROC) -> set[int]:
    """Return the inodes of the sockets that processes have open, as far as we may look into them."""
    found = set()
    for pid in pids:
        with suppress(FileNotFoundError, PermissionError, ProcessLookupError):
            for number in os.listdir(f"{proc}/{pid}/fd"):
                with suppress(FileNotFoundError, ProcessLookupError):
                    target = os.readlink(f"{proc}/{pid}/fd/{number}")
                    if target.startswith("socket:["):
                        found.add(int(target[8:-1]))
    return found
