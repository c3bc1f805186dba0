"""What a verb has to say: lines and an exit code, or facts as JSON with stable keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from openclaw_gateway.admin.look.units import Manager

SCHEMA = 1
"""Of every JSON document that the verbs print; it rises when a key goes or changes its meaning."""


class Report(NamedTuple):
    """The whole of what a verb prints, and what it exits with."""

    lines: Sequence[str]
    exit_code: int


def document(values: Mapping[str, object]) -> list[str]:
    """Return one JSON document, schema number first, as lines."""
    return json.dumps({"schema": SCHEMA, **values}, indent=2, ensure_ascii=False).splitlines()


def to_json(value: object) -> object:
    """
    Turn facts into what ``json.dumps`` takes.

    A named tuple becomes an object with its fields as keys, an enumeration its name in lower case
    with dashes, a manager its words, a time ISO 8601, any other tuple a list. What may hold secrets
    is left out: a unit's environment and command line.
    """
    match value:
        case datetime():
            return value.astimezone().isoformat()
        case Manager():
            return str(value)
        case Enum():
            return value.name.lower().replace("_", "-")
        case tuple() if hasattr(value, "_fields"):
            names = [name for name in value._fields if name not in _PRIVATE]
            return {name: to_json(getattr(value, name)) for name in names}
        case tuple() | list():
            return [to_json(item) for item in value]
        case _:
            return value


_PRIVATE = frozenset({"environment", "argv", "password"})
