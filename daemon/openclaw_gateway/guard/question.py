"""One GET of a health route that nobody waits for: a socket to poll, and in the end what came of it."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from errno import EINPROGRESS
from typing import TYPE_CHECKING, NamedTuple

from openclaw_gateway.client.answer import Exchange, Health, judge

if TYPE_CHECKING:
    import ssl

_CHUNK_BYTES = 8192


class Route(NamedTuple):
    """A route that tells how a program is."""

    path: str
    judge: Callable[[int, bytes], Health]
    """Takes status and body; ``HEALTHY`` for what is wanted."""


def _started(status: int, body: bytes) -> Health:
    """Judge OpenClaw's ``/startupz``; releases that have no such route answer 404, and are believed."""
    if status == 404:
        return Health.HEALTHY
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return Health.FOREIGN
    started = status == 200 and isinstance(answer, dict) and answer.get("status") == "started"
    return Health.HEALTHY if started else Health.STARTING


def expecting(path: str, body: str | None) -> Route:
    """Return a route of any program's: 200, and this text in its answer, or whatever it says."""

    def judge_any(status: int, said: bytes) -> Health:
        if status != 200:
            return Health.STARTING
        fits = body is None or body.encode() in said
        return Health.HEALTHY if fits else Health.FOREIGN

    return Route(path, judge_any)


OPENCLAW_HEALTH = Route("/healthz", judge)
OPENCLAW_STARTUP = Route("/startupz", _started)


class Question:
    """
    One question, on a connection of its own.

    Attributes:
        deadline_s: When it is over at the latest, on the monotonic clock.
        health: What the answer means; until it is whole, what its absence means.
        wants_tls: Whether the listener looked as if it spoke TLS alone, and was not asked so.
    """

    def __init__(
        self, host: str, port: int, route: Route, *, deadline_s: float, tls: bool = False
    ) -> None:
        """
        Begin to connect.

        Args:
            host: IP literal.
            port: 1 to 65535.
            route: What to ask for.
            deadline_s: On the monotonic clock.
            tls: Whether to speak TLS. No certificate is looked at: whose the listener is, the kernel told us.
        """
        self.deadline_s = deadline_s
        self.health = Health.MUTE
        self.wants_tls = False
        self._exchange = Exchange(host, port, route.path)
        self._route, self._tls = route, tls
        self._to_send = self._exchange.request
        self._over = self._connected = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._secure: ssl.SSLSocket | None = None
        self.events = select.POLLOUT
        failure = self._socket.connect_ex((host, port))
        if failure not in (0, EINPROGRESS):
            self._end(Health.REFUSED)

    def fileno(self) -> int:
        """Return the descriptor to poll for ``events``."""
        return self._socket.fileno() if self._secure is None else self._secure.fileno()

    def is_over(self, now_s: float) -> bool:
        """Whether ``health`` is what it will stay."""
        return self._over or now_s >= self.deadline_s

    def advance(self) -> None:
        """Do what can be done without waiting, now that the descriptor is ready for it."""
        try:
            self._connect()
            self._converse()
        except BlockingIOError:
            self.events = select.POLLIN
        except OSError as failure:
            self._on_failure(failure)

    def _connect(self) -> None:
        if self._connected:
            return
        failure = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise ConnectionRefusedError(failure, "connect")
        self._connected = True
        if self._tls:
            from openclaw_gateway.client.health import trusting_context

            self._secure = trusting_context().wrap_socket(
                self._socket, do_handshake_on_connect=False
            )

    def _converse(self) -> None:
        connection = self._secure or self._socket
        while self._to_send:
            sent = connection.send(self._to_send)
            self._to_send = self._to_send[sent:]
        self.events = select.POLLIN
        while not self._exchange.feed(connection.recv(_CHUNK_BYTES)):
            pass
        self._conclude()

    def _on_failure(self, failure: OSError) -> None:
        if self._secure is not None:
            import ssl

            # The handshake's own way to say "not now": it goes on with the next advance.
            if isinstance(failure, ssl.SSLWantReadError):
                self.events = select.POLLIN
                return
            if isinstance(failure, ssl.SSLWantWriteError):
                self.events = select.POLLOUT
                return
        if isinstance(failure, ConnectionRefusedError):
            self._end(Health.REFUSED)
        else:
            self._conclude()

    def _conclude(self) -> None:
        exchange = self._exchange
        self.wants_tls = not self._tls and exchange.speaks_tls
        if exchange.status is None:
            self._end(Health.FOREIGN)
        else:
            self._end(self._route.judge(exchange.status, exchange.body))

    def _end(self, health: Health) -> None:
        self.health, self._over = health, True

    def close(self) -> None:
        """Hang up."""
        (self._secure or self._socket).close()
