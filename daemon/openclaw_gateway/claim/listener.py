"""The exclusive listener: bound by us in one step, or handed over by systemd."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

from openclaw_gateway.claim.decision import Obstacle
from openclaw_gateway.claim.lockfile import Contended
from openclaw_gateway.errors import BindError, ConfigurationError
from openclaw_gateway.host.address import url

BACKLOG = 512
"""Connections that the kernel completes for us while we are busy; capped by ``net.core.somaxconn``."""

_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def listen(host: str, port: int, *, named_by: str = "--host") -> socket.socket:
    """
    Bind and listen on ``host:port``, exclusively.

    ``SO_REUSEADDR``, so that connections of an earlier gateway in TIME_WAIT don't hold us up; never
    ``SO_REUSEPORT``, which would share the port. With ``SO_REUSEADDR`` two sockets may both bind and
    only ``listen`` decides, so both are done here, back to back.

    Args:
        host: IP literal.
        port: 1 to 65535.
        named_by: What the address is from, for a hint.

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
            errno.EADDRNOTAVAIL: f"that address is on no interface of this machine ({named_by})",
            errno.EACCES: "ports below 1024 need a privilege: choose another (--port or gateway.port)",
        }
        raise BindError(
            url(host, port), os.strerror(number), errno=number, hint=hints.get(number, "")
        ) from error
    return listener


def listen_if_possible(host: str, port: int) -> socket.socket | None:
    """Listen on an address that may be missing or taken; ``None`` where that is so."""
    try:
        return listen(host, port)
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
