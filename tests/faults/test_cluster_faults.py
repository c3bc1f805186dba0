"""
Whatever happens to a host, to the way to etcd or to etcd: never a second active gateway, and soon a first one again.

The oracle are children of guards that leave a trace of each moment in which they serve, on the one clock that all
processes share, with the fencing token that they were given: a moment of an older tenure after one of a newer is an
overlap, and is what a resource that knows the tokens would refuse.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import etcd
from faults.links import Passes
from faults.stage import PATIENT, Property, Stage, served, staged, taken_over, verify


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Nodes]:
    with etcd.running(tmp_path_factory.mktemp("etcd"), 3, listen="0.0.0.0") as running:
        yield running


@pytest.fixture
def stage(nodes: etcd.Nodes, tmp_path: Path) -> Iterator[Stage]:
    with staged(nodes, tmp_path) as made:
        yield made


@pytest.fixture
def own_stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage whose etcd is the test's to break."""
    with etcd.running(tmp_path / "nodes", 3) as nodes, staged(nodes, tmp_path) as made:
        yield made


@pytest.mark.parametrize("child", [(), ("deaf",)], ids=["", "deaf"])
def test_stopped_for_good(stage: Stage, record_property: Property, child: tuple[str, ...]) -> None:
    a, _ = stage.host("a", *child), stage.host("b")
    stage.begin()
    a.signal(signal.SIGSTOP)
    taken_over(stage, record_property)
    assert a.end() == -signal.SIGKILL


@pytest.mark.parametrize("passes", [Passes.NOTHING, Passes.REQUESTS])
def test_cut(stage: Stage, record_property: Property, passes: Passes) -> None:
    a, proxy = stage.proxied("a")
    stage.host("b")
    stage.begin()
    proxy.passes = passes
    assert a.end() == 75
    taken_over(stage, record_property)


def test_a_renewal_that_was_written_without_an_answer_keeps_the_tenure(stage: Stage) -> None:
    a, proxy = stage.proxied("a", **PATIENT)
    stage.host("b", **PATIENT)
    stage.begin()
    proxy.passes = Passes.REQUESTS
    a.says("active for")
    proxy.passes = Passes.ALL
    since = time.monotonic_ns()
    served(a, after=since + 6_000_000_000)
    verify(stage.end(), tenures=1)


def test_leader_killed(own_stage: Stage) -> None:
    a, _ = own_stage.host("a", **PATIENT), own_stage.host("b", **PATIENT)
    own_stage.begin()
    own_stage.nodes.leader().kill()
    served(a, after=time.monotonic_ns() + 6_500_000_000)
    verify(own_stage.end(), tenures=1)
