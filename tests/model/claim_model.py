"""The claim as a model: names, inodes, locks and processes, small enough to try everything.

One step is one system call of ``openclaw_gateway.claim`` that others can notice, named after what it
is for; ``test_conformance`` drives the real code through these very steps and compares. Left out is
what adds no behaviour: the second lock file (it stands in the same locked directory) and the TCP
listener (it is bound by whoever has the base port).

A hostile hand may unlink and move files and directories between any two steps, and every process
may be killed at each of its steps.

A second kind of process is OpenClaw's own gateway, which runs on Node. It holds a lock of its own
(SQLite's, on three files, here one), knows nothing of ``flock``, the locked directory or the base port,
and respects a record that names a living process. Its port is another one: on the same port the TCP
listener would decide. Records are modelled only where there is such a process, as nobody else decides
by them.
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

    # Of ours, where there is a gateway of OpenClaw's to take care of.
    ASK_FIRST = "ask for Node's lock before making a file"
    ASK_BEFORE = "ask for Node's lock before writing"
    READ_BEFORE = "read the record before writing"
    FOLLOW = "compare lock file after waiting"
    WRITE = "write record"
    ASK_AFTER = "ask for Node's lock after writing"
    CONFIRM = "compare lock file after writing"
    ASK_AGAIN = "ask for Node's lock before making the file anew"
    READ_AGAIN = "read the record before making the file anew"
    CLOSE_NEW = "close the new lock file"

    # Of OpenClaw's own gateway.
    NODE_MAKE = "Node: mkdir lock directory"
    NODE_LOCK = "Node: lock"
    NODE_LOOK = "Node: read record"
    NODE_COMPARE = "Node: read the stale record again"
    NODE_REMOVE = "Node: unlink the stale record"
    NODE_CREATE = "Node: create record file"
    NODE_WRITE = "Node: write record"
    NODE_SERVE = "Node: serve"
    NODE_LEAVE = "Node: look whether the record is its own"
    NODE_UNLINK = "Node: unlink its record"
    NODE_UNLOCK = "Node: unlock"
    NODE_GAP = "Node: lock again"


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


KILLED, RETRY, GIVE_UP, LOOK, STOP, START, RECLAIM, RESTART, YOUNG, TOO_OLD = (
    "is killed",
    "tries again",
    "gives up",
    "looks at its claim",
    "stops",
    "starts",
    "reclaims, as nobody listens",
    "restarts within its process",
    "finds an empty file and waits for its maker",
    "finds an empty file too old to wait for",
)

DEAD = -1
"""Whose record it is when its process has ended."""


class Protocol(NamedTuple):
    """The claim as built, and what can be left out of it to see what it is there for."""

    directory_lock: bool = True
    compare_after_lock: bool = True
    reopen_lock_directory: bool = True
    """Whether a start that found its file nameless walks to it anew, or opens it in the same directory again."""
    unlink: str = "while held"
    """Or ``after unlock``, or ``never``."""
    base_port: bool = True
    ask_first: bool = True
    """Whether a start looks for Node's lock before it makes a file."""
    ask_after: bool = True
    """Whether it does so once more after its record is written."""
    confirm: bool = True
    """Whether it compares its lock file with its name after that."""
    reclaim_by_port: bool = False
    """Whether a free port alone, which says nothing while Node starts, lets a start take Node's record."""
    node_unlocks_first: bool = False
    """Whether Node's lock that we can see goes before its record, as in a private ``/tmp``, not after."""


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
    is_node: bool = False
    read: int | None = None
    """Whom the record named that Node read: ``None`` for nobody, else ``DEAD``."""
    waited: bool = False
    """Whether a gateway without ``flock`` was waited for since the file was locked."""
    written: bool = False
    """Whether our record has been written into the file."""
    won: bool = False
    """Whether nobody else can think that the file is his any more: it is ours to unlink."""


class World(NamedTuple):
    """Everything shared. Inodes are numbers; ``tree`` says what each directory's one entry is."""

    processes: tuple[Process, ...]
    root: int | None = None
    """The inode at the state directory's path."""
    tree: tuple[tuple[int, int | None], ...] = ()
    flocks: tuple[tuple[int, int], ...] = ()
    """Inode and the process that locks it."""
    records: tuple[tuple[int, int], ...] = ()
    """Inode and whom the record in it names: a process that lives, or ``DEAD``."""
    node_lock: int | None = None
    """The process that holds Node's lock."""
    is_node_lock_seen: bool = True
    """Whether ours see that it is held."""
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

    def writer(self, inode: int | None) -> int | None:
        """Return whom the record in a file names; ``None`` if it is empty."""
        return dict(self.records).get(inode) if inode is not None else None

    def has_node(self) -> bool:
        """Whether any process is OpenClaw's own gateway."""
        return any(process.is_node for process in self.processes)

    def named_file(self) -> int | None:
        """Return the lock file that the path leads to."""
        return self.entry(self.entry(self.root))

    def with_entry(self, directory: int, inode: int | None) -> World:
        return self._replace(tree=tuple((dict(self.tree) | {directory: inode}).items()))


def begin(
    *, processes: int, starts: int, hostile: int, nodes: int = 0, node_starts: int = 1
) -> World:
    """Return a world where nothing has happened yet."""
    ours = (Process(starts_left=starts),) * processes
    others = (Process(starts_left=node_starts, is_node=True),) * nodes
    return World(processes=ours + others, hostile_left=hostile)


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
            choices = [
                (RETRY, self._retried(world, number)),
                (GIVE_UP, self._gone_back(world, number)),
            ]
            asking = process.step in (Step.ASK_BEFORE, Step.READ_BEFORE)
            if asking and self.protocol.reclaim_by_port:
                nobody_listens = not any(each.is_node and each.serving for each in world.processes)
                if nobody_listens:
                    choices.append((RECLAIM, to(Step.FOLLOW, contended=False)))
            return choices
        if process.step is Step.GONE:
            if not process.starts_left:
                return []
            first = Step.NODE_MAKE if process.is_node else Step.MAKE_STATE
            left = process.starts_left - 1
            return [(START, _moved(world, number, step=first, starts_left=left))]
        if process.step is Step.SERVE:
            look = Step.CHECK_STATE if self.protocol.directory_lock else Step.CHECK_FILE
            return [(LOOK, to(look)), (STOP, to(self._way_out(process), serving=False))]
        if process.step is Step.NODE_SERVE:
            last = Step.NODE_UNLOCK if self.protocol.node_unlocks_first else Step.NODE_LEAVE
            unlocked = to(Step.NODE_GAP, serving=False)._replace(node_lock=None)
            return [(STOP, to(last, serving=False)), (RESTART, unlocked)]
        found = world.named_file() if process.step is Step.NODE_LOOK else None
        if found is not None and world.writer(found) is None:
            # Younger than 30 s it is somebody's who is about to write; older it is nobody's.
            reads = to(Step.NODE_COMPARE, file=found, read=None)
            return [(YOUNG, to(Step.NODE_LOOK, contended=True)), (TOO_OLD, reads)]
        return None

    def _retried(self, world: World, number: int) -> World:
        process = world.processes[number]
        step, changes = process.step, {}
        match process.step:
            case Step.LOCK_STATE:
                step = Step.MAKE_STATE
            case Step.LOCK_FILE if process.held is not None:
                step = Step.CONFIRM if process.written else Step.FOLLOW
                changes = {"locks": process.held[0], "file": process.held[1], "held": None}
            case Step.LOCK_FILE:
                step = Step.MAKE_LOCKS
            case Step.ASK_BEFORE | Step.READ_BEFORE:
                step, changes = Step.ASK_BEFORE, {"waited": True}
        return _moved(world, number, step=step, contended=False, **changes)

    def _gone_back(self, world: World, number: int) -> World:
        """A start gives up: it goes back by what it holds."""
        process = world.processes[number]._replace(contended=False)
        if process.is_node:
            lost = process.step is Step.NODE_LOCK
            return (
                _gone(world, number)
                if lost
                else _moved(world, number, step=Step.NODE_UNLOCK, contended=False)
            )
        if process.held is not None:
            process = process._replace(locks=process.held[0], file=process.held[1], held=None)
        kept = {"locks": process.locks, "file": process.file, "held": None}
        return _moved(world, number, step=self._way_out(process), contended=False, **kept)

    def _way_out(self, process: Process) -> Step:
        """Return the first step backwards from what a process holds."""
        if process.step is Step.SERVE and self.protocol.base_port:
            return Step.LEAVE_PORT
        if process.file is not None:
            return self._release_file() if process.won else Step.CLOSE_FILE
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
                after = Step.LOCK_STATE if self.protocol.directory_lock else Step.ASK_FIRST
                return "done", self._asking(world, number, after, state=world.root)
            case Step.LOCK_STATE:
                assert process.state is not None
                if world.locker(process.state) is not None:
                    return "EAGAIN", to(Step.LOCK_STATE, state=None, contended=True)
                locked = _locked(world, process.state, number)
                return "done", self._asking(locked, number, Step.ASK_FIRST)
            case Step.ASK_FIRST | Step.ASK_AFTER:
                if world.node_lock is not None and world.is_node_lock_seen:
                    return "held", to(process.step, contended=True)
                first = process.step is Step.ASK_FIRST
                return "free", self._confirming(world, number) if not first else to(Step.MAKE_LOCKS)
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
                locked = _locked(world, process.file, number)
                if self.protocol.compare_after_lock:
                    return "done", to(Step.COMPARE, locked)
                return "done", self._has_file(locked, number)
            case Step.COMPARE:
                if world.entry(world.entry(process.state)) == process.file:
                    return "same", self._has_file(world, number)
                return "differs", to(Step.CLOSE_NAMELESS)
            case Step.CLOSE_NAMELESS:
                left = _unlocked(world, process.file)
                if self.protocol.reopen_lock_directory:
                    return "done", to(Step.MAKE_LOCKS, left, file=None, locks=None)
                return "done", to(Step.OPEN_FILE, left, file=None)
            case Step.ASK_BEFORE:
                if world.node_lock is not None and world.is_node_lock_seen:
                    return "held", to(Step.ASK_BEFORE, contended=True)
                return "free", to(Step.READ_BEFORE)
            case Step.READ_BEFORE:
                if self._names_a_node(world, process.file):
                    return "lives", to(Step.READ_BEFORE, contended=True)
                return "nobody's", to(Step.FOLLOW if process.waited else Step.WRITE)
            case Step.ASK_AGAIN:
                held = world.node_lock is not None and world.is_node_lock_seen
                return ("held", to(Step.CLOSE_NEW)) if held else ("free", to(Step.READ_AGAIN))
            case Step.READ_AGAIN:
                lives = self._names_a_node(world, process.file)
                return ("lives", to(Step.CLOSE_NEW)) if lives else ("nobody's", to(Step.CLOSE_FILE))
            case Step.FOLLOW:
                if world.entry(world.entry(process.state)) == process.file:
                    return "same", to(Step.WRITE)
                old = process.locks, process.file
                return "differs", to(Step.MAKE_LOCKS, locks=None, file=None, held=old, waited=False)
            case Step.WRITE:
                return "done", self._won(_written(world, process.file, number), number)
            case Step.CONFIRM:
                if world.entry(world.entry(process.state)) == process.file:
                    return "same", self._claimed_file(world, number)
                old = process.locks, process.file
                return "differs", to(Step.MAKE_LOCKS, locks=None, file=None, held=old)
            case Step.CLOSE_NEW:
                return "done", self._failed(_unlocked(world, process.file), number, process)
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
                return "differs", to(Step.MAKE_LOCKS, locks=None, file=None, held=old, waited=False)
            case Step.LEAVE_PORT:
                return "done", to(self._release_file(), world._replace(port=None))
            case Step.LEAVE_COMPARE:
                if world.entry(world.entry(process.state)) == process.file:
                    return "same", to(Step.UNLINK)
                return "differs", to(Step.CLOSE_FILE)
            case Step.UNLINK:
                assert process.locks is not None
                gone = world.with_entry(process.locks, None)
                after = (
                    Step.CLOSE_STATE if self.protocol.unlink == "after unlock" else Step.CLOSE_FILE
                )
                return "done", to(after, gone)
            case Step.CLOSE_FILE:
                return "done", self._close_file(world, number, process)
            case Step.CLOSE_STATE:
                left = _unlocked(world, process.state) if self.protocol.directory_lock else world
                return "done", _gone(left, number)
        if process.is_node:
            return self._node_step(world, number, process)
        raise AssertionError(process.step)

    def _node_step(self, world: World, number: int, process: Process) -> tuple[str, World]:
        """Make one step of OpenClaw's own gateway."""

        def to(step: Step, at: World = world, **changes: object) -> World:
            return _moved(at, number, step=step, **changes)

        named = world.named_file()
        directory = world.entry(world.root)
        match process.step:
            case Step.NODE_MAKE:
                return "done", to(Step.NODE_LOCK, _furnished(world))
            case Step.NODE_LOCK | Step.NODE_GAP:
                if world.node_lock is not None:
                    return "busy", to(Step.NODE_LOCK, contended=True)
                locked = world._replace(node_lock=number, is_node_lock_seen=True)
                return "done", to(Step.NODE_LOOK, locked)
            case Step.NODE_LOOK:
                if named is None:
                    return "nothing there", to(Step.NODE_CREATE)
                if world.writer(named) == number:
                    return "its own", to(Step.NODE_SERVE, serving=True)
                if world.writer(named) != DEAD:
                    return "lives", to(Step.NODE_LOOK, contended=True)
                return "dead", to(Step.NODE_COMPARE, file=named, read=DEAD)
            case Step.NODE_COMPARE:
                if (named, world.writer(named)) == (process.file, process.read):
                    return "same", to(Step.NODE_REMOVE, file=None, read=None)
                return "differs", to(Step.NODE_LOOK, file=None, read=None)
            case Step.NODE_REMOVE:
                if directory is None:
                    return "ENOENT", to(Step.NODE_CREATE)
                return "done", to(Step.NODE_CREATE, world.with_entry(directory, None))
            case Step.NODE_CREATE:
                if directory is None:
                    return "ENOENT", to(Step.NODE_UNLOCK)
                if named is not None:
                    return "EEXIST", to(Step.NODE_LOOK)
                made = world.with_entry(directory, world.fresh)._replace(fresh=world.fresh + 1)
                return "done", to(Step.NODE_WRITE, made, file=world.fresh)
            case Step.NODE_WRITE:
                written = _written(world, process.file, number)
                return "done", to(Step.NODE_SERVE, written, file=None, serving=True)
            case Step.NODE_LEAVE:
                last = Step.GONE if self.protocol.node_unlocks_first else Step.NODE_UNLOCK
                if world.writer(named) == number:
                    return "its own", to(Step.NODE_UNLINK)
                return "somebody else's", to(last) if last is not Step.GONE else _gone(
                    world, number
                )
            case Step.NODE_UNLINK:
                left = world if directory is None else world.with_entry(directory, None)
                if self.protocol.node_unlocks_first:
                    return "done", _gone(left, number)
                return "done", to(Step.NODE_UNLOCK, left)
            case Step.NODE_UNLOCK:
                if self.protocol.node_unlocks_first:
                    # What we can see is free now; what keeps other Nodes out is freed by its end.
                    return "done", to(Step.NODE_LEAVE, world._replace(is_node_lock_seen=False))
                return "done", _gone(world, number)
        raise AssertionError(process.step)

    def _failed(self, world: World, number: int, process: Process) -> World:
        """A start that hit an error takes its way out; an owner that can't restore its file has lost the claim."""
        if process.held is None:
            return _moved(world, number, step=Step.CLOSE_STATE)
        locks, file = process.held
        before = process._replace(file=file)
        if process.serving:
            before = before._replace(step=Step.SERVE)
        out = self._way_out(before)
        kept = {"locks": locks, "file": file, "held": None}
        return _moved(world, number, step=out, serving=False, **kept)

    def _asking(self, world: World, number: int, step: Step, **changes: object) -> World:
        """Go on to a step that is left out where there is no Node, or by the protocol."""
        if step is Step.ASK_FIRST and not (self.protocol.ask_first and world.has_node()):
            step = Step.MAKE_LOCKS
        return _moved(world, number, step=step, **changes)

    def _has_file(self, world: World, number: int) -> World:
        """The lock file is locked and named: let go of the one that it replaces, and write our record."""
        process = world.processes[number]
        world = _moved(world, number, waited=False)
        if process.held is None:
            return self._before_writing(world, number)
        if process.serving and world.has_node():
            return _moved(world, number, step=Step.ASK_AGAIN)
        return _moved(world, number, step=Step.CLOSE_FILE)

    def _names_a_node(self, world: World, file: int | None) -> bool:
        """Whether a living process wrote the record in a file that we have locked; of ours none can have."""
        writer = world.writer(file)
        return writer not in (None, DEAD) and world.processes[writer].is_node

    def _before_writing(self, world: World, number: int) -> World:
        if world.has_node():
            return _moved(world, number, step=Step.ASK_BEFORE, written=False)
        return self._won(world, number)

    def _won(self, world: World, number: int) -> World:
        """Our record is written."""
        world = _moved(world, number, written=True, waited=False)
        if world.processes[number].serving:
            return _moved(world, number, step=Step.SERVE)
        if world.has_node() and self.protocol.ask_after:
            return _moved(world, number, step=Step.ASK_AFTER)
        return self._confirming(world, number)

    def _confirming(self, world: World, number: int) -> World:
        if self.protocol.confirm:
            return _moved(world, number, step=Step.CONFIRM)
        return self._claimed_file(world, number)

    def _claimed_file(self, world: World, number: int) -> World:
        """The lock file is ours: go on to the port."""
        world = _moved(world, number, won=True)
        if self.protocol.base_port:
            return _moved(world, number, step=Step.BIND_PORT)
        return _moved(world, number, step=Step.SERVE, serving=True)

    def _refused_file(self, world: World, number: int, process: Process) -> World:
        if process.serving:  # someone holds a file in place of ours
            return self._failed(world, number, process)
        return _moved(world, number, step=Step.LOCK_FILE, locks=None, file=None, contended=True)

    def _close_file(self, world: World, number: int, process: Process) -> World:
        if process.held is not None:
            world = _moved(_unlocked(world, process.held[1]), number, held=None)
            if not process.serving:
                return self._before_writing(world, number)
            after = Step.WRITE if world.has_node() else Step.SERVE
            return _moved(world, number, step=after)
        if self.protocol.unlink == "after unlock" and process.won:
            return _moved(_unlocked(world, process.file), number, step=Step.UNLINK)
        after = Step.CLOSE_STATE if process.state is not None else Step.GONE
        return _moved(_unlocked(world, process.file), number, step=after, locks=None, file=None)


def _moved(world: World, number: int, **changes: object) -> World:
    processes = list(world.processes)
    processes[number] = processes[number]._replace(**changes)  # type: ignore[arg-type]
    return world._replace(processes=tuple(processes))


def _locked(world: World, inode: int, number: int) -> World:
    return world._replace(flocks=(*world.flocks, (inode, number)))


def _unlocked(world: World, inode: int | None) -> World:
    return world._replace(flocks=tuple(lock for lock in world.flocks if lock[0] != inode))


def _written(world: World, inode: int | None, number: int) -> World:
    assert inode is not None
    return world._replace(records=tuple((dict(world.records) | {inode: number}).items()))


def _furnished(world: World) -> World:
    """Make state directory and lock directory where they are missing."""
    if world.root is None:
        world = world._replace(root=world.fresh, fresh=world.fresh + 1)
    assert world.root is not None
    if world.entry(world.root) is None:
        made = world.with_entry(world.root, world.fresh).with_entry(world.fresh, None)
        world = made._replace(fresh=world.fresh + 1)
    return world


def _gone(world: World, number: int) -> World:
    """A process has ended: its records name nobody who lives."""
    ended = world.processes[number]
    processes = list(world.processes)
    processes[number] = Process(starts_left=ended.starts_left, is_node=ended.is_node)
    return world._replace(
        processes=tuple(processes),
        records=tuple((at, DEAD if of == number else of) for at, of in world.records),
        node_lock=None if world.node_lock == number else world.node_lock,
        is_node_lock_seen=world.is_node_lock_seen or world.node_lock == number,
    )


def _killed(world: World, number: int) -> World:
    """The kernel closes everything that the process had open."""
    return _gone(world, number)._replace(
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
        records=tuple(sorted((numbers[at], of) for at, of in world.records if at in numbers)),
        fresh=len(numbers),
    )
