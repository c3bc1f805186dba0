"""The cluster's record on etcd, pure: a value in, one line of JSON out, and back."""

from __future__ import annotations

from typing import NamedTuple

from openclaw_gateway.protocol import fields

_MAX_LEASE_MS = 24 * 3600 * 1000


class Record(NamedTuple):
    """Who is the active gateway of a cluster; a released record has no holder, and the rest says who was it last."""

    holder: str
    """The host's id: the same for every start on one machine with one state directory; "" if released."""
    owner_id: str
    """The start's id: another one for each process that ever held the record."""
    url: str = ""
    """Where clients reach the holder, ``ws://`` or ``wss://``; "" if it did not say."""
    host: str = ""
    """The holder's host name, for people."""
    lease_ms: int = 0
    """Milliseconds that the holder may be silent before another may take over."""
    seq: int = 0
    """Counts this start's writes: by it a write is recognized whose answer was lost."""
    since_ms: int | None = None
    """Wall clock, milliseconds since 1970, when the tenure began: for people, as no decision looks at it."""


class Seen(NamedTuple):
    """The record, or its absence, as one linearizable read found it."""

    record: Record | None
    """``None`` if what stands there can't be read, or nothing stands there."""
    revision: int
    """Its key's ``mod_revision``, by which the next write is compared; 0 if nothing stands there."""
    token: int
    """The fencing token: ``mod_revision`` of ``<name>/epoch``, written only by who takes the record; 0 if never."""


_KEYS = {
    "holder": "holder",
    "ownerId": "owner_id",
    "url": "url",
    "host": "host",
    "leaseMs": "lease_ms",
    "seq": "seq",
    "sinceMs": "since_ms",
}
"""Key in the JSON to field, in the order in which a person reads them."""

_NUMBERS = {"lease_ms", "seq", "since_ms"}


def encode(record: Record) -> bytes:
    """Return the record as JSON; what is ``None`` is left out."""
    return fields.write(record, _KEYS).encode("ascii")


def parse(value: bytes) -> Record | None:
    """
    Read a record that any release of ours may have written; ``None`` if it is not one.

    Never raises; see ``fields.read``. What is no record still counts as held: who finds it waits for its own
    lease, as for any record that nobody renews.
    """
    found = fields.read(value, _KEYS, numbers=_NUMBERS)
    if found is None or "holder" not in found or "owner_id" not in found:
        return None
    lease_ms = found.get("lease_ms", 0)
    # An absurd lease would keep everybody out for ever: our own counts instead.
    if not isinstance(lease_ms, int) or not 0 <= lease_ms <= _MAX_LEASE_MS:
        del found["lease_ms"]
    return Record(**found)  # type: ignore[arg-type]
