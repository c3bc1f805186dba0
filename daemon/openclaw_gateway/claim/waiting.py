"""Someone is in the way: find out who, decide, and wait or fail within bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from openclaw_gateway.claim.decision import Obstacle, Verdict, decide
from openclaw_gateway.claim.lockfile import Contended, read_record
from openclaw_gateway.claim.record import LockRecord, Phase
from openclaw_gateway.client.answer import Health
from openclaw_gateway.errors import AlreadyListeningError, AlreadyRunningError, ExitCode
from openclaw_gateway.host import process
from openclaw_gateway.host.address import reachable, url
from openclaw_gateway.host.ports import listening
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal
from openclaw_gateway.supervisor.notify import Supervisor

T = TypeVar("T")

_PAUSE_S = 0.1
_EXTENSION_S = 15.0
"""What we ask systemd for while waiting: several rounds of a probe and a pause."""


class _Finding(NamedTuple):
    """What is in the way, whose it is, and what answers there."""

    obstacle: Obstacle
    owner: process.Description | None
    host: str
    port: int
    health: Health

    def __str__(self) -> str:
        owner = self.owner or "a process that we may not see"
        return f"{self.obstacle} is held by {owner}, and on port {self.port} is {self.health}"


class Contention:
    """One start's dealings with whoever is in its way; its clock starts when it is made."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        journal: Journal,
        *,
        pause: Callable[[float], None],
    ) -> None:
        self._settings, self._supervisor, self._journal = settings, supervisor, journal
        self._pause = pause
        self._patience_s = (
            settings.health_timeout_s if supervisor.present else settings.lock_timeout_s
        )
        self._began_s = time.monotonic()
        self._free_since_s: float | None = None
        self._announced = False
        self._socket_owners: dict[int, int | None] = {}

    def persist(self, step: Callable[[], T]) -> T:
        """
        Take a step of the claim again and again until it succeeds or waiting has no point any more.

        One refusal proves nothing: whoever only looks at a lock takes it for an instant.

        Raises:
            GatewayLockError: A healthy gateway has it, or it stayed taken for too long.
        """
        while True:
            try:
                return step()
            except Contended as contended:
                self.settle(contended)

    def settle(self, contended: Contended, *, health: Health | None = None) -> Verdict:
        """
        Decide about one obstacle; pauses before it says ``WAIT``.

        Args:
            contended: What is in the way.
            health: What a probe of its port found, if there was one already.

        Returns:
            ``WAIT`` (try again) or ``RECLAIM``.

        Raises:
            GatewayLockError: As for ``persist``.
        """
        record = contended.record or self._record_of(contended.obstacle)
        host, port = contended.address or self._address_of(record)
        if health is None:
            health = self._probe(contended.obstacle, host, port)
        if record and record.phase is Phase.STARTING and health in (Health.REFUSED, Health.MUTE):
            health = Health.STARTING
        now_s = time.monotonic()
        if health is not Health.REFUSED:
            self._free_since_s = None
        elif self._free_since_s is None:
            self._free_since_s = now_s
        verdict = decide(
            contended.obstacle,
            health,
            own_invocation=self._is_own(record),
            waited_s=now_s - self._began_s,
            patience_s=self._patience_s,
            free_s=0.0 if self._free_since_s is None else now_s - self._free_since_s,
            lock_timeout_s=self._settings.lock_timeout_s,
        )
        owner = self._describe(contended, record, port)
        finding = _Finding(contended.obstacle, owner, host, port, health)
        match verdict:
            case Verdict.DUPLICATE | Verdict.GIVE_UP:
                raise self._error(verdict, finding)
            case Verdict.RECLAIM:
                self._journal.write(
                    Event.RECLAIMED,
                    f"reclaiming the lock of {owner}: nothing has listened on port {port} "
                    f"for {self._settings.lock_timeout_s:g} s",
                    OWNER_PID=owner and owner.pid,
                )
            case Verdict.WAIT:
                self._wait(finding)
        return verdict

    def _record_of(self, obstacle: Obstacle) -> LockRecord | None:
        if obstacle is Obstacle.STATE_DIRECTORY:
            return read_record(self._settings.state_dir)
        return None

    def _address_of(self, record: LockRecord | None) -> tuple[str, int]:
        """Return where the owner listens by its own word, else where we would."""
        host = (record and record.host) or self._settings.host
        return host, (record and record.port) or self._settings.port

    def _probe(self, obstacle: Obstacle, host: str, port: int) -> Health:
        # The kernel's table answers "is anyone there?" without a connection and without loading
        # an HTTP client. A port that is busy with no listener in sight is worth asking all the same.
        if obstacle is not Obstacle.LISTENER and not listening(port):
            return Health.REFUSED
        from openclaw_gateway.client.health import probe

        return probe(reachable(host), port)

    def _is_own(self, record: LockRecord | None) -> bool:
        own = self._supervisor.invocation_id
        return own is not None and record is not None and record.invocation_id == own

    def _describe(
        self, contended: Contended, record: LockRecord | None, port: int
    ) -> process.Description | None:
        if contended.obstacle is Obstacle.LISTENER:
            for found in listening(port):
                if found.inode not in self._socket_owners:
                    self._socket_owners[found.inode] = process.socket_owner(found.inode)
                pid = self._socket_owners[found.inode]
                if pid is not None:
                    return process.describe(pid, uid=found.uid)
            return None
        pid = contended.pid or (record.pid if record else None)
        if pid is None:
            return None
        return process.describe(pid, uid=contended.uid, unit=record.unit if record else None)

    def _error(
        self, verdict: Verdict, finding: _Finding
    ) -> AlreadyListeningError | AlreadyRunningError:
        if not self._supervisor.present:
            code = ExitCode.FAILURE
        elif verdict is Verdict.DUPLICATE:
            code = ExitCode.CONFIG
        else:
            code = ExitCode.TEMPORARY
        on_port = finding.obstacle in (Obstacle.BASE_PORT, Obstacle.LISTENER)
        way_out = (
            "free the port or choose another with: openclaw gateway --port <port>"
            if on_port
            else "stop it, or give this one a state of its own: "
            "openclaw gateway --profile <name> --port <port>"
        )
        hint = f"{finding}; {way_out}"
        pid = finding.owner.pid if finding.owner else None
        if on_port or verdict is Verdict.DUPLICATE:
            address = url(finding.host, finding.port)
            return AlreadyListeningError(address, owner_pid=pid, exit_code=code, hint=hint)
        return AlreadyRunningError(pid, self._patience_s, exit_code=code, hint=hint)

    def _wait(self, finding: _Finding) -> None:
        left_s = self._patience_s - (time.monotonic() - self._began_s)
        sentence = f"waiting up to {max(left_s, 0):.0f} s: {finding}"
        if not self._announced:
            self._announced = True
            pid = finding.owner.pid if finding.owner else None
            self._journal.write(Event.WAITING, sentence, OWNER_PID=pid)
        self._supervisor.extend_start(_EXTENSION_S)
        self._supervisor.status(sentence)
        from random import uniform

        self._pause(uniform(_PAUSE_S, 2 * _PAUSE_S))


def refuse_neighbours(settings: Settings, contention: Contention, journal: Journal) -> None:
    """
    Look at every listener on our port before binding it, whatever its address.

    The kernel lets another program listen on ``[::1]:P`` or a LAN address beside our ``127.0.0.1:P``.
    If that is a gateway it takes no base port lock, and there would be two; if it is starting it is
    waited for. Any other program is reported and left alone.

    Raises:
        GatewayLockError: One of them is a healthy gateway, or did not become one in time.
    """
    for found in {found.host: found for found in listening(settings.port)}.values():
        from openclaw_gateway.client.health import probe

        address = (found.host, found.port)
        while True:
            health = probe(reachable(found.host), found.port)
            if health not in (Health.HEALTHY, Health.STARTING):
                break
            contention.settle(Contended(Obstacle.LISTENER, address=address), health=health)
        if found.host != settings.host and health is not Health.REFUSED:
            pid = process.socket_owner(found.inode)
            journal.write(
                Event.NEIGHBOUR,
                f"another program listens on {url(found.host, found.port)}: "
                f"{process.describe(pid, uid=found.uid) if pid else f'uid {found.uid}'}",
                OWNER_PID=pid,
            )
