"""``logs``: what the gateway and its manager wrote to the journal: journalctl for text, our own reader for JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from openclaw_gateway.admin.look import units
from openclaw_gateway.admin.look.history import hex_id, is_kept, is_readable
from openclaw_gateway.admin.look.selection import Selection
from openclaw_gateway.admin.look.subject import choose_manager, held, resolve
from openclaw_gateway.admin.look.units import Manager
from openclaw_gateway.admin.report import SCHEMA
from openclaw_gateway.errors import ConfigurationError, NothingToShowError
from openclaw_gateway.supervisor import reader as journal
from openclaw_gateway.supervisor.events import Priority

_FOLLOW_S = 1.0
DEFAULT_COUNT = 100
"""So many entries are shown where neither a number nor a time was asked for."""


class Wanted(NamedTuple):
    """Which entries are wanted, and of whose unit."""

    selection: Selection
    since: datetime | None
    """From when on."""
    lines: int | None
    """The last so many of those; ``None`` for all, or ``DEFAULT_COUNT`` where no time is given."""
    priority: Priority | None
    """This important and more."""
    follow: bool
    """Go on with what comes, until interrupted."""

    @property
    def last(self) -> int | None:
        """How many entries at most, ``None`` for all."""
        return DEFAULT_COUNT if self.lines is None and self.since is None else self.lines

    @property
    def priorities(self) -> Iterable[int]:
        """Those that are wanted; empty for all."""
        return () if self.priority is None else range(self.priority + 1)


class Log(NamedTuple):
    """A unit's entries in the journal, which we may read."""

    unit_name: str
    manager: Manager
    matches: journal.Matches


def open_log(wanted: Wanted) -> Log:
    """
    Find the log that is meant, and see that there is something to show.

    Raises:
        NothingToShowError: There is no journal, none that we may read, or nothing in it; a follower
            waits for the latter instead.
    """
    name, manager = _unit_of(wanted.selection)
    what = f"the log of {name} ({manager})"
    if not is_kept():
        raise NothingToShowError(
            what,
            "no journal is kept on this system",
            hint="a gateway that is run by hand writes to its terminal",
        )
    if not is_readable(manager):
        words = ("openclaw-gateway", "logs", *wanted.selection.arguments)
        raise NothingToShowError(
            what,
            "the journal shows other users' entries to root and the groups systemd-journal and adm only",
            hint=f"sudo {' '.join(words)}",
        )
    log = Log(name, manager, journal.of_unit(name, manager.uid))
    if not wanted.follow and _is_empty(log, wanted):
        since = f" since {wanted.since:%Y-%m-%d %H:%M:%S}" if wanted.since else ""
        raise NothingToShowError(what, f"nothing in the journal{since}")
    return log


def _unit_of(selection: Selection) -> tuple[str, Manager]:
    """Return whose log is meant: that of the unit that was named, or else what ``status`` would show."""
    if selection.guard or selection.where.profile:
        manager = choose_manager(selection, held())
        return units.unit_name(selection.where.profile, guard=selection.guard), manager
    subject = resolve(selection, held())
    return subject.unit_name, subject.manager


def _is_empty(log: Log, wanted: Wanted) -> bool:
    first = wanted._replace(lines=None if wanted.since else 1)
    return next(entries(log, first), None) is None


def first_cursor(log: Log, wanted: Wanted) -> str | None:
    """
    Return where to begin with the last so many entries since a time; ``None`` where only one of the two is given.

    journalctl shows the first so many of them before systemd 254, and the last so many from then on.
    """
    if wanted.since is None or wanted.lines is None:
        return None
    first = next(entries(log, wanted._replace(follow=False)), None)
    return str(first["__CURSOR"]) if first else None


def command(log: Log, wanted: Wanted, *, explain: bool, cursor: str | None = None) -> list[str]:
    """
    Return the command line that shows a log as text; pure.

    Args:
        log: From ``open_log``.
        wanted: Which of its entries.
        cursor: Where to begin, from ``first_cursor``.
        explain: Add what the message catalog has on each entry.

    See Also:
        journalctl(1).
    """
    options = ["--quiet", "--no-hostname"]
    if cursor is not None:
        options.append(f"--cursor={cursor}")
    elif wanted.since is not None:
        # journalctl has no short form for a span back from now; seconds since 1970 leave no doubt.
        options.append(f"--since=@{wanted.since.timestamp():.6f}")
    else:
        options.append(f"--lines={wanted.last}")
    if wanted.follow and wanted.since is not None:
        options.append("--no-tail")  # else a follower begins with the last ten
    if wanted.priority is not None:
        options.append(f"--priority={wanted.priority:d}")
    if wanted.follow:
        options.append("--follow")
    if explain:
        options.append("--catalog")
    return ["journalctl", *options, *journal.arguments(log.matches)]


def entries(log: Log, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Yield the entries of a log that are wanted, the oldest first."""
    from systemd.journal import Reader

    with Reader() as reader:
        journal.restrict(reader, log.matches, priorities=wanted.priorities)
        yield from _from_start(reader, wanted)
        if wanted.follow:
            yield from _follow(reader)


def _from_start(reader: Any, wanted: Wanted) -> Iterator[dict[str, Any]]:
    first: dict[str, Any] = {}
    if wanted.last is not None:
        reader.seek_tail()
        first = reader.get_previous(wanted.last)
    if wanted.since is not None and (not first or first["__REALTIME_TIMESTAMP"] < wanted.since):
        reader.seek_realtime(wanted.since)
        first = reader.get_next()
    return _onwards(reader, first)


def _onwards(reader: Any, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    while entry:
        yield entry
        entry = reader.get_next()


def _follow(reader: Any) -> Iterator[dict[str, Any]]:
    while True:
        reader.wait(_FOLLOW_S)
        reader.process()
        while entry := reader.get_next():
            yield entry


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
