"""The manual pages keep up with the code."""

import re
from pathlib import Path

import pytest

from openclaw_gateway import cli
from openclaw_gateway.errors import ExitCode
from openclaw_gateway.settings import foreign
from openclaw_gateway.settings import load as settings

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


@pytest.mark.parametrize("flag", [*(flag.name for flag in foreign.TAKEN), *foreign.refused()])
def test_every_option_of_openclaw_is_described(flag):
    described = " ".join(items(page("openclaw-gateway.8"), "OPTIONS OF OPENCLAW"))
    assert flag.removeprefix("-") in described.split()


def test_every_exit_status_is_described():
    described = items(page("openclaw-gateway.8"), "EXIT STATUS")
    assert described == [str(int(code)) for code in ExitCode]


KEYS = (*settings._SCHEMA, *settings._LIMITS)


@pytest.mark.parametrize("path", [key.path for key in KEYS if key.path])
def test_every_setting_is_described(path):
    assert path in [line.split()[1] for line in items(page("openclaw.json.5"), "SETTINGS")]


@pytest.mark.parametrize("key", settings._LIMITS, ids=lambda key: key.path)
def test_default_of_every_limit_is_the_codes(key):
    default = round(key.default * 1000) if key.path.endswith("Ms") else key.default
    entry = page("openclaw.json.5").split(f".It Li {key.path} ")[1].split(".It ")[0]
    assert f"Default {default}." in entry


@pytest.mark.parametrize("variable", [key.variable for key in KEYS if key.variable])
def test_every_variable_is_described(variable):
    assert variable in page("openclaw-gateway.8")
