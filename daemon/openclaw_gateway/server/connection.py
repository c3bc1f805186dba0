"""One connection: HTTP by h11 until the peer upgrades, and every bound on what it may cost.

h11 reads and writes HTTP without any input or output of its own; here is the input and output. One
request is answered at a time, and nothing is read meanwhile: who sends more than it lets us answer waits
in the kernel's buffers, not in ours.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

import h11

from openclaw_gateway.server.message import (
    HEALTH_PATHS,
    MAX_HEAD_BYTES,
    PROBE,
    Headers,
    Request,
    Response,
    head_problem,
    split_target,
)
from openclaw_gateway.server.proxies import network
from openclaw_gateway.server.stamps import SECURITY, Stamps, reason

_KEEPALIVE_S = 10.0
"""Seconds that a connection may idle between two HTTP requests."""

_OVER_LIMIT_S = 2.0
"""Seconds that a connection beyond the limits has for its request."""

_LINGER_S = 1.0
"""Seconds that we read on after the last answer: to hang up on unread bytes would reset the connection,
and the answer could be lost with it. RFC 9112, section 9.6."""

_STALLED_S = 10.0
"""Seconds within which a peer must read some of what it asked for."""

_PIECE_BYTES = 16 << 10
"""So much of what a peer sent is looked at in one go, before the event loop gets to do something else."""
_REQUESTS_IN_A_ROW = 16
"""Pipelined requests answered in one go."""

_OVERHEAD = 4
"""A chunked body may take so many times its bound on the wire, for the sizes between its chunks."""

_NO_DEADLINE = math.inf

_OURS = frozenset(
    b"content-length transfer-encoding connection date".split()
    + [name.lower() for name, _ in SECURITY]
)
"""Header fields of a response that are never a handler's to set."""


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


class Owner(Protocol):
    """
    Whoever accepted a connection, and counts it.

    Attributes:
        reached: How often each limit was reached.
        requests: HTTP requests since the start.
        stamps: For the heads of answers.
        connections: Every one that is open.
    """

    reached: Counter[str]
    requests: int
    stamps: Stamps
    connections: set[Connection]

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
        self._checked_bytes = 0
        self._eof = self._paused = self._held = self._turn_due = self._is_unwanted = False
        self._http: h11.Connection | None = None
        self._request: Request | None = None
        self._work: Work | None = None
        self._body = bytearray()
        self._wire_bytes = 0
        self._close_after = False
        self._task: asyncio.Task[None] | None = None
        self._socket: Socket | None = None
        self._first = True
        self._backlog_before = 0
        self._due_s = _NO_DEADLINE
        self._timer: asyncio.TimerHandle | None = None
        self.expect(_OVER_LIMIT_S if over_limit else acceptor.handshake_timeout_s)
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
        self.expect(_STALLED_S if self._backlog_before else _LINGER_S)

    def abort(self) -> None:
        """Drop the connection and what is still to be sent on it."""
        self._is_unwanted = True
        if self._transport is not None:
            self._transport.abort()

    def end(self) -> None:
        """End a connection that waits for nothing; the gateway stops."""
        if self._state in (_State.HEAD, _State.BODY):
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
            self.expect(_STALLED_S)
        self._read_or_not()

    def resume_writing(self) -> None:
        """Go on: the peer has caught up."""
        self._paused = False
        if self._state is _State.HEAD:
            self.expect(_KEEPALIVE_S)
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
        if self._buffer.startswith(b"\r\n"):  # RFC 9112, section 2.2: one empty line is passed over
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
        if end < 4:
            if len(self._buffer) >= MAX_HEAD_BYTES:
                self._refuse(431, f"the request's head has more than {MAX_HEAD_BYTES} bytes")
            elif problem := self._early_problem():
                self._refuse(400, problem)
            elif self._eof:
                self.finish()
            return False
        head = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._checked_bytes = 0
        problem = head_problem(head)
        if problem:
            self._refuse(431 if problem.startswith("more than 1") else 400, problem)
            return False
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            self._http.receive_data(head)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            # Its text quotes the peer.
            self._refuse(error.error_status_hint or 400, "this is no HTTP request")
            return False
        if not isinstance(event, h11.Request):
            self._refuse(400, "this is no HTTP request")
            return False
        return self._begin(event)

    def _early_problem(self) -> str:
        """
        Look at the lines of a head that have come whole, so that what is no HTTP is told so at once.

        Only when there is a new one: else who sends byte by byte makes us look at all of them each time.
        """
        whole_bytes = self._buffer.rfind(b"\n") + 1
        if whole_bytes <= self._checked_bytes:
            return ""
        self._checked_bytes = whole_bytes
        return head_problem(bytes(self._buffer[:whole_bytes]))

    def _begin(self, event: h11.Request) -> bool:
        """Decide on a request whose head has come."""
        self._acceptor.requests += 1
        self._first = False
        headers = Headers(
            (name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers
        )
        is_chunked = "transfer-encoding" in headers
        has_body = is_chunked or headers.get("content-length", "").strip("0") != ""
        # Chunks are read leniently by too many programs for another request to be looked for behind them.
        self._close_after = is_chunked or self._application.draining or bool(self.over_limit)
        method, raw_target = event.method.decode("ascii"), event.target.decode("ascii")
        self._request = Request(method, raw_target, "", headers, address=self.peer)
        if not event.http_version.startswith(b"1."):
            return self._answer(Response(505, "HTTP/1.1 only\n", close=True))
        if event.http_version == b"1.0":  # it can't be upgraded; RFC 9110, section 7.8
            headers = Headers((n, v) for n, v in headers.items() if n != "upgrade")
        target = split_target(raw_target, headers.get("host", ""))
        if target is None:
            return self._answer(Response(400, "the target is no path of ours\n", close=True))
        path, query, host = target
        if host != headers.get("host", ""):
            headers = Headers(
                [*((n, v) for n, v in headers.items() if n != "host"), ("host", host)]
            )
        self._request = request = self._request._replace(
            path=path, query_string=query, headers=headers
        )
        if self.over_limit and path not in HEALTH_PATHS:
            return self._answer(
                Response(503, f"too many connections ({self.over_limit})\n", close=True)
            )
        try:
            answer = self._application.answer(request, self)
        except Exception as failure:
            answer = self._failed(failure)
        if isinstance(answer, Upgrade) and not has_body:
            return self._switch(answer)
        if isinstance(answer, Upgrade):
            answer = Response(400, "an upgrade has no body\n", close=True)
        if isinstance(answer, Work):
            return self._begin_work(answer, has_body=has_body)
        # What is not read is no request either.
        self._close_after |= has_body
        return self._answer(answer)

    def _begin_work(self, work: Work, *, has_body: bool) -> bool:
        assert self._http is not None
        self._work = work
        self._body.clear()
        self._wire_bytes = 0
        if has_body and work.max_body_bytes is not None:
            if self._http.they_are_waiting_for_100_continue:
                self.write(self._sent(h11.InformationalResponse(status_code=100, headers=[])))
            self._state = _State.BODY
            if work.timeout_s is not None:
                self.expect(work.timeout_s)
            return True
        self._close_after |= has_body
        self._start_work()
        return False

    def _read_body(self) -> bool:
        assert self._http is not None and self._work is not None
        bound = self._work.max_body_bytes or 0
        piece = bytes(self._buffer[:_PIECE_BYTES])
        del self._buffer[:_PIECE_BYTES]
        self._wire_bytes += len(piece)
        try:
            if piece or self._eof:
                self._http.receive_data(piece)
            event = self._http.next_event()
            while isinstance(event, h11.Data) and len(self._body) <= bound:
                self._body += event.data
                event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint or 400, "the request's body is malformed")
            return False
        if len(self._body) > bound or self._wire_bytes > _OVERHEAD * bound + MAX_HEAD_BYTES:
            self._acceptor.reached[self._work.limit] += 1
            self._refuse(413, f"the request's body has more than {bound} bytes")
            return False
        if isinstance(event, h11.EndOfMessage):
            # What follows is another request's, and waits in the right order before what is here.
            self._buffer[:0] = self._http.trailing_data[0]
            self._start_work()
            return False
        return bool(self._buffer) or self._eof

    def _start_work(self) -> None:
        assert self._request is not None and self._work is not None
        self._state = _State.ANSWERING
        self.expect(_NO_DEADLINE)
        request = self._request._replace(body=bytes(self._body))
        self._body.clear()
        self._task = self._loop.create_task(self._run(self._work, request))

    async def _run(self, work: Work, request: Request) -> None:
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
        assert self._request is not None
        self._application.failed(self._request, failure)
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
            self.expect(_KEEPALIVE_S)

    def _answer(self, response: Response) -> bool:
        """Send a response; whether another request may be looked at."""
        assert self._http is not None and self._request is not None
        self._close_after |= self._application.draining
        try:
            data = self._rendered(response)
        except (h11.LocalProtocolError, TypeError, ValueError, AttributeError) as failure:
            data = self._rendered(self._failed(failure))
        self.write(data)
        if self._http.our_state is not h11.DONE or self._close_after or response.close:
            said_so = self._request.headers.get("connection", "").lower() == "close"
            self.finish(at_once=said_so and not self._close_after and not self._buffer)
            return False
        self._state = _State.HEAD
        self._http = self._request = self._work = None
        self.expect(self._acceptor.handshake_timeout_s if self._buffer else _KEEPALIVE_S)
        if self._paused:
            self.pause_writing()
        return True

    def _rendered(self, response: Response) -> bytes:
        """Return a response's bytes. Raises what says that it can't be sent."""
        if not isinstance(response.status, int) or not 200 <= response.status <= 599:
            raise ValueError(f"status {response.status!r} is none of a response")
        body, kind = response.body, b"application/octet-stream"
        if isinstance(body, str):
            body, kind = body.encode("utf-8"), b"text/plain; charset=utf-8"
        if not isinstance(body, bytes):
            raise TypeError(f"a body of {type(body).__name__}")
        fields = [
            (name.encode("ascii"), value.encode("latin-1"))
            for name, value in response.headers.items()
        ]
        for name, _ in fields:
            if name.lower() in _OURS:
                raise ValueError(f"header field {name.decode()} is the server's to set")
        if all(name.lower() != b"content-type" for name, _ in fields):
            fields.append((b"Content-Type", kind))
        fields += [
            (b"Content-Length", b"%d" % len(body)),
            (b"Date", self._acceptor.stamps.date()),
            *SECURITY,
        ]
        if response.close or self._close_after:
            fields.append((b"Connection", b"close"))
        data = self._sent(
            h11.Response(
                status_code=response.status, headers=fields, reason=reason(response.status)
            )
        )
        assert self._request is not None
        bodiless = self._request.method == "HEAD" or response.status in (204, 304)
        if body and not bodiless:
            data += self._sent(h11.Data(data=body))
        return data + self._sent(h11.EndOfMessage())

    def _sent(self, event: Any) -> bytes:
        assert self._http is not None
        return self._http.send(event) or b""

    def _refuse(self, status: int, problem: str) -> None:
        """Answer what can't be read as a request, and hang up."""
        body = f"{problem}\n".encode("ascii")
        fields = (
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", b"%d" % len(body)),
            (b"Date", self._acceptor.stamps.date()),
            *SECURITY,
            (b"Connection", b"close"),
        )
        lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.write(b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, reason(status), lines, body))
        self._acceptor.requests += 1
        self.finish()

    def _switch(self, upgrade: Upgrade) -> bool:
        """Become a WebSocket. RFC 6455, section 4.2.2."""
        fields = (
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", upgrade.accept.encode("ascii")),
            (b"Date", self._acceptor.stamps.date()),
            *SECURITY,
        )
        self.write(
            self._sent(
                h11.InformationalResponse(
                    status_code=101, headers=list(fields), reason=b"Switching Protocols"
                )
            )
        )
        self._state = _State.SOCKET
        self._http = self._request = self._work = None
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
            self.expect(_STALLED_S)
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
