"""Counting what clients ask for: every request has one outcome, and peers choose none of the names."""

from __future__ import annotations

import pytest

from openclaw_gateway.protocol.calls import Answer, Failure
from openclaw_gateway.protocol.frames import ErrorCode, error
from openclaw_gateway.server.tally import BOUNDS_S, OTHER, OUTCOMES, Tally


@pytest.mark.parametrize("code", ErrorCode)
def test_error_is_counted_by_its_code(code: ErrorCode) -> None:
    tally = Tally()
    tally.settled(Failure(error(code, "no")), 0.0)
    assert tally.outcomes == {code.lower(): 1}
    assert code.lower() in OUTCOMES


def test_code_of_an_extension_is_no_name_of_ours() -> None:
    tally = Tally()
    tally.settled(Failure({"code": "WEATHER"}), 0.0)
    tally.settled(Failure({}), 0.0)
    assert tally.outcomes == {OTHER: 2}


def test_refused_request_counts_for_its_method_and_else_for_none() -> None:
    tally = Tally()
    tally.refused("health", "UNAVAILABLE")
    tally.refused("", "INVALID_REQUEST")
    assert tally.requests == {"health": 1, OTHER: 1}
    assert tally.outcomes == {"unavailable": 1, "invalid_request": 1}


def test_methods_beyond_a_bound_and_one_of_that_name_are_other() -> None:
    tally = Tally()
    names = [OTHER, *(f"method{number}" for number in range(600))]
    for name in (*names, ""):
        tally.refused(name, "FORBIDDEN")
    told = tally.by_method(names)
    assert len(told) == 500
    assert told["method0"] == 1 and told[OTHER] == 602 - 499
    assert sum(told.values()) == tally.requests.total()


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (BOUNDS_S[0], 0), (0.00011, 1), (0.5, 11), (60.0, 17), (60.1, 18)],
)
def test_bound_belongs_to_its_bucket(seconds: float, bucket: int) -> None:
    tally = Tally()
    tally.settled(Answer("1"), seconds)
    assert tally.durations.counts.index(1) == bucket
    assert sum(tally.durations.counts) == 1
    assert tally.durations.sum_s == seconds
