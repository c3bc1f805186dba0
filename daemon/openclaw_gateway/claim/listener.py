"""The exclusive listener: bound by us in one step, or handed over by systemd."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from typing import NamedTuple

from openclaw_gateway.claim.decision import Obstacle
from openclaw_gateway.claim.lockfile import Contended
from openclaw_gateway.errors import BindError, ConfigurationError
from openclaw_gateway.host.address import url
from openclaw_gateway.supervisor.notify import Supervisor

BACKLOG = 512
"""Connections that the kernel completes for us while we are busy; capped by ``net.core.somaxconn``."""

STORED = "listener"
"""
What systemd's file descriptor store has our listening sockets under. Names that other releases of ours may
use begin with it, so that a socket unit's, which are its own name by default, can be told from them.
"""

_NAMELESS = "stored"
"""What systemd calls a descriptor that it was given without a name. sd_listen_fds_with_names(3)."""

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


class Handed(NamedTuple):
    """One descriptor that systemd handed over."""

    fd: int
    name: str
    listener: socket.socket | None
    """``None`` if it is no listening TCP socket."""

    @property
    def is_kept(self) -> bool:
        """Whether systemd kept it for us: under our name, under none, or under one of another release of ours."""
        return self.name.startswith(STORED) or self.name == _NAMELESS


class Passed:
    """
    The listening sockets that systemd handed over at our start, until the claim adopts them.

    There are two kinds. Those named ``listener`` we had systemd keep when we ran before; all others
    are a socket unit's.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """
        Take them over, if there are any.

        Args:
            environ: Read for ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES``, which are removed
                either way, so that no child takes them for its own.

        See Also:
            sd_listen_fds(3), sd_listen_fds_with_names(3).
        """
        self.handed: list[Handed] = []
        if environ.get("LISTEN_PID") == str(os.getpid()):
            from systemd.daemon import is_socket_inet, listen_fds_with_names

            for fd, name in listen_fds_with_names(unset_environment=True).items():
                os.set_inheritable(fd, False)
                listens = is_socket_inet(fd, type=socket.SOCK_STREAM, listening=1)
                listener = socket.socket(fileno=fd) if listens else None
                self.handed.append(Handed(fd, name, listener))
        for name in ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            environ.pop(name, None)

    def turn_away(self) -> None:
        """Send away everyone who waits on what was not adopted, and let go of it. See ``turn_away``."""
        turn_away([each.listener for each in self.handed if each.listener is not None])
        self.handed.clear()


class Adopted(NamedTuple):
    """Sockets that listen where the settings want it; empty where systemd handed over none."""

    sockets: dict[str, socket.socket]
    """By the address that they serve, in no order; one of a socket unit's may serve two."""
    activated: tuple[socket.socket, ...] = ()
    """Those of a socket unit: they are systemd's own, and not to be kept for us."""

    def inodes(self) -> frozenset[int]:
        """Return what the kernel's tables know them by."""
        return frozenset(os.fstat(each.fileno()).st_ino for each in self.sockets.values())

    def close(self) -> None:
        """Let go of them; whoever waits on one that systemd has a copy of goes on waiting."""
        for each in self.sockets.values():
            each.close()
        self.sockets.clear()


def adopt(
    passed: Passed,
    addresses: Iterable[str],
    *,
    port: int,
    supervisor: Supervisor,
    standby: bool = False,
) -> Adopted:
    """
    Take over exactly those listening sockets that systemd passed and the settings want.

    What we had systemd keep and don't want any more, as the port or an address was changed since, is
    closed and no longer kept: the settings say where to listen. A socket unit is an administrator's
    word against the settings', so there neither is taken.

    Args:
        passed: What systemd handed over; emptied if all is well, else as it was.
        addresses: The wanted ones, IP literals.
        port: The wanted one.
        supervisor: Told what need not be kept any more.
        standby: Whether we stand by for others, and others for us. Then nothing is kept, not even what
            fits: systemd's copies would have the port when a standby comes for it.

    Raises:
        ConfigurationError: A socket unit's socket is not a listening TCP socket, or on another
            address or port; or there is a socket unit, and we stand by.
    """
    wanted = set(addresses)
    sockets: dict[str, socket.socket] = {}
    unfit: list[Handed] = []
    # A socket unit's first: what we kept for the same address is one too many then.
    for handed in sorted(passed.handed, key=lambda each: each.is_kept):
        if not handed.is_kept:
            _check_activated(handed, port=port, wanted=wanted, standby=standby)
        serves = _served(handed, port) & wanted - sockets.keys()
        is_known = handed.name == STORED or not handed.is_kept
        if handed.listener is not None and is_known and serves:
            handed.listener.setblocking(False)
            sockets |= dict.fromkeys(serves, handed.listener)
        else:
            unfit.append(handed)
    activated = [each.listener for each in passed.handed if not each.is_kept and each.listener]
    gone = passed.handed if standby else unfit
    for name in {each.name for each in gone if each.is_kept}:
        supervisor.discard(name)
    passed.handed.clear()
    if unfit and not standby:
        # That took those that fit as well, as they have the same name.
        supervisor.keep(STORED, [each for each in sockets.values() if each not in activated])
    for each in unfit:
        if each.listener is None:
            os.close(each.fd)
        else:
            turn_away([each.listener])
    return Adopted(sockets, tuple(activated))


def _served(handed: Handed, port: int) -> set[str]:
    """Return the addresses on which something handed over serves a port: none, one, or two. ipv6(7)."""
    listener = handed.listener
    if listener is None or listener.getsockname()[1] != port:
        return set()
    host = listener.getsockname()[0]
    is_dual = host == "::" and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return {host, "0.0.0.0"} if is_dual else {host}


def _check_activated(handed: Handed, *, port: int, wanted: set[str], standby: bool) -> None:
    """Raise ``ConfigurationError`` for what a socket unit has and the settings don't want."""
    if standby:
        raise ConfigurationError(
            "socket unit", handed.name,
            "has the port, which a standby could not take over then",
            hint=f'choose one: systemctl disable --now {handed.name}, or "standby": false',
        )  # fmt: skip
    if handed.listener is None:
        raise ConfigurationError(
            "socket unit", f"descriptor {handed.fd}", "not a listening TCP socket",
            hint=f"set ListenStream=127.0.0.1:{port}",
        )  # fmt: skip
    host, bound_port = handed.listener.getsockname()[:2]
    if bound_port != port:
        raise ConfigurationError(
            "socket unit", "ListenStream",
            f"listens on port {bound_port}, the gateway is configured for {port}",
            hint="make ListenStream= and gateway.port agree",
        )  # fmt: skip
    if not _served(handed, port) & wanted:
        raise ConfigurationError(
            "socket unit", "ListenStream",
            f"listens on {host}, the gateway is configured for {' and '.join(sorted(wanted))}",
            hint="make ListenStream= and gateway.bind agree",
        )  # fmt: skip


def turn_away(listeners: Iterable[socket.socket]) -> None:
    """
    Answer 503 to everyone who waits on listening sockets, and let go of them.

    To be called by a start that fails for good: nobody will come and serve those who wait, and a
    connection that nobody accepts would have systemd start a socket unit's service again at once,
    until that unit hits its limit and the port is closed. Any other failure is followed by another
    start, for which they wait.
    """
    for listener in listeners:
        with listener:
            while True:
                try:
                    listener.setblocking(False)
                    client, _ = listener.accept()
                except OSError:  # nobody waits any more, closed already, or out of descriptors
                    break
                with client, suppress(OSError):
                    client.setblocking(False)
                    client.send(_UNAVAILABLE, socket.MSG_NOSIGNAL)
