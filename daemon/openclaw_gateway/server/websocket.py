"""One WebSocket: the pump between websockets' sans-I/O core and a session."""

from __future__ import annotations

import asyncio
import base64
import codecs
import hashlib
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol
from uuid import uuid4

from openclaw_gateway import __version__
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.client.frames import Core, Frame, Opcode, PayloadTooBig, Side, State
from openclaw_gateway.protocol.calls import Method
from openclaw_gateway.protocol.session import (
    DRAINING,
    STARTING,
    Authenticate,
    Close,
    Connect,
    Effect,
    Invoke,
    Limited,
    Refused,
    Send,
    Session,
)
from openclaw_gateway.server.acceptor import Acceptor
from openclaw_gateway.server.auth import Authenticator
from openclaw_gateway.server.builtin import Health
from openclaw_gateway.server.connection import Connection
from openclaw_gateway.server.lines import Lines
from openclaw_gateway.server.message import Request, Response
from openclaw_gateway.server.methods import Caller
from openclaw_gateway.server.presence import Presence
from openclaw_gateway.server.proxies import Source
from openclaw_gateway.server.tally import ABANDONED, Tally
from openclaw_gateway.supervisor.events import Event as LogEvent

INVALID_DATA = 1007
"""RFC 6455, section 8.1: text that is no UTF-8."""

_ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""

_PREAUTH_SLACK = 2
"""Before the hello a client may send this many frames of the largest size."""

_INSTEAD = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
"""What a 426 must name. RFC 9110, section 15.5.22; RFC 6455, section 4.4."""


# The core would say what it thinks of a peer's frames, and quote them.
_SILENT = logging.Logger("openclaw_gateway.websocket", logging.CRITICAL + 1)


def refused_upgrade(request: Request) -> Response | str:
    """
    Judge a request to become a WebSocket.

    Extensions and subprotocols are not ours to speak: whatever a peer offers, none is agreed on.

    Returns:
        What to put into ``Sec-WebSocket-Accept``, or the answer that says what is wrong.

    See Also:
        RFC 6455, section 4.2.1.
    """
    headers = request.headers
    wanted = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    if headers.get("upgrade", "").strip().lower() != "websocket" or "upgrade" not in wanted:
        # Not closed: who only looked may ask for something else.
        return Response(426, "WebSocket only\n", _INSTEAD)
    if headers.get("sec-websocket-version") != "13":
        return Response(426, "Sec-WebSocket-Version is not 13\n", _INSTEAD, close=True)
    key = headers.get("sec-websocket-key", "")
    try:
        if len(base64.b64decode(key.encode("ascii"), validate=True)) != 16:
            raise ValueError
    except ValueError:  # UnicodeEncodeError and binascii.Error among them
        return Response(400, "Sec-WebSocket-Key is no 16 bytes in base64\n", close=True)
    digest = hashlib.sha1(key.encode("ascii") + _ACCEPT_KEY, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


class Shared(NamedTuple):
    """What all clients have in common."""

    lines: Lines
    methods: dict[str, Method]
    authenticator: Authenticator
    presence: Presence
    health: Health
    acceptor: Acceptor

    @property
    def reached(self) -> Counter[str]:
        """Counts how often each limit was reached."""
        return self.acceptor.reached


class Group(Protocol):
    """
    All clients together, as far as one of them must know.

    Attributes:
        shared: What all have in common.
        phase: Whether a ``connect`` is let in yet, or still.
        boot_id: Of this process.
        events: Names of the events that there are.
        caller: Makes the calls.
        tally: Counts what is asked for, and what comes of it.
        fencing_token: Of this tenure; ``None`` without a cluster.
        fence: Whether no frame may be dispatched any more; see ``http.Server``.
    """

    shared: Shared
    phase: Phase
    boot_id: str
    events: list[str]
    caller: Caller
    tally: Tally
    fencing_token: int | None
    fence: Callable[[], bool]

    def snapshot(self, scopes: frozenset[str]) -> dict[str, object]:
        """Return how things stand, as far as these scopes let one see."""

    def expect_bursts(self) -> None:
        """Have wrong secrets logged once they are over."""

    def joined(self, client: Client) -> None:
        """Show a client that got its hello to the others."""

    def left(self, client: Client) -> None:
        """Take a client that is gone off the lists."""


class Message:
    """The message that is coming in, frame by frame. RFC 6455, sections 5.4 and 5.6."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        # Text is decoded as it comes: what is no UTF-8 is refused at once, also in mid-message.
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_text = False

    def add(
        self, opcode: Opcode, data: bytes | bytearray | memoryview, *, fin: bool
    ) -> str | bytes | None:
        """
        Add a data frame.

        Returns:
            The text once it is whole; ``b""`` in place of one that is binary; ``None`` before the end.

        Raises:
            UnicodeDecodeError: It is no UTF-8.
        """
        if opcode is not Opcode.CONT:
            self._is_text = opcode is Opcode.TEXT
            if fin:
                return str(data, "utf-8") if self._is_text else b""
        if not self._is_text:
            return b"" if fin else None
        if data:  # frames may be empty, and there may be many
            self._parts.append(self._decoder.decode(bytes(data)))
        if not fin:
            return None
        self._parts.append(self._decoder.decode(b"", final=True))
        text = "".join(self._parts)
        self._parts.clear()
        return text


class Client:
    """One WebSocket: its core, its session, and the calls it waits for. See ``connection.Socket``."""

    def __init__(
        self, clients: Group, connection: Connection, session: Session, source: Source
    ) -> None:
        self.session, self.connection, self.source = session, connection, source
        self._clients, self._shared = clients, clients.shared
        limits = session.limits
        self._core = Core(
            Side.SERVER, state=State.OPEN, max_size=limits.max_payload_bytes, logger=_SILENT
        )
        self._message = Message()
        self._arrived: deque[str | bytes] = deque()
        self._allowance: int | None = _PREAUTH_SLACK * limits.max_preauth_bytes
        # What we say, and what the core says (pongs, the close frame) once all that came before is answered.
        self._answers: list[bytes] = []
        self._replies: list[bytes] = []
        self._is_over = False
        self._pinged = False
        self._calls: set[asyncio.Task[None]] = set()
        self._authenticating: asyncio.Task[None] | None = None

    def greet(self) -> None:
        """Begin: challenge the client."""
        now_ms = int(time.time() * 1000)
        self.apply(self.session.open(nonce=str(uuid4()), now_ms=now_ms))

    # What the connection says.

    def receive(self, data: bytes) -> None:
        """Take what came."""
        if self._is_over:
            return
        self._pinged = False
        if self._allowance is not None:
            self._allowance -= len(data)
            if self._allowance < 0:
                self.apply(self.session.overflow())
                self._is_over = True
                return
        self._core.receive_data(data)
        for frame in self._core.events_received():
            assert isinstance(frame, Frame)  # the opening handshake is over
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                try:
                    message = self._message.add(frame.opcode, frame.data, fin=frame.fin)
                except UnicodeDecodeError:
                    # The core may have said goodbye already, to a close frame that came behind this.
                    self._core.fail(INVALID_DATA)
                    self._core.data_to_send()
                    code = INVALID_DATA.to_bytes(2)
                    self._replies += [Frame(Opcode.CLOSE, code).serialize(mask=False), b""]
                    break
                if message is not None:
                    self._arrived.append(message)
        self._advance()
        self._flush()

    def receive_eof(self) -> None:
        """Note that the client has left without a goodbye."""
        self.connection.finish()

    def expire(self) -> None:
        """Look at a client whose time is up: for its hello, its close frame, its next sign of life."""
        if self._is_over or self._core.state is not State.OPEN:
            self.connection.abort()
        elif not self.session.is_open:
            self._shared.reached["handshake_timeout_s"] += 1
            self.apply(self.session.expire())
        elif self._pinged:
            self.connection.abort()
        else:
            self._core.send_ping(b"")
            self._pinged = True
            self._flush()
            self.connection.expect(self._shared.acceptor.patience.ping_s)

    def lost(self) -> None:
        """Clear up: the connection is over."""
        self._is_over = True
        self._arrived.clear()
        for task in (*self._calls, *filter(None, [self._authenticating])):
            task.cancel()
        self._clients.left(self)

    # What the session says.

    def apply(self, effects: Iterable[Effect]) -> None:
        """Do what the session decided."""
        for effect in effects:
            self._do(effect)
        self._flush()

    def _advance(self) -> None:
        """Let the session have what has arrived, until it must wait for something, or may be served no more."""
        if self._arrived and self._clients.fence():
            self.connection.abort()
            return
        while self._arrived and self._authenticating is None and not self._is_over:
            message = self._arrived.popleft()
            if isinstance(message, str):
                effects = self.session.receive(message, now_s=time.monotonic())
            else:
                effects = self.session.receive_binary()
            for effect in effects:
                self._do(effect)

    def _do(self, effect: Effect) -> None:
        """Do one thing; what is to be sent goes out with the next ``_flush``."""
        match effect:
            case Send(text):
                frame = Frame(Opcode.TEXT, text.encode("ascii"))
                self._answers.append(frame.serialize(mask=False))
            case Close(code, reason):
                if self._core.state is State.OPEN and not self._is_over:
                    self._core.send_close(code, reason)
                    # It goes out after all that is before it; a peer that reads nothing never gets it.
                    self.connection.expect(2 * self._shared.acceptor.patience.goodbye_s)
            case Invoke():
                self._invoke(effect)
            case Limited(limit):
                self._shared.reached[limit] += 1
            case Refused(method, code):
                self._clients.tally.refused(method, code)
            case Authenticate(connect):
                # Read no further meanwhile: the delay of a wrong secret is the peer's.
                self.connection.hold()
                self._authenticating = asyncio.create_task(self._authenticate(connect))

    def _flush(self) -> None:
        """Send what the core has to say, and hang up if it says so."""
        self._replies += self._core.data_to_send()
        pieces, self._answers = self._answers, []
        if not self._arrived and self._authenticating is None:
            # The core is ahead of the session: what it says to a close frame comes after the answers to
            # what came before that.
            pieces += self._replies
            self._replies = []
        if not pieces or self._is_over:
            return
        data = b"".join(pieces)
        if data:
            self.connection.write(data)
        if not pieces[-1]:  # the core's mark for the end
            if isinstance(self._core.parser_exc, PayloadTooBig):
                self._shared.reached["max_payload_bytes"] += 1
            self._is_over = True
            self.connection.finish()
            return
        backlog_bytes = self.connection.backlog_bytes()
        if backlog_bytes > self.session.limits.max_buffered_bytes:
            self._cut_off(backlog_bytes)

    def _cut_off(self, backlog_bytes: int) -> None:
        """Give up on a client that doesn't read: a close frame would only wait behind the rest."""
        self._is_over = True
        self._shared.reached["max_buffered_bytes"] += 1
        self._shared.lines.write(
            LogEvent.LIMIT_REACHED,
            self.source.network,
            f"cut off a slow client at {self.source.address}: "
            f"{backlog_bytes} bytes wait to be read, maxBufferedBytes is "
            f"{self.session.limits.max_buffered_bytes}",
            LIMIT="maxBufferedBytes",
        )
        self.connection.abort()

    async def _authenticate(self, connect: Connect) -> None:
        refusal = {Phase.STARTING: STARTING, Phase.DRAINING: DRAINING}.get(self._clients.phase)
        if refusal is None:
            refusal, delay_s = self._shared.authenticator.judge(
                self.source, token=connect.token, password=connect.password, now_s=time.monotonic()
            )
            self._clients.expect_bursts()
            # From here on it is we who take the time, and the refusal is to get through.
            self.connection.expect(math.inf)
            if delay_s:
                await asyncio.sleep(delay_s)
        if self.source.user is not None:
            granted = self.source.user.scopes
            connect = connect._replace(scopes=tuple(s for s in connect.scopes if s in granted))
        if refusal is not None:
            self.apply(self.session.refuse(connect.request_id, refusal))
        else:
            self.apply(
                self.session.welcome(
                    connect=connect,
                    server={"version": __version__, "bootId": self._clients.boot_id},
                    events=self._clients.events,
                    snapshot=self._clients.snapshot(frozenset(connect.scopes)),
                )
            )
            if self.session.is_open:
                self._allowance = None
                self._shared.acceptor.authenticated(self.connection)
                self.connection.expect(self._shared.acceptor.patience.ping_s)
                self._clients.joined(self)
        self._authenticating = None
        self._advance()
        self._flush()
        self.connection.release()

    def _invoke(self, invoke: Invoke) -> None:
        tally = self._clients.tally
        tally.requests[invoke.method.name] += 1
        token = self._clients.fencing_token
        if token is not None:
            invoke = invoke._replace(call=invoke.call._replace(fencing_token=token))
        if invoke.method.instant:
            began_s = time.perf_counter()
            outcome = self._clients.caller.now(invoke.method, invoke.call)
            tally.settled(outcome, time.perf_counter() - began_s)
            for effect in self.session.settle(invoke.request_id, outcome):
                self._do(effect)
        else:
            task = asyncio.create_task(self._call(invoke))
            self._calls.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if task.cancelled():
            self._clients.tally.outcomes[ABANDONED] += 1

    async def _call(self, invoke: Invoke) -> None:
        if self._clients.fence():  # the task began later than its frame came
            self._clients.tally.outcomes[ABANDONED] += 1
            self.connection.abort()
            return
        tally, began_s = self._clients.tally, time.perf_counter()
        outcome = await self._clients.caller.soon(invoke.method, invoke.call)
        tally.settled(outcome, time.perf_counter() - began_s)
        self.apply(self.session.settle(invoke.request_id, outcome))
