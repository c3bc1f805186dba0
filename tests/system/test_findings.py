"""What an administrator is told of a unit's environment, of its next start, and of what did not reach it."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from machine import Machine, Unit
from person import Person

_SECRET = "0123456789abcdef0123456789abcdef"


def status(unit: Unit) -> dict[str, Any]:
    """Return what ``status --json`` says of a profile."""
    command = ["openclaw-gateway", "status", "--json", "--profile", unit.profile]
    document: dict[str, Any] = json.loads(unit.machine.run(command, check=False).stdout)
    return document


def findings(unit: Unit, check: str) -> list[dict[str, str]]:
    """Return what one of doctor's checks found that is worse than well."""
    command = ["openclaw-gateway", "doctor", "--json", "--system", "--profile", unit.profile]
    checks = json.loads(unit.machine.run(command, check=False).stdout)["checks"]
    (found,) = (one for one in checks if one["name"] == check)
    return [one for one in found["findings"] if one["severity"] != "ok"]


def called(unit: Unit) -> int:
    """Return how a call ends that is given no secret."""
    command = ["openclaw-gateway", "call", "health", "--profile", unit.profile]
    return unit.machine.run(command, check=False).returncode


def test_token_of_an_environment_file_is_the_units(machine: Machine) -> None:
    machine.write("/etc/gateway.env", f"GATEWAY_TOKEN={_SECRET}\n", mode=0o600)
    unit = machine.profile(
        "by-variable",
        drop_in="[Service]\nEnvironmentFile=/etc/gateway.env\n",
        port=20321,
        auth={"token": "${GATEWAY_TOKEN}"},
    )
    said = status(unit)
    assert (said["state"], said["port"], said["configured_port"]) == ("running", 20321, 20321)
    assert said["disagreements"] == said["unseen"] == said["next"] == []
    assert findings(unit, "overrides") == []
    assert called(unit) == 0
    for scope in ([], ["--system"]):
        shown = machine.run(["openclaw-gateway", "config", "--profile", unit.profile, *scope])
        assert shown.stdout.startswith(f"# as read by {unit.name} (system) at its next start\n")
        assert "gateway.port = 20321" in shown.stdout
        assert _SECRET not in shown.stdout + shown.stderr
    unused = machine.run(["openclaw-gateway", "config", "--profile", "nobodys"]).stdout
    assert unused.startswith("# as read by a gateway that is started from here\n")
    unit.stop()
    assert status(unit)["configured_port"] == 20321


def test_password_by_credential_is_the_units(machine: Machine) -> None:
    machine.write("/etc/credstore/openclaw-gateway.by-credential.password", _SECRET, mode=0o600)
    unit = machine.profile("by-credential", port=20322, auth={"mode": "password"})
    said = status(unit)
    assert (said["state"], said["disagreements"], said["unseen"]) == ("running", [], [])
    assert findings(unit, "overrides") == findings(unit, "credentials") == []
    assert called(unit) == 0
    unit.stop()
    assert findings(unit, "overrides") == [], "it will come"


def test_second_command_that_a_drop_in_adds_stops_the_next_start(machine: Machine) -> None:
    unit = machine.profile("two-commands", port=20323)
    unit.drop_in("[Service]\nExecStart=/usr/bin/true\n")
    said = status(unit)
    assert (said["state"], said["exit_code"]) == ("running", 0)
    (reason,) = said["next_start"]
    assert reason.startswith(f"systemd refuses {unit.name} as it stands: ")
    found = findings(unit, "next-start")
    assert any("more than one ExecStart=" in one["evidence"] for one in found)
    assert {one["severity"] for one in found} == {"error"}
    shown = machine.run(["openclaw-gateway", "status", "--profile", unit.profile]).stdout
    assert shown.splitlines()[1].startswith(f"Restart   will fail: systemd refuses {unit.name}")
    unit.stop()
    assert status(unit)["next"][0]["command"] == f"systemd-analyze verify {unit.name}"
    unit.drop_in("")


def test_directive_and_key_that_nobody_knows_are_named(machine: Machine) -> None:
    unit = machine.profile(
        # A key near a known one would be refused: this one might be a newer OpenClaw's.
        "misspelt",
        drop_in="[Service]\nRestrt=always\n",
        port=20324,
        quorum=1,
    )
    sentences = [one["evidence"] for one in findings(unit, "next-start")]
    assert any("10-test.conf:2: " in text and "Restrt" in text for text in sentences)
    assert any("gateway.quorum" in text for text in sentences)
    unit.stop()


def test_settings_that_a_reload_refused_stop_the_next_start(machine: Machine) -> None:
    unit = machine.profile("refused", port=20325)
    machine.write(unit.config_path, json.dumps({"gateway": {"port": "x"}}))
    assert machine.systemctl("reload", unit.name, check=False) != 0
    said = status(unit)
    assert said["state"] == "running"
    (reason,) = said["next_start"]
    assert reason.startswith(f"{unit.config_path}:1:14 gateway.port")
    assert findings(unit, "overrides")[0]["severity"] == "error"
    exits = findings(unit, "last-exits")
    assert exits == [], "what failed was the helper of the reload, not the gateway"
    unit.stop()


def test_credential_that_was_not_handed_over_is_named(machine: Machine) -> None:
    path = "/etc/credstore/openclaw-gateway.not-handed.token"
    machine.write(path, _SECRET, mode=0o600)
    # As images of LXC and Incus have it for every service.
    unit = machine.profile(
        "not-handed", drop_in="[Service]\nLoadCredential=\nImportCredential=\n", port=20326
    )
    by = f"/run/systemd/system/{unit.name}.d/10-test.conf takes it back"
    assert status(unit)["disagreements"] == [f"{path} is not what the gateway uses: {by}"]
    (found,) = findings(unit, "credentials")
    assert found["severity"] == "error"
    assert found["evidence"] == f"{path} was not handed over to {unit.name}: {by}"
    unit.drop_in("")
    unit.restart()
    assert status(unit)["disagreements"] == findings(unit, "credentials") == []
    unit.stop()


def test_credential_that_came_after_the_start_asks_for_a_restart(machine: Machine) -> None:
    unit = machine.profile("late", port=20327)
    machine.write("/etc/credstore/openclaw-gateway.late.token", _SECRET, mode=0o600)
    (found,) = findings(unit, "credentials")
    assert found["command"] == f"systemctl restart {unit.name}"
    machine.run(found["command"])
    assert findings(unit, "credentials") == []
    unit.stop()


def test_state_directory_that_is_gone_is_said(machine: Machine) -> None:
    unit = machine.profile("no-state", drop_in="[Service]\nWatchdogSec=0\n", port=20328)
    machine.run(["rm", "-r", unit.state_dir])
    said = status(unit)
    assert any("is gone, and with it the token" in text for text in said["disagreements"])
    machine.run(said["next"][0]["command"])
    assert status(unit)["disagreements"] == []
    unit.stop()


def test_openclaws_own_command_is_found_and_the_way_out_frees_the_name(machine: Machine) -> None:
    service = machine.unit()
    machine.systemctl("disable", "--now", service.name)
    script = "#!/usr/bin/env node\n"
    machine.write("/usr/local/lib/node_modules/openclaw/openclaw.mjs", script, mode=0o755)
    machine.run("ln -s ../lib/node_modules/openclaw/openclaw.mjs /usr/local/bin/openclaw")
    (found,) = findings(service, "openclaw-itself")
    assert found["severity"] == "note"
    assert found["evidence"].startswith("/usr/local/bin/openclaw is OpenClaw's own command: ")
    path = service.show("FragmentPath")
    machine.run(found["command"])
    assert machine.run(["test", "-e", path], check=False).returncode == 1
    machine.run(found["command"].replace("--add", "--remove"))
    machine.run("rm /usr/local/bin/openclaw")
    machine.systemctl("daemon-reload")
    assert findings(service, "openclaw-itself") == []


@pytest.fixture(scope="module")
def ada(machine: Machine) -> Person:
    """Somebody with an ordinary account, who may use sudo."""
    return Person(machine, "ada")


def test_person_with_sudo_gets_from_each_state_to_running_by_what_is_advised(
    machine: Machine, ada: Person
) -> None:
    unit = machine.profile("typed", drop_in="[Service]\nRestart=no\n", start=False, port=20331)

    def follow(state: str) -> None:
        said, commands = ada.status(unit)
        assert (said, bool(commands)) == (state, True)
        for command in commands:
            ada.types(command)
        assert ada.status(unit, "--wait", "30") == ("running", []), commands

    follow("stopped")
    unit.stop()
    machine.systemctl("disable", unit.name)
    follow("stopped")
    unit.stop()
    machine.systemctl("mask", unit.name)
    follow("stopped")
    unit.kill("KILL")
    unit.wait_for("ActiveState", "failed")
    follow("stopped")
    unit.drop_in("[Service]\nWatchdogSec=0\n")
    unit.restart()
    unit.kill("STOP")
    follow("not-serving")
    unit.stop()


def test_person_with_sudo_lets_a_parked_unit_take_over(machine: Machine, ada: Person) -> None:
    owner = machine.profile("first-typed", port=20332)
    parked = machine.profile("second-typed", start=False, port=20332)
    parked.start(check=False)
    # On which port, stands in settings that are closed to her.
    state, (command,) = ada.status(parked)
    assert state == "parked"
    by_root = json.loads(ada.types(f"{command} --json || :"))
    assert f"behind pid {owner.pid} " in by_root["reason"]
    for step in by_root["next"]:
        ada.types(f"sudo {step['command']}")
    assert ada.status(parked)[0] == "running"
    assert owner.show("UnitFileState") == "disabled"
    parked.stop()


def test_person_with_sudo_sees_who_has_the_port_and_has_the_unit_start_once_it_is_free(
    machine: Machine, ada: Person
) -> None:
    server = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "20333"]
    machine.run(["systemd-run", "--unit=typed-web", *server])
    machine.until("ss -Hltn sport = :20333 | grep -q .")
    web = machine.unit("typed-web.service")
    unit = machine.profile(
        "typed-unlucky",
        # Where everyone can see it, other than in its settings.
        drop_in="[Service]\nRestart=no\nEnvironment=OPENCLAW_GATEWAY_PORT=20333\n",
        start=False,
        healthTimeoutMs=300,
    )
    unit.start(check=False)
    state, commands = ada.status(unit)
    assert state == "foreign-port"
    look, start = commands
    assert f"pid {web.pid} (python3, user root, " in ada.types(f"{look} || :")
    web.stop()
    ada.types(start)
    assert ada.status(unit)[0] == "running"
    unit.stop()


def test_policies_that_harm_are_gone_once_the_advised_editor_is_closed(
    machine: Machine, ada: Person
) -> None:
    harm = (
        "[Unit]\nStartLimitIntervalSec=10\n"
        "[Service]\nRestartPreventExitStatus=\nKillMode=process\nTimeoutStopSec=2\nTimeoutStartSec=3\n"
        f"Environment=OPENCLAW_GATEWAY_TOKEN={_SECRET}\n"
    )
    mend = (
        "[Unit]\nStartLimitIntervalSec=600\n"
        "[Service]\nRestartPreventExitStatus=78\nKillMode=mixed\nTimeoutStopSec=20\nTimeoutStartSec=60\n"
        "Environment=\n"
    )
    unit = machine.profile("typed-policies", drop_in=harm, start=False, port=20334)
    checks = ("restart-policy", "time-outs", "start-limit", "secrets")
    found = ada.findings(unit, *checks)
    commands = [
        one["command"] for check in checks for one in found[check] if one["severity"] != "unseen"
    ]
    assert len(commands) == 6
    assert {*commands} == {f"sudo systemctl edit {unit.name}"}
    ada.types(commands[0], writes=mend)
    left = ada.findings(unit, *checks)
    assert [one for check in checks for one in left[check] if one["severity"] != "unseen"] == []


def test_credential_that_is_taken_back_comes_after_the_advised_edit_and_restart(
    machine: Machine, ada: Person
) -> None:
    path = "/etc/credstore/openclaw-gateway.typed-credential.token"
    machine.write(path, _SECRET, mode=0o600)
    unit = machine.profile(
        "typed-credential", drop_in="[Service]\nLoadCredential=\nImportCredential=\n", port=20335
    )
    command = f"openclaw-gateway doctor --json --system --profile={unit.profile}"

    def advised() -> list[str]:
        checks = json.loads(machine.run(command, check=False).stdout)["checks"]
        (found,) = (one["findings"] for one in checks if one["name"] == "credentials")
        return [one["command"] for one in found]

    (edit,) = advised()
    assert edit == f"systemctl edit {unit.name}"
    load = f"LoadCredential=openclaw-gateway.token:openclaw-gateway.{unit.profile}.token"
    ada.types(f"sudo {edit}", writes=f"[Service]\n{load}\n")
    (restart,) = advised()
    assert restart == f"systemctl restart {unit.name}"
    machine.run(restart)
    assert advised() == []
    unit.stop()


def test_settings_with_a_secret_are_closed_to_others_and_not_to_the_gateway(
    machine: Machine, ada: Person
) -> None:
    unit = machine.profile("typed-secret", port=20336, auth={"token": _SECRET})
    found = findings(unit, "secrets")
    (command,) = (one["command"] for one in found)
    ada.types(f"sudo sh -c {shlex.quote(command)}")
    assert findings(unit, "secrets") == []
    machine.systemctl("reload", unit.name)
    unit.restart()
    assert status(unit)["state"] == "running"
    unit.stop()


def test_person_makes_their_own_unit_outlive_the_session(machine: Machine, ada: Person) -> None:
    machine.systemctl("start", f"user@{ada.uid}.service")

    def advised() -> list[str]:
        checks = ada.asks("doctor", "--user")["checks"]
        (found,) = (one["findings"] for one in checks if one["name"] == "linger")
        return [one["command"] for one in found]

    (command,) = advised()
    ada.types(command)
    assert advised() == []
    machine.run(["loginctl", "disable-linger", ada.name])
