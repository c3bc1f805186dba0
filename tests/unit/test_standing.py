"""What a gateway is to its clients, by its own life and its role in a cluster."""

from __future__ import annotations

import pytest

from openclaw_gateway.claim.record import Phase
from openclaw_gateway.protocol.role import Role
from openclaw_gateway.server import standing
from openclaw_gateway.server.exchange import Exchange
from openclaw_gateway.server.message import Response

ACTIVE = Role("home", True, "gw-a", "http://gw-a:18789", 42, 1_700_000_000_000, "active (token 42)")
STANDBY = ACTIVE._replace(active=False, reason="gw-a is active (token 42)")


@pytest.mark.parametrize(
    ("own", "role", "is_fenced", "phase"),
    [
        (Phase.STARTING, None, False, Phase.STARTING),
        (Phase.STARTING, ACTIVE, False, Phase.STARTING),
        (Phase.STARTING, STANDBY, False, Phase.STARTING),
        (Phase.READY, None, False, Phase.READY),
        (Phase.READY, ACTIVE, False, Phase.READY),
        (Phase.READY, ACTIVE, True, Phase.DRAINING),
        (Phase.READY, STANDBY, False, Phase.STANDBY),
        (Phase.READY, STANDBY, True, Phase.STANDBY),
        (Phase.DRAINING, None, False, Phase.DRAINING),
        (Phase.DRAINING, ACTIVE, True, Phase.DRAINING),
        (Phase.DRAINING, STANDBY, False, Phase.DRAINING),
    ],
)
def test_phase(own: Phase, role: Role | None, is_fenced: bool, phase: Phase) -> None:
    assert standing.phase(own, role, is_fenced=is_fenced) is phase


@pytest.mark.parametrize(
    ("phase", "failing", "primary", "replica"),
    [
        (Phase.STARTING, [], False, False),
        (Phase.STANDBY, [], False, True),
        (Phase.READY, [], True, False),
        (Phase.READY, ["state-directory"], False, False),
        (Phase.DRAINING, [], False, False),
    ],
)
def test_a_balancer_finds_one_kind_or_the_other(
    phase: Phase, failing: list[str], primary: bool, replica: bool
) -> None:
    assert standing.is_in_role("/primary", phase, failing) is primary
    assert standing.is_in_role("/readyz", phase, failing) is primary
    assert standing.is_in_role("/replica", phase, failing) is replica


def test_refusal_says_where_to_go() -> None:
    refusal = standing.turned_away(STANDBY)
    assert (refusal.status, refusal.close) == (503, True)
    assert refusal.headers == {"Retry-After": "2", "OpenClaw-Active-Url": "http://gw-a:18789"}
    assert refusal.body == (
        "standby: gw-a is active (token 42)\nthe active gateway is at http://gw-a:18789\n"
    )


def test_refusal_without_anybody_active_names_nobody() -> None:
    refusal = standing.turned_away(Role("home", False, "", "", None, None, "etcd unreachable"))
    assert refusal.headers == {"Retry-After": "2"}
    assert refusal.body == "standby: etcd unreachable\n"


def test_every_answer_bears_the_token() -> None:
    assert standing.marks(ACTIVE) == ((b"OpenClaw-Fencing-Token", b"42"),)
    assert standing.marks(STANDBY) == standing.marks(ACTIVE)
    assert standing.marks(STANDBY._replace(token=None)) == ()
    assert standing.marks(None) == ()


def test_handler_can_not_set_the_token() -> None:
    """It would speak for a tenure that is not its own."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    exchange = Exchange(head, address="::1", date=lambda: b"now")
    with pytest.raises(ValueError, match="is the server's to set"):
        exchange.respond(Response(200, "x", {standing.TOKEN_FIELD: "1"}))
