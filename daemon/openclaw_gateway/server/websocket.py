"""The pump between aiohttp's WebSockets and sessions, and what all clients are told together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4

from aiohttp import WSMsgType, web

from openclaw_gateway import __version__
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.protocol.calls import Method
from openclaw_gateway.protocol.frames import Event, encode
from openclaw_gateway.protocol.scopes import ADMIN, READ, satisfies
from openclaw_gateway.protocol.session import (
    DRAINING,
    MESSAGE_TOO_BIG,
    STARTING,
    Authenticate,
    Close,
    Connect,
    Effect,
    Invoke,
    Limited,
    Send,
    Session,
)
from openclaw_gateway.server.auth import Authenticator, Source
from openclaw_gateway.server.builtin import Health
from openclaw_gateway.server.door import Visitor
from openclaw_gateway.server.methods import Caller
from openclaw_gateway.server.presence import Presence
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.events import Event as LogEvent
from openclaw_gateway.supervisor.journal import Journal

EVENTS = ["connect.challenge", "health", "presence", "shutdown", "tick"]

_CLOSE_TIMEOUT_S = 1.0
"""Seconds that a client has to answer our close frame."""

_SMALL_BYTES = 16 << 10
"""What fits into the kernel's empty buffer for sure."""

_PING_S = 25.0
_PRESENCE_PAUSE_S = 0.5
"""Joins and leaves within this time make one event."""

_HEALTH_CHECK_S = 5.0


class Shared(NamedTuple):
    """What all clients have in common."""

    journal: Journal
    methods: dict[str, Method]
    authenticator: Authenticator
    presence: Presence
    health: Health
    reached: Counter[str]
    """Counts how often each limit was reached."""


class Client:
    """One WebSocket: its session, the calls it waits for, and what it has yet to read."""

    def __init__(
        self, clients: Clients, socket: web.WebSocketResponse, visitor: Visitor, session: Session
    ) -> None:
        self.session, self.visitor = session, visitor
        self._clients, self._shared, self._socket = clients, clients.shared, socket
        self._outbox: deque[Send | Close] = deque()
        self._waiting_bytes = 0
        self._cut = False
        self._wake = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self.writing = asyncio.create_task(self._write())
        """Ends once a close frame is out, or nothing can be sent any more."""

    async def serve(self, source: Source) -> None:
        """See the session through, from the greeting to whoever ends it."""
        self.visitor.upgraded(
            expire=lambda: self.apply(self.session.expire()),
            overflow=lambda: self.apply(self.session.overflow()),
        )
        try:
            now_ms = int(time.time() * 1000)
            self.apply(self.session.open(nonce=str(uuid4()), now_ms=now_ms))
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    effects = self.session.receive(message.data, now_s=time.monotonic())
                elif message.type is WSMsgType.BINARY:
                    effects = self.session.receive_binary()
                else:  # an error of the framing: aiohttp has closed with the right code
                    if getattr(message.data, "code", None) == MESSAGE_TOO_BIG:
                        self._shared.reached["max_payload_bytes"] += 1
                    break
                for effect in effects:
                    if isinstance(effect, Authenticate):
                        # Read no further meanwhile: the delay of a wrong secret is the peer's.
                        await self._authenticate(effect.connect, source)
                    else:
                        self._take(effect)
                await self._pass_on()
            if self._outbox:
                await asyncio.wait({self.writing}, timeout=_CLOSE_TIMEOUT_S)
        finally:
            tasks = (self.writing, *self._calls)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # A peer that doesn't read would keep its connection open for what it has yet to read.
            if self.visitor.backlog_bytes():
                self.visitor.abort()

    def apply(self, effects: Iterable[Effect]) -> None:
        """Do what the session decided, but for ``Authenticate``."""
        for effect in effects:
            self._take(effect)
        if self._outbox:
            self._wake.set()

    def _take(self, effect: Effect) -> None:
        """Do one thing; what is to be sent waits in the outbox. Nothing for a client that was cut off."""
        if self._cut:
            return
        match effect:
            case Send(text):
                self._waiting_bytes += len(text)
                self._outbox.append(effect)
                backlog_bytes = self._waiting_bytes + self.visitor.backlog_bytes()
                if backlog_bytes > self.session.limits.max_buffered_bytes:
                    self._cut_off(backlog_bytes)
            case Close():
                self._outbox.append(effect)
                # It goes out after all that is before it; a peer that reads nothing never gets it.
                loop = asyncio.get_running_loop()
                loop.call_later(2 * _CLOSE_TIMEOUT_S, self.visitor.abort)
            case Invoke():
                self._invoke(effect)
            case Limited(limit):
                self._shared.reached[limit] += 1

    async def _pass_on(self) -> None:
        """Send what waits: right away if that can't block, else from the task that may."""
        small = len(self._outbox) == 1 and self._waiting_bytes < _SMALL_BYTES
        if small and isinstance(self._outbox[0], Send) and not self.visitor.backlog_bytes():
            with suppress(ConnectionResetError):  # the next read says so
                await self._send_next()
        elif self._outbox:
            self._wake.set()

    async def _send_next(self) -> None:
        effect = self._outbox.popleft()
        assert isinstance(effect, Send)
        self._waiting_bytes -= len(effect.text)
        await self._socket.send_str(effect.text)

    def _cut_off(self, backlog_bytes: int) -> None:
        """Give up on a client that doesn't read: a close frame would only wait behind the rest."""
        self._cut = True
        self._shared.reached["max_buffered_bytes"] += 1
        self._outbox.clear()
        self._waiting_bytes = 0
        self._shared.journal.write(
            LogEvent.LIMIT_REACHED,
            f"cut off a slow client at {self.visitor.address}: "
            f"{backlog_bytes} bytes wait to be read, maxBufferedBytes is "
            f"{self.session.limits.max_buffered_bytes}",
            LIMIT="maxBufferedBytes",
        )
        self.visitor.abort()

    async def _write(self) -> None:
        while True:
            while self._outbox:
                first = self._outbox[0]
                if isinstance(first, Close):
                    await self._socket.close(code=first.code, message=first.reason.encode())
                    self._outbox.clear()
                    return
                try:
                    await self._send_next()
                except ConnectionResetError:
                    # aiohttp 3.8 tells the reading side nothing when a ping stays unanswered.
                    self.visitor.abort()
                    return
            self._wake.clear()
            await self._wake.wait()

    async def _authenticate(self, connect: Connect, source: Source) -> None:
        refusal = {Phase.STARTING: STARTING, Phase.DRAINING: DRAINING}.get(self._clients.phase)
        if refusal is None:
            refusal, delay_s = self._shared.authenticator.judge(
                source, token=connect.token, password=connect.password, now_s=time.monotonic()
            )
            self._clients.expect_bursts()
            # From here on it is we who take the time, and the refusal is to get through.
            self.visitor.judged()
            if delay_s:
                await asyncio.sleep(delay_s)
        if refusal is not None:
            self.apply(self.session.refuse(connect.request_id, refusal))
            return
        self.apply(
            self.session.welcome(
                connect=connect,
                server={"version": __version__, "bootId": self._clients.boot_id},
                events=EVENTS,
                snapshot=self._clients.snapshot(frozenset(connect.scopes)),
            )
        )
        if self.session.is_open:
            self.visitor.admitted()
            self._clients.joined(self)

    def _invoke(self, invoke: Invoke) -> None:
        if invoke.method.instant:
            outcome = self._clients.caller.now(invoke.method, invoke.call)
            for effect in self.session.settle(invoke.request_id, outcome):
                self._take(effect)
        else:
            task = asyncio.create_task(self._call(invoke))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _call(self, invoke: Invoke) -> None:
        outcome = await self._clients.caller.soon(invoke.method, invoke.call)
        self.apply(self.session.settle(invoke.request_id, outcome))


class Clients:
    """
    Every WebSocket that is open.

    Attributes:
        phase: Whether a ``connect`` is let in yet, or still.
        boot_id: A new one in each process, so that clients see a restart.
    """

    def __init__(
        self, shared: Shared, settings: Settings, *, facts: Callable[[], dict[str, object]]
    ) -> None:
        """``facts`` are those parts of a snapshot that are for administrators only."""
        self.shared, self._facts = shared, facts
        self.phase = Phase.STARTING
        self.boot_id = str(uuid4())
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
            self.shared.journal,
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

    async def serve(
        self, request: web.Request, visitor: Visitor, source: Source
    ) -> web.WebSocketResponse:
        """Upgrade one request and see its session through."""
        limits = self._settings.limits
        socket = web.WebSocketResponse(
            timeout=_CLOSE_TIMEOUT_S,
            heartbeat=_PING_S,
            compress=False,
            max_msg_size=limits.max_payload_bytes,
        )
        await socket.prepare(request)
        session = Session(str(uuid4()), methods=self.shared.methods, limits=limits)
        client = Client(self, socket, visitor, session)
        self._open.add(client)
        try:
            await client.serve(source)
        finally:
            self._open.discard(client)
            self.shared.presence.leave(session.conn_id)
            self._tell_presence_soon()
        return socket

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
            self.shared.journal.write(
                LogEvent.AUTH_FAILED,
                f"wrong {self.shared.authenticator.mode} from {burst.source}, {times}"
                + (f" in {span_s:.1f} s" if span_s else ""),
                PEER=burst.source,
                COUNT=burst.times,
            )
        self.expect_bursts()

    async def close_all(self) -> None:
        """Tell every client that the service restarts, and why; a mute one holds us up for 2 s at most."""
        self._log_bursts(all_of_them=True)
        goodbye = Event("shutdown", encode({"reason": "gateway stopping"}))
        for client in self._open:
            client.apply(client.session.shut_down(goodbye))
        if self._open:
            await asyncio.wait({client.writing for client in self._open})

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
