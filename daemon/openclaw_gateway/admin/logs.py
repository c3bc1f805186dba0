"""``logs``: what the gateway and its manager wrote to the journal, through systemd's own reader."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from openclaw_gateway.admin.look import units
from openclaw_gateway.admin.look.history import hex_id, is_kept, is_readable, match_unit
from openclaw_gateway.admin.look.selection import Selection
from openclaw_gateway.admin.look.subject import choose_manager, held
from openclaw_gateway.admin.look.units import Manager
from openclaw_gateway.admin.report import SCHEMA
from openclaw_gateway.errors import ConfigurationError, NothingToShowError
from openclaw_gateway.supervisor.events import Priority

_FOLLOW_S = 1.0


def entries(
    selection: Selection,
    *,
    since: datetime | None,
    count: int,
    follow: bool,
) -> Iterator[dict[str, Any]]:
    """
    Yield journal entries of the unit, oldest first.

    Args:
        selection: Which gateway's unit is meant.
        since: From when on; ``None`` for the last ``count``.
        count: How many of the last ones, where ``since`` is not given.
        follow: Go on with what comes, until interrupted.

    Raises:
        NothingToShowError: There is no journal, none that we may read, or nothing in it; a follower
            waits for the latter instead.
    """
    manager = choose_manager(selection, held())
    name = units.unit_name(selection.where.profile)
    if not is_kept():
        raise NothingToShowError(
            f"the log of {name}",
            "no journal is kept on this system",
            hint="a gateway that is run by hand writes to its terminal",
        )
    from systemd.journal import Reader

    with Reader() as reader:
        match_unit(reader, name, manager.uid)
        found = False
        for entry in _from_start(reader, since, count):
            found = True
            yield entry
        if follow:
            yield from _follow(reader)
        elif not found:
            raise _nothing(name, manager)


def _from_start(reader: Any, since: datetime | None, count: int) -> Iterator[dict[str, Any]]:
    if since is None:
        reader.seek_tail()
        entry = reader.get_previous(count)
    else:
        reader.seek_realtime(since)
        entry = reader.get_next()
    while entry:
        yield entry
        entry = reader.get_next()


def _follow(reader: Any) -> Iterator[dict[str, Any]]:
    while True:
        reader.wait(_FOLLOW_S)
        reader.process()
        while entry := reader.get_next():
            yield entry


def _nothing(name: str, manager: Manager) -> NothingToShowError:
    if is_readable(manager):
        return NothingToShowError(f"the log of {name} ({manager})", "nothing in the journal")
    return NothingToShowError(
        f"the log of {name} ({manager})",
        "the journal shows other users' entries to root and the groups systemd-journal and adm only",
        hint="sudo openclaw-gateway logs",
    )


def sentence(entry: Mapping[str, Any]) -> str:
    """Return an entry as a person reads it; what follows its first line is indented."""
    at = entry["__REALTIME_TIMESTAMP"].astimezone().strftime("%Y-%m-%d %H:%M:%S")
    who = entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM") or "?"
    pid = entry.get("_PID") or entry.get("SYSLOG_PID") or "?"
    priority = entry.get("PRIORITY", Priority.INFO)
    level = f"{Priority(priority).name.lower()}: " if priority in _LOUD else ""
    text = str(entry.get("MESSAGE", "")).replace("\n", "\n    ")
    return f"{at} {who}[{pid}]: {level}{text}"


_LOUD = {Priority.CRIT, Priority.ERROR, Priority.WARNING}


def document(entry: Mapping[str, Any]) -> str:
    """Return an entry as one line of JSON."""
    at = entry["__REALTIME_TIMESTAMP"]
    values = {
        "schema": SCHEMA,
        "time": at.astimezone().isoformat(),
        "time_s": at.timestamp(),
        "priority": entry.get("PRIORITY"),
        "identifier": entry.get("SYSLOG_IDENTIFIER"),
        "pid": entry.get("_PID"),
        "message_id": hex_id(entry.get("MESSAGE_ID")) or None,
        "message": str(entry.get("MESSAGE", "")),
        "fields": {
            name.removeprefix("OPENCLAW_").lower(): str(value)
            for name, value in entry.items()
            if name.startswith("OPENCLAW_")
        },
    }
    return json.dumps(values, ensure_ascii=False)


def parse_since(text: str, *, now: datetime) -> datetime:
    """
    Read a point in time; pure.

    Args:
        text: ``2026-11-23``, ``2026-11-23 09:12``, ``09:12:30``, ``today``, ``yesterday``, or a time span
            back from now: ``10min``, ``-2h``, ``1h 30min ago``.
        now: Local time.

    Raises:
        ConfigurationError: It is none of those.

    See Also:
        systemd.time(7).
    """
    words = text.strip()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": midnight, "yesterday": midnight - timedelta(days=1)}
    if words in days:
        return days[words]
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%H:%M:%S", "%H:%M"):
        try:
            moment = datetime.strptime(words, form)
        except ValueError:
            continue
        if "%Y" not in form:
            moment = moment.replace(year=now.year, month=now.month, day=now.day)
        return moment.replace(tzinfo=now.tzinfo)
    span_s = units.seconds(words.removesuffix("ago").strip().removeprefix("-"))
    if span_s is None:
        raise ConfigurationError(
            "flag", "--since", f"must be a time or a time span, not {text[:40]!r}",
            hint='such as "10min", "2 h ago", "09:12", "today" or "2026-11-23 09:12"',
        )  # fmt: skip
    return now - timedelta(seconds=span_s)
