"""The manual pages keep up with the code."""

import re
from pathlib import Path

import pytest

from openclaw_gateway import cli, settings
from openclaw_gateway.errors import ExitCode

MANUAL = Path(__file__).parents[2] / "packaging" / "man"


def page(name: str) -> str:
    return (MANUAL / name).read_text()


def items(text: str, section: str) -> list[str]:
    """Return the ``.It`` lines of one section. mdoc(7)."""
    body = re.search(rf"^\.Sh {section}\n(.*?)(?=^\.Sh )", text, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"^\.It (.*)$", body, re.MULTILINE)


def test_every_verb_is_described():
    verbs = [line.split()[1] for line in items(page("openclaw-gateway.8"), "VERBS")]
    assert verbs == [verb.name for verb in cli._VERBS]


def test_every_setting_flag_is_described():
    flags = ["-" + line.split()[1] for line in items(page("openclaw-gateway.8"), "OPTIONS")]
    assert flags == [flag for flag, _, _ in cli._SETTING_FLAGS]


def test_every_exit_status_is_described():
    described = items(page("openclaw-gateway.8"), "EXIT STATUS")
    assert described == [str(int(code)) for code in ExitCode]


@pytest.mark.parametrize(
    "key", [key for key in settings._SCHEMA if key.path], ids=lambda key: key.field
)
def test_every_setting_is_described(key):
    described = [line.split()[1] for line in items(page("openclaw.json.5"), "SETTINGS")]
    assert key.path in described


@pytest.mark.parametrize("variable", [key.variable for key in settings._SCHEMA if key.variable])
def test_every_variable_is_described(variable):
    assert variable in page("openclaw-gateway.8")
