"""Gateways started, killed, stopped and robbed at random: never two owners, never anything left in the way."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import clean_environ
from faults.extent import extent
from faults.variants import NO_FLOCKS, without

SECONDS = extent("TORTURE_SECONDS", 60, 300)
STANDBY_SECONDS = extent("STANDBY_SECONDS", 30, 300)
SEED = int(os.environ.get("TORTURE_SEED", "0")) or random.randrange(1 << 32)

NO_GUARDS = (
    *NO_FLOCKS,
    ("claim/baseport.py", "{_PREFIX}{port}", "{_PREFIX}{port}.{os.getpid()}"),
    ("claim/waiting.py", "for found in listening(settings.port) if", "for found in () if"),
    ("claim/listener.py", "socket.SO_REUSEADDR, 1", "socket.SO_REUSEPORT, 1"),
)
"""Each alone keeps two gateways apart in most of what torture does; without any of them nothing does."""


def torture(seconds: float, *options: str, path: str = "") -> dict[str, Any]:
    script = Path(__file__).with_name("torture.py")
    done = subprocess.run(
        [sys.executable, script, "--seconds", str(seconds), "--seed", str(SEED), *options],
        env=clean_environ(PYTHONPATH=path),
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + 120,
        check=False,
    )
    assert done.stdout, f"seed {SEED}: exit code {done.returncode}"
    report: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(report, indent=1))
    return report


def figures(report: dict[str, Any]) -> str:
    """Return what a reader of the table wants to know of a run, and how to have it again."""
    acts, gap_s = report["acts"], report["longest time without an owner, s"]
    interference = sum(acts.values()) - acts["start"]
    return (
        f"{acts['start']:,} starts, {report['ownerships']:,} owners and {interference:,} interferences "
        f"in {report['seconds']:g} s, {len(report['overlaps'])} overlaps, "
        f"longest gap {gap_s:g} s, seed {report['seed']}"
    )


@pytest.mark.timeout(SECONDS + 180)
def test_torture_finds_no_two_owners_and_nothing_left_in_the_way(
    record_property: Callable[[str, object], None],
) -> None:
    report = torture(SECONDS)
    record_property("figures", figures(report))
    assert report["overlaps"] == []
    assert report["litter"] == []
    assert report["last start"] == 0
    assert report["tracebacks"] == []
    assert report["ownerships"] > SECONDS / 2


@pytest.mark.timeout(STANDBY_SECONDS + 180)
def test_two_units_that_stand_by_for_each_other_are_never_both_owners(
    record_property: Callable[[str, object], None],
) -> None:
    report = torture(STANDBY_SECONDS, "--standby")
    record_property("figures", figures(report))
    assert report["overlaps"] == []
    assert report["last start"] == 0
    assert report["tracebacks"] == []
    assert 78 not in report["exit codes"] and "78" not in report["exit codes"]
    assert report["ownerships"] > STANDBY_SECONDS / 2


def test_all_witnesses_see_two_owners_where_nothing_keeps_them_apart(tmp_path: Path) -> None:
    report = torture(5, path=without(tmp_path, *NO_GUARDS))
    seen_by = {witness for witness, _, _ in report["overlaps"]}
    assert seen_by == {"marker", "counter", "referee", "kernel"}
