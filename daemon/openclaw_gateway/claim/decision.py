"""What to do about whoever is in the way, and about what is not there yet; pure: facts in, verdict out."""

from __future__ import annotations

from enum import StrEnum
from errno import (
    EADDRNOTAVAIL,
    EDQUOT,
    EMFILE,
    ENETUNREACH,
    ENFILE,
    ENOBUFS,
    ENODEV,
    ENOMEM,
    ENOSPC,
    ENOTCONN,
    ESTALE,
)
from typing import NamedTuple

from openclaw_gateway.client.answer import Health
from openclaw_gateway.errors import ExitCode


class Obstacle(StrEnum):
    """What stands between us and the port; the words stand in messages."""

    STATE_DIRECTORY = "the state directory"
    CONFIG = "the configuration's lock"
    NODE_LOCK = "the lock of a gateway of OpenClaw's own"
    RECORD = "the lock record of a gateway that takes no lock"
    BASE_PORT = "the base port"
    LISTENER = "the port"


class Verdict(StrEnum):
    """What to do about an obstacle."""

    WAIT = "wait"
    RECLAIM = "reclaim"
    DUPLICATE = "duplicate"
    GIVE_UP = "give up"


class Decision(NamedTuple):
    """What to do, and what to exit with where that is the end."""

    verdict: Verdict
    exit_code: ExitCode | None = None
    """``None`` for ``WAIT`` and ``RECLAIM``."""


def decide(
    obstacle: Obstacle,
    health: Health,
    *,
    supervised: bool,
    own_invocation: bool,
    waited_s: float,
    patience_s: float,
    free_s: float,
    lock_timeout_s: float,
) -> Decision:
    """
    Say what to do about an obstacle, now.

    Pure and total: touches no file, clock or process table. A lock that the kernel says is held is
    never reclaimed, whatever its record says; only a record that nobody locks can be.

    Args:
        obstacle: What is in the way.
        health: What answers on the port of whoever is in the way.
        supervised: Whether systemd started us.
        own_invocation: Whether the owner belongs to our own start of our own unit. Such a one is no
            duplicate: deferring to it would end them both.
        waited_s: Seconds since the claim began.
        patience_s: Seconds that the claim may take: the health timeout under systemd, else the lock timeout.
        free_s: Seconds for which the owner's port and its locks have been free without a break.
        lock_timeout_s: Seconds after which an unlocked record with a free port is reclaimed.

    Returns:
        ``DUPLICATE`` for a healthy owner, ``RECLAIM`` for an unlocked record whose port stayed free,
        ``GIVE_UP`` when patience is over, else ``WAIT``. Under systemd a duplicate exits with 78,
        which ends the restarts, and who gave up with 75, which does not; elsewhere both with 1.
    """
    if health is Health.HEALTHY and not own_invocation:
        return Decision(Verdict.DUPLICATE, ExitCode.CONFIG if supervised else ExitCode.FAILURE)
    if obstacle is Obstacle.RECORD and health is Health.REFUSED:
        return Decision(Verdict.RECLAIM if free_s >= lock_timeout_s else Verdict.WAIT)
    if waited_s < patience_s:
        return Decision(Verdict.WAIT)
    return Decision(Verdict.GIVE_UP, ExitCode.TEMPORARY if supervised else ExitCode.FAILURE)


PASSING = frozenset(
    {
        # An interface that comes up late, or an address that is moved to this machine.
        *(EADDRNOTAVAIL, ENETUNREACH),
        # Disks and quotas that others fill and empty.
        *(ENOSPC, EDQUOT),
        # What the kernel is out of for the moment.
        *(EMFILE, ENFILE, ENOBUFS, ENOMEM),
        # A network or FUSE mount whose other end is not there yet.
        *(ENOTCONN, ESTALE, ENODEV),
    }
)
"""The kernel's words for conditions that time mends, without anyone doing something to the gateway."""

CONDITION_PATIENCE_S = 110.0
"""
Seconds that a start under systemd waits for such a condition to pass.

The units allow six starts in 600 s. A start that fails only after more than a sixth of that never
uses them up, so that the gateway is there whenever the condition passes, be it hours later.
"""

_LONGEST_PAUSE_S = 5.0


def pause_for_condition(errno: int | None, *, supervised: bool, waited_s: float) -> float | None:
    """
    Say how long to wait before a step that failed is tried again.

    Args:
        errno: The kernel's word for the failure.
        supervised: Whether systemd started us. A person at a terminal is told at once.
        waited_s: Seconds since the first failure.

    Returns:
        Seconds, a tenth of what was waited already; ``None`` if trying again has no point.
    """
    if errno not in PASSING or not supervised or waited_s >= CONDITION_PATIENCE_S:
        return None
    return min(max(waited_s / 10, 0.1), _LONGEST_PAUSE_S)
