"""The methods that every gateway answers: health, status, system-presence, config.get, logs.tail."""

from __future__ import annotations

import hmac
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.protocol.calls import Answer
from openclaw_gateway.protocol.frames import encode
from openclaw_gateway.protocol.schema import closed
from openclaw_gateway.protocol.scopes import READ
from openclaw_gateway.server import logs
from openclaw_gateway.server.methods import Registry
from openclaw_gateway.server.presence import Presence
from openclaw_gateway.server.redaction import redact
from openclaw_gateway.server.snapshot import Snapshot, status
from openclaw_gateway.settings.sources import read_document
from openclaw_gateway.supervisor.journal import Journal

# Clients of 2026.9 may send these; they ask for what we always do, or for what we have none of.
_HEALTH_PARAMS = closed({"probe": {"type": "boolean"}})
_STATUS_PARAMS = closed(
    {"includeChannelSummary": {"type": "boolean"}, "includeCliProjection": {"type": "boolean"}}
)
_LOGS_TAIL_PARAMS = closed(
    {
        "cursor": {"type": "integer", "minimum": 0},
        "limit": {"type": "integer", "minimum": 1, "maximum": 5000},
        "maxBytes": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
    }
)


def add_builtin(
    registry: Registry,
    *,
    health: Health,
    presence: Presence,
    snapshot: Callable[[], Snapshot],
    config_path: str,
    journal: Journal,
) -> None:
    """
    Add our own methods.

    Args:
        registry: Takes them.
        health: Answers ``health``.
        presence: Answers ``system-presence``.
        snapshot: What ``status`` tells.
        config_path: The file that ``config.get`` shows.
        journal: What ``logs.tail`` shows.
    """
    key = secrets.token_bytes(32)
    registry.method(
        "health", lambda _: health.answer(), scope=None, params=_HEALTH_PARAMS, instant=True
    )
    registry.method(
        "status", lambda _: status(snapshot()), scope=READ, params=_STATUS_PARAMS, instant=True
    )
    registry.method(
        "system-presence",
        lambda _: presence.entries(),
        scope=READ,
        params=closed({}),
        instant=True,
    )
    registry.method(
        "config.get", lambda _: _configuration(config_path, key), scope=READ, params=closed({})
    )
    registry.method(
        "logs.tail",
        lambda call: logs.tail(journal, call.params),
        scope=READ,
        params=_LOGS_TAIL_PARAMS,
    )


class Health:
    """
    How we are, looked at anew no more often than once a second.

    Attributes:
        version: Rises whenever the answer becomes another one.
    """

    def __init__(self, failing: Callable[[], list[str]]) -> None:
        """``failing`` names what keeps the gateway from doing its work; an empty list if nothing."""
        self._look = failing
        self.version = 0
        self._failing: list[str] = []
        self._looked_s = -1.0
        self._ts_ms = 0
        self._duration_ms = 0
        self._answered_s = self._looked_s
        self._answer = Answer("")

    def look(self) -> list[str]:
        """Return what is failing."""
        began_s = time.monotonic()
        if self._looked_s < 0 or began_s - self._looked_s >= 1:
            failing = self._look()
            if failing != self._failing or not self.version:
                self.version += 1
            self._failing, self._looked_s = failing, began_s
            self._ts_ms = int(time.time() * 1000)
            self._duration_ms = round((time.monotonic() - began_s) * 1000)
        return self._failing

    def snapshot(self) -> dict[str, object]:
        """Return the protocol's health object, which can't say that something fails but by leaving out ``ok``."""
        failing = self.look()
        times: dict[str, object] = {"ts": self._ts_ms, "durationMs": self._duration_ms}
        return times if failing else {"ok": True, **times}

    def answer(self) -> Answer:
        """Return the answer to ``health``, which no schema binds; made once for each look, as it is asked for most."""
        failing = self.look()
        if self._answered_s != self._looked_s:
            more = {"failing": failing} if failing else {}
            self._answer = Answer(encode({"ok": not failing, **self.snapshot(), **more}))
            self._answered_s = self._looked_s
        return self._answer


def resident_bytes() -> int:
    """Return our resident set. proc_pid_statm(5): pages, the second field."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _configuration(path: str, key: bytes) -> dict[str, object]:
    """Return the configuration file's content without its secrets, or what is wrong with it."""
    issues: list[dict[str, str]] = []
    document: Any = {}
    try:
        document = read_document(path, required=False)
    except ConfigurationError as error:
        issues.append({"path": error.key, "message": error.problem})
    shown = redact(document)
    # Keyed: nobody shall try out secrets against the digest of the file they stand in.
    digest = hmac.digest(key, repr(document).encode("utf-8", "replace"), "sha256").hex()
    return {
        "path": path,
        "exists": os.path.exists(path),
        "raw": None,
        "parsed": None if issues else shown,
        **dict.fromkeys(("sourceConfig", "resolved", "config", "runtimeConfig"), shown),
        "valid": not issues,
        "hash": f"hmac-sha256:v1:{digest}",
        "issues": issues,
        "warnings": [],
        "legacyIssues": [],
        "includedPaths": [],
    }
