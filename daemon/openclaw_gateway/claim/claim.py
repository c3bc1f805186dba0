"""Who owns this port? State directory, configuration, base port, listener: taken in this order, released in reverse.

Plain synchronous code with small imports. On a free port it loads no HTTP client and no event loop.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager

from openclaw_gateway import __version__
from openclaw_gateway.claim.baseport import BasePortLock
from openclaw_gateway.claim.decision import Obstacle, Verdict
from openclaw_gateway.claim.listener import adopt, listen, listen_beside, turn_away
from openclaw_gateway.claim.lockfile import (
    STATE_LOCK_NAME,
    Contended,
    DirectoryLock,
    LockFile,
    config_lock_name,
)
from openclaw_gateway.claim.record import LockRecord, Phase, believable
from openclaw_gateway.claim.waiting import Contention, refuse_neighbours
from openclaw_gateway.errors import ClaimLostError, StorageError
from openclaw_gateway.host import process
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.journal import Journal
from openclaw_gateway.supervisor.notify import Supervisor


class Claim:
    """
    Everything that makes this process the gateway of its port.

    Attributes:
        record: What our lock files say of us.
        sockets: The listening sockets, non-blocking; the configured address first.
        base_port: The hold on the port number, which answers whoever asks for its holder.
    """

    def __init__(self, state: DirectoryLock, record: LockRecord) -> None:
        self._state, self.record = state, record
        self._files: list[LockFile] = []
        self.sockets: list[socket.socket] = []
        self.base_port: BasePortLock | None = None
        self._released = False

    @property
    def lock_paths(self) -> list[str]:
        """The lock files' paths."""
        return [file.path for file in self._files]

    def lock(self, name: str, contention: Contention) -> None:
        """Take one lock file and write our record into it. Raises as ``acquire`` does."""
        file = contention.persist(lambda: LockFile(self._state, name))
        self._files.append(file)
        if _waited_for(file.inherited, contention):
            # Having no flock, it removed the file as it left, from under ours.
            file = self._files[-1] = contention.persist(file.restored) or file
        file.write(self.record)

    def publish(self, phase: Phase) -> None:
        """Write into our lock files where in our life we are. Raises ``StorageError`` if that fails."""
        self.record = self.record._replace(phase=phase)
        for file in self._files:
            file.write(self.record)

    def answer(self) -> None:
        """Tell those who ask for the base port's holder who we are; never waits."""
        if self.base_port is not None:
            self.base_port.answer(self.record)

    def verify(self) -> list[str]:
        """
        Check that what we hold still guards what it guards, and make good what can be.

        A lock file that was removed is made anew: nobody else can have taken its place while the
        state directory is locked.

        Returns:
            The paths of lock files made anew; usually none.

        Raises:
            ClaimLostError: The state directory was moved or replaced, or someone holds a lock file
                in place of ours. A second gateway may be starting: stop.
        """
        problem = self._state.problem()
        if problem:
            raise ClaimLostError(self._state.path, problem)
        restored = []
        for index, file in enumerate(self._files):
            try:
                successor = file.restored()
                if successor is None:
                    continue
                self._files[index] = successor
                successor.write(self.record)
            except Contended as error:
                raise ClaimLostError(file.path, f"held by pid {error.pid or 'unknown'}") from error
            except StorageError as error:
                raise ClaimLostError(file.path, error.problem) from error
            restored.append(file.path)
        return restored

    def close_listeners(self) -> None:
        """Stop listening: from here on the port is free for others, the locks still ours."""
        for listener in self.sockets:
            listener.close()

    def disown(self) -> None:
        """
        Close all of it in a forked child, and change nothing: it is the parent's.

        A lock lives as long as any process has its descriptor, so a child that outlives us would
        hold it; flock(2). Children that execute another program close it by that, see PEP 446.
        """
        if self._released:
            return
        self.close_listeners()
        if self.base_port is not None:
            self.base_port.release()
        for file in self._files:
            file.close()
        self._state.release()

    def release(self) -> None:
        """Give everything back, in reverse order."""
        self._released = True
        with ExitStack() as undo:
            undo.callback(self._state.release)
            for file in self._files:
                undo.callback(file.release)
            if self.base_port is not None:
                undo.callback(self.base_port.release)
            undo.callback(self.close_listeners)


@contextmanager
def acquire(
    settings: Settings,
    supervisor: Supervisor,
    journal: Journal,
    *,
    environ: MutableMapping[str, str],
    pause: Callable[[float], None],
) -> Iterator[Claim]:
    """
    Take the claim, hold it for the ``with`` block, give it back.

    Args:
        settings: Where and how.
        supervisor: Told what is waited for; says how long to be patient and what to exit with.
        journal: Told of reclaims, waits and neighbours.
        environ: For the sockets that systemd passes.
        pause: Sleeps that many seconds; may raise to end the start.

    Raises:
        GatewayLockError: Someone else has it.
        StorageError: The state directory can't be used.
        ConfigurationError: systemd passed sockets that don't fit the configuration.
    """
    contention = Contention(settings, supervisor, journal, pause=pause)
    with ExitStack() as undo:
        passed = adopt(environ, port=settings.port)
        undo.callback(turn_away, passed)
        state = contention.persist(lambda: DirectoryLock(settings.state_dir))
        claim = Claim(state, _own_record(settings, supervisor, state.path))
        undo.callback(claim.release)
        os.register_at_fork(after_in_child=claim.disown)
        claim.lock(STATE_LOCK_NAME, contention)
        if not settings.allow_multiple:
            claim.lock(config_lock_name(settings.config_path), contention)
        claim.base_port = contention.persist(
            lambda: BasePortLock(settings.port, host=settings.host)
        )
        if passed:
            claim.sockets = passed
        else:
            refuse_neighbours(settings, contention, journal)
            claim.sockets = [contention.persist(lambda: listen(settings.host, settings.port))]
            if settings.host == "127.0.0.1":
                claim.sockets += filter(None, [listen_beside(settings.port)])
        yield claim


def _waited_for(inherited: LockRecord | None, contention: Contention) -> bool:
    """Wait for a gateway that wrote a record without locking the file; ``False`` if there is none."""
    waited = False
    while inherited is not None and believable(
        inherited, process.facts(inherited.pid), own_pid=os.getpid()
    ):
        waited = True
        contended = Contended(Obstacle.RECORD, record=inherited, pid=inherited.pid)
        if contention.settle(contended) is Verdict.RECLAIM:
            break
    return waited


def _own_record(settings: Settings, supervisor: Supervisor, state_dir: str) -> LockRecord:
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
        state_dir=state_dir,
        host=settings.host,
        phase=Phase.STARTING,
        boot_id=process.boot_id(),
        pid_namespace=process.pid_namespace(),
        unit=process.unit_of("self") if supervisor.present else None,
        invocation_id=supervisor.invocation_id,
        version=__version__,
    )
