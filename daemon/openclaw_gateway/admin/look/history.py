"""What the journal remembers of a unit: why it ended, and behind whom it parked.

Readable for root and the groups adm and systemd-journal; for others the journal is simply empty.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from openclaw_gateway.admin.look.units import Manager, Unit
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.reader import of_invocation, of_unit, restrict

# systemd's own ids, sd-messages.h: "main process exited" and "start request repeated too quickly".
_UNIT_PROCESS_EXIT = "98e322203f7a4ed290d09fe03c09fe15"
_EXIT_EVENTS = (
    Event.DUPLICATE,
    Event.LOCK_FAILED,
    Event.CONFIG_INVALID,
    Event.STORAGE_UNUSABLE,
    Event.CLAIM_LOST,
    Event.FAILED,
    Event.CHILD_ENDED,
    Event.STOPPED,
)
_MAX_ENTRIES = 400
_JOURNALS = ("/run/log/journal", "/var/log/journal")
_READERS = ("systemd-journal", "adm")


class Exit(NamedTuple):
    """One end of the gateway's main process."""

    at: datetime
    kind: str
    """``exited``, ``killed`` or ``dumped``; ``stopped`` where the gateway itself reported it."""
    status: str
    """Exit code or signal, as systemd words it."""
    cause: str
    """The gateway's own last word on it, its first line; empty if it had none."""


def is_kept() -> bool:
    """Whether this system keeps a journal."""
    return any(map(os.path.isdir, _JOURNALS))


def is_readable(manager: Manager) -> bool:
    """
    Whether the journal shows us the units of a manager: all to root and some groups, to others their own.

    See Also:
        systemd-journald.service(8), "Access Control".
    """
    if os.geteuid() == 0 or not manager.is_system:
        return True
    from grp import getgrall

    own = set(os.getgroups())
    return any(group.gr_gid in own for group in getgrall() if group.gr_name in _READERS)


def duplicate_of(invocation_id: str) -> int | None:
    """Return the pid that a start of the unit deferred to, by its own log; ``None`` if that can't be read."""
    if not invocation_id:
        return None
    from systemd.journal import Reader

    with Reader() as reader:
        restrict(reader, of_invocation(invocation_id, Event.DUPLICATE.message_id))
        reader.seek_tail()
        pid = str(reader.get_previous().get("OPENCLAW_OWNER_PID", ""))
    return int(pid) if pid.isdecimal() else None


def last_exits(unit: Unit, *, count: int) -> list[Exit]:
    """
    Return the latest ends of a unit's main process, the latest first.

    Args:
        unit: Of the system's manager or our own.
        count: At most so many.

    Returns:
        Empty if there were none in the last few hundred entries, or the journal is not ours to read.
    """
    from systemd.journal import Reader

    reasons = {event.message_id for event in _EXIT_EVENTS}
    causes: dict[str, str] = {}
    ends: list[tuple[str, dict[str, Any]]] = []
    with Reader() as reader:
        restrict(reader, of_unit(unit.name, None if unit.manager.is_system else unit.manager.uid))
        reader.seek_tail()
        for _ in range(_MAX_ENTRIES):
            entry = reader.get_previous()
            if not entry:
                break
            message_id = hex_id(entry.get("MESSAGE_ID"))
            invocation = hex_id(entry.get("_SYSTEMD_INVOCATION_ID"))
            if message_id in reasons and invocation:
                causes.setdefault(invocation, _first_line(entry))
            elif _is_main_exit(entry, message_id) and len(ends) < count:
                started = entry.get("INVOCATION_ID") or entry.get("USER_INVOCATION_ID")
                ends.append((hex_id(started), entry))
    return [
        Exit(
            entry["__REALTIME_TIMESTAMP"],
            str(entry.get("EXIT_CODE", "")),
            str(entry.get("EXIT_STATUS", "")),
            causes.get(started, ""),
        )
        for started, entry in ends
    ]


def _is_main_exit(entry: Mapping[str, Any], message_id: str) -> bool:
    """Whether an entry tells of the gateway's end: helpers of a reload or a stop end with the same words."""
    command = str(entry.get("COMMAND", ""))
    return message_id == _UNIT_PROCESS_EXIT and command in ("", "ExecStart")


def hex_id(value: object) -> str:
    """Return a 128-bit id as 32 digits, whether the reader made a UUID of it or left it text; ``""`` if none."""
    return str(getattr(value, "hex", value or ""))


def _first_line(entry: dict[str, Any]) -> str:
    return str(entry.get("MESSAGE", "")).split("\n", 1)[0]
