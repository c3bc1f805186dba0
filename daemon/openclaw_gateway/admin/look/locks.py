"""The lock directory as a bystander sees it: who holds which file, what is left over, what is safe to remove."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from openclaw_gateway.claim import node
from openclaw_gateway.claim.lockfile import (
    Contended,
    DirectoryLock,
    LockFile,
    lock_directory_parts,
    read_record,
)
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.errors import StorageError
from openclaw_gateway.host import process
from openclaw_gateway.host.process import PROC

# statfs(2) names them by number; mountinfo by name. flock reaches only as far as one host on these.
_SHARED_STORAGE = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "fuse.sshfs",
    "ceph",
    "fuse.glusterfs",
    "afs",
}


class LockPath(NamedTuple):
    """One lock file."""

    path: str
    holder_pid: int | None
    """By the kernel's word."""
    record: LockRecord | None
    is_leftover: bool
    """Nobody holds it, and its record names nobody who lives."""


class Fault(NamedTuple):
    """What is wrong with a directory's owner or mode, and what mends it."""

    sentence: str
    command: tuple[str, ...]


class LockDirectory(NamedTuple):
    """A state directory and the lock files in it."""

    state_dir: str
    problem: str | None
    """Why it could not be looked into; what follows is then empty."""
    uid: int | None = None
    faults: tuple[Fault, ...] = ()
    """What is wrong with owners and modes, so that a gateway would refuse to start."""
    storage: str | None = None
    """The file system's type, where locks on it may not exclude another host."""
    files: tuple[LockPath, ...] = ()
    is_missing: bool = False
    """Whether there is no such directory."""
    other: node.Held | None = None
    """The lock by which a gateway of OpenClaw's own holds this state: then nothing here is left over."""
    strange: tuple[node.Strange, ...] = ()
    """What stands where such a gateway keeps its locks, and is none."""


def survey(state_dir: str, *, account: int | None = None) -> LockDirectory:
    """
    Look at a state directory's locks; takes none, creates and changes nothing.

    Args:
        state_dir: The directory.
        account: The uid that the gateway runs as; ``None`` if nobody knows, and then it is the owner's.
    """
    try:
        info = os.stat(state_dir)
    except FileNotFoundError:
        return LockDirectory(state_dir, "there is no such directory yet", is_missing=True)
    except OSError as error:
        return LockDirectory(state_dir, os.strerror(error.errno or 0))
    uid = info.st_uid if account is None else account
    faults = [*_faults(state_dir, info, uid, forbidden=stat.S_IWOTH)]
    path = os.path.realpath(state_dir)
    names: list[str] = []
    parts = lock_directory_parts(uid=uid)
    for part in parts:
        path = os.path.join(path, part)
        try:
            info = os.stat(path, follow_symlinks=False)
            names = os.listdir(path)
        except FileNotFoundError:
            names = []
            break
        except OSError as error:
            return LockDirectory(state_dir, f"{path}: {os.strerror(error.errno or 0)}", uid)
        forbidden = stat.S_IWGRP | stat.S_IWOTH if part == parts[-1] else stat.S_IWOTH
        faults += _faults(path, info, uid, forbidden=forbidden)
    records = [name for name in sorted(names) if name.endswith(".lock")]
    try:
        paths = _node_locks(state_dir, records, uid)
        other = node.held(paths, uid=uid)
    except StorageError as error:
        return LockDirectory(state_dir, f"{error.path}: {error.problem}", uid, tuple(faults))
    files = (_file(state_dir, path, name, uid, other) for name in records)
    return LockDirectory(
        state_dir,
        None,
        uid,
        tuple(faults),
        _shared_storage(state_dir),
        tuple(filter(None, files)),
        other=other,
        strange=tuple(node.strange(paths, uid=uid)),
    )


def _node_locks(state_dir: str, names: list[str], uid: int) -> list[str]:
    """Return the files by whose locks a gateway of OpenClaw's own holds this state, if they are there."""
    path = os.path.realpath(state_dir)
    records = [os.path.join(path, *lock_directory_parts(uid=uid), name) for name in names]
    return node.lock_paths(path, records, uid=uid)


def _faults(path: str, info: os.stat_result, uid: int, *, forbidden: int) -> Iterator[Fault]:
    """Yield what a gateway's start refuses; see ``claim.lockfile``, which looks at the same."""
    if info.st_uid not in (uid, 0):
        sentence = f"{path} belongs to uid {info.st_uid}, and the gateway runs as uid {uid}"
        yield Fault(sentence, ("chown", "--no-dereference", str(uid), path))
    if stat.S_ISLNK(info.st_mode):
        yield Fault(f"{path} is a symbolic link", ("ls", "-ld", path))
    elif info.st_mode & forbidden:
        mode = stat.S_IMODE(info.st_mode)
        who = "go-w" if forbidden & stat.S_IWGRP else "o-w"
        yield Fault(f"{path}: others may write to it (mode {mode:04o})", ("chmod", who, path))


def _file(
    state_dir: str, directory: str, name: str, uid: int, other: node.Held | None
) -> LockPath | None:
    path = os.path.join(directory, name)
    try:
        info = os.stat(path, follow_symlinks=False)
    except OSError:  # gone again
        return None
    holder = process.flock_holder(info.st_dev, info.st_ino)
    record = read_record(state_dir, name, uid=uid)
    # On overlayfs the kernel's table has another device than stat(2), so its silence proves little.
    lives = record is not None and names_living(record) is not False
    return LockPath(path, holder, record, holder is None and other is None and not lives)


def names_living(record: LockRecord) -> bool | None:
    """
    Whether the process that a record names is the one that wrote it, and lives.

    Returns:
        ``None`` if we can't tell: its pid is one of another PID namespace, where it means somebody
        else, or it does not say when it began. pid_namespaces(7). The boot is not compared: in a
        container a sandbox may be shown the host's, and start times differ after a boot anyway.
    """
    if record.start_ticks is None or not record.is_local(process.pid_namespace()):
        return None
    writer = process.facts(record.pid)
    return writer is not None and writer.start_ticks == record.start_ticks


def _shared_storage(path: str) -> str | None:
    """Return the type of the file system if it is one that hosts share. proc_pid_mountinfo(5)."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(f"{PROC}/self/mountinfo", encoding="utf-8", errors="replace") as table:
            for line in table:
                fields, _, kind = line.partition(" - ")
                if fields.split()[2] == wanted:
                    name = kind.split()[0]
                    return name if name in _SHARED_STORAGE else None
    except OSError:
        return None
    return None


def remove_leftovers(directory: LockDirectory) -> Iterator[str]:
    """
    Remove the lock files that nobody holds, and yield a sentence on each.

    Each file goes only while we hold the state directory's lock and its own, as any start of a
    gateway would take them; so nobody can be about to use it. As root we do it as the owner.

    Raises:
        StorageError: The directory is not as a gateway would accept it.
    """
    leftovers = [file for file in directory.files if file.is_leftover]
    if not leftovers or directory.uid is None:
        return
    if os.geteuid() not in (0, directory.uid):
        yield f"not ours: run it as uid {directory.uid}, or as root"
        return
    with _acting_as(directory.uid):
        try:
            state = DirectoryLock(directory.state_dir)
        except Contended as held:
            yield f"a gateway has started meanwhile (pid {held.pid or 'unknown'}): nothing to do"
            return
        try:
            for leftover in leftovers:
                yield _remove(state, os.path.basename(leftover.path))
        finally:
            state.release()


def _remove(state: DirectoryLock, name: str) -> str:
    try:
        file = LockFile(state, name)
    except Contended as held:
        return f"{name}: held by pid {held.pid or 'unknown'}, left alone"
    try:
        in_use = _in_use(state, name, file)
    except BaseException:
        file.close()
        raise
    if in_use:
        file.close()
        return f"{file.path}: {in_use}, left alone"
    file.release()
    return f"{file.path}: removed"


def _in_use(state: DirectoryLock, name: str, file: LockFile) -> str | None:
    """Say which gateway that takes no ``flock`` uses a file that we have locked; ``None`` lets it be removed."""
    # As any start of ours does: look, write, look. One of OpenClaw's gateways that begins in between
    # finds the record of a living process and tries again; see ``claim.no_node``.
    for look in (1, 2):
        uid = os.geteuid()
        other = node.held(_node_locks(state.path, [name], uid), uid=uid)
        if other is not None:
            return f"a gateway of OpenClaw's own runs here (pid {other.pid or 'unknown'})"
        if look == 1:
            writer = file.writer()
            if writer is not None:
                return f"its record names pid {writer.pid}, which lives"
            own = process.facts(os.getpid())
            ticks = own.start_ticks if own else None
            file.write(LockRecord(os.getpid(), start_ticks=ticks, boot_id=process.boot_id()))
    return None


@contextmanager
def _acting_as(uid: int) -> Iterator[None]:
    """Be a user, in so far as files are concerned, for a while; only root can be another. seteuid(2)."""
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)
