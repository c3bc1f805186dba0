"""One connection: its life from the accept to the end, and every bound on what it may cost.

One request is answered at a time, and nothing is read meanwhile: who sends more than it lets us answer waits
in the kernel's buffers, not in ours. What the bytes of a request mean is ``exchange``'s to say; after an
upgrade they are a WebSocket's.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import NamedTuple, Protocol

from openclaw_gateway.server.exchange import (
    UNSENDABLE,
    BodyTooLongError,
    Exchange,
    HeadReader,
    UnreadableError,
    refusal,
)
from openclaw_gateway.server.message import PROBE, WATCHED_PATHS, Request, Response
from openclaw_gateway.server.proxies import network
from openclaw_gateway.server.stamps import Stamps

_PIECE_BYTES = 16 << 10
"""So much of what a peer sent is looked at in one go, before the event loop gets to do something else."""

_REQUESTS_IN_A_ROW = 16
"""Pipelined requests answered in one go."""

_NO_DEADLINE = math.inf

_FRESH_S = 1.0
"""Seconds within which the first request of a new connection is thought to be on its way."""


class Patience(NamedTuple):
    """
    How long peers are waited for, beside what ``Limits`` says; in seconds.

    Attributes:
        keepalive_s: A connection may idle so long between two HTTP requests.
        over_limit_s: A connection beyond the limits has so long for its request.
        linger_s: We read on so long after the last answer: to hang up on unread bytes would reset the
            connection, and the answer could be lost with it. RFC 9112, section 9.6.
        stalled_s: A peer must read some of what it asked for within this time.
        ping_s: A WebSocket that is silent so long is asked for a sign of life, and has as long to give it.
        goodbye_s: A WebSocket has so long to answer our close frame.
    """

    keepalive_s: float = 10.0
    over_limit_s: float = 2.0
    linger_s: float = 1.0
    stalled_s: float = 10.0
    ping_s: float = 25.0
    goodbye_s: float = 1.0


PATIENCE = Patience()
"""What we have outside of tests."""


class Work(NamedTuple):
    """
    An answer that takes its time.

    Attributes:
        run: Takes the request, with its body, and returns the response; must be bounded in time itself.
        max_body_bytes: How much of a body is read; ``None`` reads none, and closes if there is one.
        limit: The field of ``Limits`` that a longer body breaks.
        timeout_s: Seconds that the body may take; ``None`` leaves what a request without one has.
    """

    run: Callable[[Request], Awaitable[Response]]
    max_body_bytes: int | None = None
    limit: str = ""
    timeout_s: float | None = None


class Socket(Protocol):
    """What a connection becomes by an upgrade."""

    def receive(self, data: bytes) -> None:
        """Take what came: at most ``_PIECE_BYTES``."""

    def receive_eof(self) -> None:
        """Note that the peer sends no more."""

    def expire(self) -> None:
        """Note that the time set by ``Connection.expect`` is up."""

    def lost(self) -> None:
        """Note that the connection is over."""


class Upgrade(NamedTuple):
    """
    The connection becomes a WebSocket.

    Attributes:
        accept: For ``Sec-WebSocket-Accept``.
        begin: Makes the socket, once the answer is out; given the connection.
    """

    accept: str
    begin: Callable[[Connection], Socket]


class Application(Protocol):
    """What answers requests."""

    def answer(self, request: Request, connection: Connection) -> Response | Upgrade | Work:
        """Decide on a request by its head; its body, if it has one, has not been read."""

    def failed(self, request: Request, failure: BaseException) -> None:
        """Log that an answer could not be made."""

    @property
    def draining(self) -> bool:
        """Whether connections are to end with the answer that they wait for."""

    def fenced(self) -> bool:
        """Whether nothing but health may be answered any more: another host may be the active one."""


class Owner(Protocol):
    """
    Whoever accepted a connection, and counts it.

    Attributes:
        reached: How often each limit was reached.
        requests: HTTP requests since the start.
        stamps: For the heads of answers.
        connections: Every one that is open.
        patience: How long peers are waited for.
    """

    reached: Counter[str]
    requests: int
    stamps: Stamps
    connections: set[Connection]
    patience: Patience

    @property
    def handshake_timeout_s(self) -> float:
        """Seconds that a peer has for a whole request, or for its hello."""

    def left(self, connection: Connection) -> None:
        """Count a connection out."""


class _State(Enum):
    HEAD = auto()
    BODY = auto()
    ANSWERING = auto()
    SOCKET = auto()
    LINGERING = auto()
    CLOSED = auto()


class Connection(asyncio.Protocol):
    """
    One connection.

    Attributes:
        peer: The IP literal at the other end.
        network: What it is counted by; a trusted proxy's connection is counted as its client's.
        over_limit: The limit beyond which it came in, a field of ``Limits``; ``""`` if none.
        exempt: Whether it is a trusted proxy's whose client is not known yet, and not counted by address.
        authenticated: Whether it has shown its secret.
        same_host: Whether the peer is a program of this machine, whatever address it came over.
    """

    def __init__(
        self,
        acceptor: Owner,
        application: Application,
        peer: str,
        *,
        over_limit: str = "",
        exempt: bool = False,
        same_host: bool = False,
    ) -> None:
        self.peer, self.network, self.same_host = peer, network(peer), same_host
        self.over_limit, self.exempt, self.authenticated = over_limit, exempt, False
        self._acceptor, self._application = acceptor, application
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._state = _State.HEAD
        self._buffer = bytearray()
        self._heads = HeadReader()
        self._eof = self._paused = self._held = self._turn_due = self._is_unwanted = False
        self._exchange: Exchange | None = None
        self._work: Work | None = None
        self._task: asyncio.Task[None] | None = None
        self._socket: Socket | None = None
        self._first = True
        self._began_s = self._loop.time()
        self._backlog_before = 0
        self._due_s = _NO_DEADLINE
        self._timer: asyncio.TimerHandle | None = None
        self._patience = acceptor.patience
        self.expect(self._patience.over_limit_s if over_limit else acceptor.handshake_timeout_s)
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done once the connection is over."""

    # What a socket needs.

    def write(self, data: bytes) -> None:
        """Send; what the kernel does not take waits in ``backlog_bytes``."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def backlog_bytes(self) -> int:
        """Return what the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def expect(self, seconds: float) -> None:
        """Expect the peer to have done its part within so many seconds; ``math.inf`` for ever."""
        self._due_s = self._loop.time() + seconds
        # A timer that is early looks again: to move one for every request would cost more than they do.
        if self._timer is None or self._timer.when() > self._due_s:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if seconds != _NO_DEADLINE:
                self._timer = self._loop.call_at(self._due_s, self._look_at_the_time)

    def hold(self) -> None:
        """Read no more, until ``release``."""
        self._held = True
        self._read_or_not()

    def release(self) -> None:
        """Read on."""
        self._held = False
        self._turn_soon()

    def finish(self, *, at_once: bool = False) -> None:
        """
        Send what waits, say that it was the last, and hang up when the peer does, or after a moment.

        Args:
            at_once: Hang up as soon as it is sent: the peer has said that nothing else will come.
        """
        if self._transport is None or self._state in (_State.LINGERING, _State.CLOSED):
            return
        self._state = _State.LINGERING
        self._buffer.clear()
        if at_once or self._eof or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()
        self._read_or_not()
        self._backlog_before = self.backlog_bytes()
        self.expect(self._patience.stalled_s if self._backlog_before else self._patience.linger_s)

    def abort(self) -> None:
        """Drop the connection and what is still to be sent on it."""
        self._is_unwanted = True
        if self._transport is not None:
            self._transport.abort()

    def end(self) -> None:
        """
        End a connection that waits for nothing; the gateway stops.

        One that has just been let in is not hung up on: its first request is on its way, and as the
        gateway stops, the answer to that is its last.
        """
        is_fresh = self._first and self._loop.time() - self._began_s < _FRESH_S
        if self._state is _State.BODY or (self._state is _State.HEAD and not is_fresh):
            self.finish()

    def never_opened(self) -> None:
        """Note that the connection ended before it began."""
        self.connection_lost(None)

    # What asyncio says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. See ``asyncio.BaseProtocol``."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._acceptor.connections.add(self)
        if self._is_unwanted:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what came: a probe is answered at once, all else goes through the buffer."""
        if self._state is _State.HEAD and not self._buffer and len(data) <= 1024:
            probe = PROBE.fullmatch(data)
            if probe is not None:
                self._answer_probe(probe["method"] == b"HEAD", probe["close"] is not None)
                return
        if self._state in (_State.LINGERING, _State.CLOSED):
            return
        if not self._buffer and self._state is _State.HEAD and not self._first:
            # The time between two requests is over, that of a request begins.
            self.expect(self._acceptor.handshake_timeout_s)
        self._buffer += data
        if not self._turn_due:
            self._turn()

    def eof_received(self) -> bool:
        """Note that the peer sends no more; it may still wait for answers."""
        self._eof = True
        if self._state is _State.LINGERING:
            return False
        if not self._turn_due:
            self._turn()
        return self._state is not _State.CLOSED

    def pause_writing(self) -> None:
        """Answer no more while the peer reads too slowly."""
        self._paused = True
        if self._state in (_State.HEAD, _State.BODY):
            self._backlog_before = self.backlog_bytes()
            self.expect(self._patience.stalled_s)
        self._read_or_not()

    def resume_writing(self) -> None:
        """Go on: the peer has caught up."""
        self._paused = False
        if self._state is _State.HEAD:
            self.expect(self._patience.keepalive_s)
        self._turn_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._buffer.clear()
        self.expect(_NO_DEADLINE)
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._socket is not None:
            self._socket.lost()
        self._acceptor.left(self)
        if not self.closed.done():
            self.closed.set_result(None)

    # One turn: so much of the buffer as may be looked at in one go.

    def _turn_soon(self) -> None:
        if not self._turn_due and self._state is not _State.CLOSED:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        left = _REQUESTS_IN_A_ROW
        while left and self._step():
            left -= 1
        if not left:
            self._turn_soon()
        self._read_or_not()

    def _read_or_not(self) -> None:
        """Read on only if what comes can be looked at."""
        if self._transport is None or self._transport.is_closing():
            return
        stop = (
            self._state is _State.ANSWERING
            or self._turn_due
            or self._held
            or (self._paused and self._state is not _State.SOCKET)
        ) and self._state is not _State.LINGERING
        if stop and self._transport.is_reading():
            self._transport.pause_reading()
        elif not stop and not self._transport.is_reading():
            self._transport.resume_reading()

    def _step(self) -> bool:
        """Do one thing with what is there; whether there may be another."""
        match self._state:
            case _State.HEAD if not self._paused:
                return self._read_head()
            case _State.BODY:
                return self._read_body()
            case _State.SOCKET if not self._held:
                return self._feed_socket()
            case _:
                return False

    def _fenced(self, request: Request) -> bool:
        """
        Drop the connection if its request may not be served any more.

        Timers alone can't see to that: after a SIGCONT the loop takes what came in meanwhile before it
        looks at the time. Health and metrics are answered all the same; they say that we are not ready.
        """
        if request.path in WATCHED_PATHS or not self._application.fenced():
            return False
        self.abort()
        return True

    def _feed_socket(self) -> bool:
        assert self._socket is not None
        if self._buffer:
            piece = bytes(self._buffer[:_PIECE_BYTES])
            del self._buffer[:_PIECE_BYTES]
            self._socket.receive(piece)
            if self._buffer:
                self._turn_soon()  # others first
            return False
        if self._eof:
            self._socket.receive_eof()
        return False

    def _read_head(self) -> bool:
        try:
            head = self._heads.take(self._buffer)
            if head is not None:
                exchange = Exchange(head, address=self.peer, date=self._acceptor.stamps.date)
                return self._begin(exchange)
        except UnreadableError as error:
            return self._refuse(error)
        if self._eof:
            self.finish()
        return False

    def _begin(self, exchange: Exchange) -> bool:
        """Decide on a request whose head has come."""
        self._acceptor.requests += 1
        self._first = False
        self._exchange, request = exchange, exchange.request
        exchange.must_close |= self._application.draining or bool(self.over_limit)
        if exchange.refused is not None:
            return self._answer(exchange.refused)
        if self._fenced(request):
            return False
        if self.over_limit and request.path not in WATCHED_PATHS:
            return self._answer(
                Response(503, f"too many connections ({self.over_limit})\n", close=True)
            )
        try:
            answer = self._application.answer(request, self)
        except Exception as failure:
            answer = self._failed(failure)
        if isinstance(answer, Upgrade):
            if not exchange.has_body:
                return self._switch(exchange, answer)
            answer = Response(400, "an upgrade has no body\n", close=True)
        if isinstance(answer, Work):
            return self._begin_work(exchange, answer)
        # What is not read is no request either.
        exchange.must_close |= exchange.has_body
        return self._answer(answer)

    def _begin_work(self, exchange: Exchange, work: Work) -> bool:
        self._work = work
        if not exchange.has_body or work.max_body_bytes is None:
            exchange.must_close |= exchange.has_body
            self._start_work(work, exchange.request)
            return False
        self.write(exchange.invite_body())
        self._state = _State.BODY
        if work.timeout_s is not None:
            self.expect(work.timeout_s)
        return True

    def _read_body(self) -> bool:
        exchange, work = self._exchange, self._work
        assert exchange is not None and work is not None
        piece = bytes(self._buffer[:_PIECE_BYTES])
        del self._buffer[:_PIECE_BYTES]
        try:
            body = exchange.take_body(piece, eof=self._eof, bound=work.max_body_bytes or 0)
        except UnreadableError as error:
            if isinstance(error, BodyTooLongError):
                self._acceptor.reached[work.limit] += 1
            return self._refuse(error)
        if body is None:
            return bool(self._buffer) or self._eof
        # It waits in the right order before what is here.
        self._buffer[:0] = exchange.left_over
        self._start_work(work, exchange.request._replace(body=body))
        return False

    def _start_work(self, work: Work, request: Request) -> None:
        self._state = _State.ANSWERING
        self.expect(_NO_DEADLINE)
        self._task = self._loop.create_task(self._run(work, request))

    async def _run(self, work: Work, request: Request) -> None:
        # The task begins later than its request was looked at, and a body may have taken its time.
        if self._fenced(request):
            return
        try:
            response = await work.run(request)
            if not isinstance(response, Response):
                raise TypeError(f"{type(response).__name__} is no Response")
        except Exception as failure:
            response = self._failed(failure)
        self._task = None
        if self._state is _State.ANSWERING:
            self._answer(response)
            self._turn_soon()

    def _failed(self, failure: BaseException) -> Response:
        assert self._exchange is not None
        self._application.failed(self._exchange.request, failure)
        return Response(500, "failed; the log says why\n", close=True)

    # Answers.

    def _answer_probe(self, is_head: bool, closes: bool) -> None:
        """Answer a liveness probe that came whole; it is as true at every limit, and counts like any request."""
        self._acceptor.requests += 1
        self._first = False
        close = closes or bool(self.over_limit) or self._application.draining
        self.write(self._acceptor.stamps.live(is_head, close))
        if close:
            self.finish(at_once=closes)
        else:
            self.expect(self._patience.keepalive_s)

    def _answer(self, response: Response) -> bool:
        """Send a response; whether another request may be looked at."""
        exchange = self._exchange
        assert exchange is not None
        exchange.must_close |= self._application.draining
        try:
            data = exchange.respond(response, marks=self._acceptor.stamps.marks)
        except UNSENDABLE as failure:
            data = exchange.respond(self._failed(failure), marks=self._acceptor.stamps.marks)
        self.write(data)
        if not exchange.may_continue:
            # Who asked for the end sends nothing else, unless it has already.
            at_once = exchange.peer_said_close and not exchange.must_close and not self._buffer
            self.finish(at_once=at_once)
            return False
        self._state = _State.HEAD
        self._exchange = self._work = None
        self.expect(
            self._acceptor.handshake_timeout_s if self._buffer else self._patience.keepalive_s
        )
        if self._paused:
            self.pause_writing()
        return True

    def _refuse(self, error: UnreadableError) -> bool:
        """Answer what can't be read as a request, and hang up."""
        self.write(refusal(error, date=self._acceptor.stamps.date()))
        self._acceptor.requests += 1
        self.finish()
        return False

    def _switch(self, exchange: Exchange, upgrade: Upgrade) -> bool:
        """Become a WebSocket."""
        self.write(exchange.switch(upgrade.accept, marks=self._acceptor.stamps.marks))
        self._state = _State.SOCKET
        self._exchange = self._work = None
        # The handshake has its whole time from here: the connection may have served requests before.
        self.expect(self._acceptor.handshake_timeout_s)
        self._socket = upgrade.begin(self)
        return True

    # Time.

    def _look_at_the_time(self) -> None:
        self._timer = None
        if self._due_s == _NO_DEADLINE:
            return
        if self._loop.time() < self._due_s:
            self._timer = self._loop.call_at(self._due_s, self._look_at_the_time)
            return
        self._due_s = _NO_DEADLINE
        backlog = self.backlog_bytes()
        if self._state is not _State.SOCKET and backlog and backlog < self._backlog_before:
            self._backlog_before = backlog
            self.expect(self._patience.stalled_s)
            return
        match self._state:
            case _State.SOCKET:
                assert self._socket is not None
                self._socket.expire()
            case _State.HEAD if not self._first and not self._buffer and not self._paused:
                self.finish()  # it idled
            case _:
                waited = self._state in (_State.HEAD, _State.BODY) and not self._paused
                if waited and not self.over_limit:
                    self._acceptor.reached["handshake_timeout_s"] += 1
                self.abort()
