"""The part of JSON Schema that parameters are checked by, pure, with no library at run time.

Known keywords: ``type``, ``enum``, ``properties``, ``required``, ``additionalProperties``, ``items``,
``minimum``, ``maximum``, ``minLength``, ``maxLength``. A schema with any other keyword is refused
when it is registered, so that nobody relies on a check that is not made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_MAX_PROBLEMS = 5
_MAX_NAME_CHARACTERS = 64

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KEYWORDS = frozenset(
    """
    type enum properties required additionalProperties items minimum maximum minLength maxLength
    """.split()
)


def closed(properties: Mapping[str, Schema], *, required: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def problems(value: object, schema: Schema) -> str:
    """
    Say what is wrong with a value, in the words that clients of this protocol know.

    Args:
        value: Anything that ``json.loads`` returns.
        schema: One that ``refuse_unknown`` lets pass.

    Returns:
        Up to five problems, joined by ``; ``, such as ``at /limit: must be >= 1``; ``""`` if there
        is none. It may hold names that the peer chose, cut short: it is for the peer, not for logs.
    """
    found: list[str] = []
    try:
        for problem in _walk(value, schema, ""):
            if problem not in found:
                found.append(problem)
            if len(found) == _MAX_PROBLEMS:
                break
    except RecursionError:
        # Only a schema as deep as the value leads there; a peer's nesting alone does not.
        return "nested too deeply"
    return "; ".join(found)


def refuse_unknown(schema: Schema) -> None:
    """
    Check a schema itself, down to its leaves.

    Raises:
        ValueError: It has a keyword or a type that is not among the known ones.
    """
    unknown = schema.keys() - _KEYWORDS
    if unknown:
        raise ValueError(f"schema keyword {min(unknown)!r} is not supported")
    if schema.get("type", "object") not in _TYPES:
        raise ValueError(f"schema type {schema['type']!r} is not supported")
    inner = [*schema.get("properties", {}).values()]
    inner += [
        schema[key]
        for key in ("items", "additionalProperties")
        if isinstance(schema.get(key), Mapping)
    ]
    for part in inner:
        refuse_unknown(part)


def _walk(value: object, schema: Schema, path: str) -> Iterator[str]:
    if not schema:  # anything goes, however deep: from Python 3.12 on json nests deeper than we can
        return
    at = f"at {path}: " if path else ""
    kind = schema.get("type")
    if kind is not None and not _is(value, kind):
        yield f"{at}must be {kind}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{at}must be equal to one of the allowed values"
    elif isinstance(value, dict):
        yield from _walk_object(value, schema, path)
    elif isinstance(value, list):
        items = schema.get("items", {})
        for index, item in enumerate(value if items else ()):
            yield from _walk(item, items, f"{path}/{index}")
    elif isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            yield f"{at}must not have fewer than {schema['minLength']} characters"
        if len(value) > schema.get("maxLength", len(value)):
            yield f"{at}must not have more than {schema['maxLength']} characters"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield f"{at}must be >= {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield f"{at}must be <= {schema['maximum']}"


def _walk_object(value: dict[str, object], schema: Schema, path: str) -> Iterator[str]:
    at = f"at {path}: " if path else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}must have required property '{name}'"
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        shown = name[:_MAX_NAME_CHARACTERS]
        if name in known:
            yield from _walk(item, known[name], f"{path}/{name}")
        elif others is False:
            yield f"at {path or 'root'}: unexpected property '{shown}'"
        elif isinstance(others, Mapping):
            yield from _walk(item, others, f"{path}/{shown}")


def _is(value: object, kind: str) -> bool:
    # To Python a bool is an int; to JSON it is not.
    return isinstance(value, _TYPES[kind]) and (not isinstance(value, bool) or kind == "boolean")
