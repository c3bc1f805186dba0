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
from typing import Protocol

from openclaw_gateway.supervisor.events import Event, Priority

IDENTIFIER = "openclaw-gateway"


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
