"""Gateways that came later to our port number, on another address: noticed while we run.

The kernel lets another program listen on 127.0.0.1:P beside our 127.0.0.2:P, and one that takes none
of our locks is not stopped by us. What can't be prevented is logged once, and shown in the status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import probe
from openclaw_gateway.host import process, thread
from openclaw_gateway.host.address import reachable, url
from openclaw_gateway.host.ports import Listening, listening
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal

if TYPE_CHECKING:
    from threading import Thread

_UNDECIDED = (Health.STARTING, Health.MUTE, Health.UNKNOWN)


class Neighbours:
    """Listeners on our port that are not ours, and which of them are gateways."""

    def __init__(self, port: int, journal: Journal, *, own: Callable[[], Iterable[int]]) -> None:
        """
        Set up, and look at nothing yet.

        Args:
            port: Ours.
            journal: Told once of each gateway.
            own: Returns the inodes of our own listening sockets.
        """
        self._port, self._journal, self._own = port, journal, own
        self._gateways: dict[int, str] = {}
        self._asked: set[int] = set()
        self._asking: Thread | None = None

    def look(self) -> None:
        """Read the kernel's table, and have a thread ask those that are new; waits for nobody."""
        if self._asking is not None and self._asking.is_alive():
            return
        own = set(self._own())
        found = {beside.inode: beside for beside in listening(self._port)}
        # An inode's number is given again, but not while its socket is in the table.
        self._gateways = {inode: text for inode, text in self._gateways.items() if inode in found}
        self._asked &= found.keys()
        new = [beside for inode, beside in found.items() if inode not in self._asked | own]
        if new:
            self._asking = thread.start(partial(self._ask, new), name="neighbours")

    def status(self) -> str:
        """Return what to add to the line for ``systemctl status``; ``""`` if there is nobody."""
        return "".join(f"; another gateway on {text}" for text in list(self._gateways.values()))

    def _ask(self, new: list[Listening]) -> None:
        for beside in new:
            health = probe(reachable(beside.host), beside.port)
            if health in _UNDECIDED:  # it may be on its way: asked again at the next look
                continue
            self._asked.add(beside.inode)
            if health is not Health.HEALTHY:
                continue
            pid, who = process.describe_socket(beside.inode, uid=beside.uid)
            address = url(beside.host, beside.port)
            self._gateways[beside.inode] = address
            self._journal.write(
                Event.NEIGHBOUR,
                f"another gateway came to our port number, on {address}: {who}",
                OWNER_PID=pid,
            )
