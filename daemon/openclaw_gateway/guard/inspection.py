"""
Looking at a child: who listens for it, by the kernel's tables, and what its routes answer.

A look takes as long as the child takes to answer, and nobody waits for it: the loop polls the open
question's descriptor along with everything else, and is handed the ``Look`` once it is whole.
"""

from __future__ import annotations

from typing import NamedTuple

from openclaw_gateway.client.answer import Health
from openclaw_gateway.guard.child import Child
from openclaw_gateway.guard.question import Question, Route
from openclaw_gateway.guard.rule import Look
from openclaw_gateway.host import process
from openclaw_gateway.host.address import reachable, url
from openclaw_gateway.host.ports import Listening, listening
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal


class Expectation(NamedTuple):
    """What a child must show to be called ready, and how it is asked to stop."""

    port: int
    health: Route
    startup: Route | None
    """``None`` if the health route says it all."""
    ready_timeout_s: float
    stop_signal: int


class Inspector:
    """
    Looks at a child, one look at a time.

    Attributes:
        question: The question that is open, to be polled for and advanced; ``None`` between looks.
    """

    def __init__(self, child: Child, expectation: Expectation, neighbours: Neighbours) -> None:
        """
        Look at nothing yet.

        Args:
            child: Whose listener counts.
            expectation: Which port, and which routes.
            neighbours: Told of everyone else who listens on that port.
        """
        self._child, self._expectation, self._neighbours = child, expectation, neighbours
        self.question: Question | None = None
        self._to_ask: list[Route] = []
        self._host = ""
        self._tls = False
        self._found = Look(listens=False)

    def begin(self, now_s: float, *, starting: bool, patience_s: float) -> Look | None:
        """
        Begin a look: find the child's listener, and if there is one open the first question.

        Args:
            now_s: The monotonic clock.
            starting: Whether the startup route counts too.
            patience_s: How long each question may take.

        Returns:
            The look, if it is whole already; else ``go_on`` will have it.
        """
        port = self._expectation.port
        # First the table, then the child's descriptors: the other way round, a socket that it opens in
        # between would look like somebody else's.
        listeners = listening()
        own = process.socket_inodes(self._child.family())
        ours = [found for found in listeners if found.inode in own]
        here = [found for found in ours if found.port == port]
        self._neighbours.look(
            [found for found in listeners if found.port == port and found.inode not in own]
        )
        if not here:
            others = tuple(sorted({found.port for found in ours}))
            return Look(listens=False, other_ports=others)
        self._host, self._patience_s = reachable(here[0].host), patience_s
        self._to_ask = [self._expectation.health]
        if starting and self._expectation.startup is not None:
            self._to_ask.append(self._expectation.startup)
        self._found = Look(listens=True, started=self._expectation.startup is None)
        self._ask(now_s)
        return None

    def go_on(self, now_s: float) -> Look | None:
        """Return the look if its last question is over; else ask the next one, and return ``None``."""
        if self.question is None or not self.question.is_over(now_s):
            return None
        health, wants_tls = self.question.health, self.question.wants_tls
        self.drop()
        if wants_tls:
            self._tls = True
            self._ask(now_s)
            return None
        if self._to_ask.pop(0) is self._expectation.health:
            self._found = self._found._replace(health=health)
        else:
            self._found = self._found._replace(started=health is Health.HEALTHY)
        if self._to_ask and health is Health.HEALTHY:
            self._ask(now_s)
            return None
        return self._found

    def _ask(self, now_s: float) -> None:
        self.question = Question(
            self._host,
            self._expectation.port,
            self._to_ask[0],
            deadline_s=now_s + self._patience_s,
            tls=self._tls,
        )

    def drop(self) -> None:
        """Close the open question, if there is one."""
        if self.question is not None:
            self.question.close()
            self.question = None


class Neighbours:
    """
    Who else listens on the child's port: told of once each, as nothing that a guard holds can prevent it.

    The kernel lets somebody listen on another address of the same port; and a child that restarts itself
    leaves its port free for a moment.
    """

    def __init__(self, journal: Journal) -> None:
        """Know of nobody yet."""
        self._journal = journal
        self._known: dict[int, tuple[str, str]] = {}

    def look(self, found: list[Listening]) -> None:
        """Take in who listens now: forget those who have gone, find out about those who are new."""
        known = {beside.inode: self._known.get(beside.inode) for beside in found}
        self._known = {inode: who for inode, who in known.items() if who is not None}
        for beside in found:
            if beside.inode not in self._known:
                self._meet(beside)

    def _meet(self, beside: Listening) -> None:
        pid, who = process.describe_socket(beside.inode, uid=beside.uid)
        address = url(beside.host, beside.port)
        self._known[beside.inode] = address, who
        self._journal.write(
            Event.NEIGHBOUR,
            f"another program listens on our port number, on {address}: {who}",
            OWNER_PID=pid,
            PORT=beside.port,
        )

    def holders(self) -> str:
        """Return who they are, for a sentence; ``""`` if there is nobody."""
        return ", ".join(dict.fromkeys(who for _, who in self._known.values()))

    def status(self) -> str:
        """Return what to add to the line for ``systemctl status``; ``""`` if there is nobody."""
        return "".join(f"; another program on {address}" for address, _ in self._known.values())
