"""How the gateway is, as one value; what ``status`` makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openclaw_gateway import cli
from openclaw_gateway.admin.judge.state import State
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.protocol.role import Lease, Role
from openclaw_gateway.server.snapshot import Holding, Limit, Snapshot, status
from openclaw_gateway.server.tally import Durations

SNAPSHOT = Snapshot(
    version="1.2.3", instance="abc", unit="openclaw-gateway.service", pid=4, resident_bytes=5,
    uptime_ms=6, phase=Phase.READY, phase_since_ms=20, failing=("disk",), problem="", watchdog_s=60,
    pinged_at_ms=21, loop_delay_s=0.0224, locks_restored=23, auth_mode="token", auth_failures=24,
    connected=7, connections=8, unauthenticated=9, over_limit=10, in_flight=11, accepted=12,
    requests=13, requested={"health": 14, "other": 1}, outcomes={"ok": 4},
    durations=Durations((1, 2, *[0] * 17), 0.25),
    limits={"descriptors": Limit(None, 1), "maxConnections": Limit(1024, 0)},
    claim=Holding("/state", "/config", "127.0.0.1", 18789, "now", "id", ("/lock",)),
    role=Role("c", True, "a", "wss://a", 42, 7, "a is active (token 42)"),
    lease=Lease(12.5, {"written": 3}),
)  # fmt: skip


def test_status_shows_all_of_a_snapshot() -> None:
    shown = status(SNAPSHOT)
    assert shown == {
        "state": "degraded",
        "reason": "answers, but is not ready: disk",
        "next": [{"command": "openclaw-gateway doctor", "why": ""}],
        "statusCommand": "openclaw-gateway status",
        "runtimeVersion": "1.2.3",
        "instanceId": "abc",
        "unit": "openclaw-gateway.service",
        "pid": 4,
        "processMemory": {"rssBytes": 5},
        "uptimeMs": 6,
        "phase": "ready",
        "phaseSinceMs": 20,
        "ready": False,
        "failing": ["disk"],
        "problem": None,
        "watchdog": {"intervalMs": 60000, "lastPingMs": 21},
        "eventLoop": {"delayMaxMs": 22.4},
        "auth": {"mode": "token", "failures": 24},
        "clients": {
            "connected": 7,
            "connections": 8,
            "unauthenticated": 9,
            "overLimit": 10,
            "requestsInFlight": 11,
        },
        "served": {"connections": 12, "requests": 13, "calls": 15},
        "rpc": {
            "requests": {"health": 14, "other": 1},
            "outcomes": {"ok": 4},
            "handlers": {"count": 3, "totalMs": 250.0},
        },
        "limits": {
            "descriptors": {"reached": 1},
            "maxConnections": {"limit": 1024, "reached": 0},
        },
        "claim": {
            "stateDir": "/state",
            "configPath": "/config",
            "host": "127.0.0.1",
            "port": 18789,
            "since": "now",
            "ownerId": "id",
            "lockPaths": ["/lock"],
            "restored": 23,
        },
        "cluster": {
            "name": "c",
            "active": True,
            "holder": "a",
            "url": "wss://a",
            "token": 42,
            "sinceMs": 7,
            "reason": "a is active (token 42)",
            "leaseExpiresInMs": 12500,
            "renewals": {"written": 3},
        },
    }
    assert json.loads(json.dumps(shown)) == shown


@pytest.mark.parametrize(
    ("changes", "state", "reason", "ready"),
    [
        ({}, State.RUNNING, "healthy", True),
        ({"unit": None}, State.UNMANAGED, "healthy, but no unit runs it", True),
        ({"failing": ("disk",)}, State.DEGRADED, "answers, but is not ready: disk", False),
        # Clients are let in while systemd is told nothing: readiness is one thing, the watchdog another.
        ({"problem": "it hangs"}, State.DEGRADED, "it hangs", True),
        ({"role": None}, State.RUNNING, "healthy", True),
        ({"phase": Phase.STARTING}, State.STARTING, "phase starting", False),
        ({"phase": Phase.DRAINING}, State.STOPPING, "clients are being sent away", False),
        (
            {"phase": Phase.STANDBY, "role": Role("c", False, "b", "", 1, None, "b is active")},
            *(State.STANDBY, "in cluster c: b is active", False),
        ),
        # Who leaves is no more than that, whatever else is wrong.
        (
            {"phase": Phase.DRAINING, "failing": ("disk",)},
            State.STOPPING,
            "clients are being sent away",
            False,
        ),
    ],
)
def test_one_word_is_one_that_the_verb_status_has(
    changes: dict[str, Any], state: State, reason: str, ready: bool
) -> None:
    well = SNAPSHOT._replace(failing=())
    changed = well._replace(**changes)
    assert (*changed.verdict, changed.ready) == (state, reason, ready)


@pytest.mark.parametrize(
    ("changes", "commands"),
    [
        ({"failing": ()}, ()),
        ({}, ("openclaw-gateway doctor",)),
        ({"phase": Phase.STARTING}, ("openclaw-gateway status --wait 60",)),
        ({"phase": Phase.DRAINING}, ("openclaw-gateway logs -f",)),
        ({"phase": Phase.DRAINING, "unit": None}, ()),
        ({"unit": None}, ("openclaw-gateway doctor --port=18789",)),
        ({"unit": "of-others.service"}, ("openclaw-gateway doctor --port=18789",)),
        ({"unit": "openclaw-gateway@a-b.service"}, ("openclaw-gateway doctor --profile=a-b",)),
        ({"unit": "openclaw-gateway@a;b.service"}, ("openclaw-gateway doctor --port=18789",)),
    ],
)
def test_what_to_type_next_is_taken_by_our_own_command(
    changes: dict[str, Any], commands: tuple[str, ...]
) -> None:
    assert SNAPSHOT._replace(**changes).next == commands
    for command in commands:
        cli.parser("openclaw-gateway").parse_args(command.split()[1:])
