"""A user's own gateway beside the system's, in a user manager that lingers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from machine import Machine

_USER = "ann"
_UNIT = "openclaw-gateway.service"


@pytest.fixture(scope="module")
def user(machine: Machine) -> Iterator[str]:
    machine.run(["useradd", "--create-home", _USER])
    machine.run(["loginctl", "enable-linger", _USER])
    machine.until(f"systemctl is-active -q user@$(id -u {_USER})")
    machine.until("systemctl --user -M ann@ is-system-running --wait")
    yield _USER


def _systemctl(machine: Machine, *arguments: str) -> tuple[int, str]:
    said = machine.run(["systemctl", "--user", f"--machine={_USER}@", *arguments], check=False)
    return said.returncode, said.stdout.strip()


def _configure(machine: Machine, **gateway: object) -> None:
    directory = f"/home/{_USER}/.openclaw"
    machine.write(f"{directory}/openclaw.json", json.dumps({"gateway": gateway}), mode=0o600)
    machine.run(["chown", "-R", f"{_USER}:", directory])


def test_user_unit_is_not_enabled(machine: Machine, user: str) -> None:
    assert _systemctl(machine, "is-enabled", _UNIT)[1] == "disabled"
    assert _systemctl(machine, "is-active", _UNIT)[1] == "inactive"


def test_user_gateway_runs_beside_the_system_gateway(machine: Machine, user: str) -> None:
    _configure(machine, port=20010)
    status, _ = _systemctl(machine, "enable", "--now", _UNIT)
    assert status == 0
    assert machine.is_live(20010)
    assert machine.is_live()
    pid = int(_systemctl(machine, "show", "-P", "MainPID", _UNIT)[1])
    assert _systemctl(machine, "reload", _UNIT)[0] == 0
    _configure(machine, port="high")
    assert _systemctl(machine, "reload", _UNIT)[0] != 0
    assert int(_systemctl(machine, "show", "-P", "MainPID", _UNIT)[1]) == pid
    _systemctl(machine, "disable", "--now", _UNIT)
    assert not machine.is_live(20010)


def test_user_gateway_on_the_system_port_steps_back(machine: Machine, user: str) -> None:
    _configure(machine, port=18789)
    service_pid = machine.unit().pid
    status, _ = _systemctl(machine, "start", _UNIT)
    assert status != 0
    assert _systemctl(machine, "show", "-P", "ExecMainStatus", _UNIT)[1] == "78"
    assert _systemctl(machine, "show", "-P", "NRestarts", _UNIT)[1] == "0"
    said = machine.journal("_SYSTEMD_USER_UNIT=openclaw-gateway.service", "--priority=notice")
    assert f"pid {service_pid}" in said[-1]["MESSAGE"]
    assert machine.unit().pid == service_pid
    _systemctl(machine, "reset-failed", _UNIT)
