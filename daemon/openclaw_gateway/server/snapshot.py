"""How the gateway is at one moment, as one value that nothing changes any more. Pure.

Whoever shows it (the method ``status`` first) reads it here. Counters are plain numbers in the objects
where things happen; taking a snapshot copies them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from openclaw_gateway.claim.record import Phase
from openclaw_gateway.protocol.role import Lease, Role
from openclaw_gateway.server.tally import Durations

STATE_DIRECTORY = "state-directory"
"""The check that the state directory takes data."""

CHECKS = (STATE_DIRECTORY,)
"""Whatever may stand in ``Snapshot.failing``."""


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
    """What is claimed, as our lock records have it, and the lock files that they are in."""

    state_dir: str | None
    config_path: str | None
    host: str | None
    port: int | None
    since: str | None
    owner_id: str | None
    lock_paths: tuple[str, ...] = ()


class Snapshot(NamedTuple):
    """
    How the gateway is.

    Attributes:
        version: Ours.
        instance: A new one in each process.
        unit: That started us; ``None`` if none did.
        pid: Ours.
        resident_bytes: Memory of this process.
        uptime_ms: Since we began to serve.
        phase: Where in our life we are.
        phase_since_ms: Wall clock when the phase began, Unix time.
        failing: What keeps us from doing our work.
        problem: Why systemd gets no ping just now, in words; ``""`` if it gets one.
        watchdog_s: Seconds within which systemd wants the next ping; ``None`` if it does not watch.
        pinged_at_ms: Wall clock of the last ping that systemd took, Unix time; ``None`` if none.
        loop_delay_s: The longest time of the last minute or two that the event loop kept anybody waiting.
        locks_restored: Lock files made anew since the start, because somebody had removed them.
        auth_mode: What clients have to show.
        auth_failures: Wrong secrets since the start.
        connected: Clients that got their hello.
        connections: Open connections within the limits.
        unauthenticated: Of those, the ones that have shown no secret.
        over_limit: Open connections beyond the limits, which may ask for health only.
        in_flight: Calls that wait for their answers.
        accepted: Connections since the start.
        requests: HTTP requests since the start, probes among them.
        requested: Requests of the protocol since the start, by method; ``other`` for those that we don't have.
        outcomes: What came of them, by name; see ``tally.Tally``.
        durations: Of their calls.
        limits: By the name that they have in the configuration.
        claim: What we hold.
        role: Our part in a cluster; ``None`` without one.
        lease: How its record is kept; likewise.
    """

    version: str
    instance: str
    unit: str | None
    pid: int
    resident_bytes: int
    uptime_ms: int
    phase: Phase
    phase_since_ms: int
    failing: tuple[str, ...]
    problem: str
    watchdog_s: float | None
    pinged_at_ms: int | None
    loop_delay_s: float
    locks_restored: int
    auth_mode: str
    auth_failures: int
    connected: int
    connections: int
    unauthenticated: int
    over_limit: int
    in_flight: int
    accepted: int
    requests: int
    requested: Mapping[str, int]
    outcomes: Mapping[str, int]
    durations: Durations
    limits: Mapping[str, Limit]
    claim: Holding
    role: Role | None = None
    lease: Lease | None = None

    @property
    def ready(self) -> bool:
        """Whether clients are let in, and nothing fails: what ``/readyz`` says."""
        return self.phase is Phase.READY and not self.failing

    @property
    def verdict(self) -> tuple[str, str]:
        """The one word and its reason, as the verb ``status`` has them of a gateway that answers."""
        match self.phase:
            case Phase.STARTING:
                return "starting", f"phase {self.phase}"
            case Phase.DRAINING:
                return "stopping", "clients are being sent away"
            case Phase.STANDBY:
                role = self.role
                where = (
                    f"in cluster {role.name}: {role.reason}" if role else "another one is active"
                )
                return "standby", where
        if self.failing:
            return "degraded", f"answers, but is not ready: {', '.join(self.failing)}"
        if self.problem:
            return "degraded", self.problem
        managed = self.unit is not None
        return ("running", "healthy") if managed else ("unmanaged", "healthy, but no unit runs it")

    @property
    def next(self) -> tuple[str, ...]:
        """What to type next on our machine, as the verb ``status`` has it; empty if all is well."""
        match self.verdict[0]:
            case "starting":
                return (self.command("status", "--wait", "60"),)
            case "stopping" if self.unit is not None:  # by hand it logs to its terminal
                return (self.command("logs", "-f"),)
            case "degraded":
                return (self.command("doctor"),)
        return ()

    def command(self, verb: str, *options: str) -> str:
        """Return our own command line for a verb on this gateway: by its profile, or else by its port."""
        unit = self.unit or ""
        profile = re.fullmatch(r"openclaw-gateway@([A-Za-z0-9][A-Za-z0-9_-]*)\.service", unit)
        meant = [f"--profile={profile[1]}"] if profile else []
        if not meant and unit != "openclaw-gateway.service" and verb != "logs":
            meant = [f"--port={self.claim.port}"]
        return " ".join(("openclaw-gateway", verb, *meant, *options))


def status(snapshot: Snapshot) -> dict[str, object]:
    """Return the answer to the method ``status``, which no schema binds."""
    state, reason = snapshot.verdict
    durations = snapshot.durations
    return {
        "state": state,
        "reason": reason,
        "next": [{"command": command, "why": ""} for command in snapshot.next],
        "statusCommand": snapshot.command("status"),
        "runtimeVersion": snapshot.version,
        "instanceId": snapshot.instance,
        "unit": snapshot.unit,
        "pid": snapshot.pid,
        "processMemory": {"rssBytes": snapshot.resident_bytes},
        "uptimeMs": snapshot.uptime_ms,
        "phase": snapshot.phase.value,
        "phaseSinceMs": snapshot.phase_since_ms,
        "ready": snapshot.ready,
        "failing": list(snapshot.failing),
        "problem": snapshot.problem or None,
        "watchdog": {
            "intervalMs": None
            if snapshot.watchdog_s is None
            else round(snapshot.watchdog_s * 1000),
            "lastPingMs": snapshot.pinged_at_ms,
        },
        "eventLoop": {"delayMaxMs": round(snapshot.loop_delay_s * 1000, 3)},
        "auth": {"mode": snapshot.auth_mode, "failures": snapshot.auth_failures},
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
            "calls": sum(snapshot.requested.values()),
        },
        "rpc": {
            "requests": dict(snapshot.requested),
            "outcomes": dict(snapshot.outcomes),
            "handlers": {
                "count": sum(durations.counts),
                "totalMs": round(durations.sum_s * 1000, 3),
            },
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
            "lockPaths": list(snapshot.claim.lock_paths),
            "restored": snapshot.locks_restored,
        },
        "cluster": None
        if snapshot.role is None
        else role_details(snapshot.role) | _lease_details(snapshot.lease),
    }


def _lease_details(lease: Lease | None) -> dict[str, object]:
    if lease is None:
        return {}
    left_s = lease.expires_in_s
    return {
        "leaseExpiresInMs": None if left_s is None else round(left_s * 1000),
        "renewals": dict(lease.renewals),
    }


def role_details(role: Role) -> dict[str, object]:
    """Return what is told of a role to who may know it, JSON."""
    return {
        "name": role.name,
        "active": role.active,
        "holder": role.holder,
        "url": role.url,
        "token": role.token,
        "sinceMs": role.since_ms,
        "reason": role.reason,
    }
