"""What an answer to ``GET /healthz`` means; pure."""

from __future__ import annotations

import json
from enum import StrEnum


class Health(StrEnum):
    """What a probe of a port found; the words stand in messages."""

    HEALTHY = "a healthy gateway"
    STARTING = "a gateway that is starting"
    REFUSED = "nothing listening"
    MUTE = "a listener that does not answer"
    FOREIGN = "a program that is not a gateway"
    UNKNOWN = "something that could not be probed"


MAX_BODY_BYTES = 4096


LIVE = {"ok": True, "status": "live"}
"""What a healthy gateway's ``/healthz`` means, to the letter."""


def judge(status: int, body: bytes) -> Health:
    """
    Say what an answer to ``GET /healthz`` means; pure.

    Args:
        status: HTTP's.
        body: At most ``MAX_BODY_BYTES`` of it count: a longer one is no gateway's.

    Returns:
        ``HEALTHY``, ``STARTING`` or ``FOREIGN``.
    """
    try:
        answer = json.loads(body) if len(body) <= MAX_BODY_BYTES else None
    except (ValueError, RecursionError):
        answer = None
    if status == 200 and answer == LIVE and answer["ok"] is True:
        return Health.HEALTHY
    if (
        status == 503
        and isinstance(answer, dict)
        and answer.get("status") in ("starting", "draining")
    ):
        return Health.STARTING
    return Health.FOREIGN
