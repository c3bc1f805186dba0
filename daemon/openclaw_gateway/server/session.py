"""One client's state, pure: frame in, effects out. Clock and nonce are arguments."""

from __future__ import annotations

import json
from typing import NamedTuple

SERVICE_RESTART = 1012
POLICY_VIOLATION = 1008


class Send(NamedTuple):
    """Send one text frame."""

    text: str


class Close(NamedTuple):
    """Close the connection. RFC 6455, section 7.4."""

    code: int
    reason: str


Effect = Send | Close


class Session:
    """What we know of one WebSocket client."""

    def open(self, *, nonce: str, now_ms: int) -> list[Effect]:
        """Greet: the client must answer the challenge with ``connect``."""
        challenge = {
            "type": "event",
            "event": "connect.challenge",
            "payload": {"nonce": nonce, "ts": now_ms},
        }
        return [Send(json.dumps(challenge, separators=(",", ":")))]

    def receive(self, text: str) -> list[Effect]:
        """Take one text frame."""
        return [Close(POLICY_VIOLATION, "not supported yet")]
