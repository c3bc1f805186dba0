"""Who is here: the gateway itself and its clients, as the protocol shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_ENTRIES = 200
"""Entries that are shown; more clients than that are served, but not listed."""

_MAX_SHOWN_CHARACTERS = 128
"""Of what a client says of itself: everybody is told it, so that what one says all have to read."""

_SHOWN = (
    "version",
    "platform",
    "deviceFamily",
    "modelIdentifier",
    "timeZone",
    "mode",
    "instanceId",
)

Entry = Mapping[str, object]


class Presence:
    """
    The list of who is here.

    Attributes:
        version: Rises with every change.
    """

    def __init__(self, gateway: Entry) -> None:
        """``gateway`` is our own entry, as ``gateway_entry`` makes it."""
        self._gateway = gateway
        self._clients: dict[str, Entry] = {}
        self.version = 1

    def join(
        self,
        conn_id: str,
        client: Mapping[str, Any],
        role: str,
        scopes: tuple[str, ...],
        *,
        now_ms: int,
    ) -> None:
        """Add a client that got its hello; ``client`` is what it said of itself."""
        host = _cut(client.get("displayName") or client["id"])
        entry: dict[str, object] = {name: _cut(client[name]) for name in _SHOWN if name in client}
        entry |= {
            "host": host,
            "roles": [role],
            "reason": "connect",
            "text": f"Node: {host} · mode {client['mode']}",
            "ts": now_ms,
            "onlineSince": now_ms,
        }
        if scopes:
            entry["scopes"] = list(scopes)
        self._clients[conn_id] = entry
        self.version += 1

    def leave(self, conn_id: str) -> None:
        """Take a client off the list."""
        if self._clients.pop(conn_id, None) is not None:
            self.version += 1

    def entries(self) -> list[Entry]:
        """Return the gateway's entry, then the clients', newest first."""
        newest = list(self._clients.values())[:-MAX_ENTRIES:-1]
        return [self._gateway, *newest]


def _cut(text: str) -> str:
    return text[:_MAX_SHOWN_CHARACTERS]


def gateway_entry(*, host: str, address: str, version: str, kernel: str, now_ms: int) -> Entry:
    """Return the entry of the gateway itself; ``address`` is the IP literal that it listens on."""
    return {
        "host": host,
        "ip": address,
        "version": version,
        "platform": f"linux {kernel}",
        "deviceFamily": "Linux",
        "mode": "gateway",
        "reason": "self",
        "text": f"Gateway: {host} ({address}) · app {version} · mode gateway · reason self",
        "ts": now_ms,
    }
