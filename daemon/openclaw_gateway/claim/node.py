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
from errno import ELOOP, ENXIO
from typing import NamedTuple

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


def held(paths: Iterable[str]) -> Held | None:
    """
    Return the first of these locks that somebody holds, ``None`` if nobody holds any.

    Takes no lock itself. A file that is not there, or not a plain file, is held by nobody.

    Raises:
        OSError: The kernel can't say, say for want of descriptors.

    See Also:
        fcntl(2), "F_GETLK". Closing the file again drops what locks *this* process has on it, and it
        has none: see there, "any file descriptor".
    """
    for path in paths:
        found = _held(path)
        if found is not None:
            return found
    return None


def _held(path: str) -> Held | None:
    try:
        # O_NOFOLLOW, O_NONBLOCK: a link is not followed to a file of ours, nor a FIFO waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        if error.errno in (ELOOP, ENXIO):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _SQLITE_START, _SQLITE_BYTES, 0)
        kind, _, _, _, pid = struct.unpack(
            _FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked)[: struct.calcsize(_FLOCK)]
        )
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else Held(path, pid if pid > 0 else None)
