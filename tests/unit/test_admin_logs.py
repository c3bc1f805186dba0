"""Journal entries as lines and as JSON, and points in time as people type them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from openclaw_gateway.admin.logs import document, parse_since, sentence
from openclaw_gateway.errors import ConfigurationError

NOW = datetime(2026, 11, 23, 9, 12, 30, tzinfo=UTC)


def entry(**fields: Any) -> dict[str, Any]:
    known = {
        "__REALTIME_TIMESTAMP": NOW,
        "SYSLOG_IDENTIFIER": "openclaw-gateway",
        "_PID": 812,
        "PRIORITY": 6,
        "MESSAGE": "hello",
    }
    return known | fields


def test_line_names_the_speaker_and_what_is_loud() -> None:
    local = NOW.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert sentence(entry()) == f"{local} openclaw-gateway[812]: hello"
    assert sentence(entry(PRIORITY=3)) == f"{local} openclaw-gateway[812]: error: hello"


def test_second_line_of_a_message_is_indented() -> None:
    assert sentence(entry(MESSAGE="one\nhint: two")).endswith("one\n    hint: two")


def test_entry_without_fields_is_shown() -> None:
    assert sentence({"__REALTIME_TIMESTAMP": NOW}).endswith("?[?]: ")


def test_document_is_one_line_with_our_fields() -> None:
    text = document(entry(OPENCLAW_PORT="18789", MESSAGE_ID=UUID(int=1), MESSAGE="a\nb"))
    assert "\n" not in text
    read = json.loads(text)
    assert read["schema"] == 1
    assert read["message"] == "a\nb"
    assert read["time_s"] == NOW.timestamp()
    assert read["message_id"] == "0" * 31 + "1"
    assert read["fields"] == {"port": "18789"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10min", NOW - timedelta(minutes=10)),
        ("-2h", NOW - timedelta(hours=2)),
        ("1h 30min ago", NOW - timedelta(minutes=90)),
        ("today", datetime(2026, 11, 23, tzinfo=UTC)),
        ("yesterday", datetime(2026, 11, 22, tzinfo=UTC)),
        ("09:10", datetime(2026, 11, 23, 9, 10, tzinfo=UTC)),
        ("09:10:11", datetime(2026, 11, 23, 9, 10, 11, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02 03:04", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_since(text: str, expected: datetime) -> None:
    assert parse_since(text, now=NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--since"):
        parse_since(text, now=NOW)
