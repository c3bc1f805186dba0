"""
The port as a model: units that want it, and a service manager that keeps listening sockets while they are away.

``claim_model`` has what is below: who may come for the port at all. Here the lock on the port's number stands
for all of that, and the listener, which is left out there, is what it is about: it is the one thing that outlives
its process. One step is what others can notice; each process may be killed at each, and an administrator may
stop, restart and reconfigure a unit at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple


class Step(StrEnum):
    """What a unit's process does next; without a process, how the unit is."""

    ADOPT = "take what systemd kept"
    LOCK = "take the lock on the port's number"
    BIND = "bind and listen"
    KEEP = "have systemd keep the listener"
    SERVE = "serve"
    CLOSE = "close our copy of the listener"
    UNLOCK = "give the lock back"
    AWAY = "waits for its next start"
    STOPPED = "is stopped"
    PARKED = "ended for good"


RESTING = frozenset({Step.STOPPED, Step.PARKED})
ABSENT = RESTING | {Step.AWAY}

START, KILLED, STOP, RESTART, CHANGE, GIVE_UP, DEFER = (
    "starts",
    "is killed",
    "is told to stop",
    "is told to restart",
    "is given another port",
    "gives up for now",
    "leaves the port to a healthy owner",
)


class Action(NamedTuple):
    """Which unit does what."""

    unit: int
    does: str

    def __str__(self) -> str:
        return f"unit {self.unit}: {self.does}"


class Protocol(NamedTuple):
    """How it is built, and what can be done wrong to see what that is good for."""

    store: bool = True
    """Whether systemd keeps the listener."""
    discards: bool = True
    """Whether what is kept and no longer wanted is given up."""
    knows_own: bool = True
    """Whether a start that was handed its own listener knows that nobody else answers there."""
    only_closes: bool = True
    """Whether a stop closes its copy, instead of shutting the listener down for all of them."""
    keeps_lock: bool = False
    """Whether systemd is given the lock as well."""
    standby_keeps: bool = False
    """Whether a standby has its listener kept too."""


AS_BUILT = Protocol()


class Unit(NamedTuple):
    """One unit: what it wants, where its process stands, and what there is of it."""

    wants: int = 0
    """The port, as the settings have it."""
    standby: bool = False
    step: Step = Step.STOPPED
    port: int | None = None
    """The port by which the process was started."""
    bound: int | None = None
    """The port that the process itself listens on."""
    kept: int | None = None
    """The port of the listener that systemd keeps."""
    deaf: bool = False
    """Whether what is kept was shut down: it is there, and nobody can connect."""
    restarts: bool = False
    """Whether the stop that is under way is one half of a restart."""
    promised: int | None = None
    """The port on which nobody may be refused: from READY on until a stop, an end for good or another port."""


class World(NamedTuple):
    """All units, who holds the lock of each port, and how much may still happen to them."""

    units: tuple[Unit, ...]
    locks: tuple[tuple[int, int], ...] = ()
    """Port and unit."""
    kills: int = 0
    jobs: int = 0
    """How often an administrator may still do something."""

    def holder(self, port: int | None) -> int | None:
        """Return the unit that holds a port's lock."""
        return dict(self.locks).get(port) if port is not None else None

    def listeners(self, port: int | None) -> set[int]:
        """Return the units of whose listeners there is a copy, be it in systemd's hands."""
        return {
            number
            for number, unit in enumerate(self.units)
            if port is not None and port in (unit.bound, unit.kept)
        }


def begin(*, units: int, kills: int, jobs: int, standby: bool = False) -> World:
    """Return a world in which every unit is stopped."""
    return World((Unit(standby=standby),) * units, kills=kills, jobs=jobs)


def serving(world: World, port: int) -> list[int]:
    """Return the units that serve a port."""
    return [
        number
        for number, unit in enumerate(world.units)
        if unit.step is Step.SERVE and unit.bound == port
    ]


class Port:
    """The steps, under one protocol."""

    def __init__(self, protocol: Protocol = AS_BUILT) -> None:
        self.protocol = protocol

    def successors(self, world: World) -> Iterator[tuple[Action, World]]:
        """Yield everything that can happen next."""
        for number, unit in enumerate(world.units):
            yield from self.moves(world, number)
            if world.kills and unit.step not in ABSENT:
                left = world._replace(kills=world.kills - 1)
                stops = unit.step in (Step.CLOSE, Step.UNLOCK) and not unit.restarts
                end = Step.STOPPED if stops else Step.AWAY
                yield Action(number, KILLED), self._ended(left, number, end)
            if world.jobs:
                yield from self._jobs(world._replace(jobs=world.jobs - 1), number)

    def moves(self, world: World, number: int) -> Iterator[tuple[Action, World]]:
        """Yield what a unit does by itself, its manager's next start included."""
        unit = world.units[number]
        step = unit.step
        if step is Step.AWAY:
            yield Action(number, START), _with(world, number, step=Step.ADOPT, port=unit.wants)
            return
        if step in RESTING or step is Step.SERVE:
            return
        blocked = self._blocked_by(world, number)
        if blocked is None:
            yield Action(number, step), self._done(world, number)
        elif not unit.standby:  # it waits; sooner or later its patience is over
            owner = world.units[blocked]
            is_healthy = owner.step is Step.SERVE and blocked != number
            does, end = (DEFER, Step.PARKED) if is_healthy else (GIVE_UP, Step.AWAY)
            yield Action(number, does), self._ended(world, number, end)
        elif step is Step.BIND:  # a standby waits with nothing in its hands
            yield Action(number, GIVE_UP), self._ended(world, number, Step.AWAY)

    def _jobs(self, world: World, number: int) -> Iterator[tuple[Action, World]]:
        unit = world.units[number]
        if unit.step is Step.SERVE:
            stopping = _with(world, number, step=Step.CLOSE, promised=None)
            yield Action(number, STOP), stopping
            yield Action(number, RESTART), _with(world, number, step=Step.CLOSE, restarts=True)
        elif unit.step in RESTING:
            yield Action(number, START), _with(world, number, step=Step.ADOPT, port=unit.wants)
        elif unit.step not in (Step.CLOSE, Step.UNLOCK):  # away, or on its way to the port
            yield Action(number, STOP), self._ended(world, number, Step.STOPPED)
        yield Action(number, CHANGE), _with(world, number, wants=1 - unit.wants)

    def _blocked_by(self, world: World, number: int) -> int | None:
        """Return the unit that is in the way of the next step."""
        unit = world.units[number]
        if unit.step is Step.LOCK:
            if unit.bound is not None and not self.protocol.knows_own:
                return number  # asks its own listener, and waits for the answer
            return world.holder(unit.port)
        if unit.step is Step.BIND and unit.bound is None:
            return next(iter(world.listeners(unit.port)), None)
        return None

    def _done(self, world: World, number: int) -> World:
        """Take the next step."""
        unit = world.units[number]
        match unit.step:
            case Step.ADOPT:
                if unit.kept is None:
                    return _with(world, number, step=Step.LOCK)
                if unit.kept == unit.port:
                    kept = unit.kept if self._keeps(unit) else None
                    return _with(world, number, step=Step.LOCK, bound=unit.kept, kept=kept)
                # The settings want another port now: nobody is promised the old one any more.
                kept = None if self.protocol.discards else unit.kept
                return _with(world, number, step=Step.LOCK, kept=kept, promised=None)
            case Step.LOCK:
                locks = (*world.locks, (unit.port or 0, number))
                return _with(world._replace(locks=tuple(sorted(locks))), number, step=Step.BIND)
            case Step.BIND:
                return _with(world, number, step=Step.KEEP, bound=unit.port)
            case Step.KEEP:
                kept = unit.kept
                if self._keeps(unit) and (kept is None or self.protocol.discards):
                    kept = unit.bound
                promised = None if unit.standby else unit.bound
                return _with(world, number, step=Step.SERVE, kept=kept, promised=promised)
            case Step.CLOSE:
                deaf = unit.deaf or not self.protocol.only_closes
                return _with(world, number, step=Step.UNLOCK, bound=None, deaf=deaf)
            case Step.UNLOCK:
                return self._ended(world, number, Step.AWAY if unit.restarts else Step.STOPPED)
        raise AssertionError(unit.step)

    def _keeps(self, unit: Unit) -> bool:
        return self.protocol.store and (not unit.standby or self.protocol.standby_keeps)

    def _ended(self, world: World, number: int, step: Step) -> World:
        """The process is gone, with all that it had open; if for good, systemd closes what it kept."""
        unit = world.units[number]
        locks = tuple(lock for lock in world.locks if lock[1] != number)
        if self.protocol.keeps_lock and step is Step.AWAY:
            locks = world.locks
        left = Unit(unit.wants, unit.standby, step)
        if step is Step.AWAY:
            left = left._replace(kept=unit.kept, deaf=unit.deaf, promised=unit.promised)
        return _replaced(world._replace(locks=locks), number, left)


def _with(world: World, number: int, **changes: object) -> World:
    return _replaced(world, number, world.units[number]._replace(**changes))  # type: ignore[arg-type]


def _replaced(world: World, number: int, unit: Unit) -> World:
    units = (*world.units[:number], unit, *world.units[number + 1 :])
    return world._replace(units=units)
