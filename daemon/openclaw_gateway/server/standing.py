"""What a gateway answers by its role in a cluster. Pure.

A standby serves nobody: it says that it lives, that it is a standby, and where the active gateway is.
"""

from __future__ import annotations

from openclaw_gateway.claim.record import Phase
from openclaw_gateway.protocol.role import Role
from openclaw_gateway.server.message import Response

TOKEN_FIELD = "OpenClaw-Fencing-Token"
"""Header field of every answer in a cluster: whose tenure it belongs to."""
URL_FIELD = "OpenClaw-Active-Url"
"""Header field of a standby's refusals: where to go instead."""
RETRY_S = 2
"""What a standby tells clients to wait; by then a takeover after a stop is over."""


def phase(own: Phase, role: Role | None, *, is_fenced: bool) -> Phase:
    """
    Say what a gateway is to its clients.

    Args:
        own: How far it is in its own life.
        role: Its part in the cluster; ``None`` without one.
        is_fenced: Whether its tenure may be over, so that it must serve nobody any more.
    """
    if own is not Phase.READY or role is None:
        return own
    if not role.active:
        return Phase.STANDBY
    return Phase.DRAINING if is_fenced else Phase.READY


def is_in_role(path: str, phase: Phase, failing: list[str]) -> bool:
    """
    Say whether a load balancer that asks by this path may send clients here.

    Without a cluster a gateway is the only one, and so the active one: a balancer's settings are right
    before there is a cluster, as they are with Patroni, whose routes these are.
    """
    if path == "/replica":
        return phase is Phase.STANDBY
    return phase is Phase.READY and not failing


def turned_away(role: Role) -> Response:
    """Return a standby's answer to whatever is not its to serve."""
    fields = {"Retry-After": str(RETRY_S)}
    where = ""
    if role.url:
        fields[URL_FIELD] = role.url
        where = f"the active gateway is at {role.url}\n"
    return Response(503, f"standby: {role.reason}\n{where}", fields, close=True)


def marks(role: Role | None) -> tuple[tuple[bytes, bytes], ...]:
    """Return the header fields that every answer carries by its role."""
    if role is None or role.token is None:
        return ()
    return ((TOKEN_FIELD.encode("ascii"), b"%d" % role.token),)
