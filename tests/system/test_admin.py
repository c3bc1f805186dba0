"""``status``, ``doctor``, ``logs`` and ``probe`` under a real systemd: each state produced and read back."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import CAP_S, PORT, SERVICE, Machine, Unit

_USER = "eve"
_IMPATIENT = {"healthTimeoutMs": 300}
_UNWATCHED = "[Service]\nWatchdogSec=0\n"

_MANUAL = Path(__file__).parents[2] / "packaging/man/openclaw-gateway.8"
_EXAMPLES = re.findall(r"^\.Dl (openclaw-gateway .*)$", _MANUAL.read_text(), re.MULTILINE)

Document = dict[str, Any]


def status(machine: Machine, *options: str, user: str | None = None, prefix: str = "") -> Document:
    """Return what ``status --json`` says, with its exit code checked against the document's."""
    command = f"{prefix} openclaw-gateway status --json {shlex.join(options)}"
    environ = {"HOME": f"/home/{user}"} if user else None
    said = machine.run(command, check=False, user=user, environ=environ, timeout_s=CAP_S)
    document: Document = json.loads(said.stdout)
    assert said.stderr == ""
    assert said.returncode == document["exit_code"]
    return document


def of(unit: Unit, *options: str, **more: Any) -> Document:
    """Return the status of a profile's unit."""
    profile = [] if unit.profile == "default" else ["--profile", unit.profile]
    return status(unit.machine, *profile, *options, **more)


def screen(machine: Machine, *options: str) -> str:
    """Return what ``status`` shows to a person."""
    return machine.run(["openclaw-gateway", "status", *options], check=False).stdout


def findings(machine: Machine, check: str, *options: str) -> list[str]:
    """Return what one of doctor's checks found, with its severity."""
    said = machine.run(["openclaw-gateway", "doctor", "--json", *options], check=False)
    (found,) = (one for one in json.loads(said.stdout)["checks"] if one["name"] == check)
    return [f"{one['severity']}: {one['evidence']}" for one in found["findings"]]


def commands(document: Document) -> list[str]:
    return [step["command"] for step in document["next"]]


@pytest.fixture
def service(machine: Machine) -> Unit:
    """The system's own gateway, healthy."""
    unit = machine.unit()
    machine.run(["systemctl", "reset-failed", SERVICE], check=False)
    unit.restart()
    return unit


@pytest.fixture(scope="module")
def user(machine: Machine) -> str:
    """An ordinary account without a session."""
    machine.run(["useradd", "--create-home", "--shell", "/bin/bash", _USER])
    return _USER


@pytest.fixture
def squatter(machine: Machine) -> Iterator[Unit]:
    """A web server on port 20301."""
    server = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "20301"]
    machine.run(["systemd-run", "--unit=web", *server])
    machine.until("ss -Hltn sport = :20301 | grep -q .")
    unit = machine.unit("web.service")
    yield unit
    machine.run(["systemctl", "stop", "web.service"], check=False)


def test_running_service_with_all_its_facts(machine: Machine, service: Unit) -> None:
    said = of(service)
    assert (said["state"], said["reason"], said["exit_code"]) == ("running", "healthy", 0)
    unit = said["unit"]
    assert (unit["name"], unit["manager"], unit["active_state"]) == (SERVICE, "system", "active")
    assert unit["main_pid"] == said["process"]["pid"] == said["lock"]["port_pid"] == service.pid
    assert unit["watchdog_age_s"] is not None
    assert unit["startup_s"] > 0
    assert said["process"]["unit"] == SERVICE
    assert {fact["pid"] for fact in said["listeners"]} == {service.pid}
    assert said["health"]["ready"] is True
    assert said["disagreements"] == said["unseen"] == said["next"] == []


def test_screen_of_a_running_service(machine: Machine, service: Unit) -> None:
    shown = screen(machine)
    assert shown.startswith("openclaw-gateway  RUNNING: healthy  (exit 0)\n")
    assert f"Unit      {SERVICE} (system) active since " in shown
    assert "KillMode=mixed" in shown
    assert f"held by pid {service.pid} (kernel lock + start time agree)" in shown
    assert "/healthz exact, " in shown


def test_ordinary_user_sees_the_state_and_what_is_hidden(
    machine: Machine, service: Unit, user: str
) -> None:
    said = of(service, user=user)
    assert said["state"] == "running"
    assert said["process"]["pid"] == service.pid
    assert [note.split(":")[0] for note in said["unseen"]] == ["configuration", "listener"]


def test_status_asks_systemd_once(machine: Machine, service: Unit) -> None:
    script = '#!/bin/sh\necho called >>/run/calls\nexec /usr/bin/systemctl "$@"\n'
    machine.write("/run/counted/systemctl", script, mode=0o755)
    assert status(machine, prefix="PATH=/run/counted:$PATH")["state"] == "running"
    assert machine.read("/run/calls") == "called\n"


def test_status_is_quick_and_small(machine: Machine, service: Unit, record_property: Any) -> None:
    script = (
        "import json, os, subprocess, time\n"
        "began_s = time.monotonic()\n"
        "child = subprocess.Popen(['openclaw-gateway', 'status'], stdout=subprocess.DEVNULL)\n"
        "_, code, usage = os.wait4(child.pid, 0)\n"
        "print(json.dumps([time.monotonic() - began_s, usage.ru_maxrss / 1000, code]))\n"
    )
    wall_s, megabytes, code = json.loads(machine.run(["python3", "-c", script]).stdout)
    record_property("status_wall_s", f"{wall_s:.3f}")
    record_property("status_peak_megabytes", f"{megabytes:.1f}")
    assert code == 0
    assert megabytes < 40


def test_without_systemctl_the_kernel_speaks(machine: Machine, service: Unit) -> None:
    said = status(machine, prefix="PATH=/nowhere /usr/bin/env PATH=/usr/bin:/nowhere")
    assert said["state"] == "running"
    hidden = status(machine, prefix="hidden() { PATH=/nowhere /usr/bin/$*; }; hidden")
    assert hidden["state"] == "running"
    assert hidden["reason"].startswith(f"healthy, by pid {service.pid}")
    assert hidden["unseen"] == ["unit: systemctl is not installed"]


def test_without_a_bus_stopped_is_not_said(machine: Machine) -> None:
    machine.profile("busless").stop()
    no_bus = (
        "unshare --mount sh -c 'for path in /run/systemd/private /run/dbus/system_bus_socket; do"
        ' mount --bind /dev/null "$path"; done; exec "$@"\' sh'
    )
    said = status(machine, "--profile", "busless", prefix=no_bus)
    assert said["state"] == "unknown"
    assert said["exit_code"] == 4
    assert "bus" in said["unseen"][0]
    assert status(machine, "--profile", "busless")["state"] == "stopped"


def test_start_behind_a_stopped_owner_is_starting(machine: Machine) -> None:
    owner = machine.profile("frozen", drop_in=_UNWATCHED, port=20302)
    owner.kill("STOP")
    waiting = machine.profile("waits", start=False, port=20302)
    machine.systemctl("start", "--no-block", waiting.name)
    machine.until(f"systemctl show -P StatusText {waiting.name} | grep -q waiting")
    said = of(waiting)
    assert said["state"] == "starting"
    assert said["exit_code"] == 2
    assert f"held by pid {owner.pid}" in said["reason"]
    assert commands(said)[0] == f"kill -CONT {owner.pid}"
    waiting.stop()
    not_serving = of(owner)
    assert not_serving["state"] == "not-serving"
    assert not_serving["health"]["health"] == "mute"
    machine.run(commands(not_serving)[0])
    assert of(owner, "--wait", "30")["state"] == "running"
    owner.stop()


def test_stop_under_way_is_stopping(machine: Machine) -> None:
    hold = "[Service]\nExecStop=/bin/sh -c 'until test -e /run/let-go; do sleep 0.05; done'\n"
    unit = machine.profile("leaves", drop_in=hold)
    machine.systemctl("stop", "--no-block", unit.name)
    unit.wait_for("ActiveState", "deactivating")
    said = of(unit)
    machine.run(["touch", "/run/let-go"])
    assert said["state"] == "stopping"
    assert said["exit_code"] == 1
    unit.wait_for("ActiveState", "inactive")
    stopped = of(unit)
    assert stopped["state"] == "stopped"
    assert commands(stopped) == [f"systemctl start {unit.name}"]


def test_state_that_takes_no_data_is_degraded(machine: Machine) -> None:
    unit = machine.profile("full")
    machine.run(["chmod", "0500", unit.state_dir])
    said = of(unit)
    machine.run(["chmod", "0700", unit.state_dir])
    assert said["state"] == "degraded"
    assert said["exit_code"] == 1
    assert said["health"]["failing"] == ["state-directory"]
    assert of(unit, "--wait", "60")["state"] == "running"
    unit.stop()


def test_duplicate_is_parked_until_the_advice_is_followed(machine: Machine) -> None:
    owner = machine.profile("first", port=20303)
    owner_pid = owner.pid
    second = machine.profile("second", start=False, port=20303)
    second.start(check=False)
    said = of(second)
    assert said["state"] == "parked"
    assert said["exit_code"] == 3
    assert f"behind pid {owner_pid} (claw-gateway, user openclaw-gateway, " in said["reason"]
    assert said["reason"].endswith("which is still there")
    assert commands(said) == [
        f"systemctl disable --now {owner.name}",
        f"systemctl restart {second.name}",
    ]
    owner.stop()
    gone = of(second)
    assert (gone["state"], gone["reason"]) == (
        "parked",
        f"behind pid {owner_pid}, which is gone",
    )
    machine.run(commands(gone)[0])
    assert of(second)["state"] == "running"
    second.stop()


_NODE = """
import http.server

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"ok":true,"status":"live"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", 20309), Answer).serve_forever()
"""
"""Answers as OpenClaw's own gateway does, and holds no lock of ours."""


@pytest.mark.parametrize("starter", ["systemd-run --unit=assistant", "setsid"])
def test_advice_to_the_unit_that_parked_behind_openclaws_own_gateway_ends_that(
    machine: Machine, user: str, starter: str
) -> None:
    machine.write("/usr/local/lib/node.py", _NODE, mode=0o644)
    as_user = f"setpriv --reuid={user} --regid={user} --clear-groups python3 /usr/local/lib/node.py"
    machine.run(f"{starter} {as_user} >/dev/null 2>&1 &")
    machine.until("ss -Hltn sport = :20309 | grep -q .")
    unit = machine.profile("beside", start=False, port=20309)
    unit.start(check=False)
    said = of(unit)
    assert said["state"] == "parked"
    assert f"user {user}" in said["reason"]
    assert said["reason"].endswith("which is still there")
    assert commands(said)[0] != f"systemctl restart {unit.name}", "which would park it again"
    for command in commands(said):
        machine.run(command)
        machine.until(
            "! ss -Hltn sport = :20309 | grep -q . || systemctl is-active -q " + unit.name
        )
    assert of(unit)["state"] == "running"
    unit.stop()


def test_foreign_port_then_gave_up_then_mended(machine: Machine, squatter: Unit) -> None:
    unit = machine.profile("unlucky", start=False, port=20301, **_IMPATIENT)
    unit.start(check=False)
    unit.wait_for("SubState", "failed")
    said = of(unit)
    assert said["state"] == "foreign-port"
    assert said["exit_code"] == 3
    assert f"pid {squatter.pid} (python3, user root, unit web.service)" in said["reason"]
    assert findings(machine, "port-holders", "--profile", "unlucky") == [
        f"error: ws://127.0.0.1:20301 is held by pid {squatter.pid} "
        "(python3, user root, unit web.service)"
    ]
    machine.run(commands(said)[0])
    squatter.stop()
    said = of(unit)
    assert said["state"] == "gave-up"
    assert said["exit_code"] == 3
    assert "the last start exited with 75: another gateway instance" in said["reason"]
    (latch,) = findings(machine, "start-limit-latch", "--profile", "unlucky")
    assert latch.startswith(f"error: {unit.name} gave up after ")
    machine.run(commands(said)[-1])
    assert of(unit)["state"] == "running"
    unit.stop()


def test_refused_configuration_is_the_reason(machine: Machine) -> None:
    unit = machine.profile("typo", start=False, port="x")
    unit.start(check=False)
    said = of(unit)
    assert said["state"] == "stopped"
    assert said["reason"].startswith(
        f"the configuration was refused: {unit.config_path}:1:14 gateway.port"
    )
    assert commands(said) == [f"systemctl restart {unit.name}"], "the reason is in the first line"
    (found,) = findings(machine, "overrides", "--profile", "typo")
    assert found.startswith(f"error: {unit.config_path}:1:14 gateway.port")


def test_masked_unit(machine: Machine) -> None:
    unit = machine.profile("hidden", start=False)
    machine.systemctl("mask", "--runtime", unit.name)
    said = of(unit)
    assert (said["state"], said["reason"]) == ("stopped", f"{unit.name} is masked")
    assert said["lock"]["state_dir"] == unit.state_dir
    (command,) = commands(said)
    machine.run(command)
    assert of(unit)["state"] == "running"
    unit.stop()


def test_disabled_unit_is_enabled_and_started_by_the_advice(machine: Machine) -> None:
    unit = machine.profile("resting", start=False)
    machine.systemctl("disable", unit.name)
    said = of(unit)
    assert said["state"] == "stopped"
    (command,) = commands(said)
    machine.run(command)
    assert of(unit)["state"] == "running"
    assert unit.show("UnitFileState") == "enabled"
    unit.stop()


def test_unit_that_died_and_is_not_restarted_shows_its_log_and_is_started_by_the_advice(
    machine: Machine,
) -> None:
    unit = machine.profile("mortal", drop_in="[Service]\nRestart=no\n")
    unit.kill("KILL")
    unit.wait_for("ActiveState", "failed")
    said = of(unit)
    assert (said["state"], said["exit_code"]) == ("stopped", 3)
    assert "SIGKILL" in said["reason"]
    for command in commands(said):
        assert machine.run(command).returncode == 0
    assert of(unit)["state"] == "running"
    unit.stop()


def test_gateway_by_hand_is_unmanaged(machine: Machine) -> None:
    place = ["--port", "20304", "--state-dir", "/var/tmp/by-hand"]
    machine.run(f"setsid openclaw-gateway run {shlex.join(place)} >/dev/null 2>&1 &")
    said = status(machine, *place, "--wait", "30")
    machine.run(["kill", str(said["owner"]["pid"])])
    assert said["state"] == "unmanaged"
    assert said["exit_code"] == 0
    assert said["unit"] is None
    assert said["disagreements"] == [f"{SERVICE} (system) is another gateway, for port {PORT}"]


def test_looking_does_not_start_what_a_socket_unit_would(machine: Machine) -> None:
    machine.unit().stop()
    machine.systemctl("start", "openclaw-gateway.socket")
    said = status(machine)
    assert said["state"] == "stopped"
    assert said["reason"].startswith("openclaw-gateway.socket listens")
    assert machine.unit().show("ActiveState") == "inactive"
    machine.systemctl("start", SERVICE)
    assert status(machine)["state"] == "running"
    machine.systemctl("stop", "openclaw-gateway.socket", SERVICE)


def test_gateway_in_another_network_is_unknown_and_the_advice_looks_there(
    machine: Machine,
) -> None:
    unit = machine.profile("apart", drop_in="[Service]\nPrivateNetwork=yes\n")
    said = of(unit)
    assert said["state"] == "unknown"
    assert said["exit_code"] == 4
    assert "another network namespace" in said["reason"]
    (command,) = commands(said)
    assert "RUNNING: healthy" in machine.run(command).stdout
    unit.stop()


def test_drop_in_that_is_not_loaded_is_said(machine: Machine) -> None:
    unit = machine.profile("edited", drop_in="[Service]\nNice=1\n")
    machine.write(f"/run/systemd/system/{unit.name}.d/test.conf", "[Service]\nNice=2\n")
    said = of(unit)
    assert said["state"] == "running"
    assert f"{unit.name} changed on disk since it was loaded" in said["disagreements"][0]
    (found,) = findings(machine, "daemon-reload", "--profile", "edited")
    assert found.startswith("warning: ")
    machine.systemctl("daemon-reload")
    assert of(unit)["disagreements"] == []
    unit.stop()


def test_changed_port_waits_for_a_restart(machine: Machine) -> None:
    unit = machine.profile("moves", port=20305)
    machine.write(unit.config_path, json.dumps({"gateway": {"port": 20306}}))
    said = of(unit)
    assert said["state"] == "running"
    assert said["port"] == 20305
    assert said["disagreements"] == [
        "configured for port 20306, but running on 20305: restart to change it"
    ]
    unit.stop()


def test_unit_that_was_killed_shows_its_last_exit(machine: Machine) -> None:
    unit = machine.profile("killed")
    pid = unit.pid
    unit.kill("KILL")
    unit.wait_for_another(pid)
    said = of(unit, "--wait", "30")
    assert said["state"] == "running"
    assert said["unit"]["restarts"] == 1
    assert said["last_exit"]["kind"] == "killed"
    (found,) = findings(machine, "last-exits", "--profile", "killed")
    assert found.startswith("note: ")
    assert " killed with " in found
    unit.stop()


def test_policies_that_harm_are_found(machine: Machine) -> None:
    token = "0123456789abcdef-not-to-be-seen"
    harm = (
        "[Unit]\nStartLimitIntervalSec=10\n"
        "[Service]\nRestartPreventExitStatus=\nKillMode=process\nTimeoutStopSec=2\n"
        f"Environment=OPENCLAW_GATEWAY_TOKEN={token} OPENCLAW_GATEWAY_PORT=20307\n"
    )
    unit = machine.profile("harmed", drop_in=harm)
    profile = ("--profile", "harmed")
    policy = findings(machine, "restart-policy", *profile)
    assert any("lacks 78" in found for found in policy)
    assert any("KillMode=process" in found for found in policy)
    (stop,) = findings(machine, "time-outs", *profile)
    assert "TimeoutStopSec=2s" in stop
    (limit,) = findings(machine, "start-limit", *profile)
    assert "never trips" in limit
    (secret,) = findings(machine, "secrets", *profile)
    assert secret.startswith(f"error: {unit.name} sets OPENCLAW_GATEWAY_TOKEN")
    (override,) = findings(machine, "overrides", *profile)
    assert "OPENCLAW_GATEWAY_PORT" in override
    for verb in ("status", "doctor"):
        for form in ([], ["--json"]):
            said = machine.run(["openclaw-gateway", verb, *profile, *form], check=False)
            assert token not in said.stdout + said.stderr
    unit.stop()


def test_shipped_units_have_nothing_to_complain_of(machine: Machine, service: Unit) -> None:
    for check in ("restart-policy", "time-outs", "start-limit", "secrets", "lock-directory"):
        found = findings(machine, check)
        assert [one for one in found if not one.startswith("ok: ")] == []


def test_profiles_are_listed_and_a_port_wanted_twice_is_said(
    machine: Machine, service: Unit
) -> None:
    first = machine.profile("list-a", port=20308)
    second = machine.profile("list-b", start=False, port=20308)
    machine.systemctl("enable", second.name)
    said = machine.run(["openclaw-gateway", "status", "--all", "--json"], check=False)
    machine.systemctl("disable", second.name)
    document = json.loads(said.stdout)
    states = {one["profile"]: (one["port"], one["state"]) for one in document["gateways"]}
    assert states["default"] == (PORT, "running")
    assert states["list-a"] == (20308, "running")
    assert states["list-b"][0] == 20308
    contested = "port 20308 is wanted by the profiles list-a, list-b: only one can have it"
    assert contested in document["contested"]
    assert said.returncode == 1
    shown = machine.run(["openclaw-gateway", "status", "--all"], check=False).stdout
    assert f"list-a 20308 running {first.pid} system {first.state_dir}" in " ".join(shown.split())
    first.stop()


def test_user_unit_and_system_unit_are_told_apart(
    machine: Machine, service: Unit, user: str
) -> None:
    machine.run(["loginctl", "enable-linger", user])
    machine.until(f"systemctl --user -M {user}@ is-system-running --wait")
    control = f"systemctl --user -M {user}@"
    machine.run(f"{control} enable --now {SERVICE}", check=False)

    theirs = status(machine, user=user)
    assert theirs["state"] == "parked"
    assert theirs["unit"]["manager"] == f"user {user}"
    assert f"behind pid {service.pid}" in theirs["reason"]
    assert commands(theirs)[-1] == f"systemctl --user restart {SERVICE}"

    ours = status(machine)
    assert ours["state"] == "running"
    conflict = f"{SERVICE} (user {user}) is enabled and wants port {PORT} too"
    assert conflict in ours["disagreements"]
    assert commands(ours) == [f"{control} disable --now {SERVICE}"]
    (rival,) = findings(machine, "two-managers")
    assert rival == f"error: {SERVICE} (user {user}) is enabled too and wants port {PORT}"

    service.stop()
    machine.run(f"{control} restart {SERVICE}")
    assert status(machine, user=user)["state"] == "running"
    by_root = status(machine)
    assert by_root["state"] == "running"
    assert f"unit {SERVICE} of user {user}" in by_root["reason"]
    assert commands(by_root) == [f"systemctl disable --now {SERVICE}"], "not the only one that runs"
    machine.run(commands(by_root)[0])
    alone = status(machine)
    assert (alone["disagreements"], commands(alone)) == ([], [])
    assert findings(machine, "two-managers") == []
    assert findings(machine, "overrides") == []
    listed = json.loads(machine.run("openclaw-gateway status --all --json", check=False).stdout)
    at_port = [one["state"] for one in listed["gateways"] if one["port"] == PORT]
    assert at_port == ["running"], "status and --all agree"
    machine.systemctl("enable", SERVICE)

    service.restart(check=False)
    parked = status(machine)
    assert parked["state"] == "parked"
    for command in commands(parked):
        machine.run(command)
    assert status(machine)["state"] == "running"
    machine.run(["loginctl", "disable-linger", user])


def test_user_unit_without_linger_is_found(machine: Machine, user: str) -> None:
    uid = machine.run(["id", "-u", user]).stdout.strip()
    machine.systemctl("start", f"user@{uid}.service")
    environ = {"HOME": f"/home/{user}"}
    said = machine.run(
        ["openclaw-gateway", "doctor", "--user", "--json"], check=False, user=user, environ=environ
    )
    (found,) = (one for one in json.loads(said.stdout)["checks"] if one["name"] == "linger")
    assert found["severity"] == "warning"
    (finding,) = found["findings"]
    assert finding["command"] == f"sudo loginctl enable-linger {user}"
    machine.systemctl("stop", f"user@{uid}.service")


def test_logs_are_those_of_the_unit(machine: Machine, service: Unit, user: str) -> None:
    machine.run(["journalctl", "--sync"])
    lines = machine.run(["openclaw-gateway", "logs", "-n", "3"]).stdout.splitlines()
    assert len(lines) == 3
    assert any(
        f"openclaw-gateway[{service.pid}]: " in line and "ready on" in line for line in lines
    )
    entries = [
        json.loads(line)
        for line in machine.run(
            ["openclaw-gateway", "logs", "--json", "--since", "1h"]
        ).stdout.splitlines()
    ]
    ready = [one for one in entries if one["pid"] == service.pid and "port" in one["fields"]]
    assert ready[-1]["fields"]["port"] == str(PORT)
    both = machine.run(["openclaw-gateway", "logs", "--json", "--since", "1h", "-n", "2"]).stdout
    assert [json.loads(line) for line in both.splitlines()] == entries[-2:]
    last = machine.run(["openclaw-gateway", "logs", "--since", "1h", "-n", "1"]).stdout
    assert entries[-1]["message"] in last and len(last.splitlines()) < len(entries)
    explained = machine.run(["openclaw-gateway", "logs", "-x", "-n", "20"]).stdout
    assert "░░" in explained or "-- Documentation" in explained or "-- Subject" in explained
    loud = machine.run(["openclaw-gateway", "logs", "--json", "-p", "notice"], check=False).stdout
    assert all(json.loads(line)["priority"] <= 5 for line in loud.splitlines())
    # A reader that has seen enough ends the writer, as with any other program.
    cut = "bash -c 'set -o pipefail; openclaw-gateway logs --since 1h | head -n 1; echo $?'"
    assert machine.run(cut).stdout.splitlines()[-1] in ("0", "141")
    other = machine.run(
        ["openclaw-gateway", "logs"], user=user, check=False, environ={"HOME": f"/home/{user}"}
    )
    assert other.returncode == 1
    assert "hint: sudo openclaw-gateway logs" in other.stderr


def test_logs_follow(machine: Machine, service: Unit) -> None:
    unit = machine.profile("talks")
    machine.run(
        "openclaw-gateway logs --profile talks -f -n 1 >/run/followed 2>&1 & echo $! >/run/follower"
    )
    machine.until("test -s /run/followed")
    unit.restart()
    machine.until(f"grep -q 'openclaw-gateway.{unit.pid}.: .*ready on' /run/followed")
    machine.run("kill -INT $(cat /run/follower)")
    unit.stop()


def test_probe_for_scripts(machine: Machine, service: Unit) -> None:
    assert machine.run(["openclaw-gateway", "probe"]).stdout.startswith(
        f"ws://127.0.0.1:{PORT}: a healthy gateway, ready, "
    )
    assert (
        machine.run(["openclaw-gateway", "probe", "--port", "20399"], check=False).returncode == 3
    )


def test_manual_has_examples() -> None:
    assert len(_EXAMPLES) >= 5


@pytest.mark.parametrize("command", _EXAMPLES)
def test_example_of_the_manual_works(machine: Machine, service: Unit, command: str) -> None:
    # A machine as the manual's reader has it: without the profiles of other tests, which want each
    # other's ports on purpose.
    machine.run(
        "systemctl stop 'openclaw-gateway@*'; rm -rf /etc/openclaw-gateway/*/ "
        "/etc/systemd/system/*.wants/openclaw-gateway@*; systemctl daemon-reload"
    )
    endless = command.endswith(" -f")
    limited = f"timeout --signal=INT 2 {command}" if endless else command
    said = machine.run(limited, check=False)
    assert said.stdout
    assert said.stderr == ""
    if endless:
        assert said.returncode == 124
    elif "--profile" in command:
        assert said.returncode == 3, "there is no such profile here"
    elif "--all" not in command:  # which tells of what other tests left, too
        assert said.returncode == 0
