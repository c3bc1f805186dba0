"""What a listener answers, asked without an HTTP library: ``status`` has 0.3 s, and loading one takes a third of it.

The judgement is the claim's own; only the transport differs. HTTP/1.0 keeps that small: a server
may not answer it in chunks (RFC 9112, section 6.1) and closes when it is done.
"""

from __future__ import annotations

import json
import socket
import time
from typing import NamedTuple

from openclaw_gateway.client.answer import MAX_BODY_BYTES, Health, judge
from openclaw_gateway.client.health import TIMEOUT_S

_MAX_HEAD_BYTES = 16384
_MAX_REASONS = 8


class HealthFact(NamedTuple):
    """What one address answered."""

    host: str
    port: int
    health: Health
    took_s: float
    """Until the answer to /healthz was complete, or the attempt over."""
    ready: bool | None = None
    """What /readyz says; ``None`` if it was not asked or gave no gateway's answer."""
    failing: tuple[str, ...] = ()
    """What keeps it from being ready; told to local callers only."""


def check(host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> HealthFact:
    """
    Ask for ``/healthz``, and for ``/readyz`` if that is well.

    Args:
        host: IP literal or name; loopback rather than a wildcard.
        port: 1 to 65535.
        timeout_s: Seconds for everything, connects included.

    Returns:
        ``health`` as ``claim.probe`` would judge it: ``MUTE`` if nothing came in time, ``REFUSED`` if
        nobody listens, ``UNKNOWN`` if we could not ask. Raises nothing.
    """
    began_s = time.monotonic()
    deadline_s = began_s + timeout_s
    try:
        health = judge(*_get(host, port, "/healthz", deadline_s=deadline_s))
    except ConnectionRefusedError:
        health = Health.REFUSED
    except TimeoutError:
        health = Health.MUTE
    except (ConnectionResetError, BrokenPipeError, ValueError):
        health = Health.FOREIGN
    except OSError:  # no route, no such name, no descriptor left
        health = Health.UNKNOWN
    took_s = time.monotonic() - began_s
    if health is not Health.HEALTHY:
        return HealthFact(host, port, health, took_s)
    try:
        status, body = _get(host, port, "/readyz", deadline_s=deadline_s)
    except (OSError, ValueError):
        return HealthFact(host, port, health, took_s)
    if status not in (200, 503):
        return HealthFact(host, port, health, took_s)
    return HealthFact(host, port, health, took_s, status == 200, _failing(body))


def _failing(body: bytes) -> tuple[str, ...]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    reasons = answer.get("failing") if isinstance(answer, dict) else None
    if not isinstance(reasons, list):
        return ()
    # A peer's words: printable ones, and not too many.
    return tuple(str(reason)[:64] for reason in reasons if str(reason).isprintable())[:_MAX_REASONS]


def _get(host: str, port: int, path: str, *, deadline_s: float) -> tuple[int, bytes]:
    """
    Return the status and at most 4 KiB and a byte of the body.

    Raises:
        ValueError: It is no HTTP answer, or its head is too long.
        OSError: The connection failed; ``TimeoutError`` if time was up.
    """
    with socket.create_connection((host, port), timeout=_left_s(deadline_s)) as connection:
        # A port in the ephemeral range can be connected to itself; tcp(7) allows it.
        if connection.getsockname() == connection.getpeername():
            raise ConnectionRefusedError("connected to itself")
        literal = f"[{host}]" if ":" in host else host
        request = (
            f"GET {path} HTTP/1.0\r\nHost: {literal}:{port}\r\nAccept: application/json\r\n\r\n"
        )
        connection.sendall(request.encode("ascii"))
        answer = b""
        while _wants_more(answer):
            try:
                connection.settimeout(_left_s(deadline_s))
                chunk = connection.recv(8192)
            except TimeoutError:
                if answer:
                    raise ValueError("the answer was not complete in time") from None
                raise
            if not chunk:
                break
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError("no HTTP answer")
    return int(words[1]), body[: MAX_BODY_BYTES + 1]


def _wants_more(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return len(head) <= _MAX_HEAD_BYTES
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return len(body) < min(int(value), MAX_BODY_BYTES + 1)
    return len(body) <= MAX_BODY_BYTES


def _left_s(deadline_s: float) -> float:
    """Return the seconds left. Raises ``TimeoutError`` rather than return 0, which would mean not to wait."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
