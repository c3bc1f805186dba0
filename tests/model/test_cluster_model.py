"""Never two active gateways in a cluster, tried in every order, and with every part left out that it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults.extent import extent
from model.cluster_model import LEASE, Action, Model, Variant, World
from model.explorer import Explored, explore
from openclaw_gateway.cluster.rule import Phase

SAMPLE: list[dict[str, int]] = [
    {},
    {"losses": 1},
    {"stops": 1},
    {"leaves": 1},
    {"deletions": 1},
]
FULL: list[dict[str, int]] = [
    *SAMPLE,
    {"losses": 2},
    {"stops": 2},
    {"kills": 1, "starts": 1},
    {"losses": 1, "stops": 1},
    {"losses": 1, "leaves": 1},
    {"losses": 1, "deletions": 1},
]
SIZES = FULL if extent("MODEL_CLUSTER_FULL", 0, 1) else SAMPLE


Note = Callable[[str, object], None]


def explored(model: Model, **faults: int) -> Explored[World, Action]:
    return explore(model.begin(**faults), model.successors, model.problem)


def verify(found: Explored[World, Action], record_property: Note) -> None:
    """Nothing bad was found; how far the search went is kept for the report."""
    assert found.violation is None, str(found.violation)
    record_property("states", len(found.edges))


def named(faults: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in faults.items()) or "delays alone"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("faults", SIZES, ids=named)
@pytest.mark.parametrize("rates", [(4, 5), (5, 4)], ids=["slow first", "fast first"])
def test_there_is_never_a_second_active_gateway(
    rates: tuple[int, ...], faults: dict[str, int], record_property: Note
) -> None:
    verify(explored(Model(rates=rates, slow=True), **faults), record_property)


@pytest.mark.parametrize("leases", [(LEASE, 2 * LEASE), (2 * LEASE, LEASE)])
def test_hosts_with_different_leases_agree(
    leases: tuple[float, ...], record_property: Note
) -> None:
    losses = extent("MODEL_CLUSTER_LOSSES", 0, 1)
    verify(explored(Model(leases=leases, slow=True), losses=losses), record_property)


HOSTS = extent("MODEL_CLUSTER_HOSTS", 2, 3)
"""Three of them take a minute and a half."""


@pytest.mark.timeout(1200)
def test_one_is_active_of_as_many_hosts_as_there_is_time_for(record_property: Note) -> None:
    model = Model(rates=(4, 5, 5)[:HOSTS], leases=(LEASE,) * HOSTS, slow=True)
    verify(explored(model), record_property)


@pytest.mark.parametrize(
    ("variant", "faults", "leases"),
    [
        pytest.param(
            Variant(lease_is_revoked=True),
            {},
            (LEASE, LEASE),
            id="an etcd lease, which may be revoked",
        ),
        pytest.param(
            Variant(counted_from="received"),
            {},
            (LEASE, LEASE),
            id="deadline counted from the answer",
        ),
        pytest.param(
            Variant(kernel_timer=False), {"stops": 1}, (LEASE, LEASE), id="no kernel timer"
        ),
        pytest.param(
            Variant(kill=LEASE), {}, (LEASE, LEASE), id="no room for clocks of different rates"
        ),
        pytest.param(
            Variant(lost_answer_counts_from="last"),
            {"losses": 1},
            (LEASE, LEASE),
            id="a write sent twice counts from the second time",
        ),
        pytest.param(
            Variant(heeds_lease_of_others=False),
            {},
            (2 * LEASE, LEASE),
            id="the holder's lease not heeded",
        ),
        pytest.param(
            Variant(vanished_counts_as_held=False),
            {"deletions": 1},
            (LEASE, LEASE),
            id="a deleted record taken at once",
        ),
    ],
)
def test_each_part_is_needed(
    variant: Variant, faults: dict[str, int], leases: tuple[float, ...]
) -> None:
    found = explored(Model(variant, leases=leases, slow=True), **faults)
    assert found.violation is not None


def test_from_wherever_it_got_somebody_can_become_active() -> None:
    """Walk back from every world with an active gateway: what is left over are worlds in which nobody runs any more."""
    edges = explored(Model(slow=True), losses=extent("MODEL_CLUSTER_LOSSES", 0, 1)).edges
    before: dict[World, list[World]] = {world: [] for world in edges}
    for world, out in edges.items():
        for _, after in out:
            before[after].append(world)
    good = [w for w in edges if any(h.tenure.phase is Phase.ACTIVE for h in w.hosts)]
    reached = set(good)
    while good:
        for world in before[good.pop()]:
            if world not in reached:
                reached.add(world)
                good.append(world)
    assert [w for w in edges.keys() - reached if any(host.start for host in w.hosts)] == []
