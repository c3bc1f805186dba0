"""What a guard does about its child: every look and every end, as a table."""

from __future__ import annotations

from itertools import product

import pytest

from openclaw_gateway.client.answer import Health
from openclaw_gateway.errors import ExitCode
from openclaw_gateway.guard.rule import Action, Ending, Exit, Look, Phase, after_exit, after_look

STARTED = Look(listens=True, health=Health.HEALTHY, started=True)
UNFIT = [
    Look(listens=False),
    Look(listens=False, other_ports=(18790,)),
    Look(listens=True, health=Health.MUTE),
    Look(listens=True, health=Health.STARTING),
    Look(listens=True, health=Health.FOREIGN),
    Look(listens=False, health=Health.HEALTHY, started=True),
]


def seen(phase: Phase, look: Look, waited_s: float = 1.0) -> Action:
    return after_look(phase, look, waited_s=waited_s, ready_timeout_s=300.0)


def test_ready_needs_listener_answer_and_startup() -> None:
    assert seen(Phase.STARTING, STARTED) is Action.READY
    assert seen(Phase.STARTING, STARTED._replace(started=False)) is Action.WAIT


@pytest.mark.parametrize("look", UNFIT, ids=str)
def test_a_look_that_falls_short_waits_then_gives_up_then_degrades(look: Look) -> None:
    assert seen(Phase.STARTING, look, 299.9) is Action.WAIT
    assert seen(Phase.STARTING, look, 300.0) is Action.GIVE_UP
    assert seen(Phase.READY, look) is Action.DEGRADED


def test_a_child_that_is_ready_in_the_last_moment_is_ready() -> None:
    assert seen(Phase.STARTING, STARTED, 300.0) is Action.READY


def test_startup_is_asked_only_once() -> None:
    assert seen(Phase.READY, STARTED._replace(started=False)) is Action.FEED


@pytest.mark.parametrize("look", [STARTED, *UNFIT], ids=str)
def test_nothing_is_fed_or_given_up_while_stopping(look: Look) -> None:
    assert seen(Phase.STOPPING, look, 1e9) is Action.WAIT


def ended(phase: Phase, exit: Exit, **changes: object) -> Ending | None:
    facts: dict[str, object] = {"stop_signal": 15, "gave_up": False, "contended": False, **changes}
    return after_exit(phase, exit, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("phase", "exit", "code"),
    [
        (Phase.STARTING, Exit(code=0), 1),
        (Phase.READY, Exit(code=0), 0),
        (Phase.STOPPING, Exit(code=0), 0),
        (Phase.STARTING, Exit(code=1), 1),
        (Phase.READY, Exit(code=3), 3),
        (Phase.STOPPING, Exit(code=3), 3),
        (Phase.STOPPING, Exit(signal=15), 0),
        (Phase.STOPPING, Exit(signal=9), 137),
        (Phase.READY, Exit(signal=15), 143),
        (Phase.READY, Exit(signal=9), 137),
        (Phase.STARTING, Exit(signal=11), 139),
        (Phase.STARTING, Exit(code=78), 78),
        (Phase.READY, Exit(code=78), 78),
        (Phase.STOPPING, Exit(code=78), 78),
        (Phase.STARTING, Exit(code=126), 78),
        (Phase.STARTING, Exit(code=127), 78),
        (Phase.READY, Exit(code=127), 127),
        (Phase.STOPPING, Exit(code=127), 127),
    ],
)
def test_the_exit_is_mirrored(phase: Phase, exit: Exit, code: int) -> None:
    ending = ended(phase, exit)
    assert ending is not None
    assert ending.exit_code == code


def test_stop_signal_is_the_one_that_was_chosen() -> None:
    quits = ended(Phase.STOPPING, Exit(signal=3), stop_signal=3)
    assert quits is not None
    assert quits.exit_code == ExitCode.OK


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY])
def test_78_beside_somebody_else_is_a_matter_of_contention(phase: Phase) -> None:
    assert ended(phase, Exit(code=78), contended=True) is None


def test_78_after_a_stop_is_its_own_matter_whoever_is_there_by_then() -> None:
    ending = ended(Phase.STOPPING, Exit(code=78), contended=True)
    assert ending is not None
    assert ending.exit_code == ExitCode.CONFIG


def test_78_with_nobody_around_is_the_configurations() -> None:
    ending = ended(Phase.STARTING, Exit(code=78))
    assert ending is not None
    assert ending.exit_code == ExitCode.CONFIG
    assert "configuration" in ending.reason


def test_only_78_is_a_matter_of_contention() -> None:
    for exit in (Exit(code=1), Exit(code=0), Exit(signal=15)):
        assert ended(Phase.STARTING, exit, contended=True) is not None


def test_a_child_that_was_given_up_fails_however_it_ends() -> None:
    for exit in (Exit(code=0), Exit(signal=15), Exit(signal=9), Exit(code=78)):
        ending = ended(Phase.STOPPING, exit, gave_up=True)
        assert ending is not None
        assert ending.exit_code == ExitCode.FAILURE


def test_only_78_and_what_can_not_be_executed_end_with_78() -> None:
    exits = [Exit(code=code) for code in range(256)] + [Exit(signal=n) for n in range(1, 65)]
    for phase, exit, gave_up in product(Phase, exits, (False, True)):
        ending = ended(phase, exit, gave_up=gave_up)
        assert ending is not None
        assert 0 <= ending.exit_code < 256
        parks = exit.code == 78 or (exit.code in (126, 127) and phase is Phase.STARTING)
        assert (ending.exit_code == ExitCode.CONFIG) == (parks and not gave_up)
