"""Structured logging: a sentence with fields to journald, or a plain line to a terminal.

Native entries when our standard error is a journal stream, so that fields, priorities and message
ids survive; see systemd.journal-fields(7) and the catalog in ``systemd/``.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum, IntEnum
from typing import Protocol

IDENTIFIER = "openclaw-gateway"


class Priority(IntEnum):
    """syslog(3) levels, by the names that ``--log-level`` takes."""

    CRIT = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


class Event(Enum):
    """
    Every kind of thing that we log: its MESSAGE_ID and its priority.

    The journal catalog explains each id; a test holds the two together.
    """

    STARTED = ("53f373c0cb9d49f3a0a1e3fcd702fffb", Priority.NOTICE)
    STOPPING = ("cd4637da8f674796b8b85298f56ab04b", Priority.NOTICE)
    STOPPED = ("66aeaa6f6e844b8a8b02b76584753711", Priority.NOTICE)
    RELOADED = ("f9a29c037cb6463ebfcd82c383e091d3", Priority.NOTICE)
    RELOAD_REFUSED = ("b98862c82610452d9c2f538434436f88", Priority.ERROR)
    CONFIG_INVALID = ("ca5dda9cec0c48569e91d6474d40fd07", Priority.ERROR)
    CONFIG_DOUBTFUL = ("49a3919a197d45a9bdccf8c10dbc55a8", Priority.WARNING)
    WAITING = ("4c7507d2803049a9a6a356943970b2c6", Priority.NOTICE)
    RECLAIMED = ("cc063e56ba3e4830b61c2a80b7a4744e", Priority.WARNING)
    NEIGHBOUR = ("3ea63e0ee1344e59ad2bd7f2976c1178", Priority.WARNING)
    DUPLICATE = ("b4113a42c86a45469006ee5946765ab3", Priority.NOTICE)
    LOCK_FAILED = ("b47f0ffd5a444ea980a22316bd998ff9", Priority.ERROR)
    STORAGE_UNUSABLE = ("c3887c83ddbb4a2c802f2fdaf0e2166a", Priority.ERROR)
    LOCK_RESTORED = ("be11bdd34d984bfbad5398726bb060af", Priority.WARNING)
    CLAIM_LOST = ("b248b3c2497a4bcda7759b3e61691495", Priority.CRIT)
    DEGRADED = ("f35e74e88fda4a8e8733944b4697f460", Priority.WARNING)
    TOKEN_CREATED = ("3813a2cefc2f461ca180c0508ca4009c", Priority.NOTICE)
    AUTH_FAILED = ("9b877f0ada884aa9b48a50af156876ef", Priority.WARNING)
    LIMIT_REACHED = ("a00384a785d745f0aeb72a6f8f485c1b", Priority.WARNING)
    EXTENSION_FAILED = ("a3337b44a86e445b90a9f50ace490ca0", Priority.ERROR)
    HANDLER_FAILED = ("fa1b2c67080e4d1fb602423b5a19235d", Priority.ERROR)
    FAILED = ("fab92ef29ec54d2e9822ce3407dcb18d", Priority.CRIT)

    def __init__(self, message_id: str, priority: Priority) -> None:
        self.message_id, self.priority = message_id, priority


class Recent:
    """
    The last lines that were logged, for whoever may not read the journal.

    Attributes:
        size_bytes: Of everything ever logged; a line's position is this just after it.
    """

    def __init__(self, capacity_bytes: int = 256 << 10) -> None:
        self._capacity_bytes = capacity_bytes
        self._kept_bytes = 0
        self._lines: deque[tuple[int, str, int]] = deque()
        self.size_bytes = 0

    def add(self, priority: Priority, sentence: str) -> None:
        """Keep one line, and let go of the oldest ones that there is no room for."""
        line = rendered(priority, sentence, time_s=time.time())
        length = len(line.encode("utf-8", "replace")) + 1
        self.size_bytes += length
        self._kept_bytes += length
        self._lines.append((self.size_bytes, line, length))
        while self._kept_bytes > self._capacity_bytes and len(self._lines) > 1:
            self._kept_bytes -= self._lines.popleft()[2]

    def newest_first(self) -> list[tuple[int, str]]:
        """Return position and text of each line that is kept."""
        return [(position, line) for position, line, _ in reversed(self._lines)]


def rendered(priority: int, sentence: str, *, time_s: float) -> str:
    """Return one log entry as the line of JSON that OpenClaw's log viewers lay out."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_s))
    entry = {
        "time": f"{stamp}.{int(time_s * 1000) % 1000:03d}Z",
        "level": _LEVEL_NAMES.get(priority, "info"),
        "message": sentence,
    }
    return json.dumps(entry, ensure_ascii=False)


_LEVEL_NAMES = {0: "fatal", 1: "fatal", 2: "fatal", 3: "error", 4: "warn", 7: "debug"}


class Journal(Protocol):
    """
    Where sentences go.

    Attributes:
        threshold: The least urgent priority that is logged.
        recent: What was logged lately.
    """

    threshold: Priority
    recent: Recent

    def write(self, event: Event, sentence: str, **fields: object) -> None:
        """
        Log one event. A log that takes no line (reader gone, disk full) loses it, and no more.

        Args:
            event: Its kind, which fixes its id and priority.
            sentence: For people, without time stamp and level; never a secret.
            **fields: ``PORT=18789`` becomes ``OPENCLAW_PORT=18789``; ``None`` is left out.
        """


class NativeJournal:
    """journald's own protocol, through systemd-python."""

    def __init__(self, threshold: Priority) -> None:
        from systemd.journal import send

        self.threshold, self._send = threshold, send
        self.recent = Recent()

    def write(self, event: Event, sentence: str, **fields: object) -> None:
        """Log one event; see ``Journal``."""
        if event.priority > self.threshold:
            return
        self.recent.add(event.priority, sentence)
        known = {
            f"OPENCLAW_{key}": str(value) for key, value in fields.items() if value is not None
        }
        with suppress(OSError):
            self._send(
                sentence,
                MESSAGE_ID=event.message_id,
                PRIORITY=int(event.priority),
                SYSLOG_IDENTIFIER=IDENTIFIER,
                **known,
            )


class PlainJournal:
    """Lines on standard error: for terminals, containers and files, where fields would be noise."""

    def __init__(self, threshold: Priority) -> None:
        self.threshold = threshold
        self.recent = Recent()

    def write(self, event: Event, sentence: str, **fields: object) -> None:
        """Log one event; see ``Journal``. The fields are not shown."""
        if event.priority <= self.threshold:
            self.recent.add(event.priority, sentence)
            prefix = f"{event.priority.name.lower()}: " if event.priority < Priority.NOTICE else ""
            # Past Python's buffer: what is left in there when the reader is gone would spoil the exit code.
            with suppress(OSError):
                os.write(2, f"{IDENTIFIER}: {prefix}{sentence}\n".encode(errors="backslashreplace"))


def open_journal(environ: Mapping[str, str], threshold: Priority = Priority.INFO) -> Journal:
    """
    Return the journal that our standard error leads to.

    See Also:
        systemd.exec(5), ``$JOURNAL_STREAM``: device and inode of the stream, in decimal; it is
        inherited, so it counts only while it is still our standard error.
    """
    try:
        info = os.fstat(2)
    except OSError:  # closed
        return PlainJournal(threshold)
    if environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}":
        return NativeJournal(threshold)
    return PlainJournal(threshold)
