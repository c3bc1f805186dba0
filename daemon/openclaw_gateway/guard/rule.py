"""
What a guard does about its child, pure: what was seen goes in, what to do comes out.

systemd restarts, and the guard never does: it mirrors how its child went, so that the unit's
``Restart=`` and ``RestartPreventExitStatus=`` mean what they would mean without a guard.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from openclaw_gateway.client.answer import Health
from openclaw_gateway.errors import ExitCode

_SIGNALLED = 128
"""A shell adds this to the number of the signal that ended a program; so do we. POSIX, "Exit Status"."""

_NOT_EXECUTED = (126, 127)
"""
What env(1), shells and the dynamic loader exit with if a program or a library can't be executed or isn't there:
``#!/usr/bin/env node`` without a ``node`` on the ``PATH``. No restart mends it.
"""


class Phase(StrEnum):
    """Where in its life the child is."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Look(NamedTuple):
    """What one look at the child found."""

    listens: bool
    """Whether a socket of the child or of its descendants listens on the guarded port."""
    other_ports: tuple[int, ...] = ()
    """Where else they listen, lowest first; looked for only while they don't on the guarded one."""
    health: Health | None = None
    """What their listener answered; ``None`` if it was not asked, as there is none."""
    started: bool = False
    """Whether the startup route says so too, or there is none."""


class Action(StrEnum):
    """What to do after a look."""

    WAIT = "wait"
    """Look again soon; ask systemd for more time."""
    READY = "ready"
    """Say ``READY=1``."""
    FEED = "feed"
    """Say ``WATCHDOG=1``."""
    DEGRADED = "degraded"
    """Say what is wrong and feed nothing: ``WatchdogSec=`` is the patience."""
    GIVE_UP = "give up"
    """Stop the child: it had its time to get ready."""


def after_look(phase: Phase, look: Look, *, waited_s: float, ready_timeout_s: float) -> Action:
    """
    Say what to do after a look at a living child.

    Args:
        phase: Where the child is.
        look: What was seen.
        waited_s: Seconds since the child was started.
        ready_timeout_s: Seconds that it has to get ready.

    Returns:
        ``READY`` once, when its own listener answers as it should and its startup is over; ``FEED``
        or ``DEGRADED`` from then on; before that ``WAIT``, or ``GIVE_UP`` when its time is up.
    """
    healthy = look.listens and look.health is Health.HEALTHY
    match phase:
        case Phase.STOPPING:
            # A stop is bounded by TimeoutStopSec=, which does not ask for our pings.
            return Action.WAIT
        case Phase.READY:
            return Action.FEED if healthy else Action.DEGRADED
        case Phase.STARTING if healthy and look.started:
            return Action.READY
        case _:
            return Action.GIVE_UP if waited_s >= ready_timeout_s else Action.WAIT


class Exit(NamedTuple):
    """How the child ended: one of the two is set. waitid(2)."""

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        """``exited with 78``, or ``was ended by signal 9``."""
        return f"was ended by signal {self.signal}" if self.signal else f"exited with {self.code}"


class Ending(NamedTuple):
    """What the guard ends with."""

    exit_code: int
    reason: str
    """Why, for the log: what follows "the child …"."""


def after_exit(
    phase: Phase, exit: Exit, *, stop_signal: int, gave_up: bool, contended: bool
) -> Ending | None:
    """
    Say what the guard ends with, now that its child has ended.

    A child's 78 has two meanings, and only a look around tells which: OpenClaw's Node gateway exits with it for
    a wrong configuration, and for whoever is in its way, healthy or not.

    Args:
        phase: Where the child was.
        exit: How it ended.
        stop_signal: What we send to stop it: dying of it is a stop, not a crash.
        gave_up: Whether we stopped it for want of readiness.
        contended: After a 78, whether somebody else holds the port or the state.

    Returns:
        The ending; ``None`` to deal with that somebody as with any contention.
    """
    asked = phase is Phase.STOPPING
    match exit:
        case _ if gave_up:
            ending = Ending(ExitCode.FAILURE, "was not ready in time, and was stopped")
        case Exit(code=0) if phase is Phase.STARTING:
            ending = Ending(ExitCode.FAILURE, "exited with 0 before it was ready")
        case Exit(code=0):
            reason = "stopped" if asked else "exited with 0: it asks to be started again"
            ending = Ending(ExitCode.OK, reason)
        case Exit(signal=int(number)):
            died_of_it = asked and number == stop_signal
            ending = Ending(ExitCode.OK if died_of_it else _SIGNALLED + number, str(exit))
        case Exit(code=ExitCode.CONFIG) if not asked and contended:
            return None
        case Exit(code=ExitCode.CONFIG) if not asked:
            ending = Ending(ExitCode.CONFIG, "exited with 78: it refuses its configuration")
        case Exit(code=code) if code in _NOT_EXECUTED and phase is Phase.STARTING:
            reason = f"exited with {code}: it, or a program that it starts, can't be executed"
            ending = Ending(ExitCode.CONFIG, reason)
        case _:
            ending = Ending(exit.code or ExitCode.FAILURE, str(exit))
    return ending
