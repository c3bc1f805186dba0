"""The acceptor: takes connections, counts them, and keeps a reserve for whoever asks for our health."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from openclaw_gateway.errors import ListenerLostError
from openclaw_gateway.host.address import is_loopback
from openclaw_gateway.server.connection import PATIENCE, Application, Connection, Patience
from openclaw_gateway.server.proxies import TrustedProxies, network
from openclaw_gateway.server.stamps import Stamps
from openclaw_gateway.settings.load import Limits

if TYPE_CHECKING:
    import ssl

_BATCH = 64
"""Connections taken in one go, before the event loop gets to do something else."""

_OWN_DESCRIPTORS = 48
"""Descriptors that we need for ourselves: locks, listeners, journal, files being read."""

_RESERVE = 64
"""Places for connections beyond the limits, which may ask for health and nothing else."""

_RETRY_S = 0.5

_PASSING = frozenset(
    {
        errno.ECONNABORTED,
        errno.EINTR,
        errno.EPERM,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    }
)
"""accept(2): errors of the connection that was to be accepted, or a firewall's; the next one may be fine."""

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 31\r\nCache-Control: no-store\r\n"
    b"X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\r\n"
    b"no file descriptor left for it\n"
)


class Acceptor:
    """
    Accepts connections from listeners, within limits and beyond them into a reserve.

    A connection over a limit may ask for health only. The reserve has few places, and who has been
    silent there for longest makes room: who asks, asks at once.

    Attributes:
        limits: In force; new ones count for whoever comes next.
        connections: Every one that is open.
        unauthenticated: Open connections that have shown no secret, by network.
        reached: How often each limit was reached, by its name in ``Limits``.
        accepted: Connections since the start.
        requests: HTTP requests since the start.
        patience: How long peers are waited for, beside what the limits say.
        tls: What TLS is spoken with to whoever comes next; ``None`` for plain HTTP.
        lost: Is set to the error once a listener takes no connections any more.
    """

    def __init__(
        self,
        limits: Limits,
        trusted: TrustedProxies,
        *,
        tls: ssl.SSLContext | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self.use(limits, trusted)
        self.tls = tls
        self.patience = patience
        self.connections: set[Connection] = set()
        self.unauthenticated: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self.stamps = Stamps()
        self.accepted = 0
        self.requests = 0
        self._by_network: Counter[str] = Counter()
        self._inside = 0
        self._reserve: list[Connection] = []
        self._listeners: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._spare: int | None = None

    def use(self, limits: Limits, trusted: TrustedProxies) -> None:
        """
        Let in by these limits from now on.

        The soft limit of descriptors is raised as far as it may be; where that is still too few, so
        many fewer connections are let in, and the gateway itself never runs out.
        """
        wanted = limits.max_connections + _RESERVE + _OWN_DESCRIPTORS
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        room = limits.max_connections
        if soft != resource.RLIM_INFINITY:
            self._reserve_size = max(1, min(_RESERVE, soft // 8))
            room = min(room, max(1, soft - self._reserve_size - _OWN_DESCRIPTORS))
        else:
            self._reserve_size = _RESERVE
        self.limits = limits._replace(max_connections=room)
        self._trusted = trusted

    def open(self, listeners: list[socket.socket], application: Application) -> None:
        """
        Accept connections.

        Args:
            listeners: Listening sockets, non-blocking.
            application: Answers what comes in.
        """
        self.lost: asyncio.Future[ListenerLostError] = asyncio.get_running_loop().create_future()
        self._application = application
        self._listeners = list(listeners)
        for listener in self._listeners:
            self._watch(listener)

    def close(self) -> None:
        """Let go of the listeners, which are not ours to close; who is in stays in."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
        self._listeners.clear()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    async def settle(self, *, timeout_s: float) -> None:
        """Wait until those that were accepted are connections, with TLS where it is spoken."""
        if self._opening:
            await asyncio.wait(set(self._opening), timeout=timeout_s)

    @property
    def handshake_timeout_s(self) -> float:
        """Seconds that a peer has for a whole request, or for its hello."""
        return self.limits.handshake_timeout_s

    @property
    def inside(self) -> int:
        """Connections within the limits."""
        return self._inside

    @property
    def over_limit(self) -> int:
        """Connections in the reserve."""
        return len(self._reserve)

    def attribute(self, connection: Connection, address: str) -> str:
        """
        Count a connection as another address's: a trusted proxy's, whose client it now is.

        Returns:
            The limit that it breaks there, as a field of ``Limits``; ``""`` if none.
        """
        if connection.over_limit:
            return connection.over_limit
        of = network(address)
        if of == connection.network and not connection.exempt:
            return ""
        self._uncount(connection)
        connection.network, connection.exempt = of, False
        excess = self._excess(of)
        if excess:
            self.reached[excess] += 1
        self._count(connection)
        return excess

    def authenticated(self, connection: Connection) -> None:
        """Note that a connection has shown its secret."""
        if not connection.authenticated:
            connection.authenticated = True
            if not connection.over_limit and not connection.exempt:
                _take_one(self.unauthenticated, connection.network)

    def left(self, connection: Connection) -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        if connection.over_limit:
            with suppress(ValueError):  # put out already
                self._reserve.remove(connection)
            return
        self._inside -= 1
        self._uncount(connection)

    def _count(self, connection: Connection) -> None:
        if not connection.exempt:
            self._by_network[connection.network] += 1
            if not connection.authenticated:
                self.unauthenticated[connection.network] += 1

    def _uncount(self, connection: Connection) -> None:
        if not connection.exempt:
            _take_one(self._by_network, connection.network)
            if not connection.authenticated:
                _take_one(self.unauthenticated, connection.network)

    def _watch(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._keep_spare()
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _rest(self, listener: socket.socket) -> None:
        """Look away for a moment from a listener that can't be served: it would wake us all the time."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(_RETRY_S, self._watch, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self.reached["descriptors"] += 1
                    if not self._turn_away(listener):
                        self._rest(listener)
                        return
                elif error.errno in (errno.ENOBUFS, errno.ENOMEM):
                    self._rest(listener)
                    return
                elif error.errno not in _PASSING:
                    self._lose(listener, error)
                    return
            else:
                connection.setblocking(False)
                self._let_in(connection, address[0])

    def _lose(self, listener: socket.socket, error: OSError) -> None:
        """
        Give up a listener for good: EINVAL once it was shut down, EBADF, ENOTSOCK, whatever is new.

        Its readiness does not pass either: without this the loop would wake for it without end.
        """
        asyncio.get_running_loop().remove_reader(listener)
        if not self.lost.done():
            problem = os.strerror(error.errno or 0)
            self.lost.set_result(ListenerLostError(problem, errno=error.errno))

    def _turn_away(self, listener: socket.socket) -> bool:
        """
        Accept with the spare descriptor, say that there are no more, hang up; whether that worked.

        Left alone, the connection would stay in the backlog and wake us without end.
        """
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        try:
            connection, _ = listener.accept()
        except OSError:  # taken by another thread, or gone: nothing to turn away
            pass
        else:
            with connection, suppress(OSError):
                connection.setblocking(False)
                connection.send(_REFUSAL)
        self._keep_spare()
        return self._spare is not None

    def _keep_spare(self) -> None:
        """Have a descriptor to give up when there is no other."""
        if self._spare is None:
            try:
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise

    def _excess(self, of: str) -> str:
        """Return the limit that one more connection of this network would break, ``""`` if none."""
        limits = self.limits
        if self._by_network[of] >= limits.max_connections_per_address:
            return "max_connections_per_address"
        if self.unauthenticated[of] >= limits.max_unauthenticated_per_address:
            return "max_unauthenticated_per_address"
        return ""

    def _let_in(self, accepted: socket.socket, address: str) -> None:
        self.accepted += 1
        # A trusted proxy's connections are its clients'; each is counted once its request says whose.
        exempt = address in self._trusted
        if self._inside >= self.limits.max_connections:
            excess = "max_connections"
        else:
            excess = "" if exempt else self._excess(network(address))
        connection = Connection(
            self,
            self._application,
            address,
            over_limit=excess,
            exempt=exempt,
            # Who connects to an address of its own machine comes from that address.
            same_host=is_loopback(address) or accepted.getsockname()[0] == address,
        )
        if excess:
            self.reached[excess] += 1
            self._reserve.append(connection)
            if len(self._reserve) > self._reserve_size:
                self._reserve.pop(0).abort()
        else:
            self._inside += 1
            self._count(connection)
        task = asyncio.get_running_loop().create_task(self._open_transport(connection, accepted))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open_transport(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            # tcp(7): or an answer waits until the peer has acknowledged the one before, 40 ms for many. asyncio
            # sees to it for sockets that it made itself only.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self.tls,
                ssl_handshake_timeout=self.limits.handshake_timeout_s if self.tls else None,
            )
        except OSError:  # reset before we got to it, no TLS, or none in time
            accepted.close()
            connection.never_opened()


def _take_one(counter: Counter[str], key: str) -> None:
    """Count down, and forget what is down to nothing: peers choose the keys."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
