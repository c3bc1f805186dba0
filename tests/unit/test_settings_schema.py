"""The JSON Schemas for editors say what the code reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from openclaw_gateway.settings.keys import KEYS, SECRETS, Key, shown

SCHEMAS = {
    name: json.loads(
        (Path(__file__).parents[2] / f"packaging/schema/{name}.schema.json").read_text()
    )
    for name in ("openclaw", "openclaw-gateway")
}


def node(key: Key) -> dict[str, Any]:
    """Return what the schema of a setting's file says of it."""
    found = SCHEMAS["openclaw-gateway" if key.own_path else "openclaw"]
    for part in key.name.split("."):
        found = found["properties"][part]
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("key", [*KEYS, *SECRETS], ids=lambda key: key.name)
def test_every_setting_is_in_the_schema_of_its_file_with_its_default(key: Key) -> None:
    said = node(key)
    if key.default is not None:
        assert said["default"] == shown(key, key.default)
        jsonschema.validate(said["default"], said)


@pytest.mark.parametrize(
    "key", [key for key in KEYS if not key.flag or key.own_path], ids=lambda key: key.name
)
def test_bounds_of_numbers_are_the_codes(key: Key) -> None:
    said = node(key)
    parse = key.parse_file or key.parse
    for name, outside in (("minimum", -1), ("maximum", 1)):
        if name in said:
            parse(said[name])
            with pytest.raises(ValueError, match="must be"):
                parse(said[name] + outside)


def test_schema_of_our_own_file_has_nothing_else() -> None:
    own = dict(SCHEMAS["openclaw-gateway"]["properties"])
    names = {
        f"{section}.{name}"
        for section in ("limits", "cluster")
        for name in own.pop(section)["properties"]
    }
    known = {key.own_path for key in (*KEYS, *SECRETS) if key.own_path}
    assert (names | own.keys()) - {"$schema"} == known


def test_what_the_package_ships_is_as_the_schema_says() -> None:
    shipped = Path(__file__).parents[2] / "debian/openclaw.json"
    jsonschema.validate(json.loads(shipped.read_text()), SCHEMAS["openclaw"])
