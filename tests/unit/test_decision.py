"""What to do about whoever is in the way: the table is total and keeps the promises."""

from __future__ import annotations

from errno import EACCES, EADDRNOTAVAIL, ENOSPC, EROFS
from itertools import product

import pytest

from openclaw_gateway.claim.decision import (
    CONDITION_PATIENCE_S,
    PASSING,
    Decision,
    Obstacle,
    Verdict,
    decide,
    pause_for_condition,
)
from openclaw_gateway.client.answer import Health
from openclaw_gateway.errors import ExitCode


def decided(obstacle: Obstacle, health: Health, **facts: object) -> Decision:
    ordinary = {
        "supervised": False,
        "own_invocation": False,
        "waited_s": 0.0,
        "patience_s": 5.0,
        "free_s": 0.0,
        "lock_timeout_s": 5.0,
    }
    return decide(obstacle, health, **(ordinary | facts))  # type: ignore[arg-type]


def verdict(obstacle: Obstacle, health: Health, **facts: object) -> Verdict:
    return decided(obstacle, health, **facts).verdict


@pytest.mark.parametrize("obstacle", Obstacle)
@pytest.mark.parametrize("health", Health)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("waited_s", [0.0, 4.9, 5.0, 60.0])
@pytest.mark.parametrize("free_s", [0.0, 5.0])
def test_decision_is_total_and_keeps_the_promises(
    obstacle: Obstacle, health: Health, own: bool, waited_s: float, free_s: float
) -> None:
    found = verdict(obstacle, health, own_invocation=own, waited_s=waited_s, free_s=free_s)
    assert (found is Verdict.DUPLICATE) == (health is Health.HEALTHY and not own)
    if found is Verdict.RECLAIM:
        assert (obstacle, health, free_s) == (Obstacle.RECORD, Health.REFUSED, 5.0)
    if found is Verdict.GIVE_UP:
        assert waited_s >= 5.0
    if found is Verdict.WAIT and waited_s >= 5.0:
        assert (obstacle, health) == (Obstacle.RECORD, Health.REFUSED)


@pytest.mark.parametrize(
    ("obstacle", "health", "facts", "expected"),
    [
        (Obstacle.STATE_DIRECTORY, Health.HEALTHY, {}, Verdict.DUPLICATE),
        (Obstacle.STATE_DIRECTORY, Health.HEALTHY, {"own_invocation": True}, Verdict.WAIT),
        (Obstacle.STATE_DIRECTORY, Health.REFUSED, {"free_s": 99.0}, Verdict.WAIT),
        (Obstacle.STATE_DIRECTORY, Health.STARTING, {"waited_s": 4.9}, Verdict.WAIT),
        (Obstacle.STATE_DIRECTORY, Health.STARTING, {"waited_s": 5.0}, Verdict.GIVE_UP),
        (Obstacle.CONFIG, Health.REFUSED, {"waited_s": 99.0, "free_s": 99.0}, Verdict.GIVE_UP),
        (Obstacle.RECORD, Health.REFUSED, {"free_s": 4.9, "waited_s": 9.0}, Verdict.WAIT),
        (Obstacle.RECORD, Health.REFUSED, {"free_s": 5.0}, Verdict.RECLAIM),
        (Obstacle.RECORD, Health.MUTE, {"waited_s": 5.0}, Verdict.GIVE_UP),
        (Obstacle.BASE_PORT, Health.MUTE, {"waited_s": 5.0}, Verdict.GIVE_UP),
        (Obstacle.NODE_LOCK, Health.REFUSED, {"free_s": 99.0}, Verdict.WAIT),
        (Obstacle.NODE_LOCK, Health.REFUSED, {"free_s": 99.0, "waited_s": 5.0}, Verdict.GIVE_UP),
        (Obstacle.NODE_LOCK, Health.HEALTHY, {}, Verdict.DUPLICATE),
        (Obstacle.LISTENER, Health.FOREIGN, {}, Verdict.WAIT),
        (Obstacle.LISTENER, Health.FOREIGN, {"waited_s": 5.0}, Verdict.GIVE_UP),
        (Obstacle.LISTENER, Health.HEALTHY, {"waited_s": 5.0}, Verdict.DUPLICATE),
    ],
)
def test_decision(
    obstacle: Obstacle, health: Health, facts: dict[str, object], expected: Verdict
) -> None:
    assert verdict(obstacle, health, **facts) is expected


def test_78_is_for_a_healthy_duplicate_under_systemd_and_for_nothing_else() -> None:
    for obstacle, health, supervised, waited_s in product(
        Obstacle, Health, (False, True), (0.0, 99.0)
    ):
        verdict, code = decided(obstacle, health, supervised=supervised, waited_s=waited_s)
        assert (code is ExitCode.CONFIG) == (supervised and verdict is Verdict.DUPLICATE)
        assert (code is ExitCode.TEMPORARY) == (supervised and verdict is Verdict.GIVE_UP)
        assert (code is None) == (verdict in (Verdict.WAIT, Verdict.RECLAIM))


@pytest.mark.parametrize("errno", sorted(PASSING))
def test_a_condition_that_time_mends_is_waited_for_under_systemd(errno: int) -> None:
    assert pause_for_condition(errno, supervised=True, waited_s=0.0) == 0.1
    assert pause_for_condition(errno, supervised=True, waited_s=CONDITION_PATIENCE_S) is None
    assert pause_for_condition(errno, supervised=False, waited_s=0.0) is None


@pytest.mark.parametrize("errno", [None, 0, EACCES, EROFS])
def test_what_time_does_not_mend_is_told_at_once(errno: int | None) -> None:
    assert pause_for_condition(errno, supervised=True, waited_s=0.0) is None


def test_pauses_grow_and_stay_bounded() -> None:
    pauses = [
        pause_for_condition(ENOSPC, supervised=True, waited_s=float(waited_s)) or 0.0
        for waited_s in range(int(CONDITION_PATIENCE_S))
    ]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0


def test_failing_for_a_condition_never_uses_up_the_units_starts() -> None:
    """Six starts in 600 s are allowed: see StartLimitBurst= in the units, which another test compares."""
    assert pause_for_condition(EADDRNOTAVAIL, supervised=True, waited_s=100.0) is not None
