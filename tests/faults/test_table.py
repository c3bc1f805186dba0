"""What the README's table makes of outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import table
from faults.scenarios import HOLDS, SCENARIOS, TWO_OWNERS

FAULTS = ((1, "title", "test_one test_two"),)


def cell(**outcomes: str) -> str:
    recorded = {f"x.py::{name}": {"outcome": outcome} for name, outcome in outcomes.items()}
    return table.gateway_faults(recorded, FAULTS)[-1]


def test_row_holds_if_every_test_of_it_passed() -> None:
    outcomes = {"test_one": "passed", "test_two[a]": "passed", "test_two[b]": "passed"}
    assert cell(**outcomes) == "| title | holds |"


def test_row_with_a_test_that_did_not_run_does_not_hold() -> None:
    assert cell(test_one="passed") == "| title | not run |"


def test_row_with_one_bad_parameter_does_not_hold() -> None:
    outcomes = {"test_one": "passed", "test_two[a]": "passed", "test_two[b]": "failed"}
    assert cell(**outcomes) == "| title | failed |"


def test_test_of_a_longer_name_counts_for_its_own_row_only() -> None:
    outcomes = {"test_one": "passed", "test_two_and_more": "passed"}
    assert cell(**outcomes) == "| title | not run |"


def test_row_shows_what_its_tests_measured() -> None:
    outcomes = {
        "x.py::test_one": {"outcome": "passed", "figures": "3 starts"},
        "x.py::test_two": {"outcome": "passed"},
    }
    assert table.gateway_faults(outcomes, FAULTS)[-1] == "| title | holds: 3 starts |"


def test_cell_of_the_matrix_is_of_the_test_that_watched_that_fault() -> None:
    run = SCENARIOS[0].run.__name__
    outcomes = {
        f"x.py::test_gateway_without_file_locks_is_caught[{run}]": {"outcome": "passed"},
        f"x.py::test_gateway_holds[{run}]": {"outcome": "passed", "verdict": HOLDS},
        f"x.py::test_control[{run}-filelock]": {"outcome": "passed", "verdict": TWO_OWNERS},
    }
    cells = table.matrix(outcomes)[2].split(" | ")
    assert cells[1:3] == [HOLDS, TWO_OWNERS]


@pytest.mark.parametrize("row", table.GATEWAY_FAULTS, ids=lambda row: row[1])
def test_tests_of_a_row_exist(row: tuple[int, str, str]) -> None:
    tests = Path(__file__).parents[1]
    files = [*tests.rglob("test_*.py"), tests / "faults/cluster_matrix.py"]
    sources = [file.read_text() for file in files]
    missing = [name for name in row[2].split() if not any(f"def {name}(" in s for s in sources)]
    assert missing == []
