"""The port in every order of starts, crashes and jobs: nobody is refused, nobody is locked out; and what that takes."""

from __future__ import annotations

import pytest

from faults.extent import extent
from model.explorer import Explored, explore
from model.port_model import (
    ABSENT,
    AS_BUILT,
    RESTING,
    Action,
    Port,
    Protocol,
    Step,
    Unit,
    World,
    begin,
    serving,
)

JOBS = extent("MODEL_JOBS", 4, 5)
"""How often an administrator does something in the largest worlds."""

SIZES = [
    {"units": 1, "kills": 2, "jobs": JOBS},
    {"units": 2, "kills": 1, "jobs": JOBS},
]


def problem(world: World) -> str | None:
    """Say what must never be."""
    for port in (0, 1):
        if len(serving(world, port)) > 1:
            return f"units {serving(world, port)} both serve port {port}"
        if len(world.listeners(port)) > 1:
            return f"units {world.listeners(port)} both listen on port {port}"
    for number, unit in enumerate(world.units):
        if unit.promised is not None and unit.promised not in (unit.bound, unit.kept):
            return f"clients of unit {number} are refused"
        if unit.promised is not None and unit.bound is None and unit.deaf:
            return f"clients of unit {number} can't connect"
        if unit.step in RESTING and (unit.bound, unit.kept) != (None, None):
            return f"unit {number} {unit.step}, and its port is bound"
        if unit.step is Step.SERVE and unit.kept not in (None, unit.bound):
            return f"unit {number} serves another port than systemd keeps for it"
    return None


def explored(protocol: Protocol = AS_BUILT, **size: int) -> Explored[World, Action]:
    return explore(begin(**size), Port(protocol).successors, problem)


@pytest.mark.parametrize("size", SIZES)
def test_nobody_is_refused_and_no_port_stays_behind(size: dict[str, int]) -> None:
    found = explored(**size)
    assert found.violation is None, str(found.violation)


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (AS_BUILT._replace(store=False), "are refused"),
        (AS_BUILT._replace(discards=False), "serves another port than systemd keeps"),
        (AS_BUILT._replace(only_closes=False), "can't connect"),
    ],
    ids=["no store", "what is unfit stays", "shut down instead of closed"],
)
def test_each_part_is_needed(protocol: Protocol, said: str) -> None:
    found = explored(protocol, **SIZES[0])
    assert found.violation is not None
    assert said in found.violation.problem


def stuck(port: Port, found: Explored[World, Action]) -> list[World]:
    """Return the worlds from which a unit that is to run never comes to serve nor to leave the port to another."""
    wrong = []
    for world in found.edges:
        quiet = explore(world._replace(kills=0, jobs=0), port.successors, lambda world: None)
        for number, unit in enumerate(world.units):
            if unit.step in RESTING or (
                unit.step in (Step.CLOSE, Step.UNLOCK) and not unit.restarts
            ):
                continue
            if not any(
                reached.units[number].step in (Step.SERVE, Step.PARKED) for reached in quiet.edges
            ):
                wrong.append(world)
    return wrong


@pytest.mark.parametrize(
    "size", [{"units": 1, "kills": 1, "jobs": 4}, {"units": 2, "kills": 1, "jobs": 3}]
)
def test_every_unit_comes_to_serve_or_leaves_to_a_healthy_one(size: dict[str, int]) -> None:
    found = explored(**size)
    assert stuck(Port(), found) == []


@pytest.mark.parametrize(
    "protocol",
    [AS_BUILT._replace(keeps_lock=True), AS_BUILT._replace(knows_own=False)],
    ids=["the lock is kept as well", "its own listener is asked"],
)
def test_unit_could_lock_itself_out(protocol: Protocol) -> None:
    found = explored(protocol, units=1, kills=1, jobs=2)
    assert found.violation is None, str(found.violation)
    assert stuck(Port(protocol), found)


def takes_over(protocol: Protocol) -> bool:
    """Whether a standby comes to serve once its owner was killed, before anyone starts that one again."""
    port = Port(protocol)
    start = begin(units=2, kills=1, jobs=2, standby=True)
    found = explore(start, port.successors, lambda world: None)
    killed = [
        world
        for world in found.edges
        if world.kills == 0
        and world.units[0] == Unit(standby=True, step=Step.AWAY, kept=world.units[0].kept)
        and world.units[1].step not in ABSENT
        and not world.units[1].restarts
        and world.units[1].step not in (Step.CLOSE, Step.UNLOCK)
    ]
    assert killed
    return all(_reaches_serving(port, world, 1) for world in killed)


def _reaches_serving(port: Port, world: World, number: int) -> bool:
    """Whether one unit comes to serve while no other one moves."""
    found = explore(world, lambda world: port.moves(world, number), lambda world: None)
    return any(reached.units[number].step is Step.SERVE for reached in found.edges)


def test_standby_takes_over_unless_systemd_keeps_its_owners_listener() -> None:
    assert takes_over(AS_BUILT)
    assert not takes_over(AS_BUILT._replace(standby_keeps=True))
