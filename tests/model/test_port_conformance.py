"""The real gateway, driven along the port model's ways: the same port bound, and the same kept, after each of them."""

from __future__ import annotations

import signal
import socket

from conftest import Daemon, NotifySocket, Resume, free_port
from model.explorer import explore, walks
from model.port_model import (
    ABSENT,
    CHANGE,
    KILLED,
    RESTART,
    START,
    STOP,
    Action,
    Port,
    Step,
    Unit,
    World,
    begin,
)
from openclaw_gateway.host.ports import listening

_ROUGH = (START, KILLED, STOP, RESTART, CHANGE)
"""What happens to a unit; what it does then, by itself, is left to it."""


def settled(port: Port, world: World) -> World:
    """Let the unit go on until it serves, or nobody is there."""
    while world.units[0].step not in {Step.SERVE, *ABSENT}:
        _, world = next(port.moves(world, 0))
    return world


def rough_successors(world: World) -> list[tuple[Action, World]]:
    """Return what can happen to a unit that serves or is absent, each with how that ends."""
    port = Port()
    endless = world._replace(kills=1, jobs=1)
    found = {
        action: settled(port, after)._replace(kills=0, jobs=0)
        for action, after in port.successors(endless)
        if action.does in _ROUGH
    }
    return list(found.items())


def test_the_gateway_goes_every_way_that_the_model_goes(
    resume: Resume, notify: NotifySocket
) -> None:
    start = begin(units=1, kills=0, jobs=0)
    found = explore(start, rough_successors, lambda world: None)
    assert len(found.edges) >= 6
    driven = Driven(resume, notify)
    for walk in walks(start, found.edges):
        way = []
        for action, after in walk:
            way.append(str(action))
            driven.act(action.does, after.units[0])
            assert driven.bound() == wanted(after), "\n".join(way)
            assert driven.kept() == after.units[0].kept, "\n".join(way)
        driven.end()


def wanted(world: World) -> set[int]:
    """Return the model's ports on which anyone listens."""
    return {port for port in (0, 1) if world.listeners(port)}


class Driven:
    """One unit's gateway, and the test in its manager's place."""

    def __init__(self, resume: Resume, notify: NotifySocket) -> None:
        self._resume, self._notify = resume, notify
        self._ports = [free_port(), free_port()]
        self._wants = 0
        self._daemon: Daemon | None = None

    def act(self, does: str, after: Unit) -> None:
        """Do what the model does, and wait for what that comes to."""
        match does:
            case _ if does == CHANGE:
                self._wants = after.wants
            case _ if does == START:
                self._start()
            case _ if does == KILLED:
                assert self._daemon is not None
                self._daemon.kill()
                self._daemon = None
            case _ if does in (STOP, RESTART):
                self._stop()
                if does == STOP:
                    self._notify.forget()
        assert (self._daemon is not None) == (after.step is Step.SERVE)

    def _start(self) -> None:
        self._daemon = self._resume("--port", str(self._ports[self._wants]))
        self._notify.wait_for("READY=1")

    def _stop(self) -> None:
        if self._daemon is not None:
            self._daemon.signal(signal.SIGTERM)
            assert self._daemon.finish() == 0
            self._daemon = None

    def bound(self) -> set[int]:
        """Return the model's ports on which anyone listens, by the kernel's word."""
        self._notify.drain()
        return {at for at, port in enumerate(self._ports) if listening(port)}

    def kept(self) -> int | None:
        """Return the model's port of the listeners that are kept; all of them are one gateway's."""
        ports = set()
        for _, fd in self._notify.kept:
            with socket.socket(fileno=fd) as each:
                ports.add(self._ports.index(each.getsockname()[1]))
                each.detach()
        assert len(ports) <= 1
        return ports.pop() if ports else None

    def end(self) -> None:
        """Have the unit stopped, whatever it does."""
        self._stop()
        self._notify.drain()
        self._notify.forget()
        self._wants = 0
