"""Records as one line of JSON, pure: what is written of a value's fields, and what is believed of anybody's bytes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

MAX_RECORD_BYTES = 65536
"""What is longer is no record of ours."""


def write(record: object, keys: Mapping[str, str]) -> str:
    """
    Return a record's fields as a JSON object; those that are ``None`` are left out.

    Args:
        record: Has an attribute for each field.
        keys: Key in the JSON to field, in the order in which a person reads them.
    """
    fields = {key: getattr(record, field) for key, field in keys.items()}
    return json.dumps({key: value for key, value in fields.items() if value is not None})


def read(
    data: bytes, keys: Mapping[str, str], *, numbers: Collection[str]
) -> dict[str, object] | None:
    """
    Read the fields of a record that any release of ours, or anyone else, may have written.

    Never raises. Keys that we don't know are passed over, values of a wrong type are dropped.

    Args:
        data: The record; blanks around it count for nothing.
        keys: Key in the JSON to field.
        numbers: The fields that are integers; all others are text.

    Returns:
        Field to value, for those that are there; ``None`` if it is no JSON object, or too long for one.
    """
    if len(data) > MAX_RECORD_BYTES:
        return None
    try:
        raw = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict):
        return None
    found = {field: raw[key] for key, field in keys.items() if key in raw}
    # Not isinstance: True is an int.
    return {
        field: value
        for field, value in found.items()
        if type(value) is (int if field in numbers else str)
    }
