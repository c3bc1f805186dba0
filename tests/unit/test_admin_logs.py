"""Journal entries as lines and as JSON, and points in time as people type them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from openclaw_gateway.admin.logs import Log, Wanted, command, document, parse_since
from openclaw_gateway.admin.look.selection import select
from openclaw_gateway.admin.look.units import SYSTEM
from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.supervisor.events import Priority
from openclaw_gateway.supervisor.reader import of_unit

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


def wanted(**changes: Any) -> Wanted:
    nothing = Wanted(select({"HOME": "/h"}), since=None, lines=None, priority=None, follow=False)
    return nothing._replace(**changes)


SYSTEM_LOG = Log("x.service", SYSTEM, of_unit("x.service", None))


@pytest.mark.parametrize(
    ("asked", "explain", "options"),
    [
        (wanted(), False, ["--lines=100"]),
        (wanted(lines=3, follow=True), False, ["--lines=3", "--follow"]),
        (wanted(since=NOW), False, [f"--since=@{NOW.timestamp():.6f}"]),
        (wanted(since=NOW, follow=True), False, [f"--since=@{NOW.timestamp():.6f}", "--no-tail", "--follow"]),
        (wanted(priority=Priority.WARNING), True, ["--lines=100", "--priority=4", "--catalog"]),
    ],
)  # fmt: skip
def test_journalctl_is_asked_for_what_was_asked_for(
    asked: Wanted, explain: bool, options: list[str]
) -> None:
    words = command(SYSTEM_LOG, asked, explain=explain)
    where = words.index("_SYSTEMD_UNIT=x.service")
    assert words[:where] == ["journalctl", "--quiet", "--no-hostname", *options]
    assert words[where : where + 4] == ["_SYSTEMD_UNIT=x.service", "+", "UNIT=x.service", "_PID=1"]


def test_last_entries_since_a_time_begin_at_a_cursor() -> None:
    words = command(SYSTEM_LOG, wanted(since=NOW, lines=3), explain=False, cursor="s=1;i=2")
    assert words[3] == "--cursor=s=1;i=2" and not any(
        word.startswith(("--since", "--lines")) for word in words
    )


def test_entries_of_another_users_unit_of_that_name_are_not_meant() -> None:
    alternatives = of_unit("x.service", 1000)
    assert all("_UID=1000" in alternative for alternative in alternatives)


@pytest.mark.parametrize("alternative", of_unit("x.service", None))
def test_nobody_can_write_into_the_log_of_a_unit(alternative: tuple[str, ...]) -> None:
    """What begins with an underscore is journald's word; each alternative needs one of those."""
    assert any(match.startswith("_") for match in alternative)


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
