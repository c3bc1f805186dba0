"""The event loop with a stop-watch on it, which sees for how long whoever waits is kept waiting."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

from openclaw_gateway.supervisor.vitals import Delay

_LEAST_S = 0.001
"""What is shorter is none: it would be noted in every turn."""


def run(main: Coroutine[Any, Any, None], *, delay: Delay) -> None:
    """Run to the end as ``asyncio.run`` does, and note every delay of the loop."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Timed(delay))) as runner:
        runner.run(main)


class Timed(selectors.EpollSelector):
    """
    A selector that is asked in every turn of the loop, and so knows how long each turn took.

    A timer of our own would see only what happens to be in its way as it is due, and wake an idle
    process. Here nothing is missed: what comes up during a turn waits until the turn is over, and what
    was due while nobody let us run (a stopped process, a busy machine) shows as a wait beyond its end.
    """

    def __init__(self, delay: Delay, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``delay`` takes what is seen; ``clock`` is the monotonic one."""
        super().__init__()
        self._delay, self._clock = delay, clock
        self._returned_s = clock()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait; see ``selectors.BaseSelector.select``."""
        called_s = self._clock()
        events = super().select(timeout)
        now_s = self._clock()
        delay_s = called_s - self._returned_s
        if timeout is not None:
            delay_s = max(delay_s, now_s - called_s - timeout)
        self._returned_s = now_s
        if delay_s > _LEAST_S:
            self._delay.note(delay_s, now_s=now_s)
        return events
