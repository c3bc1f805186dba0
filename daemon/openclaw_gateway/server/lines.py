"""What the server logs: no peer makes more than a few lines, and none of a peer's bytes is in them.

Libraries log through us or not at all. Their sentences quote what a peer sent, so of each record of
theirs only who wrote it and where is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal

_LINES = 5
"""Lines about one subject in one window."""
_WINDOW_S = 60.0
_MAX_SUBJECTS = 1024
"""Subjects remembered at once; beyond that all share one."""
_MAX_CHARACTERS = 300
"""Of an exception's text, which may hold what a peer sent."""

_LIBRARIES = ("asyncio", "concurrent", "h11", "urllib3", "websockets")


class Rate:
    """So many lines about each subject in a window; the clock is an argument."""

    def __init__(self, lines: int = _LINES, window_s: float = _WINDOW_S) -> None:
        self._lines, self._window_s = lines, window_s
        self._subjects: dict[str, tuple[float, int]] = {}

    def allows(self, subject: str, *, now_s: float) -> tuple[bool, int]:
        """
        Count a line.

        Returns:
            Whether it may be logged, and how many about this subject were not since the last one.
        """
        if subject not in self._subjects and len(self._subjects) >= _MAX_SUBJECTS:
            old = [
                known for known, (since_s, _) in self._subjects.items()
                if now_s - since_s > self._window_s
            ]  # fmt: skip
            for known in old:
                del self._subjects[known]
            if not old:
                subject = "everybody else"
        since_s, count = self._subjects.get(subject, (now_s, 0))
        if now_s - since_s > self._window_s:
            self._subjects[subject] = (now_s, 1)
            return True, max(count - self._lines, 0)
        self._subjects[subject] = (since_s, count + 1)
        return count < self._lines, 0


class Lines:
    """The journal, for what peers can make us say."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._rate = Rate()

    def write(self, event: Event, subject: str, sentence: str, **fields: object) -> None:
        """
        Log one event, unless there were many about the same subject.

        Args:
            event: Its kind.
            subject: What the lines are counted by: a network, a method.
            sentence: For people.
            **fields: See ``Journal``.
        """
        allowed, left_out = self._rate.allows(f"{event.name} {subject}", now_s=time.monotonic())
        if allowed:
            note = f" (and {left_out} like it before)" if left_out else ""
            self.journal.write(event, f"{sentence}{note}", **fields)

    def failed(self, subject: str, failure: BaseException, **fields: object) -> None:
        """Log that something raised what it should not, in one line, cut short."""
        text = repr(failure)
        if len(text) > _MAX_CHARACTERS:
            text = f"{text[:_MAX_CHARACTERS]}…"
        self.write(Event.HANDLER_FAILED, subject, f"{subject} failed: {text}", **fields)

    def loop_failed(self, _: Any, context: dict[str, Any]) -> None:
        """Log what the event loop could not give to anybody. See ``loop.set_exception_handler``."""
        failure = context.get("exception")
        self.write(
            Event.HANDLER_FAILED,
            "event loop",
            f"the event loop reports {type(failure).__name__ if failure else 'a problem'}"
            f"{_place(failure)}",
        )


def _place(failure: BaseException | None) -> str:
    """Return where an exception came from: file and line, and nothing that a peer could have chosen."""
    traceback = getattr(failure, "__traceback__", None)
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return f" in {code.co_name} ({code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno})"


class Handler(logging.Handler):
    """Takes what libraries and extensions log, in place of Python's own last resort, which has no bounds."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record: of an extension what it says, of a library that it said something."""
        where = f"{record.module}:{record.lineno}"
        if record.name.partition(".")[0] in _LIBRARIES:
            failure = record.exc_info[1] if record.exc_info else None
            kind = f", {type(failure).__name__}" if failure else ""
            sentence = f"{record.name} logged something ({record.levelname}, {where}{kind})"
        else:
            try:
                said = record.getMessage()
            except (TypeError, ValueError):  # its arguments don't fit its text
                said = str(record.msg)
            sentence = f"{record.name}: {said[:_MAX_CHARACTERS]!r}"
        self._lines.write(Event.LIBRARY_LOGGED, f"{record.name} {where}", sentence)


def take_over(lines: Lines) -> Callable[[], None]:
    """Have every logger of this process speak through us; returns what undoes that."""
    root, handler = logging.getLogger(), Handler(lines)
    root.addHandler(handler)
    return lambda: root.removeHandler(handler)
