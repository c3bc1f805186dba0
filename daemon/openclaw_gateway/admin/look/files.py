"""Files that others name, read by whoever looks, root among them: none can hold us up, and none is read for ever."""

from __future__ import annotations

import errno
import os
import stat

_MAX_BYTES = 1 << 20


def read(path: str, *, limit_bytes: int = _MAX_BYTES) -> str | None:
    """
    Return the text of a regular file, at most so much of it; ``None`` if there is none.

    A user may name a FIFO or a device for what root's doctor reads: opening one must not wait, and
    none has a text.

    Raises:
        PermissionError: It is not ours to read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(limit_bytes).decode("utf-8", "replace")


_NO_FILE = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENXIO,
    errno.ENODEV,
    errno.EISDIR,
)
"""There is nothing at such a path, or nothing that has a text. open(2)."""
