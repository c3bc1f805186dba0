"""The checks on params: what passes, and the words for what doesn't."""

from __future__ import annotations

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.schema import closed, problems, refuse_unknown

SCHEMA = closed(
    {
        "name": {"type": "string", "minLength": 1, "maxLength": 3},
        "limit": {"type": "integer", "minimum": 1, "maximum": 5},
        "kind": {"enum": ["a", "b"]},
        "list": {"type": "array", "items": {"type": "boolean"}},
        "map": {"type": "object", "additionalProperties": {"type": "number"}},
        "inner": closed({"x": {}}, required=("x",)),
        "nothing": {"type": "null"},
    },
    required=("name",),
)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"name": "abc"}, ""),
        ([], "must be object"),
        (None, "must be object"),
        ({}, "must have required property 'name'"),
        ({"name": "a", "x": 1}, "at root: unexpected property 'x'"),
        ({"name": ""}, "at /name: must not have fewer than 1 characters"),
        ({"name": "abcd"}, "at /name: must not have more than 3 characters"),
        ({"name": "a", "limit": 0}, "at /limit: must be >= 1"),
        ({"name": "a", "limit": 6}, "at /limit: must be <= 5"),
        ({"name": "a", "limit": True}, "at /limit: must be integer"),
        ({"name": "a", "limit": 1.5}, "at /limit: must be integer"),
        ({"name": "a", "kind": "c"}, "at /kind: must be equal to one of the allowed values"),
        ({"name": "a", "list": [True, 1]}, "at /list/1: must be boolean"),
        ({"name": "a", "map": {"k": "v"}}, "at /map/k: must be number"),
        ({"name": "a", "inner": {}}, "at /inner: must have required property 'x'"),
        ({"name": "a", "inner": {"x": 1, "y": 2}}, "at /inner: unexpected property 'y'"),
        ({"name": 1, "limit": 0}, "at /name: must be string; at /limit: must be >= 1"),
        ({"name": "a", "nothing": 0}, "at /nothing: must be null"),
    ],
)
def test_problem_is_named_in_the_protocols_words(value: object, problem: str) -> None:
    assert problems(value, SCHEMA) == problem


def test_answer_to_many_problems_is_short() -> None:
    value = {f"{'x' * 1000}{number}": 0 for number in range(1000)}
    assert len(problems(value, SCHEMA)) < 1000


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "a"},
        {"type": "integer", "multipleOf": 2},
        {"type": "date"},
        {"properties": {"a": {"oneOf": []}}},
        {"items": {"format": "uuid"}},
        {"additionalProperties": {"const": 1}},
    ],
)
def test_schema_that_would_not_be_checked_in_full_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not supported"):
        refuse_unknown(schema)


def test_supported_schema_passes() -> None:
    refuse_unknown(SCHEMA)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SCHEMA["properties"], "x"]), inner, max_size=4)
    ),
)


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@given(st.integers(500, 20_000))
def test_depth_of_what_nobody_looks_into_does_not_matter(depth: int) -> None:
    schema = closed({"any": {}, "list": {"type": "array"}, "map": {"type": "object"}})
    value = {"any": nested(depth), "list": nested(depth), "map": {"x": nested(depth)}}
    assert problems(value, schema) == ""
    assert problems(nested(depth), {"enum": ["a"]}) != ""


def test_schema_too_deep_to_follow_is_a_problem_of_the_value() -> None:
    endless: dict[str, object] = {"type": "array"}
    endless["items"] = endless
    assert problems(nested(20_000), endless) == "nested too deeply"


@given(JSON)
def test_verdict_is_that_of_a_json_schema_validator(value: object) -> None:
    reference = jsonschema.Draft7Validator(_listed(SCHEMA))
    assert (problems(value, SCHEMA) == "") == reference.is_valid(value)


def _listed(schema: object) -> object:
    """Return the schema with lists for tuples, which that validator doesn't take."""
    if isinstance(schema, dict):
        return {key: _listed(item) for key, item in schema.items()}
    return list(schema) if isinstance(schema, tuple) else schema
