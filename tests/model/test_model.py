"""The claim's protocol, tried in every order, with every crash and a hostile hand; and what happens without its parts."""

from __future__ import annotations

import pytest

from faults.extent import extent
from model.claim_model import (
    AS_BUILT,
    BELOW_THE_DIRECTORY,
    DEAD,
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
            LOCK_FILE_ONLY._replace(compare_after_lock=False, confirm=False),
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


# Sizes of worlds with OpenClaw's own gateway: enough for one to die after another has read a record,
# and for a third to come.
BESIDE_NODE = [
    {"processes": 1, "starts": 2, "nodes": 1, "node_starts": 2},
    {"processes": 1, "starts": 1, "nodes": 2, "node_starts": 1},
]
if extent("MODEL_NODES", 0, 1):
    BESIDE_NODE.append({"processes": 2, "starts": 1, "nodes": 1, "node_starts": 2})
BESIDE_NODE_AS_BUILT = [
    pytest.param((AS_BUILT._replace(node_unlocks_first=first), size), id=f"{name}, {at}")
    for first, name in ((False, "record, then lock"), (True, "lock, then record"))
    for at, size in enumerate(BESIDE_NODE)
]


Beside = tuple[Protocol, Explored[World, Action]]


@pytest.fixture(scope="module", params=BESIDE_NODE_AS_BUILT)
def beside_node(
    request: pytest.FixtureRequest,
) -> Beside:
    """The claim as built, and everything that can happen in one of these worlds."""
    protocol, size = request.param
    return protocol, explored(Claim(protocol), hostile=0, **size)


def test_of_ours_and_openclaws_gateways_one_is_the_owner(beside_node: Beside) -> None:
    _, found = beside_node
    assert found.violation is None, str(found.violation)


def wronged(found: Explored[World, Action]) -> list[Action]:
    """Return the steps by which one of ours takes away a record of somebody else who lives."""
    return [
        action
        for world, edges in found.edges.items()
        for action, _ in edges
        if action.does in (Step.WRITE, Step.UNLINK) and action.process is not None
        for file in [
            world.processes[action.process].file
            if action.does == Step.WRITE
            else world.named_file()
        ]
        if world.writer(file) not in (None, DEAD, action.process)
    ]


def test_no_record_of_a_living_gateway_is_removed_or_written_over(beside_node: Beside) -> None:
    _, found = beside_node
    assert wronged(found) == []


@pytest.mark.parametrize(
    ("protocol", "size"),
    [
        pytest.param(
            AS_BUILT._replace(ask_after=False),
            {"processes": 1, "starts": 1, "nodes": 1, "node_starts": 1},
            id="no look after writing",
        ),
        pytest.param(
            AS_BUILT._replace(confirm=False),
            {"processes": 1, "starts": 1, "nodes": 1, "node_starts": 2},
            id="no comparison after that look",
        ),
        pytest.param(
            AS_BUILT._replace(reclaim_by_port=True),
            {"processes": 1, "starts": 1, "nodes": 1, "node_starts": 1},
            id="reclaim as nobody listens",
        ),
    ],
)
def test_beside_openclaws_gateway_each_part_is_needed(
    protocol: Protocol, size: dict[str, int]
) -> None:
    found = explored(Claim(protocol), hostile=0, **size)
    assert found.violation is not None
    assert len(owners(found.violation.state)) == 2


def test_reclaim_as_nobody_listens_would_write_over_a_living_gateways_record() -> None:
    claim = Claim(AS_BUILT._replace(reclaim_by_port=True))
    size = {"processes": 1, "starts": 1, "nodes": 1, "node_starts": 1, "hostile": 0}
    everything = explore(begin(**size), claim.successors, lambda world: None)
    assert {action.does for action in wronged(everything)} >= {Step.WRITE}


@pytest.mark.parametrize("ask_first", [True, False])
def test_without_the_first_look_a_start_that_loses_keeps_openclaws_gateway_out(
    ask_first: bool,
) -> None:
    """It has its lock and reads records next; an empty file that we made is somebody's who is about to write."""
    claim = Claim(AS_BUILT._replace(ask_first=ask_first))
    world = begin(processes=1, starts=1, hostile=0, nodes=1)
    for wanted in (Step.NODE_MAKE, Step.NODE_LOCK, Step.NODE_LOOK):
        world = next(after for _, after in claim.moves(world, 1))
        assert world.processes[1].step is wanted
    end, _, world = undisturbed(claim, world, 0)
    assert end == "contended"
    end, _, world = undisturbed(claim, world, 1)
    assert end == ("owner" if ask_first else "contended")


def undisturbed(claim: Claim, world: World, number: int) -> tuple[str, list[Action], World]:
    """Let one process run on while nobody else moves: how that ends, by which steps and where."""
    way: list[Action] = []
    while len(way) < LONGEST_UNDISTURBED_RUN:
        process = world.processes[number]
        if process.serving and process.step in (Step.SERVE, Step.NODE_SERVE):
            return "owner", way, world
        if process.contended:
            return "contended", way, world
        moves = [move for move in claim.moves(world, number) if move[0].does != RETRY]
        if not moves:
            return "gone", way, world
        action, world = moves[0]
        way.append(action)
    return "endless", way, world


def test_a_start_always_comes_to_an_end() -> None:
    claim = Claim()
    found = explored(claim, processes=2, starts=1, hostile=HOSTILE_ACTS)
    endless = [
        way
        for world in found.edges
        for number in (0, 1)
        for end, way, _ in [undisturbed(claim, world, number)]
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
        end, way, _ = undisturbed(claim, next_start, 0)
        assert end == "owner", "\n".join(map(str, way))


def test_whatever_openclaws_gateway_left_the_next_start_becomes_the_owner_at_once(
    beside_node: Beside,
) -> None:
    protocol, found = beside_node
    claim = Claim(protocol)
    dead = [w for w in found.edges if all(p.step is Step.GONE for p in w.processes)]
    assert any(DEAD in dict(world.records).values() for world in dead)
    for world in dead:
        next_start = world._replace(processes=(Process(starts_left=1), *world.processes[1:]))
        end, way, _ = undisturbed(claim, next_start, 0)
        assert end == "owner", "\n".join(map(str, way))


def test_owner_whose_file_openclaws_gateway_took_stops_and_leaves_it() -> None:
    """Someone removed the owner's record, so that the other one saw none: seen at the next look."""
    claim = Claim(AS_BUILT, hostility=frozenset({Hostile.REMOVE_FILE}))
    start = begin(processes=1, starts=1, nodes=1, hostile=1)
    found = explore(start, claim.successors, lambda world: None)
    both = [w for w in found.edges if len(owners(w)) == 2 and w.processes[0].step is Step.SERVE]
    assert both
    for world in both:
        looking = next(after for _, after in claim.moves(world, 0))
        end, way, after = undisturbed(claim, looking, 0)
        assert end == "gone", "\n".join(map(str, way))
        assert after.writer(after.named_file()) == 1
    assert Step.WRITE not in {action.does for action in wronged(found)}
