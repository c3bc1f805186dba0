"""When a ping is deserved: the loop ran, the service answered, and what we hold is still ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from openclaw_gateway.supervisor.events import DEGRADED_STATUS, Event
from openclaw_gateway.supervisor.journal import Journal
from openclaw_gateway.supervisor.notify import Supervisor

RECHECK_S = 20.0
"""Seconds between two looks where systemd watches nothing."""


class Problem(Protocol):
    """Says within ``timeout_s`` what is wrong with what is watched; ``None`` if nothing is."""

    async def __call__(self, *, timeout_s: float) -> str | None:
        """Look once."""


class Watchdog:
    """The heartbeat of a running service: three looks at everything in each watchdog interval."""

    def __init__(
        self,
        supervisor: Supervisor,
        journal: Journal,
        *,
        look: Callable[[], None],
        problem: Problem,
        status: Callable[[], str],
    ) -> None:
        """
        Set up, and watch nothing yet.

        Args:
            supervisor: Fed, and told the status.
            journal: Told once when something begins to be wrong.
            look: Looks at what we hold; raises if we must stop.
            problem: Asked if systemd watches us: without a problem there is a ping.
            status: One line for ``systemctl status``.
        """
        self._supervisor, self._journal = supervisor, journal
        self._look, self._problem, self._status = look, problem, status
        self._degraded = False

    async def run(self) -> None:
        """
        Watch until cancelled. Raises what ``look`` raises.

        A third of the interval leaves room for one late tick and one lost message. Pings come from
        the event loop and never from a thread: a thread would go on pinging for a loop that hangs.

        See Also:
            sd_watchdog_enabled(3).
        """
        watched_s = self._supervisor.watchdog_s
        interval_s = watched_s / 3 if watched_s else RECHECK_S
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            self._look()
            problem = None if watched_s is None else await self._problem(timeout_s=interval_s)
            if problem is None:
                self._supervisor.ping()
            late_s = loop.time() - due_s
            if problem is None and late_s >= interval_s / 2:
                problem = f"the event loop was {late_s:.1f} s behind"
            self._report(problem)
            due_s = max(due_s + interval_s, loop.time())
            await asyncio.sleep(due_s - loop.time())

    def _report(self, problem: str | None) -> None:
        status = self._status()
        self._supervisor.status(f"{DEGRADED_STATUS}{problem}; {status}" if problem else status)
        if problem and not self._degraded:
            self._journal.write(Event.DEGRADED, f"degraded: {problem}")
        self._degraded = problem is not None
        self._supervisor.vitals.problem = problem or ""
