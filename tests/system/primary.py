"""
Leave a trace of each moment in which a gateway says that it is its cluster's active one.

usage: primary.py PORT TRACE

It asks for /primary on loopback, some twenty times a second, until it is killed, and appends to TRACE for each 200:
"<sent> <received> <fencing token>", both times in nanoseconds on CLOCK_MONOTONIC, which all processes of a kernel share.
"""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

_EVERY_S = 0.05
_PATIENCE_S = 1.0
"""So long an answer may take: one that is frozen gives none."""


class Seen(NamedTuple):
    """One answer of an active gateway: at some moment between these two it was active."""

    sent_ns: int
    received_ns: int
    token: int
    host: str


def read(traces: Iterable[tuple[str, Path]]) -> list[Seen]:
    """Return what was seen on hosts, in order, from their names and traces."""
    found = []
    for host, trace in traces:
        # The last line may be half written.
        for line in trace.read_text().rpartition("\n")[0].splitlines():
            found.append(Seen(*map(int, line.split()), host))
    return sorted(found)


def overlaps(found: list[Seen]) -> list[Seen]:
    """Return what was seen of an older tenure after a newer one had certainly begun."""
    bad, newest = [], 0
    arrived = sorted(found, key=lambda seen: seen.received_ns)
    position = 0
    for seen in found:
        # All that had been received when this one was asked.
        while arrived[position].received_ns < seen.sent_ns:
            newest = max(newest, arrived[position].token)
            position += 1
        if seen.token < newest:
            bad.append(seen)
    return bad


def silence_s(found: list[Seen], since_ns: int) -> float:
    """Return the longest time, of what began before ``since_ns`` or later, in which nobody was seen active."""
    times = [seen.received_ns for seen in found]
    begin = max((at for at in times if at <= since_ns), default=since_ns)
    later = [begin, *(at for at in sorted(times) if at > begin)]
    return max((b - a for a, b in pairwise(later)), default=0) / 1e9


def _ask(port: int) -> int | None:
    """Return the fencing token of an active gateway; ``None`` if it is none, or does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/primary")
        answer = connection.getresponse()
        answer.read()
        return int(answer.headers["OpenClaw-Fencing-Token"]) if answer.status == 200 else None
    finally:
        connection.close()


def main() -> None:
    port, trace = int(sys.argv[1]), sys.argv[2]
    with open(trace, "ab", buffering=0) as file:
        while True:
            sent_ns = time.monotonic_ns()
            with suppress(OSError, http.client.HTTPException):
                token = _ask(port)
                if token is not None:
                    file.write(b"%d %d %d\n" % (sent_ns, time.monotonic_ns(), token))
            time.sleep(_EVERY_S)


if __name__ == "__main__":
    main()
