"""``call`` and ``probe`` find the packaged service, its port and its token by themselves."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from machine import SERVICE, Machine

CLI = "openclaw-gateway"


def run(machine: Machine, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return machine.run([CLI, *words], check=False, **options)


@pytest.fixture
def moved(machine: Machine) -> int:
    """The service, on a port that only its settings name."""
    service = machine.unit(SERVICE)
    machine.write(service.config_path, '{"gateway": {"port": 20401}}')
    service.restart()
    return 20401


def test_root_calls_the_service_without_being_told_where(machine: Machine, moved: int) -> None:
    said = run(machine, "call", "health")
    assert (said.returncode, said.stderr) == (0, "")
    assert json.loads(said.stdout)["ok"] is True


def test_probe_knows_the_port_of_the_service(machine: Machine, moved: int) -> None:
    said = run(machine, "probe", "--json")
    assert (said.returncode, said.stderr) == (0, "")
    assert json.loads(said.stdout)["url"] == f"ws://127.0.0.1:{moved}"
    machine.unit(SERVICE).stop()
    said = run(machine, "probe", "--system")
    assert (said.returncode, f":{moved}: " in said.stdout) == (3, True)


def test_profile_is_found_by_its_name(machine: Machine) -> None:
    machine.profile("called", port=20402)
    said = run(machine, "call", "--profile", "called", "health")
    assert (said.returncode, said.stderr) == (0, "")
    said = run(machine, "probe", "--profile", "called")
    assert (said.returncode, said.stdout.startswith("ws://127.0.0.1:20402: ")) == (0, True)


def test_credential_of_the_service_is_found(machine: Machine) -> None:
    machine.run("install -d -m 700 /etc/credstore")
    machine.write("/etc/credstore/openclaw-gateway.sealed.token", "handed-over", mode=0o600)
    machine.profile("sealed")
    said = run(machine, "call", "--profile", "sealed", "health")
    assert (said.returncode, said.stderr) == (0, "")


def test_password_in_the_settings_of_a_profile_is_found(machine: Machine) -> None:
    machine.profile("worded", auth={"mode": "password", "password": "open sesame"})
    said = run(machine, "call", "--profile", "worded", "health")
    assert (said.returncode, said.stderr) == (0, "")


def test_ordinary_user_is_told_of_the_token_and_the_way_to_it(machine: Machine) -> None:
    profile = machine.profile("closed")
    said = run(machine, "call", "--profile", "closed", "health", user="nobody")
    assert said.returncode == 1
    assert f"{profile.state_dir}/gateway.token" in said.stderr
    assert "sudo" in said.stderr and "--token-file" in said.stderr
    said = run(machine, "probe", "--profile", "closed", user="nobody")
    assert said.returncode == 0
