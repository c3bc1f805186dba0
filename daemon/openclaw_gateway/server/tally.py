"""What clients asked for and what came of it, counted: plain numbers, which nobody looks at until asked. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from openclaw_gateway.protocol.calls import Answer, Outcome
from openclaw_gateway.protocol.frames import ErrorCode

OTHER = "other"
"""Stands for every method that we don't have, and for every code that is none of ours: peers choose those."""

_MAX_METHODS = 500
"""Methods that are told apart: extensions may register any number, and each is a series for Prometheus."""

ABANDONED = "abandoned"
"""The outcome of a call whose client did not wait for it."""

OUTCOMES = ("ok", *(code.value.lower() for code in ErrorCode), OTHER, ABANDONED)
"""All that there are."""

_OUTCOMES = {code.value: code.value.lower() for code in ErrorCode}

BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
            1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # fmt: skip
"""Upper bounds of the histogram's buckets: from a handler on the event loop to one that hangs."""


class Durations(NamedTuple):
    """
    A histogram.

    Attributes:
        counts: How many took up to each of ``BOUNDS_S`` and more than the one before; the last is
            of those beyond all bounds.
        sum_s: All of them together, in seconds.
    """

    counts: tuple[int, ...]
    sum_s: float


class Tally:
    """
    Requests of the protocol since the start.

    Every request has one outcome in the end: all of ``requests`` together are as many as all of
    ``outcomes`` and the calls that still run.

    Attributes:
        requests: By method; ``OTHER`` for names that we don't have and frames that can't be read.
        outcomes: ``ok``, an error code in lower case, or ``ABANDONED``.
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def refused(self, method: str, code: str) -> None:
        """Count a request that no handler got to see; ``method`` is ``""`` if it is none of ours."""
        self.requests[method or OTHER] += 1
        self.outcomes[_OUTCOMES.get(code, OTHER)] += 1

    def settled(self, outcome: Outcome, seconds: float) -> None:
        """Count what came of a call, and how long it took."""
        if isinstance(outcome, Answer):
            self.outcomes["ok"] += 1
        else:
            self.outcomes[_OUTCOMES.get(str(outcome.error.get("code")), OTHER)] += 1
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def by_method(self, names: Iterable[str]) -> dict[str, int]:
        """Return the requests of each of our methods, and all the others together as ``OTHER``."""
        told = {name: self.requests[name] for name in islice(names, _MAX_METHODS) if name != OTHER}
        return told | {OTHER: self.requests.total() - sum(told.values())}

    @property
    def durations(self) -> Durations:
        """How long calls took until their outcome, those of ``ABANDONED`` ones not among them."""
        return Durations(tuple(self._counts), self._sum_s)
