"""When a ping is deserved: the loop ran, our own listener answered, and the claim is still ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal
from openclaw_gateway.supervisor.notify import Supervisor

if TYPE_CHECKING:
    from openclaw_gateway.claim.claim import Claim

RECHECK_S = 20.0
"""Seconds between two looks at the claim where systemd watches nothing."""

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


class Watchdog:
    """The heartbeat of a running gateway: three looks at everything in each watchdog interval."""

    def __init__(
        self, claim: Claim, supervisor: Supervisor, journal: Journal, *, status: Callable[[], str]
    ) -> None:
        self._claim, self._supervisor, self._journal = claim, supervisor, journal
        self._status = status
        self._degraded = False

    async def run(self, host: str, port: int) -> None:
        """
        Watch until cancelled.

        A third of the interval leaves room for one late tick and one lost message. Pings come from
        the event loop and never from a thread: a thread would go on pinging for a loop that hangs.

        Raises:
            ClaimLostError: The claim is gone; the daemon must stop.

        See Also:
            sd_watchdog_enabled(3).
        """
        watched_s = self._supervisor.watchdog_s
        interval_s = watched_s / 3 if watched_s else RECHECK_S
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            for path in self._claim.verify():
                self._journal.write(
                    Event.LOCK_RESTORED,
                    f"lock file {path} had been removed; made anew",
                    LOCK_PATH=path,
                )
            alive = watched_s is None or await answers(host, port, timeout_s=interval_s)
            if alive:
                self._supervisor.ping()
            self._report(alive, loop.time() - due_s, interval_s)
            due_s = max(due_s + interval_s, loop.time())
            await asyncio.sleep(due_s - loop.time())

    def _report(self, alive: bool, late_s: float, interval_s: float) -> None:
        if alive and late_s < interval_s / 2:
            self._degraded = False
            self._supervisor.status(self._status())
            return
        trouble = (
            f"the event loop was {late_s:.1f} s behind"
            if alive
            else f"own /healthz did not answer within {interval_s:.1f} s"
        )
        self._supervisor.status(f"degraded: {trouble}; {self._status()}")
        if not self._degraded:
            self._degraded = True
            self._journal.write(Event.DEGRADED, f"degraded: {trouble}")
