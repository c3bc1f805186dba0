"""Who listens on a port, from the kernel's tables: nobody is connected to."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from openclaw_gateway.host.process import PROC

_LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h


class Listening(NamedTuple):
    """A listening TCP socket of this network namespace, whoever's it is."""

    host: str
    port: int
    uid: int
    inode: int
    queued: int
    """Connections that are complete and wait for ``accept``."""


def listening(port: int | None = None, *, proc: str = PROC) -> list[Listening]:
    """
    List who listens on ``port`` (or any) on any address, from the kernel's tables: nobody is connected to.

    See Also:
        proc_pid_net(5), "tcp": ``sl local_address rem_address st ... uid timeout inode``. The kernel
        lists listening sockets before all others, so reading stops at the first one that is not.
    """
    return [
        found
        for table in ("tcp", "tcp6")
        for found in _listeners(f"{proc}/self/net/{table}")
        if port in (None, found.port)
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
