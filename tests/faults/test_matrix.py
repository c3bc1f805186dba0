"""Every scenario of the fault matrix, against the gateway."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from faults.implementations import GATEWAY, Lab
from faults.scenarios import (
    HOLDS,
    SCENARIOS,
    TWO_OWNERS,
    Scenario,
    moved_file,
    moved_lock_directory,
    removed_file,
    replaced_file,
    simultaneous_starts,
    stopped_owner,
    verdict,
)
from faults.variants import NO_FLOCKS, without


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(
            scenario,
            id=scenario.run.__name__,
            marks=pytest.mark.skipif(scenario.needs_root and os.getuid() != 0, reason="needs root"),
        )
        for scenario in SCENARIOS
    ],
)
def test_gateway_holds(
    scenario: Scenario, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with closing(Lab(GATEWAY, tmp_path)) as lab:
        found = verdict(scenario.run, lab)
        record_property("verdict", found)
        assert found == HOLDS, (lab.overlaps(), lab.log())


@pytest.mark.parametrize(
    "run",
    [
        simultaneous_starts,
        removed_file,
        moved_file,
        replaced_file,
        moved_lock_directory,
        stopped_owner,
    ],
)
def test_gateway_without_file_locks_is_caught(run: Callable[[Lab], str], tmp_path: Path) -> None:
    build = without(tmp_path / "build", *NO_FLOCKS)
    with closing(Lab(GATEWAY, tmp_path, build=build)) as lab:
        assert run(lab) == TWO_OWNERS, lab.log()
        # The counter is lost by chance only, and by a stopped process never.
        assert {found.witness for found in lab.overlaps()} >= {"marker", "referee"}
