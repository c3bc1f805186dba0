"""What ``logs.tail`` shows: our unit's entries in the journal, or the last lines that this process logged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

from openclaw_gateway.host.process import unit_of
from openclaw_gateway.supervisor.journal import IDENTIFIER, Journal, NativeJournal, rendered
from openclaw_gateway.supervisor.reader import of_gateway, restrict

DEFAULT_LIMIT = 500
DEFAULT_MAX_BYTES = 250_000

Lines = Iterable[tuple[int, str]]
"""Position and text of each line, the newest first. Positions rise with time."""


def tail(journal: Journal, params: dict[str, int]) -> dict[str, object]:
    """
    Return the newest log lines, or those after a cursor that an earlier answer gave.

    The journal comes first where our log goes there and this account may read it. It is slow: call
    this in a thread.

    Args:
        journal: Ours.
        params: ``cursor``, ``limit`` (lines) and ``maxBytes``, each optional.
    """
    if isinstance(journal, NativeJournal):
        unit = unit_of("self")
        entries = _entries(unit)
        newest = next(entries, None)
        if newest is not None:
            name = f"journal:{unit or IDENTIFIER}"
            return page(chain([newest], entries), params, file=name, size=newest[0])
    recent = journal.recent
    lines = recent.newest_first()
    return page(lines, params, file=f"memory:{IDENTIFIER}", size=recent.size_bytes)


def page(lines: Lines, params: dict[str, int], *, file: str, size: int) -> dict[str, object]:
    """
    Cut one answer out of a log, from its newest line backwards, and so in time bounded by the answer.

    Args:
        lines: The log.
        params: See ``tail``.
        file: What to call the log.
        size: The position of its newest line.
    """
    cursor = params.get("cursor")
    reset = cursor is not None and cursor > size
    after = 0 if cursor is None or reset else cursor
    room_bytes = params.get("maxBytes", DEFAULT_MAX_BYTES)
    room_lines = params.get("limit", DEFAULT_LIMIT)
    taken: list[str] = []
    truncated = False
    for position, line in lines:
        if position <= after:
            break
        room_bytes -= len(line.encode("utf-8", "replace")) + 1
        if room_bytes < 0 or len(taken) == room_lines:
            truncated = True
            break
        taken.append(line)
    return {
        "file": file,
        "cursor": size,
        "size": size,
        "lines": taken[::-1],
        "truncated": truncated,
        "reset": reset,
    }


def _entries(unit: str | None) -> Iterator[tuple[int, str]]:
    """Yield our entries in the journal, the newest first; a position is microseconds since 1970."""
    from systemd import journal

    with journal.Reader() as reader:
        restrict(reader, of_gateway(unit, os.getpid()))
        reader.seek_tail()
        while entry := reader.get_previous():
            yield _line(entry)


def _line(entry: dict[str, Any]) -> tuple[int, str]:
    at: datetime = entry["__REALTIME_TIMESTAMP"]
    sentence = entry.get("MESSAGE", "")
    if isinstance(sentence, bytes):
        sentence = sentence.decode("utf-8", "replace")
    position = round(at.timestamp() * 1_000_000)
    return position, rendered(entry.get("PRIORITY", 6), sentence, time_s=at.timestamp())
