"""The door: accepts connections, counts and times them, and keeps one way in for whoever asks for our health.

aiohttp would accept without limit and wait for a request without end; so the accepting is done here,
and each connection passes through a ``Visitor`` on its way to aiohttp's own protocol.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from openclaw_gateway.server.auth import network
from openclaw_gateway.settings.load import Limits

_BATCH = 64
"""Connections taken in one go, before the event loop gets to do something else."""

_OWN_DESCRIPTORS = 48
"""Descriptors that we need for ourselves: locks, listeners, journal, files being read."""

_PORCH = 64
"""Places for connections beyond the limits, which may ask for health and nothing else."""

_PORCH_TIMEOUT_S = 2.0
_RETRY_S = 0.5

_PREAUTH_SLACK = 2
"""Before the hello a client may send this many frames of the largest size."""

_PIECE_BYTES = 16 << 10
"""So much is given to aiohttp at once, before its queue is looked at: up to 900 requests of the shortest."""
_MAX_QUEUED_REQUESTS = 128
"""Requests of one connection that may wait while one is answered; clients that pipeline send a few."""
_MAX_TAIL_BYTES = 128 << 10
"""What may come behind a request to upgrade before it is answered."""

_NOT_OURS = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
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


class Visitor(asyncio.Protocol):
    """
    One connection, between its transport and aiohttp's protocol.

    Attributes:
        address: The peer's IP literal.
        confined: Whether it came in beyond a limit, named by ``excess``, and may only ask for health.
        excess: The limit, a field of ``Limits``; ``""`` if none.
        begun: The response to the current request, once its headers are out.
    """

    def __init__(self, door: Door, inner: asyncio.Protocol, address: str, excess: str) -> None:
        self.address, self.excess, self.confined = address, excess, bool(excess)
        self.network = network(address)
        self.authenticated = False
        self.begun: object | None = None
        self._door, self._inner = door, inner
        self._transport: asyncio.Transport | None = None
        self._allowance: int | None = None
        self._overflow: Callable[[], None] | None = None
        self._expire: Callable[[], None] = self.abort
        timeout_s = _PORCH_TIMEOUT_S if excess else door.limits.handshake_timeout_s
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(timeout_s, self._on_deadline)

    def asked(self) -> None:
        """Note that a whole HTTP request has come: from here on aiohttp's own timers do."""
        self._deadline.cancel()
        self.begun = None

    def upgraded(self, *, expire: Callable[[], None], overflow: Callable[[], None]) -> None:
        """
        Note that the connection is a WebSocket, whose client still has to show its secret.

        Args:
            expire: Called when the handshake takes too long, counted from here: the connection may have
                served other requests before.
            overflow: Called when more comes in than a handshake needs.
        """
        self._expire, self._overflow = expire, overflow
        self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(
            self._door.limits.handshake_timeout_s, self._on_deadline
        )
        self._allowance = _PREAUTH_SLACK * self._door.limits.max_preauth_bytes

    def judged(self) -> None:
        """Note that the client has shown a secret, right or wrong: it has done its part of the handshake."""
        self._deadline.cancel()

    def admitted(self) -> None:
        """Note that the client has shown its secret."""
        self._deadline.cancel()
        self._allowance = None
        self.authenticated = True
        _take_one(self._door.strangers, self.network)

    def abort(self) -> None:
        """Drop the connection and what is still to be sent on it."""
        if self._transport is not None:
            self._transport.abort()

    def backlog_bytes(self) -> int:
        """Return what the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def never_opened(self) -> None:
        """Note that the connection ended before it began."""
        self._deadline.cancel()
        self._door.left(self)

    def _on_deadline(self) -> None:
        self._door.expired(self)
        self._expire()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. See ``asyncio.BaseProtocol``."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._door.visitors[transport] = self
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what came, unless it is more than a stranger may send."""
        if self._allowance is not None:
            if self._allowance < 0:
                return
            self._allowance -= len(data)
            if self._allowance < 0 and self._overflow is not None:
                self._overflow()
                return
        if self._overflow is not None or len(data) <= _PIECE_BYTES:
            pieces = [data]
        else:
            pieces = [
                data[start : start + _PIECE_BYTES] for start in range(0, len(data), _PIECE_BYTES)
            ]
        for piece in pieces:
            self._inner.data_received(piece)
            if self._overflow is None and self._overruns():
                self.abort()
                return

    def _overruns(self) -> bool:
        """
        Whether the peer sends more requests than it lets us answer.

        aiohttp before 3.14 reads and queues without bound what a peer pipelines, and likewise what follows
        a request to upgrade. It shows its queue to nobody, hence the private names; one that bounds
        them by itself stays below our bounds. A body counts for neither: its reader holds the peer back.
        """
        queued = getattr(self._inner, "_messages", ())
        tail = getattr(self._inner, "_message_tail", b"")
        return len(queued) > _MAX_QUEUED_REQUESTS or len(tail) > _MAX_TAIL_BYTES

    def eof_received(self) -> bool | None:
        """Pass on that the peer will send no more."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the peer reads too slowly."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the peer has caught up."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._deadline.cancel()
        self._door.left(self)
        if self._transport is not None:
            self._door.visitors.pop(self._transport, None)
        self._inner.connection_lost(exc)


class Door:
    """
    The way in.

    Attributes:
        limits: What is let in; new ones count for whoever comes next.
        visitors: By transport, every connection that is open.
        strangers: Open connections that have shown no secret, by network.
        reached: How often each limit was reached, by its name in ``Limits``; for people.
    """

    def __init__(self, limits: Limits) -> None:
        self.use(limits)
        self.visitors: dict[asyncio.BaseTransport, Visitor] = {}
        self.strangers: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self._by_network: Counter[str] = Counter()
        self._inside = 0
        self._porch: list[Visitor] = []
        self._listeners: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._spare: int | None = None

    def use(self, limits: Limits) -> None:
        """
        Let in by these limits from now on.

        The soft limit of descriptors is raised as far as it may be; where that is still too few, so
        many fewer connections are let in, and the gateway itself never runs out.
        """
        wanted = limits.max_connections + _PORCH + _OWN_DESCRIPTORS
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        room = limits.max_connections
        if soft != resource.RLIM_INFINITY:
            self._porch_size = max(1, min(_PORCH, soft // 8))
            room = min(room, max(1, soft - self._porch_size - _OWN_DESCRIPTORS))
        else:
            self._porch_size = _PORCH
        self.limits = limits._replace(max_connections=room)

    def open(self, listeners: list[socket.socket], factory: Callable[[], asyncio.Protocol]) -> None:
        """
        Accept connections.

        Args:
            listeners: Listening sockets, non-blocking.
            factory: Makes the protocol of one connection.
        """
        self._factory = factory
        self._listeners = list(listeners)
        for listener in self._listeners:
            self._watch(listener)

    def close(self) -> None:
        """Stop listening; who is in stays in."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def visitor(self, transport: asyncio.BaseTransport | None) -> Visitor | None:
        """Return whose connection this is; ``None`` if it is over."""
        return None if transport is None else self.visitors.get(transport)

    @property
    def inside(self) -> int:
        """Connections let in, without those that may only ask for health."""
        return self._inside

    def left(self, visitor: Visitor) -> None:
        """Count a connection out."""
        if visitor.confined:
            with suppress(ValueError):  # put out already
                self._porch.remove(visitor)
            return
        self._inside -= 1
        _take_one(self._by_network, visitor.network)
        if not visitor.authenticated:
            _take_one(self.strangers, visitor.network)

    def expired(self, visitor: Visitor) -> None:
        """Note that a connection's time was up."""
        if not visitor.confined:
            self.reached["handshake_timeout_s"] += 1

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
                elif error.errno not in _NOT_OURS:
                    raise
            else:
                connection.setblocking(False)
                self._let_in(connection, address[0])

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
        if self._inside >= limits.max_connections:
            return "max_connections"
        if self._by_network[of] >= limits.max_connections_per_address:
            return "max_connections_per_address"
        if self.strangers[of] >= limits.max_unauthenticated_per_address:
            return "max_unauthenticated_per_address"
        return ""

    def _let_in(self, connection: socket.socket, address: str) -> None:
        excess = self._excess(network(address))
        visitor = Visitor(self, self._factory(), address, excess)
        if excess:
            self.reached[excess] += 1
            self._porch.append(visitor)
            if len(self._porch) > self._porch_size:
                # The one that has been silent for longest makes room: who asks, asks at once.
                self._porch.pop(0).abort()
        else:
            self._inside += 1
            self._by_network[visitor.network] += 1
            self.strangers[visitor.network] += 1
        task = asyncio.get_running_loop().create_task(self._open_transport(visitor, connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open_transport(self, visitor: Visitor, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: visitor, connection)
        except OSError:  # reset before we got to it
            connection.close()
            visitor.never_opened()


def _take_one(counter: Counter[str], key: str) -> None:
    """Count down, and forget what is down to nothing: strangers choose the keys."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
