"""A conversation with a gateway over a WebSocket: one question after the other, on a plain blocking socket.

HTTP by h11, frames by websockets' core, both without any input or output of their own: no event loop is
loaded for one question.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import h11

from openclaw_gateway.client.frames import Core, Frame, Opcode, Side, State

_MAX_MESSAGE_BYTES = 1 << 28
_MAX_HEAD_BYTES = 64 << 10
_CHUNK_BYTES = 64 << 10


class ConversationError(Exception):
    """
    The conversation can't go on.

    Attributes:
        problem: What is wrong, in words for people.
        connected: Whether there was a listener at all.
    """

    def __init__(self, problem: str, *, connected: bool = True) -> None:
        super().__init__(problem)
        self.problem, self.connected = problem, connected


class AnsweredError(Exception):
    """The gateway answered a question with an error. ``shape`` is the protocol's, as it came."""

    def __init__(self, shape: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape = shape


class Conversation:
    """Questions and answers, one after the other. Made by ``begun``."""

    def __init__(self, connection: socket.socket, *, deadline_s: float) -> None:
        self._connection, self._deadline_s = connection, deadline_s
        self._core = Core(Side.CLIENT, state=State.OPEN, max_size=_MAX_MESSAGE_BYTES)
        self._parts = bytearray()
        self._messages: list[bytes] = []
        self._asked = 0

    def event(self, name: str) -> dict[str, Any]:
        """
        Wait for an event, and pass over everything before it.

        Raises:
            ConversationError: The gateway closed, or says what is none of the protocol's.
            TimeoutError: The time is up.
        """
        while True:
            frame = self._frame()
            if frame.get("event") == name:
                return frame

    def ask(self, method: str, params: object) -> Any:
        """
        Ask, and return the payload of the answer.

        Args:
            method: Such as ``status``.
            params: JSON; ``None`` sends none.

        Raises:
            AnsweredError: The answer is an error.
            ConversationError: See ``event``.
            TimeoutError: See ``event``.
        """
        self._asked += 1
        request: dict[str, object] = {"type": "req", "id": str(self._asked), "method": method}
        if params is not None:
            request["params"] = params
        self._core.send_text(json.dumps(request).encode("ascii"))
        self._flush()
        frame = self._frame()
        while frame.get("id") != request["id"]:
            frame = self._frame()
        if frame.get("ok") is True:
            return frame.get("payload")
        error = frame.get("error")
        raise AnsweredError(error if isinstance(error, dict) else {})

    def take(self, data: bytes) -> None:
        """Take bytes that came along with the answer to the upgrade."""
        self._core.receive_data(data)
        for frame in self._core.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._parts += frame.data
                if frame.fin:
                    self._messages.append(bytes(self._parts))
                    self._parts.clear()
        self._flush()

    def _frame(self) -> dict[str, Any]:
        while not self._messages:
            data = _receive(self._connection, self._deadline_s)
            if data:
                self.take(data)
            if not data or (self._core.close_rcvd and not self._messages):
                received = self._core.close_rcvd
                code = f" with {received.code}" if received else ""
                raise ConversationError(f"closed{code}")
        try:
            frame = json.loads(self._messages.pop(0))
        except (ValueError, RecursionError):
            frame = None
        if not isinstance(frame, dict):
            raise ConversationError("this does not speak the gateway protocol")
        return frame

    def _flush(self) -> None:
        for piece in self._core.data_to_send():
            if piece:
                _send(self._connection, piece, self._deadline_s)


@contextmanager
def begun(url: str, *, timeout_s: float, fingerprint: str | None = None) -> Iterator[Conversation]:
    """
    Connect to a gateway and upgrade; the greeting is yet to be read.

    No redirect is followed and no proxy used.

    Args:
        url: ``ws://host:port`` or ``wss://host:port``.
        timeout_s: Seconds for the whole conversation, connecting included.
        fingerprint: SHA-256 of the certificate that a ``wss`` gateway must show, 64 hexadecimal digits in
            lower case; without it, one that the machine's certificates vouch for.

    Raises:
        ConversationError: Nobody answers there, or not with an upgrade.
        TimeoutError: The time is up.
    """
    deadline_s = time.monotonic() + timeout_s
    parts = urlsplit(url)
    is_secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if is_secure else 80)
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    except TimeoutError:
        raise
    except OSError as error:
        raise ConversationError(_reason(error), connected=False) from None
    with connection:
        if is_secure:
            connection = _secured(connection, host, fingerprint, deadline_s)
        with connection:
            try:
                rest = _upgrade(
                    connection, parts.netloc.rpartition("@")[2], parts.path or "/", deadline_s
                )
                conversation = Conversation(connection, deadline_s=deadline_s)
                if rest:
                    conversation.take(rest)
                yield conversation
            except TimeoutError:
                raise
            except OSError as error:
                raise ConversationError(_reason(error)) from None


def _secured(
    connection: socket.socket, host: str, fingerprint: str | None, deadline_s: float
) -> socket.socket:
    import ssl

    from openclaw_gateway.client.health import trusting_context

    connection.settimeout(_left_s(deadline_s))
    # A certificate that is known needs nobody to vouch for it.
    context = ssl.create_default_context() if fingerprint is None else trusting_context()
    try:
        secured = context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLError as error:
        raise ConversationError(f"TLS: {error.reason or error}", connected=False) from None
    shown = fingerprint_of(secured.getpeercert(binary_form=True) or b"")
    if fingerprint not in (None, shown):
        secured.close()
        raise ConversationError(
            f"its certificate is another one than expected: its fingerprint is {shown}",
            connected=False,
        )
    return secured


def fingerprint_of(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate in DER, 64 hexadecimal digits in lower case."""
    from hashlib import sha256

    return sha256(certificate).hexdigest()


def _upgrade(connection: socket.socket, host: str, path: str, deadline_s: float) -> bytes:
    """Ask for the WebSocket, and return what came after the answer. RFC 6455, section 4.1."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    fields = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    _send(connection, http.send(h11.Request(method="GET", target=path, headers=fields)), deadline_s)
    _send(connection, http.send(h11.EndOfMessage()), deadline_s)
    try:
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(_receive(connection, deadline_s))
    except h11.RemoteProtocolError:
        raise ConversationError("this is no HTTP server") from None
    if not isinstance(event, h11.InformationalResponse | h11.Response):
        raise ConversationError("closed before the upgrade")
    if event.status_code != 101:
        raise ConversationError(f"the upgrade was refused with HTTP {event.status_code}")
    return http.trailing_data[0]


def _send(connection: socket.socket, data: bytes | None, deadline_s: float) -> None:
    if data:
        connection.settimeout(_left_s(deadline_s))
        connection.sendall(data)


def _receive(connection: socket.socket, deadline_s: float) -> bytes:
    connection.settimeout(_left_s(deadline_s))
    return connection.recv(_CHUNK_BYTES)


def _left_s(deadline_s: float) -> float:
    """Return the seconds left. Raises ``TimeoutError`` if there are none: 0 would mean not to wait."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
