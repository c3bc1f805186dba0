"""
What OpenClaw's own gateway, which runs on Node, holds while it lives: SQLite's locks, asked of the kernel.

It writes lock records as we do and takes no ``flock``; what the kernel knows of it are the exclusive
locks of three empty SQLite files, held from the first moment to its end, but for 0.2 s when it restarts
within its process. A record beside such a lock is a living owner's, whatever its port says.

We only ask. No such file is created, written, locked or removed by us.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterable
from errno import EACCES, ELOOP, ENXIO
from typing import NamedTuple

from openclaw_gateway.errors import StorageError

_SUFFIX = ".sqlite"
_SHARED_DIRECTORY = "/tmp/openclaw-state-locks-{uid}"

# SQLite, os_unix.c and "File Locking And Concurrency": PENDING_BYTE, RESERVED_BYTE, then SHARED_SIZE bytes.
_SQLITE_START = 0x40000000
_SQLITE_BYTES = 512
_FLOCK = "hhqqi"
"""``struct flock``: type, whence, start, length, pid; native alignment. fcntl(2)."""


class Held(NamedTuple):
    """A lock that a gateway of OpenClaw's holds."""

    path: str
    pid: int | None
    """Who holds it; ``None`` if that process lives outside our PID namespace."""


class Strange(NamedTuple):
    """What stands where a gateway of OpenClaw's keeps a lock, and can't be one of this account's."""

    path: str
    problem: str
    """The rest of a sentence that begins with the path."""


def lock_paths(state_dir: str, records: Iterable[str], *, uid: int) -> list[str]:
    """
    Return the files whose locks tell of a gateway with this state, whether they exist or not.

    Args:
        state_dir: The state directory, canonical.
        records: The lock records' paths.
        uid: The account that the gateway runs as.
    """
    from hashlib import sha256

    database = os.path.realpath(os.path.join(state_dir, "state", "openclaw.sqlite"))
    name = f"gateway-lifecycle.{sha256(os.fsencode(database)).hexdigest()[:8]}.lock{_SUFFIX}"
    shared = os.path.join(_SHARED_DIRECTORY.format(uid=uid), name)
    return [*(path + _SUFFIX for path in records), shared]


def held(paths: Iterable[str], *, uid: int) -> Held | None:
    """
    Return the first of these locks that a gateway holds, ``None`` if none does.

    Takes no lock itself. A file that is not there, is no plain file or is a stranger's is held by
    nobody: OpenClaw's gateway uses no such file.

    Args:
        paths: What ``lock_paths`` returns.
        uid: The account that the gateway runs as.

    Raises:
        StorageError: The kernel can't say, say for want of descriptors or of the right to read the
            file. A lock that could not be asked about may be held.

    See Also:
        fcntl(2), "F_GETLK". Closing the file again drops what locks *this* process has on it, and it
        has none: see there, "any file descriptor".
    """
    for path in paths:
        try:
            found = _held(path, uid)
        except OSError as error:
            raise StorageError(
                path,
                f"whether a gateway of OpenClaw's holds it can't be seen ({os.strerror(error.errno or 0)})",
                errno=error.errno,
                hint=_HINTS.get(error.errno or 0, ""),
            ) from error
        if found is not None:
            return found
    return None


def strange(paths: Iterable[str], *, uid: int) -> list[Strange]:
    """
    Say what stands in the place of such files and is no gateway's: another account's, or no plain file.

    Nothing is opened. ``held`` passes over all of it; OpenClaw's own gateway refuses to run with it.

    Args:
        paths: What ``lock_paths`` returns.
        uid: The account that the gateway runs as.
    """
    found = []
    for path in paths:
        for place in (os.path.dirname(path), path):
            try:
                info = os.lstat(place)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                break
            if info.st_uid not in (0, uid):
                found.append(Strange(place, f"belongs to uid {info.st_uid}, not to uid {uid}"))
                break
            if place == path and not stat.S_ISREG(info.st_mode):
                found.append(Strange(place, "is no plain file"))
    return list(dict.fromkeys(found))


_HINTS = {
    EACCES: "let the gateway's account read it and search its directory, or remove it while no gateway runs"
}


def _held(path: str, uid: int) -> Held | None:
    try:
        # O_NOFOLLOW, O_NONBLOCK: a link is not followed to a file of ours, nor a FIFO waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        if _is_strangers(path, uid):
            return None
        raise
    except OSError as error:
        if error.errno in (ELOOP, ENXIO):
            return None
        raise
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid not in (0, uid):
            return None
        # Would a read lock be refused? Only a write lock refuses it, which takes the right to write
        # to the file: a stranger who may only read it can't pass for a gateway.
        asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, _SQLITE_START, _SQLITE_BYTES, 0)
        kind, _, _, _, pid = struct.unpack(
            _FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked)[: struct.calcsize(_FLOCK)]
        )
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else Held(path, pid if pid > 0 else None)


def _is_strangers(path: str, uid: int) -> bool:
    """Whether a file that may not be opened, or its directory, is neither the account's nor root's."""
    # In /tmp any account can make the directory first. OpenClaw's gateway then refuses to run, so
    # that it holds nothing there, and we have nothing to wait for.
    for place in (path, os.path.dirname(path)):
        try:
            return os.lstat(place).st_uid not in (0, uid)
        except PermissionError:
            continue
    return False
