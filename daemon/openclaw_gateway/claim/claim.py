"""Who owns this port? A claim is a list of holds, taken in order and released in reverse.

Plain synchronous code with small imports. On a free port it loads no HTTP client and no event loop.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import NamedTuple, TypeVar

from openclaw_gateway import __version__
from openclaw_gateway.claim import node
from openclaw_gateway.claim.baseport import BasePortLock
from openclaw_gateway.claim.decision import Obstacle, Verdict
from openclaw_gateway.claim.listener import (
    Adopted,
    Passed,
    adopt,
    listen,
    listen_if_possible,
    turn_away,
)
from openclaw_gateway.claim.lockfile import (
    STATE_LOCK_NAME,
    Contended,
    DirectoryLock,
    LockFile,
    config_lock_name,
    lock_directory_parts,
)
from openclaw_gateway.claim.record import LockRecord, Phase
from openclaw_gateway.claim.waiting import Leave, Patience, Policy, persist, refuse_neighbours
from openclaw_gateway.errors import ClaimLostError, ExitCode, GatewayError, StorageError
from openclaw_gateway.host import process
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.journal import Journal
from openclaw_gateway.supervisor.notify import Supervisor

T = TypeVar("T")


class Hold:
    """One thing that is ours alone; each kind overrides what it can do."""

    def look(self, record: LockRecord) -> str | None:
        """
        Check that it still guards what it guarded, and make good what can be.

        Args:
            record: What our lock files say of us.

        Returns:
            The path of a file that had to be made anew; usually ``None``.

        Raises:
            ClaimLostError: It guards nothing any more.
        """
        return None

    def publish(self, record: LockRecord) -> None:
        """Tell readers who we are. Raises ``StorageError``."""

    def disown(self) -> None:
        """Close it in a forked child, and change nothing: it is the parent's."""
        self.release()

    def release(self) -> None:
        """Give it back."""


class StateDirectory(Hold):
    """The lock on the state directory itself, below which all lock files stand."""

    def __init__(self, lock: DirectoryLock) -> None:
        self.lock = lock

    def look(self, record: LockRecord) -> str | None:
        """See whether the path still leads to what we hold."""
        problem = self.lock.problem()
        if problem:
            raise ClaimLostError(self.lock.path, problem)
        return None

    def release(self) -> None:
        """Let go of it."""
        self.lock.release()


class Record(Hold):
    """
    A lock file with our record in it.

    Attributes:
        file: The lock file.
        won: Whether nobody who takes no ``flock`` can think that the file is his any more.
    """

    def __init__(self, file: LockFile, rival: Callable[[], Contended | None]) -> None:
        """
        Keep the file.

        Args:
            file: The lock file, with our record in it.
            rival: Returns who locks our state otherwise than by ``flock``; ``None`` if nobody does.
        """
        self.file, self._rival = file, rival
        self.won = False

    def look(self, record: LockRecord) -> str | None:
        """
        Make the file anew if it was removed.

        No gateway of ours can have taken its place while the state directory is locked; one of
        OpenClaw's, which looks at records only, can: what it wrote there stays.
        """
        try:
            successor = self.file.successor()
            if successor is None:
                return None
            rival = self._rival() or successor.writer()
            if rival is not None:
                successor.close()
                raise rival
            self.file.close()
            self.file = successor
            successor.write(record)
        except Contended as error:
            holder = f"held by pid {error.pid or 'unknown'}"
            raise ClaimLostError(self.file.path, holder) from error
        except StorageError as error:
            raise ClaimLostError(self.file.path, error.problem) from error
        return self.file.path

    def publish(self, record: LockRecord) -> None:
        """Write the record into the file."""
        self.file.write(record)

    def disown(self) -> None:
        """Close the file and leave its name to the parent."""
        self.file.close()

    def release(self) -> None:
        """Let go of the file, and remove it if it was won."""
        if self.won:
            self.file.release()
        else:
            self.file.close()


class BasePort(Hold):
    """The lock on the port's number, which answers whoever asks for its holder."""

    def __init__(self, lock: BasePortLock) -> None:
        self.lock = lock

    def release(self) -> None:
        """Give the number back."""
        self.lock.release()


class Listener(Hold):
    """
    The sockets that listen; the only place that closes them.

    Attributes:
        sockets: All of them, the configured address first.
        own: Those that are not a socket unit's: systemd may keep a copy for our next start.
    """

    def __init__(self, sockets: list[socket.socket], own: list[socket.socket]) -> None:
        self.sockets, self.own = sockets, own

    def release(self) -> None:
        """
        Close them; done twice, it does nothing more.

        Never by shutdown(2): that would end the listening itself, for systemd's copies as well.
        """
        for listener in self.sockets:
            listener.close()


class Claim:
    """
    Everything that makes this process the gateway of its port.

    Attributes:
        record: What our lock files say of us.
        holds: What is ours, in the order in which it was taken.
    """

    def __init__(self, record: LockRecord) -> None:
        self.record = record
        self.holds: list[Hold] = []

    def of(self, kind: type[T]) -> list[T]:
        """Return the holds of one kind."""
        return [hold for hold in self.holds if isinstance(hold, kind)]

    @property
    def state(self) -> DirectoryLock:
        """The state directory's lock, which every claim begins with."""
        return self.of(StateDirectory)[0].lock

    @property
    def lock_paths(self) -> list[str]:
        """The lock files' paths."""
        return [hold.file.path for hold in self.of(Record)]

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets, non-blocking; the configured address first."""
        return [listener for hold in self.of(Listener) for listener in hold.sockets]

    @property
    def own_sockets(self) -> list[socket.socket]:
        """Those of them that systemd may keep a copy of; see ``Listener``."""
        return [listener for hold in self.of(Listener) for listener in hold.own]

    @property
    def base_port(self) -> BasePortLock:
        """The hold on the port number. Ask for it only if it was a step of the claim."""
        return self.of(BasePort)[0].lock

    def publish(self, phase: Phase) -> None:
        """Write into our lock files where in our life we are. Raises ``StorageError`` if that fails."""
        self.record = self.record._replace(phase=phase)
        for hold in self.holds:
            hold.publish(self.record)

    def answer(self) -> None:
        """Tell those who ask for the base port's holder who we are; never waits."""
        self.base_port.answer(self.record)

    def verify(self) -> list[str]:
        """
        Check that what we hold still guards what it guards, and make good what can be.

        Returns:
            The paths of lock files made anew; usually none.

        Raises:
            ClaimLostError: The state directory was moved or replaced, or someone holds a lock file
                in place of ours. A second gateway may be starting: stop.
        """
        return [path for hold in self.holds if (path := hold.look(self.record)) is not None]

    def close_listeners(self) -> None:
        """Stop listening: from here on the port is free for others, the locks still ours."""
        for hold in self.of(Listener):
            hold.release()

    def disown(self) -> None:
        """
        Close all of it in a forked child.

        A lock lives as long as any process has its descriptor, so a child that outlives us would
        hold it; flock(2). Children that execute another program close it by that, see PEP 446.
        """
        for hold in reversed(self.holds):
            hold.disown()
        self.holds.clear()

    def release(self) -> None:
        """Give everything back, in reverse order, even if giving one of them back fails."""
        with ExitStack() as undo:
            for hold in self.holds:
                undo.callback(hold.release)
            self.holds = []


class Start(NamedTuple):
    """What the steps of a claim work with."""

    settings: Settings
    claim: Claim
    policy: Policy
    patience: Patience
    journal: Journal
    adopted: Adopted
    """Listening sockets that systemd handed over; a step that takes them empties it."""

    def persist(self, take: Callable[[], T]) -> T:
        """Take something, outwaiting whoever has it and what keeps it from being there. See ``Policy``."""
        return self.patience.outwait(lambda: persist(take, self.policy))


Step = Callable[[Start], Hold | None]
"""Takes one thing and returns the hold on it, or ``None`` if it only looks."""


def state_directory(start: Start) -> Hold:
    """Lock the state directory."""
    return StateDirectory(start.persist(lambda: DirectoryLock(start.settings.state_dir)))


def state_record(start: Start) -> Hold:
    """Take the lock file of the state directory."""
    return _record(start, STATE_LOCK_NAME)


def configuration(start: Start) -> Hold | None:
    """Take the configuration's lock file."""
    if start.settings.allow_multiple:
        return None
    return _record(start, config_lock_name(start.settings.config_path))


def no_node(start: Start) -> None:
    """
    Make sure that no gateway of OpenClaw's own has this state, and that our records stand.

    Asked for after our records are written, this closes the race of two simultaneous starts:
    1. We write our records. 2. We look at its locks. 3. We look whether the records are still there.
    It does the same the other way round: it takes its locks, then looks at our records, leaves if
    they name a living process, and removes those of a dead one. So whichever of the two comes second
    sees the other: if it takes its locks before 2, we see them and wait; if after 2, it sees the
    records that are there since 1. It may have looked before 1 and end between looking and 2, with
    our record removed for the one of a dead gateway that it had read: 3 sees that, and we begin again.
    In between both may see each other: then both hold back, it leaves for good, and we go on once its
    locks are free. Only then are the records won: a start that gives up before leaves them where they
    are, as any of them may be a living gateway's that took the name since.
    """
    while True:
        contended = node_lock(start)
        if contended is not None:
            start.policy.settle(contended)
        elif not any(_retake(start, hold) for hold in start.claim.of(Record)):
            break
    for hold in start.claim.of(Record):
        hold.won = True


def base_port(start: Start) -> Hold:
    """Take the port's number."""
    settings = start.settings
    return BasePort(start.persist(lambda: BasePortLock(settings.port, host=settings.host)))


def listener(start: Start) -> Hold:
    """Take over what systemd listens on for us, and listen where it does not."""
    settings, adopted = start.settings, start.adopted
    refuse_neighbours(settings, start.policy, start.journal, own=adopted.inodes())
    named_by = str(settings.origins["host"])
    bound: dict[str, socket.socket] = {}
    try:
        for host, required in settings.addresses:
            if host in adopted.sockets:
                continue
            if required:
                found: socket.socket | None = start.persist(
                    partial(listen, host, settings.port, named_by=named_by)
                )
            else:
                found = listen_if_possible(host, settings.port)
            if found is not None:
                bound[host] = found
    except BaseException:
        for each in bound.values():
            each.close()
        raise
    there = adopted.sockets | bound
    # In the order of the settings, and one that serves two addresses only once.
    sockets = list(dict.fromkeys(there[host] for host, _ in settings.addresses if host in there))
    adopted.sockets.clear()
    return Listener(sockets, [each for each in sockets if each not in adopted.activated])


GATEWAY: Sequence[Step] = (
    state_directory,
    no_node,  # before we make a file: an empty one of ours would keep it from starting
    state_record,
    configuration,
    no_node,
    base_port,
    listener,
)
"""What our own gateway takes, in this order."""


def begin(
    settings: Settings,
    claim: Claim,
    supervisor: Supervisor,
    journal: Journal,
    *,
    pause: Callable[[float], None],
    policy: Policy | None = None,
    adopted: Adopted | None = None,
) -> Start:
    """Return what steps work with, its clock started. Arguments as for ``acquire``."""
    adopted = Adopted({}) if adopted is None else adopted
    return Start(
        settings,
        claim,
        policy or Leave(settings, supervisor, journal, pause=pause, own=adopted.inodes()),
        Patience(supervisor, journal, pause=pause),
        journal,
        adopted,
    )


@contextmanager
def acquire(
    settings: Settings,
    supervisor: Supervisor,
    journal: Journal,
    *,
    passed: Passed | None = None,
    pause: Callable[[float], None],
    steps: Sequence[Step] = GATEWAY,
    policy: Policy | None = None,
) -> Iterator[Claim]:
    """
    Take the claim, hold it for the ``with`` block, give it back.

    Args:
        settings: Where and how.
        supervisor: Told what is waited for; says how long to be patient and what to exit with.
        journal: Told of reclaims, waits and neighbours.
        passed: The sockets that systemd handed over.
        pause: Sleeps that many seconds; may raise to end the start.
        steps: What to take, in this order.
        policy: What to do about whoever is in the way; by default what the page says.

    Raises:
        GatewayLockError: Someone else has it.
        StorageError: The state directory can't be used.
        ConfigurationError: systemd passed sockets that don't fit the configuration.
    """
    with ExitStack() as undo:
        adopted = Adopted({})
        if passed is not None:
            hosts = [host for host, _ in settings.addresses]
            adopted = adopt(
                passed,
                hosts,
                port=settings.port,
                supervisor=supervisor,
                standby=settings.standby,
            )
        undo.callback(adopted.close)
        claim = Claim(_own_record(settings, supervisor))
        undo.callback(claim.release)
        undo.push(partial(_part, claim, adopted))
        _disown_in_children(claim)
        start = begin(
            settings, claim, supervisor, journal, pause=pause, policy=policy, adopted=adopted
        )
        for step in steps:
            hold = step(start)
            if hold is not None:
                claim.holds.append(hold)
        yield claim


def _part(
    claim: Claim,
    adopted: Adopted,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Send away who waits to be let in, if what ends the claim is never followed by another start."""
    if isinstance(error, GatewayError) and error.exit_code == ExitCode.CONFIG:
        turn_away([*adopted.sockets.values(), *claim.sockets])


def _disown_in_children(claim: Claim) -> None:
    """Have forked children close what is ours; a hook can't be taken back, so it lets go of the claim instead."""
    living = weakref.ref(claim)

    def in_child() -> None:
        claim = living()
        if claim is not None:
            claim.disown()

    os.register_at_fork(after_in_child=in_child)


def _record(start: Start, name: str) -> Record:
    """Take one lock file and write our record into it."""
    settings, state_dir = start.settings, start.claim.state.path
    file = start.persist(lambda: LockFile(start.claim.state, name))
    return Record(_win(start, file), lambda: _contending_node(settings, state_dir))


def _win(start: Start, file: LockFile) -> LockFile:
    """
    Write our record into a file that we have locked, once nobody else's there counts; the file may be another then.

    Until we have *won* it, it is its writer's: one that takes no ``flock`` may be alive, and its file is
    left as it is by a start that loses.
    """
    try:
        while _outwait_writer(start, file):
            # Having no flock, it removed the file as it left, from under ours; another may have come.
            successor = start.persist(file.successor)
            if successor is None:
                break
            file.close()
            file = successor
    except BaseException:
        file.close()
        raise
    try:
        start.patience.outwait(lambda: file.write(start.claim.record))
    except BaseException:
        file.abandon()
        raise
    return file


def _retake(start: Start, hold: Record) -> bool:
    """Take a lock file anew if it was removed from under our lock; whether it was."""
    successor = start.persist(hold.file.successor)
    if successor is None:
        return False
    # Out of the list meanwhile: if the new one can't be won, nothing of this hold is left to release.
    place = start.claim.holds.index(hold)
    start.claim.holds.remove(hold)
    hold.file.close()
    hold.file = _win(start, successor)
    start.claim.holds.insert(place, hold)
    return True


def _outwait_writer(start: Start, file: LockFile) -> bool:
    """Wait for a gateway that locks its record otherwise than by ``flock``; ``False`` if there is none."""
    waited = False
    while (contended := node_lock(start) or file.writer()) is not None:
        waited = True
        if start.policy.settle(contended) is Verdict.RECLAIM:
            break
    return waited


def node_lock(start: Start) -> Contended | None:
    """Return who holds the locks of OpenClaw's own gateway for our state; ``None`` if nobody does."""
    state_dir = start.claim.state.path
    return start.patience.outwait(lambda: _contending_node(start.settings, state_dir))


def _contending_node(settings: Settings, state_dir: str) -> Contended | None:
    """Do the same without waiting for what keeps the kernel from telling. Raises ``StorageError``."""
    names = STATE_LOCK_NAME, config_lock_name(settings.config_path)
    records = [os.path.join(state_dir, *lock_directory_parts(), name) for name in names]
    uid = os.geteuid()
    held = node.held(node.lock_paths(state_dir, records, uid=uid), uid=uid)
    return None if held is None else Contended(Obstacle.NODE_LOCK, pid=held.pid)


def _own_record(settings: Settings, supervisor: Supervisor) -> LockRecord:
    from datetime import UTC, datetime
    from uuid import uuid4

    own = process.facts(os.getpid())
    return LockRecord(
        pid=os.getpid(),
        port=settings.port,
        start_ticks=own.start_ticks if own else None,
        owner_id=str(uuid4()),
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        config_path=os.path.realpath(settings.config_path),
        state_dir=os.path.realpath(settings.state_dir),
        host=settings.host,
        phase=Phase.STARTING,
        boot_id=process.boot_id(),
        pid_namespace=process.pid_namespace(),
        unit=process.unit_of("self") if supervisor.present else None,
        invocation_id=supervisor.invocation_id,
        version=__version__,
    )
