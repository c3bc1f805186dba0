"""The manual pages keep up with the code."""

import re
from pathlib import Path

import pytest

from openclaw_gateway import cli
from openclaw_gateway.errors import ExitCode
from openclaw_gateway.settings import foreign
from openclaw_gateway.settings.keys import KEYS, SECRETS

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
    assert described == [*(str(int(code)) for code in ExitCode), "128 + n"]


def settings_of(name: str) -> list[str]:
    return [line.split()[1] for line in items(page(name), "SETTINGS")]


@pytest.mark.parametrize("key", (*KEYS, *SECRETS), ids=lambda key: key.name)
def test_every_setting_is_described_in_the_manual_of_its_file(key):
    there = "openclaw-gateway.json.5" if key.own_path else "openclaw.json.5"
    other = "openclaw.json.5" if key.own_path else "openclaw-gateway.json.5"
    assert key.name in settings_of(there)
    assert key.path not in settings_of(other)


def test_manuals_describe_no_setting_that_there_is_not():
    known = {key.name for key in (*KEYS, *SECRETS)} | {"gateway.mode"}
    assert (
        set(settings_of("openclaw.json.5")) | set(settings_of("openclaw-gateway.json.5")) == known
    )


@pytest.mark.parametrize(
    "key", [key for key in KEYS if key.field.startswith("limits.")], ids=lambda key: key.name
)
def test_default_of_every_limit_is_the_codes(key):
    default = round(key.default * 1000) if key.name.endswith("Ms") else key.default
    name = "openclaw-gateway.json.5" if key.own_path else "openclaw.json.5"
    entry = page(name).split(f".It Li {key.name} ")[1].split(".It ")[0]
    assert f"Default {default}." in entry


@pytest.mark.parametrize(
    "variable",
    ["OPENCLAW_GATEWAY_PORT", "OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD"],
)
def test_every_variable_is_described(variable):
    assert variable in page("openclaw-gateway.8")
