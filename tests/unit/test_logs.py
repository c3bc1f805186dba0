"""What ``logs.tail`` shows, and the lines that are kept for it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from official import assert_valid
from openclaw_gateway.server.logs import page, tail
from openclaw_gateway.supervisor.events import Event, Priority
from openclaw_gateway.supervisor.journal import PlainJournal, Recent


def journal_of(*sentences: str) -> PlainJournal:
    journal = PlainJournal(Priority.DEBUG)
    for sentence in sentences:
        journal.write(Event.STARTED, sentence)
    return journal


def messages(answer: dict[str, object]) -> list[str]:
    assert_valid(answer, "LogsTailResult")
    lines = answer["lines"]
    assert isinstance(lines, list)
    return [json.loads(line)["message"] for line in lines]


def test_lines_are_json_that_log_viewers_know() -> None:
    journal = journal_of()
    journal.write(Event.CONFIG_DOUBTFUL, "two\nlines · ü")
    (line,) = tail(journal, {})["lines"]  # type: ignore[misc]
    entry = json.loads(line)
    assert "\n" not in line and entry["message"] == "two\nlines · ü" and entry["level"] == "warn"
    assert entry["time"].endswith("Z") and len(entry["time"]) == 24


def test_what_is_below_the_threshold_is_not_kept() -> None:
    journal = PlainJournal(Priority.ERROR)
    journal.write(Event.STARTED, "not so important")
    assert tail(journal, {})["lines"] == []


def test_cursor_gives_what_is_new() -> None:
    journal = journal_of("a", "b")
    first = tail(journal, {})
    assert messages(first) == ["a", "b"]
    cursor = first["cursor"]
    assert isinstance(cursor, int)
    assert messages(tail(journal, {"cursor": cursor})) == []
    journal.write(Event.STARTED, "c")
    assert messages(tail(journal, {"cursor": cursor})) == ["c"]


def test_cursor_from_before_a_restart_is_reset() -> None:
    answer = tail(journal_of("a"), {"cursor": 10**15})
    assert answer["reset"] is True and messages(answer) == ["a"]


def test_limit_keeps_the_newest_lines() -> None:
    answer = tail(journal_of("a", "b", "c"), {"limit": 2})
    assert answer["truncated"] is True and messages(answer) == ["b", "c"]


def test_bytes_are_bounded() -> None:
    answer = tail(journal_of("a", "b", "c"), {"maxBytes": 1})
    assert answer["truncated"] is True and messages(answer) == []


def test_kept_lines_are_bounded_in_bytes() -> None:
    recent = Recent(capacity_bytes=1000)
    for number in range(1000):
        recent.add(Priority.INFO, f"sentence {number}")
    kept = recent.newest_first()
    assert sum(len(line) + 1 for _, line in kept) <= 1000 and "999" in kept[0][1]


@given(st.lists(st.text(max_size=9)), st.lists(st.integers(1, 4)))
def test_follower_sees_every_line_once(sentences: list[str], polls: list[int]) -> None:
    journal = journal_of()
    cursor, seen = 0, []
    for sentence in sentences:
        journal.write(Event.STARTED, sentence)
        if polls and len(seen) % polls[0] == 0:
            answer = tail(journal, {"cursor": cursor})
            seen += messages_of(answer)
            cursor = int(str(answer["cursor"]))
    seen += messages_of(tail(journal, {"cursor": cursor}))
    assert seen == sentences


def messages_of(answer: dict[str, object]) -> list[str]:
    lines = answer["lines"]
    assert isinstance(lines, list)
    return [json.loads(line)["message"] for line in lines]


def test_page_reads_no_further_than_it_shows() -> None:
    def endless():  # type: ignore[no-untyped-def]
        position = 1000
        while True:
            yield position, "line"
            position -= 1
            assert position > 980

    assert len(page(endless(), {"limit": 5}, file="f", size=1000)["lines"]) == 5  # type: ignore[arg-type]
