"""The claim as a model: names, inodes, locks and processes, small enough to try everything.

One step is one system call of ``openclaw_gateway.claim`` that others can notice, named after what it
is for; ``test_conformance`` drives the real code through these very steps and compares. Left out is
what adds no behaviour: the second lock file (it stands in the same locked directory), the records
(no decision about a held lock looks at them) and the TCP listener (it is bound by whoever has the base port).

A hostile hand may unlink and move files and directories between any two steps, and every process
may be killed at each of its steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple


class Step(StrEnum):
    """What a process does next."""

    MAKE_STATE = "mkdir state directory"
    OPEN_STATE = "open state directory"
    LOCK_STATE = "flock state directory"
    MAKE_LOCKS = "mkdir lock directory"
    OPEN_LOCKS = "open lock directory"
    OPEN_FILE = "open lock file"
    LOCK_FILE = "flock lock file"
    COMPARE = "compare lock file with its name"
    CLOSE_NAMELESS = "close nameless lock file"
    BIND_PORT = "bind base port"
    SERVE = "serve"
    CHECK_STATE = "compare state directory with its name"
    CHECK_FILE = "compare own lock file with its name"
    LEAVE_PORT = "close base port"
    LEAVE_COMPARE = "compare lock file before unlinking"
    UNLINK = "unlink lock file"
    CLOSE_FILE = "close lock file"
    CLOSE_STATE = "close state directory"
    GONE = "gone"


class Hostile(StrEnum):
    """What someone else may do to our files, as often as the model allows."""

    REMOVE_FILE = "rm lock file"
    MOVE_FILE = "mv lock file aside"
    RETURN_FILE = "mv lock file back"
    MOVE_LOCKS = "mv lock directory aside"
    MOVE_STATE = "mv state directory aside"


class Action(NamedTuple):
    """Who does what, and how it ends. ``process`` is ``None`` for the hostile hand."""

    process: int | None
    does: str
    outcome: str = "done"

    def __str__(self) -> str:
        who = "someone" if self.process is None else f"process {self.process}"
        return f"{who}: {self.does} ({self.outcome})"


KILLED, RETRY, GIVE_UP, LOOK, STOP, START = (
    "is killed",
    "tries again",
    "gives up",
    "looks at its claim",
    "stops",
    "starts",
)


class Protocol(NamedTuple):
    """The claim as built, and what can be left out of it to see what it is there for."""

    directory_lock: bool = True
    compare_after_lock: bool = True
    reopen_lock_directory: bool = True
    """Whether a start that found its file nameless walks to it anew, or opens it in the same directory again."""
    unlink: str = "while held"
    """Or ``after unlock``, or ``never``."""
    base_port: bool = True


AS_BUILT = Protocol()
EVERYTHING = frozenset(Hostile)
BELOW_THE_DIRECTORY = EVERYTHING - {Hostile.MOVE_STATE}
"""What someone may do who leaves the state directory itself where it is."""


class Process(NamedTuple):
    """One process: where it stands and which inodes it has open."""

    step: Step = Step.GONE
    contended: bool = False
    state: int | None = None
    locks: int | None = None
    file: int | None = None
    held: tuple[int | None, int | None] | None = None
    """While a removed file is made anew: lock directory and file of the old one."""
    starts_left: int = 0
    serving: bool = False


class World(NamedTuple):
    """Everything shared. Inodes are numbers; ``tree`` says what each directory's one entry is."""

    processes: tuple[Process, ...]
    root: int | None = None
    """The inode at the state directory's path."""
    tree: tuple[tuple[int, int | None], ...] = ()
    flocks: tuple[tuple[int, int], ...] = ()
    """Inode and the process that locks it."""
    port: int | None = None
    aside: int | None = None
    hostile_left: int = 0
    fresh: int = 0

    def entry(self, directory: int | None) -> int | None:
        """Return the inode that a directory's one name leads to."""
        return dict(self.tree).get(directory) if directory is not None else None

    def locker(self, inode: int | None) -> int | None:
        """Return the process that holds a lock on an inode."""
        return dict(self.flocks).get(inode) if inode is not None else None

    def named_file(self) -> int | None:
        """Return the lock file that the path leads to."""
        return self.entry(self.entry(self.root))

    def with_entry(self, directory: int, inode: int | None) -> World:
        return self._replace(tree=tuple((dict(self.tree) | {directory: inode}).items()))


def begin(*, processes: int, starts: int, hostile: int) -> World:
    """Return a world where nothing has happened yet."""
    return World(processes=(Process(starts_left=starts),) * processes, hostile_left=hostile)


def owners(world: World) -> list[int]:
    """Return the processes that believe that they are the gateway."""
    return [number for number, process in enumerate(world.processes) if process.serving]


class Claim:
    """The steps of the claim, under one protocol and one kind of hostility."""

    def __init__(
        self, protocol: Protocol = AS_BUILT, *, hostility: frozenset[Hostile] = EVERYTHING
    ) -> None:
        self.protocol, self._hostility = protocol, hostility

    def successors(self, world: World) -> Iterator[tuple[Action, World]]:
        """Yield everything that can happen next."""
        for number in range(len(world.processes)):
            yield from self.moves(world, number)
            if world.processes[number].step is not Step.GONE:
                yield Action(number, KILLED), _normal(_killed(world, number))
        if world.hostile_left:
            for act, after in _hostile(world._replace(hostile_left=world.hostile_left - 1)):
                if act in self._hostility:
                    yield Action(None, act), _normal(after)

    def moves(self, world: World, number: int) -> Iterator[tuple[Action, World]]:
        """Yield what one process can do next."""
        process = world.processes[number]
        choices = self._choices(world, number, process)
        if choices is not None:
            for does, after in choices:
                yield Action(number, does), _normal(after)
            return
        outcome, after = self._step(world, number, process)
        yield Action(number, process.step, outcome), _normal(after)

    def _choices(
        self, world: World, number: int, process: Process
    ) -> list[tuple[str, World]] | None:
        """Return what a process decides for itself; ``None`` where it just goes on."""

        def to(step: Step, **changes: object) -> World:
            return _moved(world, number, step=step, **changes)

        if process.contended:
            return [
                (RETRY, to(self._retry_from(process), contended=False)),
                (GIVE_UP, to(self._way_out(process), contended=False)),
            ]
        if process.step is Step.GONE:
            if not process.starts_left:
                return []
            left = process.starts_left - 1
            return [(START, _moved(world, number, step=Step.MAKE_STATE, starts_left=left))]
        if process.step is Step.SERVE:
            look = Step.CHECK_STATE if self.protocol.directory_lock else Step.CHECK_FILE
            return [(LOOK, to(look)), (STOP, to(self._way_out(process), serving=False))]
        return None

    def _retry_from(self, process: Process) -> Step:
        match process.step:
            case Step.LOCK_STATE:
                return Step.MAKE_STATE
            case Step.LOCK_FILE:
                return Step.MAKE_LOCKS
            case _:
                return Step.BIND_PORT

    def _way_out(self, process: Process) -> Step:
        """Return the first step backwards from what a process holds."""
        if process.step is Step.SERVE and self.protocol.base_port:
            return Step.LEAVE_PORT
        if process.file is not None:
            return self._release_file()
        return Step.CLOSE_STATE if process.state is not None else Step.GONE

    def _release_file(self) -> Step:
        if self.protocol.unlink == "never":
            return Step.CLOSE_FILE
        return Step.CLOSE_FILE if self.protocol.unlink == "after unlock" else Step.LEAVE_COMPARE

    def _step(self, world: World, number: int, process: Process) -> tuple[str, World]:
        """Make one system call: how it ends, and the world after it."""

        def to(step: Step, at: World = world, **changes: object) -> World:
            return _moved(at, number, step=step, **changes)

        match process.step:
            case Step.MAKE_STATE:
                if world.root is not None:
                    return "exists", to(Step.OPEN_STATE)
                made = world._replace(root=world.fresh, fresh=world.fresh + 1)
                return "done", to(Step.OPEN_STATE, made.with_entry(world.fresh, None))
            case Step.OPEN_STATE:
                if world.root is None:
                    return "ENOENT", to(Step.GONE)
                after = Step.LOCK_STATE if self.protocol.directory_lock else Step.MAKE_LOCKS
                return "done", to(after, state=world.root)
            case Step.LOCK_STATE:
                assert process.state is not None
                if world.locker(process.state) is not None:
                    return "EAGAIN", to(Step.LOCK_STATE, state=None, contended=True)
                return "done", to(Step.MAKE_LOCKS, _locked(world, process.state, number))
            case Step.MAKE_LOCKS:
                assert process.state is not None
                if world.entry(process.state) is not None:
                    return "exists", to(Step.OPEN_LOCKS)
                made = world.with_entry(process.state, world.fresh).with_entry(world.fresh, None)
                return "done", to(Step.OPEN_LOCKS, made._replace(fresh=world.fresh + 1))
            case Step.OPEN_LOCKS:
                locks = world.entry(process.state)
                if locks is None:
                    return "ENOENT", self._failed(world, number, process)
                return "done", to(Step.OPEN_FILE, locks=locks)
            case Step.OPEN_FILE:
                assert process.locks is not None
                file = world.entry(process.locks)
                if file is not None:
                    return "exists", to(Step.LOCK_FILE, file=file)
                made = world.with_entry(process.locks, world.fresh)._replace(fresh=world.fresh + 1)
                return "done", to(Step.LOCK_FILE, made, file=world.fresh)
            case Step.LOCK_FILE:
                assert process.file is not None
                if world.locker(process.file) is not None:
                    return "EAGAIN", self._refused_file(world, number, process)
                after = Step.COMPARE if self.protocol.compare_after_lock else self._claimed(process)
                locked = _locked(world, process.file, number)
                if after is Step.COMPARE:
                    return "done", to(after, locked)
                return "done", self._has_file(locked, number, process)
            case Step.COMPARE:
                if world.entry(world.entry(process.state)) == process.file:
                    return "same", self._has_file(world, number, process)
                return "differs", to(Step.CLOSE_NAMELESS)
            case Step.CLOSE_NAMELESS:
                left = _unlocked(world, process.file)
                if self.protocol.reopen_lock_directory:
                    return "done", to(Step.MAKE_LOCKS, left, file=None, locks=None)
                return "done", to(Step.OPEN_FILE, left, file=None)
            case Step.BIND_PORT:
                if world.port is not None:
                    return "EADDRINUSE", to(Step.BIND_PORT, contended=True)
                return "done", to(Step.SERVE, world._replace(port=number), serving=True)
            case Step.CHECK_STATE:
                if world.root == process.state:
                    return "same", to(Step.CHECK_FILE)
                return "differs", to(
                    self._way_out(process._replace(step=Step.SERVE)), serving=False
                )
            case Step.CHECK_FILE:
                if world.entry(world.entry(process.state)) == process.file:
                    return "same", to(Step.SERVE)
                old = process.locks, process.file
                return "differs", to(Step.MAKE_LOCKS, locks=None, file=None, held=old)
            case Step.LEAVE_PORT:
                return "done", to(self._release_file(), world._replace(port=None))
            case Step.LEAVE_COMPARE:
                locks, file = process.held or (process.locks, process.file)
                if world.entry(world.entry(process.state)) == file:
                    return "same", to(Step.UNLINK)
                return "differs", to(Step.CLOSE_FILE)
            case Step.UNLINK:
                locks, _ = process.held or (process.locks, process.file)
                assert locks is not None
                gone = world.with_entry(locks, None)
                after = (
                    Step.CLOSE_STATE if self.protocol.unlink == "after unlock" else Step.CLOSE_FILE
                )
                return "done", to(after, gone)
            case Step.CLOSE_FILE:
                return "done", self._close_file(world, number, process)
            case Step.CLOSE_STATE:
                left = _unlocked(world, process.state) if self.protocol.directory_lock else world
                return "done", to(Step.GONE, left, state=None, locks=None, file=None)
        raise AssertionError(process.step)

    def _failed(self, world: World, number: int, process: Process) -> World:
        """A start that hit an error takes its way out; an owner that can't restore its file has lost the claim."""
        if process.held is None:
            return _moved(world, number, step=Step.CLOSE_STATE)
        locks, file = process.held
        out = self._way_out(process._replace(step=Step.SERVE, file=file))
        return _moved(world, number, step=out, locks=locks, file=file, held=None, serving=False)

    def _claimed(self, process: Process) -> Step:
        return Step.BIND_PORT if self.protocol.base_port else Step.SERVE

    def _has_file(self, world: World, number: int, process: Process) -> World:
        """The lock file is locked and named: go on to the port, or let go of the one it replaces."""
        if process.held is not None:
            return _moved(world, number, step=Step.LEAVE_COMPARE)
        serving = not self.protocol.base_port
        return _moved(world, number, step=self._claimed(process), serving=serving)

    def _refused_file(self, world: World, number: int, process: Process) -> World:
        if process.held is not None:  # someone holds a file in place of ours
            return self._failed(world, number, process)
        return _moved(world, number, step=Step.LOCK_FILE, locks=None, file=None, contended=True)

    def _close_file(self, world: World, number: int, process: Process) -> World:
        if process.held is not None:
            return _moved(_unlocked(world, process.held[1]), number, step=Step.SERVE, held=None)
        after = Step.CLOSE_STATE if process.state is not None else Step.GONE
        if self.protocol.unlink == "after unlock":
            after = Step.UNLINK
            return _moved(_unlocked(world, process.file), number, step=after)
        return _moved(_unlocked(world, process.file), number, step=after, locks=None, file=None)


def _moved(world: World, number: int, **changes: object) -> World:
    processes = list(world.processes)
    processes[number] = processes[number]._replace(**changes)  # type: ignore[arg-type]
    return world._replace(processes=tuple(processes))


def _locked(world: World, inode: int, number: int) -> World:
    return world._replace(flocks=(*world.flocks, (inode, number)))


def _unlocked(world: World, inode: int | None) -> World:
    return world._replace(flocks=tuple(lock for lock in world.flocks if lock[0] != inode))


def _killed(world: World, number: int) -> World:
    """The kernel closes everything that the process had open."""
    left = world.processes[number].starts_left
    processes = list(world.processes)
    processes[number] = Process(starts_left=left)
    return world._replace(
        processes=tuple(processes),
        flocks=tuple(lock for lock in world.flocks if lock[1] != number),
        port=None if world.port == number else world.port,
    )


def _hostile(world: World) -> Iterator[tuple[Hostile, World]]:
    locks, file = world.entry(world.root), world.named_file()
    if file is not None and locks is not None:
        yield Hostile.REMOVE_FILE, world.with_entry(locks, None)
        yield Hostile.MOVE_FILE, world.with_entry(locks, None)._replace(aside=file)
    if world.aside is not None and locks is not None:
        yield Hostile.RETURN_FILE, world.with_entry(locks, world.aside)._replace(aside=None)
    if locks is not None and world.root is not None:
        yield Hostile.MOVE_LOCKS, world.with_entry(world.root, None)
    if world.root is not None:
        yield Hostile.MOVE_STATE, world._replace(root=None)


def _normal(world: World) -> World:
    """Number the inodes anew in the order in which they are met, and forget those that nobody can meet."""
    numbers: dict[int, int] = {}
    tree = dict(world.tree)

    def new(inode: int | None) -> int | None:
        while inode is not None and inode not in numbers:
            numbers[inode] = len(numbers)
            new(tree.get(inode))
        return None if inode is None else numbers[inode]

    root, aside = new(world.root), new(world.aside)
    processes = tuple(
        process._replace(
            state=new(process.state),
            locks=new(process.locks),
            file=new(process.file),
            held=process.held and (new(process.held[0]), new(process.held[1])),
        )
        for process in world.processes
    )
    return world._replace(
        processes=processes,
        root=root,
        aside=aside,
        tree=tuple(sorted((numbers[at], new(to)) for at, to in world.tree if at in numbers)),
        flocks=tuple(sorted((numbers[at], by) for at, by in world.flocks if at in numbers)),
        fresh=len(numbers),
    )
