"""Someone is in the way, or something is not there yet: find out, decide, and wait or fail within bounds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol, TypeVar

from openclaw_gateway.claim.decision import (
    Decision,
    Obstacle,
    Verdict,
    decide,
    pause_for_condition,
)
from openclaw_gateway.claim.lockfile import Contended, read_record
from openclaw_gateway.claim.record import LockRecord, Phase
from openclaw_gateway.client.answer import Health
from openclaw_gateway.errors import (
    AlreadyListeningError,
    AlreadyRunningError,
    GatewayError,
)
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


class Policy(Protocol):
    """What a start does about whoever is in its way: leave, stand by, or what a test has it do."""

    def settle(self, contended: Contended, *, health: Health | None = None) -> Verdict:
        """
        Decide about one obstacle; pauses before it says ``WAIT``.

        Args:
            contended: What is in the way.
            health: What a probe of its port found, if there was one already.

        Returns:
            ``WAIT`` (try again) or ``RECLAIM``.

        Raises:
            GatewayLockError: A healthy gateway has it, or it stayed taken for too long.
        """


def persist(step: Callable[[], T], policy: Policy) -> T:
    """
    Take a step of the claim again and again until it succeeds or waiting has no point any more.

    One refusal proves nothing: whoever only looks at a lock takes it for an instant.

    Raises:
        GatewayLockError: As for ``Policy.settle``.
    """
    while True:
        try:
            return step()
        except Contended as contended:
            policy.settle(contended)


class Patience:
    """
    Waits for conditions that time mends: an address that is not there yet, a full disk, a late mount.

    They are nobody's lock, so there is no one to ask: the step is tried again, at growing intervals.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        journal: Journal,
        *,
        pause: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._supervisor, self._journal = supervisor, journal
        self._pause, self._clock = pause, clock

    def outwait(self, step: Callable[[], T]) -> T:
        """
        Take a step, again and again while what it fails for may pass.

        Raises:
            GatewayError: What the step raised, at once or when the time is up.
        """
        began_s: float | None = None
        while True:
            try:
                return step()
            except GatewayError as error:
                now_s = self._clock()
                waited_s = 0.0 if began_s is None else now_s - began_s
                pause_s = pause_for_condition(
                    error.errno, supervised=self._supervisor.present, waited_s=waited_s
                )
                if pause_s is None:
                    raise
                if began_s is None:
                    began_s = now_s
                    self._journal.write(Event.WAITING, f"waiting for this to pass: {error}")
                self._supervisor.extend_start(_EXTENSION_S)
                self._supervisor.status(f"waiting for {waited_s:.0f} s: {error}")
            self._pause(pause_s)


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


class Behind(Exception):
    """
    A standby has found whom to wait for.

    Attributes:
        owner: The process; ``None`` if it is out of our sight.
        is_healthy: Whether a healthy gateway answered on its port.
        what: What it has, and how it answers: a part of a sentence.
    """

    def __init__(self, finding: _Finding, *, is_healthy: bool) -> None:
        super().__init__(finding)
        self.owner, self.is_healthy, self.what = finding.owner, is_healthy, str(finding)


class Leave:
    """
    Leave to a healthy gateway, wait for any other owner, give up when patience is over: OpenClaw's "Gateway lock".

    Its clock starts when it is made: one for each start.
    """

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        journal: Journal,
        *,
        pause: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] | None = None,
        own: Collection[int] = (),
    ) -> None:
        """
        Start the clock.

        Args:
            settings: How long to be patient, and where we would listen.
            supervisor: Whether systemd started us; told what is waited for.
            journal: Told of waits and reclaims.
            pause: Sleeps that many seconds; may raise to end the start.
            clock: Seconds, monotonic.
            jitter: Returns 0 to 1, so that many who wait do not try in step; random by default.
            own: Inodes of listening sockets that systemd handed over to us: nobody answers there
                before we do, so that they say nothing of whoever is in the way.
        """
        self._settings, self._supervisor, self._journal = settings, supervisor, journal
        self._pause, self._clock, self._jitter = pause, clock, jitter
        self._patience_s = self._patience(settings)
        self._began_s = clock()
        self._free_since_s: float | None = None
        self._announced = False
        self._own = own
        self._socket_owners: dict[int, int | None] = {}

    def _patience(self, settings: Settings) -> float:
        """Return how many seconds an owner has to get healthy."""
        return settings.health_timeout_s if self._supervisor.present else settings.lock_timeout_s

    def settle(self, contended: Contended, *, health: Health | None = None) -> Verdict:
        """Decide about one obstacle. See ``Policy``."""
        record = self._trusted_record(contended)
        host, port = self._address_of(contended, record)
        if health is None:
            host, port, health = self._probe(contended.obstacle, host, port)
        if record and record.phase is Phase.STARTING and health in (Health.REFUSED, Health.MUTE):
            health = Health.STARTING
        now_s = self._clock()
        self._note_free(contended.obstacle, health, now_s)
        decision = decide(
            contended.obstacle,
            health,
            supervised=self._supervisor.present,
            own_invocation=self._is_own(record),
            waited_s=now_s - self._began_s,
            patience_s=self._patience_s,
            free_s=0.0 if self._free_since_s is None else now_s - self._free_since_s,
            lock_timeout_s=self._settings.lock_timeout_s,
        )
        owner = self._describe(contended, record, port)
        finding = _Finding(contended.obstacle, owner, host, port, health)
        match decision.verdict:
            case Verdict.DUPLICATE | Verdict.GIVE_UP:
                raise self._end(decision, finding)
            case Verdict.RECLAIM:
                self._journal.write(
                    Event.RECLAIMED,
                    f"reclaiming the lock of {owner}: nothing has listened on port {port} "
                    f"for {self._settings.lock_timeout_s:g} s",
                    OWNER_PID=owner and owner.pid,
                )
            case Verdict.WAIT:
                self._wait(finding)
        return decision.verdict

    def _note_free(self, obstacle: Obstacle, health: Health, now_s: float) -> None:
        """Keep count of how long a record without a lock has had nobody on its port."""
        if obstacle is not Obstacle.RECORD or health is not Health.REFUSED:
            self._free_since_s = None
        elif self._free_since_s is None:
            self._free_since_s = now_s

    def _trusted_record(self, contended: Contended) -> LockRecord | None:
        """
        Return the owner's record, if it stands where only the owner of the state directory can write.

        Whoever holds a port's name tells us anything he likes: any local account can take that name,
        and name another port, where a healthy gateway of somebody else's answers.
        """
        match contended.obstacle:
            case Obstacle.STATE_DIRECTORY | Obstacle.NODE_LOCK:
                own = read_record(self._settings.state_dir, owner_uid=os.geteuid())
                return contended.record or own
            case Obstacle.BASE_PORT | Obstacle.LISTENER:
                return None
            case _:
                return contended.record

    def _address_of(self, contended: Contended, record: LockRecord | None) -> tuple[str, int]:
        """Return where the owner listens by its own word, else where we would."""
        if contended.address is not None:
            return contended.address
        host = (record and record.host) or self._settings.host
        return host, (record and record.port) or self._settings.port

    def _probe(self, obstacle: Obstacle, host: str, port: int) -> tuple[str, int, Health]:
        """Ask an address, and for a base port every address that has a listener; return where and what."""
        # The kernel's table answers "is anyone there?" without a connection and without loading
        # an HTTP client. A port that is busy with no listener in sight is worth asking all the same.
        found = listening(port)
        others = [each.host for each in found if each.inode not in self._own]
        if obstacle is not Obstacle.LISTENER and not others:
            return host, port, Health.REFUSED
        from openclaw_gateway.client.health import probe

        hosts = [host, *others] if obstacle is Obstacle.BASE_PORT else [host]
        if obstacle is not Obstacle.LISTENER and len(others) < len(found):
            # Some are ours: whoever is asked there answers once we do.
            hosts = [each for each in hosts if each in others]
        answers = {each: probe(reachable(each), port) for each in dict.fromkeys(hosts)}
        if not answers:
            return host, port, Health.REFUSED
        telling = min(answers, key=lambda each: _TELLING.index(answers[each]))
        return telling, port, answers[telling]

    def _is_own(self, record: LockRecord | None) -> bool:
        own = self._supervisor.invocation_id
        return own is not None and record is not None and record.invocation_id == own

    def _describe(
        self, contended: Contended, record: LockRecord | None, port: int
    ) -> process.Description | None:
        if contended.obstacle is Obstacle.LISTENER:
            for found in listening(port):
                if found.inode in self._own:
                    continue
                if found.inode not in self._socket_owners:
                    self._socket_owners[found.inode] = process.socket_owner(found.inode)
                pid = self._socket_owners[found.inode]
                if pid is not None:
                    return process.describe(pid, uid=found.uid)
                if found.uid == os.geteuid() and process.is_service_manager(1):
                    # No process of our account has what one of them made. So it is in systemd's hands,
                    # for a unit whose next start is still to come.
                    return process.describe(1)
            return None
        pid = contended.pid
        if pid is None and record is not None and record.is_local(process.pid_namespace()):
            pid = record.pid
        if pid in (None, os.getpid()):
            return None
        return process.describe(pid, uid=contended.uid, unit=record.unit if record else None)

    def _end(self, decision: Decision, finding: _Finding) -> Exception:
        """Return what ends this attempt."""
        code = decision.exit_code
        assert code is not None
        on_port = finding.obstacle in (Obstacle.BASE_PORT, Obstacle.LISTENER)
        way_out = (
            "free the port or choose another with: openclaw-gateway --port <port>"
            if on_port
            else "stop it, or give this one a state of its own: "
            "openclaw-gateway --profile <name> --port <port>"
        )
        hint = f"{finding}; {way_out}"
        pid = finding.owner.pid if finding.owner else None
        if on_port or decision.verdict is Verdict.DUPLICATE:
            address = url(finding.host, finding.port)
            return AlreadyListeningError(address, owner_pid=pid, exit_code=code, hint=hint)
        return AlreadyRunningError(pid, self._patience_s, exit_code=code, hint=hint)

    def _wait(self, finding: _Finding) -> None:
        left_s = self._patience_s - (self._clock() - self._began_s)
        sentence = f"waiting up to {max(left_s, 0):.0f} s: {finding}"
        if not self._announced:
            self._announced = True
            pid = finding.owner.pid if finding.owner else None
            self._journal.write(Event.WAITING, sentence, OWNER_PID=pid)
        self._supervisor.extend_start(_EXTENSION_S)
        self._supervisor.status(sentence)
        self._pause(_PAUSE_S * (1 + self._random()))

    def _random(self) -> float:
        if self._jitter is None:
            from random import random

            self._jitter = random
        return self._jitter()


class StandBy(Leave):
    """
    A standby's policy: whoever is in the way is somebody to wait behind, healthy or not.

    It has no patience, as there is a better place to wait than between two locks: what was taken is
    given back, and the whole claim is begun anew once the owner's process has ended.
    """

    def _patience(self, settings: Settings) -> float:
        return 0.0

    def _end(self, decision: Decision, finding: _Finding) -> Exception:
        return Behind(finding, is_healthy=decision.verdict is Verdict.DUPLICATE)


_TELLING = (
    Health.HEALTHY,
    Health.STARTING,
    Health.MUTE,
    Health.FOREIGN,
    Health.UNKNOWN,
    Health.REFUSED,
)
"""Of several answers on one port, the first of these decides."""


def refuse_neighbours(
    settings: Settings, policy: Policy, journal: Journal, *, own: Collection[int] = ()
) -> None:
    """
    Look at every listener on our port before binding it, whatever its address.

    The kernel lets another program listen on ``[::1]:P`` or a LAN address beside our ``127.0.0.1:P``.
    If that is a gateway it takes no base port lock, and there would be two; if it is starting it is
    waited for. Any other program is reported and left alone.

    Args:
        settings: Which port.
        policy: What to do about a gateway.
        journal: Told of other programs.
        own: Inodes of sockets that systemd handed over to us; they are nobody else's.

    Raises:
        GatewayLockError: One of them is a healthy gateway, or did not become one in time.
    """
    others = [found for found in listening(settings.port) if found.inode not in own]
    for found in {found.host: found for found in others}.values():
        from openclaw_gateway.client.health import probe

        address = (found.host, found.port)
        while True:
            health = probe(reachable(found.host), found.port)
            if health not in (Health.HEALTHY, Health.STARTING):
                break
            policy.settle(Contended(Obstacle.LISTENER, address=address), health=health)
        if found.host != settings.host and health is not Health.REFUSED:
            pid, who = process.describe_socket(found.inode, uid=found.uid)
            journal.write(
                Event.NEIGHBOUR,
                f"another program listens on {url(found.host, found.port)}: {who}",
                OWNER_PID=pid,
            )
