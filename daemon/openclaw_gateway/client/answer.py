"""One question over HTTP without a socket: what to send, when the answer is whole, what it means; pure.

RFC 9112. Bounded: of an answer at most ``MAX_HEAD_BYTES`` and ``MAX_BODY_BYTES`` are kept, whoever
sends more of either is no gateway. Redirects are answers, and are not followed.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import NamedTuple

from openclaw_gateway.protocol.role import Role


class Health(StrEnum):
    """What a probe of a port found; the words stand in messages."""

    HEALTHY = "a healthy gateway"
    STARTING = "a gateway that is starting"
    REFUSED = "nothing listening"
    MUTE = "a listener that does not answer"
    FOREIGN = "a program that is not a gateway"
    UNKNOWN = "something that could not be probed"


class Readiness(NamedTuple):
    """What a gateway says at ``/readyz``."""

    ready: bool
    failing: tuple[str, ...]
    """What keeps it from being ready; told to local callers only."""
    role: Role | None = None
    """Its part in a cluster; likewise."""


LIVE = b'{"ok":true,"status":"live"}'
"""What a healthy gateway answers at ``/healthz``, to the letter."""

HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"

MAX_HEAD_BYTES = 16384
MAX_BODY_BYTES = 4096

_MAX_REASONS = 8
_TLS_RECORDS = (0x15, 0x16)
"""First byte of a TLS alert and of a handshake message. RFC 8446, section 5.1."""


def judge(status: int, body: bytes) -> Health:
    """
    Say what an answer to ``GET /healthz`` means.

    Args:
        status: HTTP's.
        body: At most ``MAX_BODY_BYTES`` of it count: a longer one is no gateway's.

    Returns:
        ``HEALTHY`` for 200 and what ``LIVE`` means, ``STARTING`` for a gateway's 503, else ``FOREIGN``.
    """
    answer = _parsed(body)
    if not isinstance(answer, dict):
        return Health.FOREIGN
    # 1 equals true in Python, and isn't what a gateway answers.
    if status == 200 and answer == json.loads(LIVE) and answer["ok"] is True:
        return Health.HEALTHY
    if status == 503 and answer.get("status") in ("starting", "draining"):
        return Health.STARTING
    return Health.FOREIGN


def readiness(status: int, body: bytes) -> Readiness | None:
    """
    Say what an answer to ``GET /readyz`` means.

    Args:
        status: HTTP's.
        body: As for ``judge``.

    Returns:
        ``None`` if it is no gateway's answer.
    """
    if status not in (200, 503):
        return None
    answer = _parsed(body)
    answer = answer if isinstance(answer, dict) else {}
    reasons = answer.get("failing")
    if not isinstance(reasons, list):
        return Readiness(status == 200, ())
    # A peer's words: printable ones, and not too many.
    texts = [str(reason)[:64] for reason in reasons[:_MAX_REASONS]]
    failing = tuple(text for text in texts if text.isprintable())
    return Readiness(status == 200, failing, _role(answer.get("cluster")))


def _role(told: object) -> Role | None:
    """Read what a gateway says of its part in a cluster; ``None`` if it says nothing that can be read."""
    if not isinstance(told, dict):
        return None
    texts = [told.get(key) for key in ("name", "holder", "url", "reason")]
    numbers = [told.get(key) for key in ("token", "sinceMs")]
    active = told.get("active")
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        return None
    if not all(number is None or type(number) is int for number in numbers):
        return None
    if not isinstance(active, bool):
        return None
    name, holder, url, reason = (str(text)[:256] for text in texts)
    return Role(name, active, holder, url, told.get("token"), told.get("sinceMs"), reason)


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body) if len(body) <= MAX_BODY_BYTES else None
    except (ValueError, RecursionError):
        return None


class Exchange:
    """
    One request and its answer: send ``request``, ``feed`` what arrives until that says ``True``.

    Attributes:
        request: The bytes to send.
        status: HTTP's, once the answer is whole; ``None`` if it never was, or was no HTTP.
        body: At most one byte more than ``MAX_BODY_BYTES`` of it.
        heard: Whether anything came.
    """

    def __init__(self, host: str, port: int, path: str) -> None:
        """
        Write the request.

        Args:
            host: IP literal or name, in ASCII.
            port: 1 to 65535.
            path: Begins with a slash.
        """
        literal = f"[{host}]" if ":" in host else host
        self.request = (
            f"GET {path} HTTP/1.1\r\nHost: {literal}:{port}\r\n"
            "Accept: application/json\r\nConnection: close\r\n\r\n"
        ).encode("ascii")
        self.status: int | None = None
        self.body = b""
        self._received = bytearray()
        self._head: _Head | None = None

    @property
    def heard(self) -> bool:
        """Whether anything came."""
        return bool(self._received) or self._head is not None

    def feed(self, data: bytes) -> bool:
        """
        Take what arrived.

        Args:
            data: Bytes as they come; ``b""`` if the peer will send no more.

        Returns:
            Whether nothing more is wanted: the answer is whole, too long, or none.
        """
        searched = max(0, len(self._received) - 3)  # an end may come in two pieces
        self._received += data
        # A head may come alone: that its body has not come yet is no end.
        at_end = not data
        while self._head is None:
            # An answer that begins otherwise is no HTTP, and won't become any.
            if not self._received.startswith(b"HTTP/1."[: len(self._received)]):
                return True
            end = self._received.find(b"\r\n\r\n", searched)
            if end < 0:
                return at_end or len(self._received) > MAX_HEAD_BYTES
            head = _parse_head(bytes(self._received[:end]))
            if head is None:
                return True
            del self._received[: end + 4]
            searched = 0
            # Interim answers precede the one that counts. RFC 9110, section 15.2.
            if head.status == 101 or not 100 <= head.status < 200:
                self._head = head
        return self._take_body(self._head, at_end=at_end)

    def _take_body(self, head: _Head, *, at_end: bool) -> bool:
        if head.chunked:
            body, whole = _joined(bytes(self._received))
        else:
            body = bytes(self._received)
            whole = at_end if head.length is None else len(body) >= head.length
            body = body[: head.length]
        too_long = len(body) > MAX_BODY_BYTES
        if whole or too_long:
            self.status, self.body = head.status, body[: MAX_BODY_BYTES + 1]
        return whole or too_long or at_end

    @property
    def speaks_tls(self) -> bool:
        """
        Whether this looks like a listener that wants TLS, to be asked once the exchange is over.

        They close the connection, send an alert, or say so in an HTTP of their own (status 400 and
        the word HTTPS, or a redirect to it).
        """
        if self.status is None:
            return not self._received or self._received[0] in _TLS_RECORDS
        if self.status == 400:
            return b"https" in self.body.lower()
        return self._head is not None and self._head.leads_to_https


class _Head(NamedTuple):
    status: int
    length: int | None
    chunked: bool
    leads_to_https: bool


def _parse_head(head: bytes) -> _Head | None:
    """Read a status line and the fields that matter to us; ``None`` if it is no HTTP. RFC 9112, section 4."""
    first, *lines = head.split(b"\r\n")
    words = first.split(None, 2)
    if len(words) < 2 or len(words[1]) != 3 or not words[1].isdigit():
        return None
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip().lower()
    status, length = int(words[1]), fields.get(b"content-length", b"")
    redirect = 300 <= status < 400 and fields.get(b"location", b"").startswith(b"https:")
    return _Head(
        status,
        # No body, whatever the fields say. RFC 9112, section 6.3.
        0 if status in (101, 204, 304) else int(length[:10]) if length.isdigit() else None,
        fields.get(b"transfer-encoding") == b"chunked",
        redirect,
    )


def _joined(data: bytes) -> tuple[bytes, bool]:
    """Return what has come of a body in chunks, and whether it is whole. RFC 9112, section 7.1."""
    body, at = b"", 0
    while True:
        end = data.find(b"\r\n", at)
        size = data[at:end].partition(b";")[0].strip() if end >= 0 else b""
        if end < 0 or not size or len(size) > 8 or not set(size) <= set(b"0123456789abcdefABCDEF"):
            return body, False
        length = int(size, 16)
        if length == 0:
            return body, True
        body += data[end + 2 : end + 2 + length]
        at = end + 2 + length + 2
        if at > len(data):
            return body, False
