"""The scenarios of the fault matrix against other people's locks; ``make faults`` runs them.

What they do is noted for the table. Asserted is only that the harness sees what is known to be bad,
and that the witnesses see two owners where, and only where, two processes say so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from faults.implementations import CONTROLS, LIBRARIES, Lab
from faults.scenarios import (
    SCENARIOS,
    TWO_OWNERS,
    Scenario,
    removed_file,
    waiter_wakes_after_the_file_went,
)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.run.__name__)
def test_control(
    scenario: Scenario,
    library: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    assert CONTROLS.exists(), "make faults prepares the other locks"
    with closing(Lab(library, tmp_path)) as lab:
        found = scenario.run(lab)
        assert (found == TWO_OWNERS) == bool(lab.overlaps()), (found, lab.overlaps(), lab.log())
        record_property("verdict", found)


@pytest.mark.parametrize("library", LIBRARIES)
def test_lock_without_a_guarded_directory_splits_when_its_file_is_removed(
    library: str, tmp_path: Path
) -> None:
    with closing(Lab(library, tmp_path)) as lab:
        assert removed_file(lab) == TWO_OWNERS


def test_lock_that_unlinks_without_comparing_splits_a_waiter_from_the_next_owner(
    tmp_path: Path,
) -> None:
    with closing(Lab("pid", tmp_path)) as lab:
        assert waiter_wakes_after_the_file_went(lab) == TWO_OWNERS
