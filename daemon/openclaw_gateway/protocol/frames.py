"""The protocol's frames, pure: text in, a request or what is wrong with it out; answers and events to text.

Whatever leaves here is ASCII: a lone surrogate that a client put into an id goes back as the escape
that it came as, and a text's length is its size in bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn

from openclaw_gateway.protocol.schema import closed, problems

PROTOCOL = 4
"""The one version that we speak."""
MIN_PROBE_PROTOCOL = 3
"""Probes of older clients get a version 4 hello, and are content with it."""

INVALID_ID = "invalid"
"""The id of an answer to a frame whose own id is unusable."""

_MAX_REASON_BYTES = 120
"""RFC 6455, section 5.5: a control frame holds 125 bytes, two of which are the code."""


class ErrorCode(StrEnum):
    """The protocol's error codes that we have a use for."""

    INVALID_REQUEST = "INVALID_REQUEST"
    FORBIDDEN = "FORBIDDEN"
    UNAVAILABLE = "UNAVAILABLE"


class Request(NamedTuple):
    """A request frame. ``params`` is ``None`` if absent."""

    id: str
    method: str
    params: Any


class Malformed(NamedTuple):
    """A text that is no request frame."""

    id: str
    """What to answer to: the frame's own id, or ``"invalid"``."""
    problem: str


_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT}

_REQUEST = closed(
    {
        "type": {"enum": ("req",)},
        "id": _TEXT,
        "method": _TEXT,
        "params": {},
        "traceparent": {"type": "string", "maxLength": 128},
        # Clients of 2026.9.6 may send it; the published schema has no such key.
        "expectedProfileId": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    required=("type", "id", "method"),
)

_CLIENT_IDS = """
    webchat-ui openclaw-control-ui openclaw-browser-copilot openclaw-tui webchat cli gateway-client
    openclaw-macos openclaw-linux openclaw-ios openclaw-watchos openclaw-android node-host
    openclaw-worker test fingerprint openclaw-probe
    """.split()

CONNECT_PARAMS = closed(
    {
        "minProtocol": {"type": "integer", "minimum": 1},
        "maxProtocol": {"type": "integer", "minimum": 1},
        "client": closed(
            {
                "id": {"enum": _CLIENT_IDS},
                "displayName": _TEXT,
                "version": _TEXT,
                "buildId": {"type": "string", "minLength": 1, "maxLength": 96},
                "platform": _TEXT,
                "deviceFamily": _TEXT,
                "modelIdentifier": _TEXT,
                "timeZone": {"type": "string", "minLength": 1, "maxLength": 64},
                "mode": {"enum": "webchat cli ui backend node worker probe test".split()},
                "instanceId": _TEXT,
            },
            required=("id", "version", "platform", "mode"),
        ),
        "caps": _TEXTS,
        "commands": _TEXTS,
        "computerUse": {},
        "workerRuns": {"type": "object"},
        "permissions": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "pathEnv": {"type": "string"},
        "role": _TEXT,
        "scopes": _TEXTS,
        "device": closed(
            {
                "id": _TEXT,
                "publicKey": _TEXT,
                "signature": _TEXT,
                "signedAt": {"type": "integer", "minimum": 0},
                "nonce": _TEXT,
            },
            required=("id", "publicKey", "signature", "signedAt", "nonce"),
        ),
        "auth": closed(
            {
                name: {"type": "string"}
                for name in (
                    "token",
                    "bootstrapToken",
                    "deviceToken",
                    "password",
                    "approvalRuntimeToken",
                    "agentRuntimeIdentityToken",
                )
            }
        ),
        "locale": {"type": "string"},
        "userAgent": {"type": "string"},
    },
    required=("minProtocol", "maxProtocol", "client"),
)
"""The params of ``connect``, as the protocol's published schema has them."""


def parse(text: str) -> Request | Malformed:
    """
    Read one text frame; never raises.

    Args:
        text: Whatever a peer sent.

    Returns:
        The request, or why it is none, in words for the peer.
    """
    try:
        frame = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return Malformed(INVALID_ID, "not JSON")
    problem = "" if _is_plain(frame) else problems(frame, _REQUEST)
    if problem:
        own = frame.get("id") if isinstance(frame, dict) else None
        return Malformed(own if isinstance(own, str) and own else INVALID_ID, problem)
    return Request(frame["id"], frame["method"], frame.get("params"))


def glimpse_id(text: str) -> str:
    """
    Return the id that a refusal of a frame goes to, without reading a big frame.

    Args:
        text: Whatever a peer sent.

    Returns:
        The frame's id if the frame is small, or begins with its type and id, as clients write it; else
        ``"invalid"``.
    """
    if len(text) <= _SMALL_CHARACTERS:
        return parse(text).id
    begin = _BEGIN.match(text)
    return begin["id"] if begin else INVALID_ID


def _is_plain(frame: object) -> bool:
    """Whether a frame is a request without the rare keys: nearly all are, and this is five times as fast."""
    if not isinstance(frame, dict) or not _PLAIN_KEYS.issuperset(frame):
        return False
    own, method = frame.get("id"), frame.get("method")
    return bool(
        frame.get("type") == "req"
        and isinstance(own, str)
        and own
        and isinstance(method, str)
        and method
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # RFC 8259, section 6


# Made once: the functions of the json module would make a new one for each frame.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_SMALL_CHARACTERS = 1024
_BEGIN = re.compile(r'\{\s*"type"\s*:\s*"req"\s*,\s*"id"\s*:\s*"(?P<id>[ !#-\[\]-~]{1,256})"')
_PLAIN_KEYS = frozenset({"type", "id", "method", "params"})


def encode(value: object) -> str:
    """
    Return a value as compact JSON in ASCII.

    Raises:
        TypeError: It holds something that is not JSON.
        ValueError: It holds NaN, an infinity or itself.
        RecursionError: It is nested too deeply.
    """
    return _ENCODER.encode(value)


def encode_in_parts(value: object) -> Iterator[str]:
    """
    Yield the parts of what ``encode`` returns: slower, but other threads get their turns.

    Raises:
        TypeError: See ``encode``, as for the others.
        ValueError: ditto.
        RecursionError: ditto.
    """
    return _ENCODER.iterencode(value)


def error(
    code: ErrorCode,
    message: str,
    *,
    details: Mapping[str, object] | None = None,
    retry_after_ms: int | None = None,
) -> dict[str, object]:
    """Return an error; one with ``retry_after_ms`` is worth trying again after that many milliseconds."""
    shape: dict[str, object] = {"code": code.value, "message": message}
    if details is not None:
        shape["details"] = dict(details)
    if retry_after_ms is not None:
        shape |= {"retryable": True, "retryAfterMs": retry_after_ms}
    return shape


def answer(request_id: str, payload: str) -> str:
    """Return the frame that answers a request with a payload that is JSON already."""
    return f'{{"type":"res","id":{encode(request_id)},"ok":true,"payload":{payload}}}'


def refusal(request_id: str, error: Mapping[str, object]) -> str:
    """Return the frame that answers a request with an error."""
    return encode({"type": "res", "id": request_id, "ok": False, "error": error})


def challenge(*, nonce: str, now_ms: int) -> str:
    """Return the frame that a connection begins with; the only event without ``seq``."""
    payload = {"nonce": nonce, "ts": now_ms}
    return encode({"type": "event", "event": "connect.challenge", "payload": payload})


class Event(NamedTuple):
    """
    Something that every client is told, made into JSON once for all of them.

    Attributes:
        name: As clients know it.
        payload: JSON.
        scope: What a client must have been granted to hear it; ``None`` for everyone.
        state_version: JSON of ``{"presence": n, "health": n}``, ``""`` if the event has none.
    """

    name: str
    payload: str
    scope: str | None = None
    state_version: str = ""

    def numbered(self, seq: int) -> str:
        """Return the frame for a connection on which it is event number ``seq``."""
        version = f',"stateVersion":{self.state_version}' if self.state_version else ""
        return f'{{"type":"event","event":"{self.name}","payload":{self.payload},"seq":{seq}{version}}}'


def close_reason(text: str) -> str:
    """Cut a text to what fits into a close frame, at a character's end."""
    return text.encode("utf-8", "replace")[:_MAX_REASON_BYTES].decode("utf-8", "ignore")
