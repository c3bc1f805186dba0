"""What debian/ says of the code."""

import configparser
import json
import re
from pathlib import Path

import pytest

import openclaw_gateway
from openclaw_gateway import cli
from openclaw_gateway.settings import load as settings

DEBIAN = Path(__file__).parents[2] / "debian"
COMMAND = DEBIAN.parent / "packaging/openclaw"


def test_package_has_the_codes_version():
    version = re.match(r"openclaw-gateway \(([^)~+]*)", (DEBIAN / "changelog").read_text())[1]
    assert version == openclaw_gateway.__version__


def test_settings_are_shipped_as_plain_json_that_the_code_accepts_without_a_warning():
    path = DEBIAN / "openclaw.json"
    shipped = json.loads(path.read_text())
    loaded = settings.load({"--config": str(path)}, {"HOME": "/nonexistent"})
    assert loaded.warnings == ()
    assert shipped["gateway"] == {"port": loaded.port, "bind": loaded.bind}


@pytest.mark.parametrize(
    "example", sorted((DEBIAN / "examples").glob("*.conf")), ids=lambda p: p.name
)
def test_example_says_where_to_put_it(example):
    places = (
        f"/etc/systemd/system/openclaw-gateway.service.d/{example.name}",
        f"~/.config/systemd/user/openclaw-gateway.service.d/{example.name}",
    )
    assert any(place in example.read_text() for place in places)


def test_every_example_is_named_in_the_manual():
    pages = "\n".join(page.read_text() for page in (DEBIAN.parent / "packaging/man").iterdir())
    names = {path.rpartition("/")[2] for path in re.findall(r"\bPa (\S+)", pages)}
    assert {path.name for path in (DEBIAN / "examples").iterdir()} <= names
    assert "debian/examples/*" in (DEBIAN / "openclaw-gateway.examples").read_text()


def test_firewall_profile_has_the_default_port():
    profile = configparser.ConfigParser()
    profile.read_string((DEBIAN / "ufw/openclaw-gateway").read_text())
    port = settings.load({}, {"HOME": "/nonexistent"}).port
    assert profile["openclaw-gateway"]["ports"] == f"{port}/tcp"


def test_scripts_agree_on_whose_a_command_is():
    """The same words in each: a maintainer script may rely on no other file of its package."""
    texts = [
        (DEBIAN / f"openclaw-gateway{name}").read_text()
        for name in (".preinst", "-command.preinst", "-command.prerm")
    ]
    assert len({re.search(r"^ours\(\)\n{.*?^}\n", text, re.M | re.S)[0] for text in texts}) == 1
    assert "from openclaw_gateway.cli import openclaw\n" in COMMAND.read_text()


def test_manual_is_found_by_each_verb():
    """``man openclaw-gateway-status``, as of any command with verbs."""
    links = [
        line.split()[-1] for line in (DEBIAN / "openclaw-gateway.links").read_text().splitlines()
    ]
    for verb in cli._VERBS:
        assert f"usr/share/man/man8/openclaw-gateway-{verb.name}.8.gz" in links


def test_homepage_is_one():
    control = (DEBIAN / "control").read_text()
    metadata = (DEBIAN.parent / "setup.cfg").read_text()
    (homepage,) = re.findall(r"^Homepage: (.*)$", control, re.MULTILINE)
    assert re.findall(r"^url = (.*)$", metadata, re.MULTILINE) == [homepage]
