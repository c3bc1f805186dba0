"""The configuration as a client may see it: everything that could be a secret is replaced. Pure."""

from __future__ import annotations

import re
from math import isfinite

REDACTED = "__OPENCLAW_REDACTED__"

_SECRET_NAME = re.compile(
    r"""
    token$ | password | passwd | passphrase | secret | credential | cookie | authorization
    | api.?key | encrypt.?key | private.?key | serviceaccount(ref)?$ | _key$
    """,
    re.IGNORECASE | re.VERBOSE,
)
_HARMLESS_NAME = re.compile(
    r"((max|maxOutput|maxInput|maxCompletion|context|total)tokens|tokenCount|tokenLimit|tokenBudget"
    r"|passwordFile)$",
    re.IGNORECASE,
)
_URL_WITH_SECRET = re.compile(r"(\w+://)[^/@\s]+@")
_SECRET_SECTIONS = frozenset({"env", "headers"})
"""Maps whose names are the user's own, so that no name tells whether the value is secret."""


def redact(value: object, *, name: str = "", secret: bool = False) -> object:
    """
    Return a copy of a configuration without its secrets.

    Args:
        value: The document or a part of it.
        name: The key it stands under.
        secret: Whether what it stands in is secret as a whole.
    """
    secret = secret or is_secret(name)
    match value:
        case dict():
            return {key: redact(item, name=key, secret=secret) for key, item in value.items()}
        case list():
            return [redact(item, secret=secret) for item in value]
        case bool() | None:
            return value
        case str() if not secret:
            return _URL_WITH_SECRET.sub(rf"\1{REDACTED}@", value)
        case float() if not isfinite(value):
            return None  # as JSON.stringify has it: JSON knows neither NaN nor the infinities
        case _:
            return REDACTED if secret else value


def is_secret(name: str) -> bool:
    """Whether what stands under a key of this name is not for clients' eyes."""
    if name in _SECRET_SECTIONS:
        return True
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)
