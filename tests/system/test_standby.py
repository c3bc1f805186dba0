"""A second unit that stands by, made as the manual says, and what an administrator sees of the two."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from machine import Machine, Unit

from openclaw_gateway.supervisor.events import Event

_MANUAL = Path(__file__).parents[2] / "packaging/man/openclaw-gateway.8"
STANDBY = "openclaw-gateway-standby.service"


def recipe() -> str:
    """Return the commands of the manual's section on standbys, as a reader copies them."""
    section = _MANUAL.read_text().split(".Sh STANDBY\n")[1].split(".Sh ")[0]
    (block,) = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", section, re.MULTILINE | re.DOTALL)
    return block.replace("\\e", "\\")


@pytest.fixture
def pair(machine: Machine) -> tuple[Unit, Unit]:
    """The two units of the recipe, the shipped one as the owner."""
    machine.run(["sh", "-e", "-c", recipe()])
    shipped, second = machine.unit(), machine.unit(STANDBY)
    shipped.drop_in("")  # one test's short watchdog is not the next one's
    second.stop()
    shipped.restart()
    second.start()
    return shipped, second


def status(machine: Machine) -> dict[str, object]:
    said = machine.run(["openclaw-gateway", "status", "--json"], check=False)
    assert said.returncode == 0, said.stdout
    found: dict[str, object] = json.loads(said.stdout)
    return found


def test_each_takes_over_when_the_other_is_killed_and_is_its_standby_afterwards(
    machine: Machine, pair: tuple[Unit, Unit]
) -> None:
    owner, other = pair
    for _ in range(3):
        assert other.show("ActiveState") == "active"
        assert f"standby behind pid {owner.pid}" in other.show("StatusText")
        died = owner.pid
        owner.kill("KILL")
        owner.wait_for_another(died)
        owner.wait_for("ActiveState", "active")
        assert other.show("StatusText").startswith("ready on")
        assert machine.is_live()
        owner, other = other, owner


def test_stop_and_restart_of_the_owner_are_a_takeover_too(
    machine: Machine, pair: tuple[Unit, Unit]
) -> None:
    owner, other = pair
    owner.restart()
    assert other.show("StatusText").startswith("ready on")
    assert f"standby behind pid {other.pid}" in owner.show("StatusText")
    other.stop()
    owner.wait_for("SubState", "running")
    machine.until("systemctl show -P StatusText openclaw-gateway | grep -q '^ready on'")
    assert machine.is_live()


def test_owner_that_hangs_is_followed_once_its_watchdog_ended_it(
    machine: Machine, pair: tuple[Unit, Unit]
) -> None:
    owner, other = pair
    owner.drop_in("[Service]\nWatchdogSec=1\n")
    machine.systemctl("daemon-reload")
    other.stop()
    owner.restart()
    other.start()
    owner.kill("STOP")
    machine.until(f"systemctl show -P StatusText {STANDBY} | grep -q '^ready on'")
    assert other.events(Event.TOOK_OVER)
    assert machine.is_live()


def test_reload_while_it_stands_by(pair: tuple[Unit, Unit]) -> None:
    _, other = pair
    assert other.machine.systemctl("reload", other.name) == 0
    assert other.events(Event.RELOADED)
    assert other.show("StatusText").startswith("standby behind")


def test_status_names_both(machine: Machine, pair: tuple[Unit, Unit]) -> None:
    owner, other = pair
    found = status(machine)
    assert found["state"] == "running" and found["disagreements"] == []
    standbys = found["standbys"]
    assert isinstance(standbys, list)
    assert [(each["unit"], each["pid"]) for each in standbys] == [(STANDBY, other.pid)]
    everyone = machine.run(["openclaw-gateway", "status", "--all"]).stdout
    assert re.search(rf"standby +{other.pid} .*{STANDBY}", everyone)
    owner.restart()
    found = status(machine)
    assert found["state"] == "standby" and found["disagreements"] == [] and found["next"] == []
    assert f"pid {other.pid}" in str(found["reason"])
    assert machine.run(["openclaw-gateway", "doctor"], check=False).returncode == 0


def test_stopping_it_leaves_the_owner_alone(machine: Machine, pair: tuple[Unit, Unit]) -> None:
    owner, other = pair
    before = owner.pid
    other.stop()
    assert other.show("Result") == "success"
    assert owner.pid == before and machine.is_live()
