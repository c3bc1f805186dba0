"""What to do about whoever is in the way, pure: facts in, verdict out."""

from __future__ import annotations

from enum import StrEnum

from openclaw_gateway.client.answer import Health


class Obstacle(StrEnum):
    """What stands between us and the port; the words stand in messages."""

    STATE_DIRECTORY = "the state directory"
    CONFIG = "the configuration's lock"
    RECORD = "the lock record of a gateway that takes no lock"
    BASE_PORT = "the base port"
    LISTENER = "the port"


class Verdict(StrEnum):
    """What to do about an obstacle."""

    WAIT = "wait"
    RECLAIM = "reclaim"
    DUPLICATE = "duplicate"
    GIVE_UP = "give up"


def decide(
    obstacle: Obstacle,
    health: Health,
    *,
    own_invocation: bool,
    waited_s: float,
    patience_s: float,
    free_s: float,
    lock_timeout_s: float,
) -> Verdict:
    """
    Say what to do about an obstacle, now.

    Pure and total: touches no file, clock or process table. A lock that the kernel says is held is
    never reclaimed, whatever its record says; only a record that nobody locks can be.

    Args:
        obstacle: What is in the way.
        health: What answers on the port of whoever is in the way.
        own_invocation: Whether the owner belongs to our own start of our own unit. Such a one is no
            duplicate: deferring to it would end them both.
        waited_s: Seconds since the claim began.
        patience_s: Seconds that the claim may take: the health timeout under systemd, else the lock timeout.
        free_s: Seconds for which the owner's port has been free without a break.
        lock_timeout_s: Seconds after which an unlocked record with a free port is reclaimed.

    Returns:
        ``DUPLICATE`` for a healthy owner, ``RECLAIM`` for an unlocked record whose port stayed free,
        ``GIVE_UP`` when patience is over, else ``WAIT``.
    """
    if health is Health.HEALTHY and not own_invocation:
        return Verdict.DUPLICATE
    if obstacle is Obstacle.RECORD and health is Health.REFUSED:
        return Verdict.RECLAIM if free_s >= lock_timeout_s else Verdict.WAIT
    return Verdict.GIVE_UP if waited_s >= patience_s else Verdict.WAIT
