"""What peers can make us log: few lines, on one line each, and nothing that a library quotes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.server.lines import Handler, Lines, Rate, take_over
from openclaw_gateway.supervisor.events import Event, Priority
from openclaw_gateway.supervisor.journal import Recent


class Kept:
    """A journal that keeps what it is told."""

    def __init__(self) -> None:
        self.threshold, self.recent = Priority.DEBUG, Recent()
        self.said: list[str] = []

    def write(self, event: Event, sentence: str, **fields: object) -> None:
        self.said.append(sentence)


@pytest.fixture
def kept() -> Iterator[Kept]:
    journal = Kept()
    undo = take_over(Lines(journal))
    yield journal
    undo()


def test_few_lines_about_one_subject_and_then_how_many_were_left_out() -> None:
    rate = Rate(2, 10.0)
    assert [rate.allows("a", now_s=0)[0] for _ in range(5)] == [True, True, False, False, False]
    assert rate.allows("b", now_s=1) == (True, 0)
    assert rate.allows("a", now_s=11) == (True, 3)
    assert rate.allows("a", now_s=30) == (True, 0)


@given(st.lists(st.integers(0, 5000), max_size=3000))
def test_subjects_without_end_are_bounded_too(subjects: list[int]) -> None:
    rate = Rate(2, 10.0)
    allowed = sum(rate.allows(str(subject), now_s=0)[0] for subject in subjects)
    assert allowed <= 2 * (1024 + 1)


def test_failure_is_one_line_cut_short(kept: Kept) -> None:
    lines = Lines(kept)
    for _ in range(20):
        lines.failed("route GET /x", ValueError("a\nb" + "x" * 5000))
    assert len(kept.said) == 5
    assert "\n" not in kept.said[0] and len(kept.said[0]) < 400


@pytest.mark.parametrize("name", ["websockets.server", "asyncio", "websockets"])
def test_library_is_named_and_not_quoted(kept: Kept, name: str) -> None:
    try:
        raise ValueError("peer's bytes")
    except ValueError:
        logging.getLogger(name).exception("opening failed: %s", "peer's bytes")
    (said,) = kept.said
    assert said.startswith(f"{name} logged something (ERROR") and "ValueError" in said
    assert "peer" not in said


def test_extension_says_what_it_has_to_say_on_one_line(kept: Kept) -> None:
    logging.getLogger("weather").warning("no %s\ntoday", "sun")
    logging.getLogger("weather").info("not worth it")
    record = logging.LogRecord("weather", 30, "weather.py", 1, "bad %d", ("format",), None)
    Handler(Lines(kept)).emit(record)
    assert kept.said == [r"weather: 'no sun\ntoday'", "weather: 'bad %d'"]


def test_loop_is_not_quoted_either(kept: Kept) -> None:
    try:
        raise KeyError("peer's bytes")
    except KeyError as failure:
        Lines(kept).loop_failed(None, {"message": "peer's bytes", "exception": failure})
    Lines(kept).loop_failed(None, {"message": "peer's bytes"})
    assert "KeyError in test_loop_is_not_quoted_either (test_lines.py:" in kept.said[0]
    assert not any("peer" in said for said in kept.said)
