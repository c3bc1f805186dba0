"""When a ping is deserved: the loop ran, the service answered, and what we hold is still ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal
from openclaw_gateway.supervisor.notify import Supervisor

RECHECK_S = 20.0
"""Seconds between two looks where systemd watches nothing."""

_LIVE = b'{"ok":true,"status":"live"}'


async def answers(host: str, port: int, *, timeout_s: float) -> bool:
    """
    Ask our own listener for its health through a connection of its own, as any client would.

    Args:
        host: IP literal that the listener can be reached at.
        port: Its port.
        timeout_s: Seconds for connect and answer together.

    Returns:
        Whether the exact answer came in time.
    """
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=4096)
            writer.write(
                b"GET /healthz HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % _literal(host)
            )
            answer = await reader.read(4096)
            while answer and not answer.endswith(_LIVE) and len(answer) < 4096:
                more = await reader.read(4096)
                if not more:
                    break
                answer += more
            return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(_LIVE)
    except OSError:  # TimeoutError among them
        return False
    finally:
        if writer is not None:
            writer.close()


def _literal(host: str) -> bytes:
    return (f"[{host}]" if ":" in host else host).encode("ascii")


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
        self._supervisor.status(f"degraded: {problem}; {status}" if problem else status)
        if problem and not self._degraded:
            self._journal.write(Event.DEGRADED, f"degraded: {problem}")
        self._degraded = problem is not None
