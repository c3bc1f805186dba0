"""The claim's protocol, tried in every order, with every crash and a hostile hand; and what happens without its parts."""

from __future__ import annotations

import pytest

from faults.extent import extent
from model.claim_model import (
    AS_BUILT,
    BELOW_THE_DIRECTORY,
    EVERYTHING,
    RETRY,
    Action,
    Claim,
    Hostile,
    Process,
    Protocol,
    Step,
    World,
    begin,
    owners,
)
from model.explorer import Explored, explore

HOSTILE_ACTS = extent("MODEL_HOSTILE_ACTS", 2, 3)
"""How often someone interferes in the largest worlds; 3 takes half a minute, 4 several."""

LOCK_FILE_ONLY = Protocol(directory_lock=False, base_port=False)
LONGEST_UNDISTURBED_RUN = 30


def two_owners(world: World) -> str | None:
    owning = owners(world)
    return f"processes {owning} are all the gateway" if len(owning) > 1 else None


def explored(claim: Claim, **size: int) -> Explored[World, Action]:
    return explore(begin(**size), claim.successors, two_owners)


@pytest.mark.parametrize(
    ("processes", "starts", "hostile"), [(2, 2, 1), (2, 1, HOSTILE_ACTS), (3, 1, 0)]
)
def test_there_is_never_more_than_one_owner(processes: int, starts: int, hostile: int) -> None:
    found = explored(Claim(), processes=processes, starts=starts, hostile=hostile)
    assert found.violation is None, str(found.violation)


def test_locks_alone_exclude_whatever_happens_below_the_state_directory() -> None:
    claim = Claim(Protocol(base_port=False), hostility=BELOW_THE_DIRECTORY)
    found = explored(claim, processes=2, starts=1, hostile=HOSTILE_ACTS)
    assert found.violation is None, str(found.violation)


@pytest.mark.parametrize("unlink", ["while held", "never"])
def test_the_lock_file_alone_excludes_while_nobody_interferes(unlink: str) -> None:
    compare = unlink != "never"  # a file that is never unlinked keeps its name
    claim = Claim(LOCK_FILE_ONLY._replace(unlink=unlink, compare_after_lock=compare))
    found = explored(claim, processes=3, starts=1, hostile=0)
    assert found.violation is None, str(found.violation)


@pytest.mark.parametrize(
    ("protocol", "hostility", "size"),
    [
        pytest.param(
            LOCK_FILE_ONLY._replace(compare_after_lock=False),
            frozenset(),
            {"processes": 3, "starts": 1, "hostile": 0},
            id="no comparison after the lock",
        ),
        pytest.param(
            LOCK_FILE_ONLY._replace(unlink="after unlock"),
            frozenset(),
            {"processes": 3, "starts": 1, "hostile": 0},
            id="unlock, then unlink",
        ),
        pytest.param(
            LOCK_FILE_ONLY,
            frozenset({Hostile.REMOVE_FILE}),
            {"processes": 2, "starts": 1, "hostile": 1},
            id="no directory lock, and the file is removed",
        ),
        pytest.param(
            LOCK_FILE_ONLY,
            frozenset({Hostile.MOVE_FILE}),
            {"processes": 2, "starts": 1, "hostile": 1},
            id="no directory lock, and the file is moved",
        ),
        pytest.param(
            Protocol(base_port=False),
            frozenset({Hostile.MOVE_STATE}),
            {"processes": 2, "starts": 1, "hostile": 1},
            id="no base port, and the state directory is moved",
        ),
    ],
)
def test_each_part_is_needed(
    protocol: Protocol, hostility: frozenset[Hostile], size: dict[str, int]
) -> None:
    found = explored(Claim(protocol, hostility=hostility), **size)
    assert found.violation is not None
    assert len(owners(found.violation.state)) == 2


def test_while_nobody_interferes_the_path_leads_to_the_owners_lock_file() -> None:
    found = explored(Claim(), processes=2, starts=2, hostile=0)
    astray = [
        world
        for world in found.edges
        for number in owners(world)
        if world.processes[number].file != world.named_file()
    ]
    assert astray == []


def test_a_stop_leaves_no_lock_file_behind() -> None:
    claim = Claim()
    found = explored(claim, processes=2, starts=2, hostile=0)
    closing = [
        after
        for edges in found.edges.values()
        for action, after in edges
        if action.does == Step.CLOSE_STATE and owners(after) == []
        if all(process.step is Step.GONE for process in after.processes)
    ]
    assert closing
    assert [world for world in closing if world.named_file() is not None] == []


def undisturbed(claim: Claim, world: World, number: int) -> tuple[str, list[Action]]:
    """Let one process run on while nobody else moves: how that ends, and by which steps."""
    way: list[Action] = []
    while len(way) < LONGEST_UNDISTURBED_RUN:
        process = world.processes[number]
        if process.serving and process.step is Step.SERVE:
            return "owner", way
        if process.contended:
            return "contended", way
        moves = [move for move in claim.moves(world, number) if move[0].does != RETRY]
        if not moves:
            return "gone", way
        action, world = moves[0]
        way.append(action)
    return "endless", way


def test_a_start_always_comes_to_an_end() -> None:
    claim = Claim()
    found = explored(claim, processes=2, starts=1, hostile=HOSTILE_ACTS)
    endless = [
        way
        for world in found.edges
        for number in (0, 1)
        for end, way in [undisturbed(claim, world, number)]
        if end == "endless"
    ]
    assert endless == []


def test_without_walking_to_the_lock_directory_anew_a_start_can_go_on_for_ever() -> None:
    claim = Claim(Protocol(reopen_lock_directory=False))
    found = explored(claim, processes=1, starts=1, hostile=1)
    ends = {undisturbed(claim, world, 0)[0] for world in found.edges}
    assert "endless" in ends


def test_when_everyone_is_dead_the_next_start_becomes_the_owner_at_once() -> None:
    claim = Claim(AS_BUILT, hostility=EVERYTHING)
    found = explored(claim, processes=2, starts=1, hostile=HOSTILE_ACTS)
    dead = [w for w in found.edges if all(p.step is Step.GONE for p in w.processes)]
    assert dead
    for world in dead:
        next_start = world._replace(processes=(Process(starts_left=1), *world.processes[1:]))
        end, way = undisturbed(claim, next_start, 0)
        assert end == "owner", "\n".join(map(str, way))
