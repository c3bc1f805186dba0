"""
Whatever happens to a host, to the way to etcd or to etcd: never a second active gateway, and soon a first one again.

The oracle are children of guards that leave a trace of each moment in which they serve, on the one clock that all
processes share, with the fencing token that they were given: a moment of an older tenure after one of a newer is an
overlap, and is what a resource that knows the tokens would refuse.
"""

from __future__ import annotations

import signal
import time

import pytest

from faults.links import Passes
from faults.stage import PATIENT, Property, Stage, served, taken_over, verify

pytest_plugins = ("faults.staging",)


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
