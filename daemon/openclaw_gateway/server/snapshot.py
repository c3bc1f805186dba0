"""How the gateway is at one moment, as one value that nothing changes any more. Pure.

Whoever shows it (the method ``status`` first) reads it here. Counters are plain numbers in the objects
where things happen; taking a snapshot copies them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Limit(NamedTuple):
    """
    One limit in force.

    Attributes:
        limit: Its value; times are in milliseconds. ``None`` if it is the kernel's.
        reached: How often since the start.
    """

    limit: float | None
    reached: int


class Holding(NamedTuple):
    """What is claimed, as our lock records have it."""

    state_dir: str | None
    config_path: str | None
    host: str | None
    port: int | None
    since: str | None
    owner_id: str | None


class Snapshot(NamedTuple):
    """
    How the gateway is.

    Attributes:
        version: Ours.
        pid: Ours.
        resident_bytes: Memory of this process.
        uptime_ms: Since we began to serve.
        phase: ``starting``, ``ready`` or ``draining``.
        failing: What keeps us from doing our work.
        connected: Clients that got their hello.
        connections: Open connections within the limits.
        unauthenticated: Of those, the ones that have shown no secret.
        over_limit: Open connections beyond the limits, which may ask for health only.
        in_flight: Calls that wait for their answers.
        accepted: Connections since the start.
        requests: HTTP requests since the start, probes among them.
        calls: Requests of the protocol since the start.
        limits: By the name that they have in the configuration.
        claim: What we hold.
    """

    version: str
    pid: int
    resident_bytes: int
    uptime_ms: int
    phase: str
    failing: tuple[str, ...]
    connected: int
    connections: int
    unauthenticated: int
    over_limit: int
    in_flight: int
    accepted: int
    requests: int
    calls: int
    limits: Mapping[str, Limit]
    claim: Holding


def status(snapshot: Snapshot) -> dict[str, object]:
    """Return the answer to the method ``status``, which no schema binds."""
    return {
        "runtimeVersion": snapshot.version,
        "pid": snapshot.pid,
        "processMemory": {"rssBytes": snapshot.resident_bytes},
        "uptimeMs": snapshot.uptime_ms,
        "phase": snapshot.phase,
        "failing": list(snapshot.failing),
        "clients": {
            "connected": snapshot.connected,
            "connections": snapshot.connections,
            "unauthenticated": snapshot.unauthenticated,
            "overLimit": snapshot.over_limit,
            "requestsInFlight": snapshot.in_flight,
        },
        "served": {
            "connections": snapshot.accepted,
            "requests": snapshot.requests,
            "calls": snapshot.calls,
        },
        "limits": {
            name: ({} if one.limit is None else {"limit": one.limit}) | {"reached": one.reached}
            for name, one in snapshot.limits.items()
        },
        "claim": {
            "stateDir": snapshot.claim.state_dir,
            "configPath": snapshot.claim.config_path,
            "host": snapshot.claim.host,
            "port": snapshot.claim.port,
            "since": snapshot.claim.since,
            "ownerId": snapshot.claim.owner_id,
        },
    }
