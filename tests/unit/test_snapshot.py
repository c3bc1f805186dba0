"""How the gateway is, as one value; what ``status`` makes of it."""

from __future__ import annotations

import json

from openclaw_gateway.server.snapshot import Holding, Limit, Snapshot, status

SNAPSHOT = Snapshot(
    version="1.2.3", pid=4, resident_bytes=5, uptime_ms=6, phase="ready", failing=("disk",),
    connected=7, connections=8, unauthenticated=9, over_limit=10, in_flight=11, accepted=12,
    requests=13, calls=14,
    limits={"descriptors": Limit(None, 1), "maxConnections": Limit(1024, 0)},
    claim=Holding("/state", "/config", "127.0.0.1", 18789, "now", "id"),
)  # fmt: skip


def test_status_shows_all_of_a_snapshot() -> None:
    shown = status(SNAPSHOT)
    assert shown == {
        "runtimeVersion": "1.2.3",
        "pid": 4,
        "processMemory": {"rssBytes": 5},
        "uptimeMs": 6,
        "phase": "ready",
        "failing": ["disk"],
        "clients": {
            "connected": 7,
            "connections": 8,
            "unauthenticated": 9,
            "overLimit": 10,
            "requestsInFlight": 11,
        },
        "served": {"connections": 12, "requests": 13, "calls": 14},
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
        },
    }
    assert json.loads(json.dumps(shown)) == shown
