"""The journal, read: which entries are a unit's, said once for our own reader and for journalctl."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from openclaw_gateway.supervisor.journal import IDENTIFIER

Matches = Sequence[Sequence[str]]
"""Alternatives; an entry is meant if each ``FIELD=value`` of one of them is true of it. Fields that differ are
joined by "and", the same field twice by "or". sd_journal_add_match(3)."""

_COREDUMP = "fc2e22bc6ee647b6b90729ab34a250b1"
"""Message id of systemd-coredump. sd-messages.h."""


def of_unit(unit_name: str, uid: int | None) -> Matches:
    """
    Return what a unit wrote, and what its manager and systemd-coredump wrote about it.

    Args:
        unit_name: The unit.
        uid: Whose user manager; ``None`` for the system's.

    See Also:
        systemd.journal-fields(7): fields that begin with ``_`` are journald's word, the others anybody's, so
        those come with who may have said them. journalctl(1), ``--unit`` and ``--user-unit``, match the same.
    """
    if uid is None:
        return (
            (f"_SYSTEMD_UNIT={unit_name}",),
            (f"UNIT={unit_name}", "_PID=1"),
            (f"COREDUMP_UNIT={unit_name}", "_UID=0", f"MESSAGE_ID={_COREDUMP}"),
            (f"OBJECT_SYSTEMD_UNIT={unit_name}", "_UID=0"),
        )
    whose = f"_UID={uid}"
    return (
        (f"_SYSTEMD_USER_UNIT={unit_name}", whose),
        (f"USER_UNIT={unit_name}", whose),
        (f"COREDUMP_USER_UNIT={unit_name}", whose, f"MESSAGE_ID={_COREDUMP}"),
        (f"OBJECT_SYSTEMD_USER_UNIT={unit_name}", whose),
    )


def of_gateway(unit_name: str | None, pid: int) -> Matches:
    """Return what gateways of a unit wrote themselves; without a unit, what this process wrote."""
    own = f"SYSLOG_IDENTIFIER={IDENTIFIER}"
    if unit_name is None:
        return ((own, f"_PID={pid}"),)
    return ((own, f"_SYSTEMD_UNIT={unit_name}"), (own, f"_SYSTEMD_USER_UNIT={unit_name}"))


def of_invocation(invocation_id: str, message_id: str) -> Matches:
    """Return what one start of a unit, 32 hexadecimal digits, wrote under a message id."""
    return ((f"_SYSTEMD_INVOCATION_ID={invocation_id}", f"MESSAGE_ID={message_id}"),)


def restrict(reader: Any, matches: Matches, *, priorities: Iterable[int] = ()) -> None:
    """
    Have a reader return these entries only.

    Args:
        reader: A fresh ``systemd.journal.Reader``.
        matches: Which.
        priorities: Of these priorities only; any if empty.
    """
    for alternative in matches:
        reader.add_disjunction()
        for match in alternative:
            reader.add_match(match)
    reader.add_conjunction()
    for priority in priorities:
        reader.add_match(f"PRIORITY={priority}")


def arguments(matches: Matches) -> list[str]:
    """Return the same for the command line of journalctl(1), where ``+`` stands between alternatives."""
    words: list[str] = []
    for alternative in matches:
        words += [*(["+"] if words else []), *alternative]
    return words
