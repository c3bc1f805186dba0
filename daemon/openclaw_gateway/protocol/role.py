"""What a gateway is in its cluster: the active one, or one that stands by; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Role(NamedTuple):
    """
    A gateway's part in a cluster, as it knows it at one moment.

    A copy of it may be old; whether we may still serve is asked of the fence (``server.http``), not of this.
    """

    name: str
    """The cluster's."""
    active: bool
    """Whether this host holds the record."""
    holder: str
    """Id of the active gateway, ours or another's; empty if none is known."""
    url: str
    """Where clients reach the active gateway; empty if unknown."""
    token: int | None
    """
    Fencing token of the active tenure: etcd's revision of the transaction in which the record was
    acquired, so that each tenure's is higher than all before it. ``None`` if there is no tenure.
    """
    since_ms: int | None
    """When that tenure began, milliseconds since 1970 by its own host's wall clock; ``None`` if unknown."""
    reason: str
    """One line for people, such as ``gw-a is active (token 42)``."""


class Lease(NamedTuple):
    """How a host keeps its cluster's record, at one moment; for who watches over it."""

    expires_in_s: float | None
    """Seconds until another host may take it, unless it is renewed; ``None`` for one that stands by."""
    renewals: Mapping[str, int]
    """Requests to acquire or renew it since the start, by how they ended."""
