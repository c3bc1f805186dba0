"""Standing by: wait behind whoever has the port, holding nothing, and take over when its process ends."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from errno import ENOSYS, EPERM, ESRCH
from functools import partial

from openclaw_gateway import lifecycle
from openclaw_gateway.claim import claim as claims
from openclaw_gateway.claim.waiting import Behind, StandBy
from openclaw_gateway.host import signals
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.events import STANDBY_STATUS, Event

_UNSURE_PAUSE_S = 1.0
"""Seconds between two looks at an owner that is not healthy (yet), or whose process is out of our sight."""
_UNWATCHED_PAUSE_S = 20.0
"""Seconds between two looks at a healthy owner where systemd watches nothing."""
_EXTENSION_S = 15.0
"""What systemd is asked for while no owner was seen healthy: several looks, and a probe that goes unanswered."""
_SIGNALS = (*signals.ENDINGS, signal.SIGHUP)


@contextmanager
def claimed(
    life: lifecycle.Life,
    load: Callable[[], Settings],
    *,
    steps: Sequence[claims.Step] = claims.GATEWAY,
    warm_up: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Settings, claims.Claim]]:
    """
    Read the settings and take the claim, if they say so by standing by until that can be.

    Args:
        life: Whose.
        load: Reads the settings; called again for a reload while standing by.
        steps: What to take, in this order.
        warm_up: Does what need not wait for the port, once there is nothing to do but to wait.

    Raises:
        GatewayLockError: Someone else has it, and we do not stand by.
        GatewayError: As of ``Life.settings`` and ``claim.acquire``.
        StopRequested: A stop was asked for while we stood by.
    """
    settings = life.settings(load)
    acquire = partial(
        claims.acquire,
        supervisor=life.supervisor,
        journal=life.journal,
        passed=life.passed,
        steps=steps,
    )
    if not settings.standby:
        with acquire(settings, pause=life.pause) as held:
            yield settings, held
        return
    standby = _Standby(life, settings, load, warm_up)
    with ExitStack() as undo:
        held = standby.take_over(
            lambda settings, policy: undo.enter_context(
                acquire(settings, pause=standby.pause, policy=policy)
            )
        )
        yield standby.settings, held


class _Standby:
    """
    One wait, behind one owner after the other.

    Attributes:
        settings: By which the claim is to be made, as of the last reload.
    """

    def __init__(
        self,
        life: lifecycle.Life,
        settings: Settings,
        load: Callable[[], Settings],
        warm_up: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._life, self._load, self._warm_up = life, load, warm_up
        self._supervisor, self._journal = life.supervisor, life.journal
        watched_s = self._supervisor.watchdog_s
        self._look_pause_s = watched_s / 3 if watched_s else _UNWATCHED_PAUSE_S
        self._is_ready = False
        self._told = ""

    def pause(self, seconds: float) -> None:
        """Sleep between two tries of one step: one whose claim takes its time is no hung standby."""
        self._supervisor.ping()
        self._life.pause(seconds)

    def take_over(self, acquire: Callable[[Settings, StandBy], claims.Claim]) -> claims.Claim:
        """
        Try the claim, wait for the end of whoever is in the way, try again.

        A number says which process we wait for only while that lives: between the kernel's word and
        our descriptor it may have ended, and another one have its number. So we try once more with the
        descriptor in hand: who is in the way by that number still is who we hold a descriptor of.
        """
        owner, waited = _Owner(None), False
        with ExitStack() as undo:
            while True:
                try:
                    held = acquire(self.settings, self._policy())
                except Behind as behind:
                    pid = behind.owner.pid if behind.owner else None
                    if pid != owner.pid:
                        undo.close()
                        owner = _Owner(pid)
                        undo.callback(owner.release)
                        continue
                    waited = True
                    self._tell(behind)
                    self._wait(owner, is_sure=behind.is_healthy)
                    self._life.began_s = time.clock_gettime(time.CLOCK_BOOTTIME)
                else:
                    break
        if waited:
            self._journal.write(
                Event.TOOK_OVER, f"taking over: {self._told or 'the owner'} has ended"
            )
        return held

    def _policy(self) -> StandBy:
        return StandBy(self.settings, self._supervisor, self._journal, pause=self.pause)

    def _tell(self, behind: Behind) -> None:
        """Say whom we stand behind; READY, once we have seen a healthy one: the unit is in its role."""
        who = str(behind.owner or "a process that we may not see")
        status = f"{STANDBY_STATUS}{who}, takes over when it ends"
        if not behind.is_healthy:
            status = f"{STANDBY_STATUS}{who}, which is not healthy: {behind.what}"
        if self._is_ready:
            self._supervisor.ping()
            self._supervisor.status(status)
        elif behind.is_healthy:
            self._supervisor.ready(status)
        else:
            self._supervisor.extend_start(_EXTENSION_S)
            self._supervisor.status(status)
        if who != self._told and (behind.is_healthy or not self._told):
            pid = behind.owner.pid if behind.owner else None
            self._journal.write(Event.STANDBY, status, OWNER_PID=pid)
            self._told = who
        if behind.is_healthy and not self._is_ready:
            self._is_ready = True
            self._warm_up()

    def _wait(self, owner: _Owner, *, is_sure: bool) -> None:
        """Wait until the owner's process has ended, a signal comes, or it is time for another look."""
        seconds = self._look_pause_s if is_sure and owner.fd is not None else _UNSURE_PAUSE_S
        poll = select.poll()
        if owner.fd is not None:
            poll.register(owner.fd, select.POLLIN)
        with signals.through_descriptor(_SIGNALS) as woken:
            poll.register(woken, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(seconds * 1000)]
            # Before they are read: one that comes from here on waits for the next time.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            came = signals.arrived(woken)
        for number in came:
            self._on_signal(number)
        if owner.fd in ready:
            # If the kernel names it still, a child has inherited what it had; then there is no event to wait for.
            owner.release()

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload()
            return
        self._life.stop_on(number)
        raise lifecycle.StopRequested

    def _reload(self) -> None:
        """Read the settings by which we would take over. READY follows, whatever a reader stumbles over."""
        if self._is_ready:
            self._supervisor.reloading()
        try:
            fresh = self._load()
        except Exception as error:
            self._journal.write(
                Event.RELOAD_REFUSED,
                f"reload refused, the old settings stay: {lifecycle.reason(error)}",
            )
        else:
            self.settings = fresh
            self._journal.threshold = fresh.log_level
            self._journal.write(Event.RELOADED, f"settings reloaded from {fresh.config_path}")
        if self._is_ready:
            self._supervisor.ready(f"{STANDBY_STATUS}{self._told}, takes over when it ends")


class _Owner:
    """
    The process that we wait for.

    Attributes:
        pid: Its number; ``None`` if it is out of our sight.
        fd: Readable once it has ended; ``None`` if there is no telling. pidfd_open(2).
    """

    def __init__(self, pid: int | None) -> None:
        self.pid, self.fd = pid, None if pid is None else _pidfd(pid)

    def release(self) -> None:
        """Close the descriptor; done twice, it does nothing more."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def _pidfd(pid: int) -> int | None:
    """Open a process; ``None`` if there is none by that number, or our sandbox forbids to look."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (ESRCH, EPERM, ENOSYS):
            return None
        raise
