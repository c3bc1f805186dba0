"""Every client that is connected: who they are, what all of them are told, and their goodbye."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from uuid import uuid4

from openclaw_gateway.claim.record import Phase
from openclaw_gateway.protocol.frames import Event, encode
from openclaw_gateway.protocol.scopes import ADMIN, READ, satisfies
from openclaw_gateway.protocol.session import Session
from openclaw_gateway.server.connection import Connection, Upgrade
from openclaw_gateway.server.methods import Caller
from openclaw_gateway.server.proxies import Source
from openclaw_gateway.server.tally import Tally
from openclaw_gateway.server.websocket import Client, Shared
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.events import Event as LogEvent

_EVENTS = ["connect.challenge", "health", "presence", "shutdown", "tick"]

_PRESENCE_PAUSE_S = 0.5
"""Joins and leaves within this time make one event."""

_HEALTH_CHECK_S = 5.0


class Clients:
    """
    Every WebSocket that is open.

    Attributes:
        phase: Whether a ``connect`` is let in yet, or still.
        boot_id: A new one in each process, so that clients see a restart.
        tally: Requests of the protocol since the start, and what came of them.
        phase_since_s: Wall clock when the phase began.
        fence: Whether no frame may be dispatched any more; see ``http.Server``.
        fencing_token: What handlers are told of this tenure; ``None`` without a cluster.
        events: Names of the events that there are.
    """

    def __init__(
        self, shared: Shared, settings: Settings, *, facts: Callable[[], dict[str, object]]
    ) -> None:
        """``facts`` are those parts of a snapshot that are for administrators only."""
        self.shared, self._facts = shared, facts
        self.phase = Phase.STARTING
        self.phase_since_s = time.time()
        self.boot_id = str(uuid4())
        self.tally = Tally()
        self.fencing_token: int | None = None
        self.fence: Callable[[], bool] = lambda: False
        self.events = _EVENTS
        self._began_s = time.monotonic()
        self._open: set[Client] = set()
        self._told_presence = shared.presence.version
        self._told_health = shared.health.version
        self._presence_due: asyncio.TimerHandle | None = None
        self._bursts_due: asyncio.TimerHandle | None = None
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Work by these settings from now on; who is in keeps the limits that the hello promised."""
        self._settings = settings
        limits = settings.limits
        self.caller = Caller(
            self.shared.lines,
            timeout_s=limits.request_timeout_s,
            max_answer_bytes=limits.max_payload_bytes,
            reached=self.shared.reached,
        )

    def __len__(self) -> int:
        return sum(client.session.is_open for client in self._open)

    @property
    def uptime_ms(self) -> int:
        """Milliseconds since we began to serve."""
        return int((time.monotonic() - self._began_s) * 1000)

    @property
    def in_flight(self) -> int:
        """Requests of all clients that wait for their answers."""
        return sum(client.session.in_flight for client in self._open)

    def upgrade(self, accept: str, source: Source) -> Upgrade:
        """
        Let a connection become a client.

        Args:
            accept: For ``Sec-WebSocket-Accept``.
            source: Where it comes from.
        """

        def begin(connection: Connection) -> Client:
            session = Session(
                str(uuid4()), methods=self.shared.methods, limits=self._settings.limits
            )
            client = Client(self, connection, session, source)
            self._open.add(client)
            client.greet()
            return client

        return Upgrade(accept, begin)

    def left(self, client: Client) -> None:
        """Take a client that is gone off the lists."""
        self._open.discard(client)
        self.shared.presence.leave(client.session.conn_id)
        self._tell_presence_soon()

    def joined(self, client: Client) -> None:
        """Show a client that got its hello to the others."""
        connect = client.session.connect
        assert connect is not None
        self.shared.presence.join(
            client.session.conn_id,
            connect.client,
            connect.role,
            connect.scopes,
            now_ms=int(time.time() * 1000),
        )
        self._tell_presence_soon()

    def snapshot(self, scopes: frozenset[str]) -> dict[str, object]:
        """Return how things stand, as far as these scopes let one see."""
        health = self.shared.health.snapshot()
        shown: dict[str, object] = {
            "presence": self.shared.presence.entries() if satisfies(scopes, READ) else [],
            "health": health,
            "stateVersion": self._state_version(),
            "uptimeMs": self.uptime_ms,
        }
        return shown | self._facts() if satisfies(scopes, ADMIN) else shown

    async def keep_informed(self) -> None:
        """Send ticks, and look at our health, until cancelled."""
        tick_due_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if now_s >= tick_due_s:
                tick_due_s = now_s + self._settings.limits.tick_interval_s
                self._broadcast(Event("tick", encode({"ts": int(time.time() * 1000)})))
            if self._open:
                self.shared.health.look()
            if self.shared.health.version != self._told_health:
                self._told_health = self.shared.health.version
                payload = encode(self.shared.health.snapshot())
                self._broadcast(Event("health", payload, None, encode(self._state_version())))
            await asyncio.sleep(max(min(tick_due_s - time.monotonic(), _HEALTH_CHECK_S), 0.01))

    def expect_bursts(self) -> None:
        """Have the authenticator's bursts, if there are any, logged when they end."""
        if self._bursts_due is None and self.shared.authenticator.bursts:
            self._bursts_due = asyncio.get_running_loop().call_later(1.0, self._log_bursts)

    def _log_bursts(self, *, all_of_them: bool = False) -> None:
        self._bursts_due = None
        bursts = self.shared.authenticator.bursts
        for burst in bursts.over(now_s=math.inf if all_of_them else time.monotonic()):
            times = "once" if burst.times == 1 else f"{burst.times} times"
            span_s = burst.last_s - burst.first_s
            self.shared.lines.journal.write(
                LogEvent.AUTH_FAILED,
                f"wrong {self.shared.authenticator.mode} from {burst.source}, {times}"
                + (f" in {span_s:.1f} s" if span_s else ""),
                PEER=burst.source,
                COUNT=burst.times,
            )
        self.expect_bursts()

    async def close_all(self, *, back_in_s: float | None) -> None:
        """
        Tell every client that we go; a mute one holds us up for 2 s at most.

        ``restartExpectedMs`` is there if, and only if, this is a restart: to clients its absence means a
        stop for good, as OpenClaw's documentation has it, and the code that we close with means neither.
        """
        self._log_bursts(all_of_them=True)
        payload: dict[str, object] = {"reason": "gateway stopping"}
        if back_in_s is not None:
            payload = {"reason": "gateway restarting", "restartExpectedMs": round(back_in_s * 1000)}
        goodbye = Event("shutdown", encode(payload))
        leaving = list(self._open)
        for client in leaving:
            client.apply(client.session.shut_down(goodbye))
        if leaving:
            await asyncio.wait({client.connection.closed for client in leaving})

    def _state_version(self) -> dict[str, int]:
        return {
            "presence": self.shared.presence.version,
            "health": self.shared.health.version,
        }

    def _tell_presence_soon(self) -> None:
        if self._presence_due is None and self.shared.presence.version != self._told_presence:
            self._presence_due = asyncio.get_running_loop().call_later(
                _PRESENCE_PAUSE_S, self._tell_presence
            )

    def _tell_presence(self) -> None:
        self._presence_due = None
        self._told_presence = self.shared.presence.version
        payload = encode({"presence": self.shared.presence.entries()})
        self._broadcast(Event("presence", payload, READ, encode(self._state_version())))

    def _broadcast(self, event: Event) -> None:
        for client in list(self._open):
            client.apply(client.session.notify(event))
