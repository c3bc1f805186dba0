"""One gateway per base port, whatever address it binds: a lock that the kernel keeps per network namespace.

``127.0.0.1:P`` does not exclude ``[::1]:P``, ``127.0.0.2:P`` or an address of the LAN, so the port
number itself needs a lock. An abstract UNIX socket (unix(7)) named after it is one: it lives in the
network namespace just as ports do, belongs to no user's directory, vanishes with its process, and
says who holds it through ``SO_PEERCRED``. Whoever connects is told the holder's lock record.

Any local user can take such a name, as any can take the port itself: it is a guard against accidents,
and no more of a door than the port is.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple

from openclaw_gateway.claim.decision import Obstacle
from openclaw_gateway.claim.lockfile import Contended
from openclaw_gateway.claim.record import LockRecord, encode, parse
from openclaw_gateway.errors import BindError
from openclaw_gateway.host.address import url
from openclaw_gateway.host.process import PROC
from openclaw_gateway.protocol.fields import MAX_RECORD_BYTES

_ANSWER_TIMEOUT_S = 0.2
_BACKLOG = 1024
"""Questions that wait while the holder is stopped; past that the kernel does not name it any more."""
_PREFIX = "openclaw-gateway.port."


class Holder(NamedTuple):
    """Who holds a base port: ``pid`` and ``uid`` from the kernel, the record from the holder."""

    pid: int | None
    uid: int
    record: LockRecord | None


def _name(port: int) -> str:
    return f"\0{_PREFIX}{port}"


class BasePortLock:
    """
    The hold on a base port.

    Attributes:
        port: Which.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        """
        Take the base port.

        Args:
            port: Which.
            host: The address that will be bound; for messages.

        Raises:
            Contended: Another process has it, with whatever it tells of itself.
            BindError: The kernel won't have it, say because the unit's ``RestrictAddressFamilies=``
                lacks ``AF_UNIX``.
        """
        self.port = port
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                self._socket.bind(_name(port))
                self._socket.listen(_BACKLOG)
            except OSError:
                self._socket.close()
                raise
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                cause = f"the port's lock, a UNIX socket: {os.strerror(error.errno or 0)}"
                raise BindError(url(host, port), cause, errno=error.errno or 0) from error
            found = holder(port)
            raise Contended(
                Obstacle.BASE_PORT,
                record=found and found.record,
                pid=found and found.pid,
                uid=found and found.uid,
            ) from error

    def fileno(self) -> int:
        """Return the descriptor, readable when someone asks."""
        return self._socket.fileno()

    def answer(self, record: LockRecord) -> None:
        """Tell everyone who is asking right now who we are; never waits."""
        while True:
            try:
                asker, _ = self._socket.accept()
            except OSError:  # nobody left, gone again, or out of descriptors: they ask again
                return
            with asker:
                asker.setblocking(False)
                try:
                    asker.send(encode(record), socket.MSG_NOSIGNAL)
                except OSError:
                    continue

    def release(self) -> None:
        """Give the port number back."""
        self._socket.close()


def holder(port: int) -> Holder | None:
    """
    Ask who holds a base port; ``None`` if nobody does, or the holder is too busy to be asked.

    Takes at most 0.2 s. A holder that is starting or stopped does not answer; the kernel still
    names its process.

    See Also:
        unix(7): ``SO_PEERCRED`` names the process that called ``listen``.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
        asker.setblocking(False)
        try:
            asker.connect(_name(port))
        except OSError:  # ECONNREFUSED: nobody; EAGAIN: its backlog is full
            return None
        raw = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", raw)
        asker.settimeout(_ANSWER_TIMEOUT_S)
        try:
            record = parse(asker.recv(MAX_RECORD_BYTES))
        except OSError:
            record = None
        # A pid of 0 is a process outside our PID namespace.
        return Holder(pid or (record.pid if record else None), uid, record)


def held_ports(*, proc: str = PROC) -> list[int]:
    """
    List the base ports that are held in our network namespace, by whomever, lowest first.

    See Also:
        proc_pid_net(5), "unix": the path stands last, and ``@`` for the NUL of an abstract name.
    """
    path = f"{proc}/self/net/unix"
    if not os.access(path, os.R_OK):
        return []
    ports = set()
    with open(path, encoding="utf-8", errors="replace") as table:
        for line in table:
            _, found, number = line.rstrip().partition(f" @{_PREFIX}")
            if found and number.isdecimal():
                ports.add(int(number))
    return sorted(ports)
