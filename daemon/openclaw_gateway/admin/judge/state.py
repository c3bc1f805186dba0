"""The words for how a gateway is, and what ``status`` exits with for each."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class State(StrEnum):
    """The one word."""

    RUNNING = "running"
    STANDBY = "standby"
    STARTING = "starting"
    DEGRADED = "degraded"
    NOT_SERVING = "not-serving"
    STOPPING = "stopping"
    PARKED = "parked"
    GAVE_UP = "gave-up"
    FOREIGN_PORT = "foreign-port"
    UNMANAGED = "unmanaged"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class StatusCode(IntEnum):
    """What ``status`` exits with, after the LSB's init script actions."""

    HEALTHY = 0
    UNWELL = 1
    """Degraded, not serving, or about to stop."""
    STARTING = 2
    NOT_RUNNING = 3
    UNKNOWN = 4


EXIT_CODES = {
    State.RUNNING: StatusCode.HEALTHY,
    State.STANDBY: StatusCode.HEALTHY,
    State.UNMANAGED: StatusCode.HEALTHY,
    State.DEGRADED: StatusCode.UNWELL,
    State.NOT_SERVING: StatusCode.UNWELL,
    State.STOPPING: StatusCode.UNWELL,
    State.STARTING: StatusCode.STARTING,
    State.PARKED: StatusCode.NOT_RUNNING,
    State.GAVE_UP: StatusCode.NOT_RUNNING,
    State.FOREIGN_PORT: StatusCode.NOT_RUNNING,
    State.STOPPED: StatusCode.NOT_RUNNING,
    State.UNKNOWN: StatusCode.UNKNOWN,
}

FINAL = frozenset({State.PARKED, State.GAVE_UP})
"""States that end only by someone's hand, so that waiting has no point."""
