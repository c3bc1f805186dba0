"""The exclusive listener: bound by us in one step, or handed over by systemd."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from typing import NamedTuple

from openclaw_gateway.claim.lockfile import Contended
from openclaw_gateway.claim.ownership import Obstacle
from openclaw_gateway.claim.process import PROC
from openclaw_gateway.errors import BindError, ConfigurationError

BACKLOG = 512
"""Connections that the kernel completes for us while we are busy; capped by ``net.core.somaxconn``."""

_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h


def url(host: str, port: int) -> str:
    """Return ``ws://host:port``, with brackets around an IPv6 address. RFC 3986, section 3.2.2."""
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """
    Bind and listen on ``host:port``, exclusively.

    ``SO_REUSEADDR``, so that connections of an earlier gateway in TIME_WAIT don't hold us up; never
    ``SO_REUSEPORT``, which would share the port. With ``SO_REUSEADDR`` two sockets may both bind and
    only ``listen`` decides, so both are done here, back to back.

    Args:
        host: IP literal.
        port: 1 to 65535.

    Returns:
        A non-blocking listening socket.

    Raises:
        Contended: ``EADDRINUSE``, from either call.
        BindError: Any other refusal.

    See Also:
        ip(7), ipv6(7), socket(7).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Contended(Obstacle.LISTENER, address=(host, port)) from error
        number = error.errno or 0
        hints = {
            errno.EADDRNOTAVAIL: "that address is on no interface of this machine (--host)",
            errno.EACCES: "ports below 1024 need a privilege: choose another (--port)",
        }
        raise BindError(
            url(host, port), os.strerror(number), errno=number, hint=hints.get(number, "")
        ) from error
    return listener


def listen_beside(port: int) -> socket.socket | None:
    """Listen on ``[::1]:port`` beside 127.0.0.1; ``None`` where that is not to be had."""
    try:
        return listen("::1", port)
    except (Contended, BindError):
        return None


def adopt(environ: MutableMapping[str, str], *, port: int) -> list[socket.socket]:
    """
    Take over the listening sockets that systemd passes, if any.

    The variables are removed either way, so that no child takes them for its own.

    Args:
        environ: Read for ``LISTEN_PID`` and ``LISTEN_FDS``.
        port: The configured port; the sockets must agree.

    Returns:
        Non-blocking, close-on-exec sockets; empty if none were passed to this process.

    Raises:
        ConfigurationError: A socket is not a listening TCP socket, or on another port.

    See Also:
        sd_listen_fds(3), systemd.socket(5).
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            environ.pop(name, None)
        return []
    from systemd.daemon import is_socket_inet, listen_fds

    sockets = []
    for fd in listen_fds(unset_environment=True):
        os.set_inheritable(fd, False)
        if not is_socket_inet(fd, type=socket.SOCK_STREAM, listening=1):
            raise ConfigurationError(
                "socket unit", f"descriptor {fd}", "not a listening TCP socket",
                hint=f"set ListenStream=127.0.0.1:{port}",
            )  # fmt: skip
        passed = socket.socket(fileno=fd)
        passed.setblocking(False)
        if passed.getsockname()[1] != port:
            raise ConfigurationError(
                "socket unit", "ListenStream",
                f"listens on port {passed.getsockname()[1]}, the gateway is configured for {port}",
                hint="make ListenStream= and gateway.port agree",
            )  # fmt: skip
        sockets.append(passed)
    return sockets


def turn_away(passed: list[socket.socket]) -> None:
    """
    Answer 503 to everyone who waits on sockets that systemd passed, and let go of them.

    To be called by a start that fails: a connection that nobody accepts would have systemd start us
    again at once, until the socket unit hits its limit and the port is closed for good.
    """
    for listener in passed:
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # nobody waits any more, or out of descriptors
                    break
                with client, suppress(OSError):
                    client.setblocking(False)
                    client.send(_UNAVAILABLE, socket.MSG_NOSIGNAL)


class Listening(NamedTuple):
    """A listening TCP socket of this network namespace, whoever's it is."""

    host: str
    port: int
    uid: int
    inode: int
    queued: int
    """Connections that are complete and wait for ``accept``."""


def listening(port: int, *, proc: str = PROC) -> list[Listening]:
    """
    List who listens on ``port`` on any address, from the kernel's tables: nobody is connected to.

    See Also:
        proc_pid_net(5), "tcp": ``sl local_address rem_address st ... uid timeout inode``. The kernel
        lists listening sockets before all others, so reading stops at the first one that is not.
    """
    return [
        found
        for table in ("tcp", "tcp6")
        for found in _listeners(f"{proc}/self/net/{table}")
        if found.port == port
    ]


def _listeners(path: str) -> Iterator[Listening]:
    if not os.access(path, os.R_OK):  # no IPv6, or hidden from us
        return
    with open(path, encoding="ascii") as table:
        next(table)
        for line in table:
            fields = line.split()
            if fields[3] != _LISTEN:
                return
            address, _, port = fields[1].partition(":")
            queued = int(fields[4].partition(":")[2], 16)
            yield Listening(_host(address), int(port, 16), int(fields[7]), int(fields[9]), queued)


class Connections(NamedTuple):
    """How many connections a port has on its own side."""

    established: int
    half_closed: int
    """In CLOSE_WAIT: the client is gone, and the server has not noticed or not closed."""


def connections(port: int, *, proc: str = PROC) -> Connections:
    """
    Count the connections of whoever listens on ``port``, on any address.

    On a host with very many, those in the first 8 MiB of each of the kernel's tables count.

    See Also:
        proc_pid_net(5), "tcp"; the numbers of the states are those of include/net/tcp_states.h.
    """
    counts = {"01": 0, "08": 0}
    local = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        path = f"{proc}/self/net/{table}"
        if not os.access(path, os.R_OK):
            continue
        with open(path, encoding="ascii") as lines:
            for line in lines.readlines(8 << 20)[1:]:
                fields = line.split(None, 4)
                if fields[3] in counts and fields[1].endswith(local):
                    counts[fields[3]] += 1
    return Connections(counts["01"], counts["08"])


def _host(table_address: str) -> str:
    """Turn the kernel's hex, 32-bit words in host byte order, into an IP literal."""
    words = [int(table_address[at : at + 8], 16) for at in range(0, len(table_address), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def reachable(host: str) -> str:
    """Return the address on which to reach a listener bound to ``host``: loopback for the wildcards."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
