"""One HTTP request and the bytes of its answer, read and written by h11 without any input or output.

Whoever has the socket cuts the request's head off what came (``HeadReader``), makes an ``Exchange`` of it,
hands in the body piece by piece if it wants one, and sends what ``respond`` or ``switch`` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import h11

from openclaw_gateway.server.message import (
    MAX_HEAD_BYTES,
    Headers,
    Request,
    Response,
    head_problem,
    split_target,
)
from openclaw_gateway.server.stamps import SECURITY, reason

Fields = tuple[tuple[bytes, bytes], ...]

_OVERHEAD = 4
"""A chunked body may take so many times its bound on the wire, for the sizes between its chunks."""

_OURS = frozenset(
    b"content-length transfer-encoding connection date openclaw-fencing-token".split()
    + [name.lower() for name, _ in SECURITY]
) - {b"cache-control"}
"""Header fields of a response that are never a handler's to set."""

UNSENDABLE = (h11.LocalProtocolError, TypeError, ValueError, AttributeError)
"""What ``Exchange.respond`` raises for a response that a handler made wrongly."""


class UnreadableError(Exception):
    """
    What came can't be read as a request, and nothing behind it either: to be refused, and hung up on.

    Attributes:
        status: To answer with.
        problem: A sentence for the peer, without any of its bytes.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(status, problem)
        self.status, self.problem = status, problem


class BodyTooLongError(UnreadableError):
    """A request's body is longer than its bound."""

    def __init__(self, bound: int) -> None:
        super().__init__(413, f"the request's body has more than {bound} bytes")


class HeadReader:
    """Cuts requests' heads off what came, and refuses at once what can't become one."""

    def __init__(self) -> None:
        self._checked_bytes = 0

    def take(self, buffer: bytearray) -> bytes | None:
        """
        Cut off the head that stands first.

        Args:
            buffer: What came and has not been looked at; the head is removed from it.

        Returns:
            From the request line to the blank line, both included; ``None`` while more must come.

        Raises:
            UnreadableError: It is too long, malformed, or no HTTP.
        """
        if buffer.startswith(b"\r\n"):  # RFC 9112, section 2.2: one empty line is passed over
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
        if end >= 4:
            head = bytes(buffer[:end])
            del buffer[:end]
            self._checked_bytes = 0
            _check(head)
            return head
        if len(buffer) >= MAX_HEAD_BYTES:
            raise UnreadableError(431, f"the request's head has more than {MAX_HEAD_BYTES} bytes")
        # What is no HTTP is told so before it ends. Only when there is a new whole line: else who
        # sends byte by byte makes us look at all of them each time.
        whole_bytes = buffer.rfind(b"\n") + 1
        if whole_bytes > self._checked_bytes:
            self._checked_bytes = whole_bytes
            _check(bytes(buffer[:whole_bytes]))
        return None


def _check(head: bytes) -> None:
    problem = head_problem(head)
    if problem is not None:
        raise UnreadableError(*problem)


class Exchange:
    """
    One request and its answer.

    Attributes:
        request: Without its body. Its target is split, and an absolute target's host stands in ``Host``.
        refused: The answer to a head that can be read and not served: another version, a target that is
            no path. ``None`` for all others.
        has_body: Whether a body follows.
        must_close: Whether the connection ends with the answer; to be set by whoever knows a reason.
    """

    def __init__(self, head: bytes, *, address: str, date: Callable[[], bytes]) -> None:
        """
        Read a request's head.

        Args:
            head: As ``HeadReader.take`` returned it.
            address: The peer's IP literal.
            date: Returns the ``Date`` of an answer.

        Raises:
            UnreadableError: It is no HTTP request.
        """
        self._date = date
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._body = bytearray()
        self._wire_bytes = 0
        try:
            self._http.receive_data(head)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            # Its text quotes the peer.
            raise UnreadableError(
                error.error_status_hint or 400, "this is no HTTP request"
            ) from None
        if not isinstance(event, h11.Request):
            raise UnreadableError(400, "this is no HTTP request")
        headers = Headers(
            (name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers
        )
        is_chunked = "transfer-encoding" in headers
        self.has_body = is_chunked or headers.get("content-length", "").strip("0") != ""
        # Chunks are read leniently by too many programs for another request to be looked for behind them.
        self.must_close = is_chunked
        self.refused: Response | None = None
        method, raw_target = event.method.decode("ascii"), event.target.decode("ascii")
        self.request = Request(method, raw_target, "", headers, address=address)
        if not event.http_version.startswith(b"1."):
            self.refused = Response(505, "HTTP/1.1 only\n", close=True)
            return
        if event.http_version == b"1.0":  # it can't be upgraded; RFC 9110, section 7.8
            headers = Headers((n, v) for n, v in headers.items() if n != "upgrade")
        target = split_target(raw_target, headers.get("host", ""))
        if target is None:
            self.refused = Response(400, "the target is no path of ours\n", close=True)
            return
        path, query, host = target
        if host != headers.get("host", ""):
            headers = Headers(
                [*((n, v) for n, v in headers.items() if n != "host"), ("host", host)]
            )
        self.request = self.request._replace(path=path, query_string=query, headers=headers)

    # The body.

    def invite_body(self) -> bytes:
        """Return what a peer that waits for our word before its body must be sent. RFC 9110, section 10.1.1."""
        if not self._http.they_are_waiting_for_100_continue:
            return b""
        return self._sent(
            h11.InformationalResponse(status_code=100, headers=[], reason=reason(100))
        )

    def take_body(self, piece: bytes, *, eof: bool, bound: int) -> bytes | None:
        """
        Take the next piece of the body.

        Args:
            piece: What came next; empty once there is nothing left, which with ``eof`` is the end.
            eof: Whether nothing else will come.
            bound: How many bytes the body may have.

        Returns:
            The whole body once it is there, ``None`` before. What came behind it is ``left_over`` then.

        Raises:
            BodyTooLongError: It is longer than ``bound``, or takes too many bytes on the wire.
            UnreadableError: It is malformed, or ends too early.
        """
        self._wire_bytes += len(piece)
        try:
            if piece or eof:
                self._http.receive_data(piece)
            event = self._http.next_event()
            while isinstance(event, h11.Data) and len(self._body) <= bound:
                self._body += event.data
                event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise UnreadableError(
                error.error_status_hint or 400, "the request's body is malformed"
            ) from None
        if len(self._body) > bound or self._wire_bytes > _OVERHEAD * bound + MAX_HEAD_BYTES:
            raise BodyTooLongError(bound)
        return bytes(self._body) if isinstance(event, h11.EndOfMessage) else None

    @property
    def left_over(self) -> bytes:
        """What came behind the body: the next request's."""
        return bytes(self._http.trailing_data[0])

    # The answer.

    @property
    def may_continue(self) -> bool:
        """Whether, after the answer, another request may be looked at on this connection."""
        return self._http.our_state is h11.DONE and not self.must_close

    @property
    def peer_said_close(self) -> bool:
        """Whether the peer has said that this is its last request."""
        return self.request.headers.get("connection", "").lower() == "close"

    def respond(self, response: Response, *, marks: Fields = ()) -> bytes:
        """
        Return a response's bytes.

        Args:
            response: It.
            marks: Header fields of every answer, beside those that never change.

        Raises:
            UNSENDABLE: It can't be sent as its handler made it; another one still can.
        """
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
        given = {name.lower() for name, _ in fields}
        if b"content-type" not in given:
            fields.append((b"Content-Type", kind))
        fields += [
            (b"Content-Length", b"%d" % len(body)),
            (b"Date", self._date()),
            *(field for field in SECURITY if field[0].lower() not in given),
            *marks,
        ]
        if response.close or self.must_close:
            fields.append((b"Connection", b"close"))
        data = self._sent(
            h11.Response(
                status_code=response.status, headers=fields, reason=reason(response.status)
            )
        )
        bodiless = self.request.method == "HEAD" or response.status in (204, 304)
        if body and not bodiless:
            data += self._sent(h11.Data(data=body))
        return data + self._sent(h11.EndOfMessage())

    def switch(self, accept: str, *, marks: Fields = ()) -> bytes:
        """Return the answer that makes the connection a WebSocket. RFC 6455, section 4.2.2."""
        fields = (
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", accept.encode("ascii")),
            (b"Date", self._date()),
            *SECURITY,
            *marks,
        )
        return self._sent(
            h11.InformationalResponse(
                status_code=101, headers=list(fields), reason=b"Switching Protocols"
            )
        )

    def _sent(self, event: Any) -> bytes:
        return self._http.send(event) or b""


def refusal(error: UnreadableError, *, date: bytes) -> bytes:
    """Return the answer to what can't be read as a request; the connection ends with it."""
    body = f"{error.problem}\n".encode("ascii")
    fields: Iterable[tuple[bytes, bytes]] = (
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Date", date),
        *SECURITY,
        (b"Connection", b"close"),
    )
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (error.status, reason(error.status), lines, body)
