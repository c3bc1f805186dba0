"""The system's unit of a guard, by the manual's recipe, with a small program where OpenClaw would be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guarded import GUARD, PAGE, USER, Account, Guarded
from machine import PORT, SERVICE, Machine

from manual import displays

_SECTION = "A GATEWAY OF ONE ACCOUNT, BY THE SYSTEM"
_FIFO, _WORDS = "/run/program.fifo", "/run/program.words"
_COMMAND = "/usr/local/bin/openclaw"
_PROGRAM = f"""#!/bin/sh
# Where OpenClaw's own command would be: "openclaw gateway run --port N".
exec python3 /opt/program.py "$OPENCLAW_GATEWAY_PORT" {_FIFO} $(cat {_WORDS})
"""
_RAW_UNIT = f"""# As OpenClaw writes it.
[Service]
ExecStart={_COMMAND} gateway run --port {PORT}
Restart=always
RestartSec=5
Environment=OPENCLAW_GATEWAY_PORT={PORT} OPENCLAW_SERVICE_MARKER=openclaw

[Install]
WantedBy=default.target
"""
_WATCHED = "[Service]\nWatchdogSec=3\n"


class Program:
    """The program in OpenClaw's place, on every start of it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        machine.copy_in(Path(__file__).parents[1] / "program.py", "/opt/program.py")
        machine.run(["mkfifo", "--mode=666", _FIFO])
        machine.write(_COMMAND, _PROGRAM, mode=0o755)
        self.begins_with("")

    def begins_with(self, words: str) -> None:
        """Say how it is to begin from the next start on."""
        self._machine.write(_WORDS, words)

    def tell(self, line: str) -> None:
        """Have the one that runs do something."""
        self._machine.run(f"echo '{line}' >{_FIFO}")


@pytest.fixture(scope="module")
def account(machine: Machine) -> Account:
    return Account(machine)


@pytest.fixture(scope="module")
def program(machine: Machine) -> Program:
    return Program(machine)


@pytest.fixture(scope="module")
def migrated(machine: Machine, account: Account, program: Program) -> str:
    """Follow the manual where OpenClaw's own unit serves the port; return what was printed."""
    machine.unit().stop()
    unit = f"/home/{USER}/.config/systemd/user/{SERVICE}"
    machine.write(unit, _RAW_UNIT)
    machine.run(["chown", "-R", f"{USER}:", f"/home/{USER}/.config"])
    account.types(f"systemctl --user daemon-reload; systemctl --user enable --now {SERVICE}")
    machine.until(f"curl -sf http://127.0.0.1:{PORT}/healthz")
    # As on a machine where the package was installed beside a running gateway.
    assert machine.unit().start(check=False) != 0
    assert machine.unit().show("ExecMainStatus") == "78"
    return account.types(displays(PAGE, _SECTION)[0])[1]


@pytest.fixture
def guarded(machine: Machine, migrated: str, program: Program) -> Iterator[Guarded]:
    """The guard that the recipe left, watched closely; each test finds it healthy."""
    found = Guarded(machine)
    found.unit.drop_in(_WATCHED)
    program.begins_with("")
    # All of them: what an earlier test parked beside this one would be listed as well.
    machine.systemctl("reset-failed", check=False)
    found.unit.restart()
    yield found
    program.begins_with("")


def test_recipe_puts_a_running_gateway_of_openclaws_behind_a_guard(
    machine: Machine, account: Account, migrated: str
) -> None:
    assert "Active: active (running)" in migrated
    assert f'Status: "ready on ws://127.0.0.1:{PORT}, guarding pid' in migrated
    guarded = Guarded(machine)
    guarded.check_alone()
    _, raw = account.types(f"systemctl --user is-enabled {SERVICE}")
    assert raw.strip() == "disabled"
    assert machine.unit().show("UnitFileState") == "disabled"
    child = guarded.child_pid
    assert machine.run(["stat", "--format=%U", f"/proc/{child}"]).stdout.strip() == USER
    environ = machine.read(f"/proc/{child}/environ").split("\0")
    assert f"OPENCLAW_STATE_DIR=/home/{USER}/.openclaw" in environ
    assert f"OPENCLAW_SYSTEMD_UNIT={GUARD}" in environ
    # What the guard writes is nothing: lock files there are OpenClaw's own affair.
    assert machine.run(f"find /home/{USER}/.openclaw -name '*.lock*'").stdout == ""


def test_unit_is_active_only_once_startupz_says_started(guarded: Guarded, program: Program) -> None:
    guarded.unit.stop()
    program.begins_with("deaf starting")
    guarded.machine.systemctl("start", "--no-block", GUARD)
    guarded.wait_for("StatusText", "does not listen on port")
    assert guarded.show("ActiveState") == "activating"
    program.tell("listen")
    guarded.wait_for("StatusText", f"listens on port {PORT}, and there is")
    assert guarded.show("ActiveState") == "activating"
    program.tell("started")
    guarded.wait_for("ActiveState", "active")
    guarded.check_alone()


def test_second_start_of_anything_leaves_exactly_one(
    guarded: Guarded, machine: Machine, account: Account
) -> None:
    before = guarded.family()
    machine.run("id bob || useradd --create-home bob")
    for name in ("openclaw-guard@bob.service", SERVICE):
        second = machine.unit(name)
        assert second.start(check=False) != 0
        assert second.show("ExecMainStatus") == "78"
        assert second.show("NRestarts") == "0"
        assert f"pid {guarded.pid}" in second.says()
    status, said = account.types("openclaw-gateway guard")
    assert (status, f"pid {guarded.pid}" in said) == (1, True)
    assert guarded.family() == before
    guarded.check_alone()


def _kill(signal: str) -> Callable[[Guarded, Program], None]:
    return lambda guarded, _: _signal(guarded, signal, guarded.child_pid)


def _kill_guard(signal: str) -> Callable[[Guarded, Program], None]:
    return lambda guarded, _: _signal(guarded, signal, guarded.pid)


def _kill_all(guarded: Guarded, _: Program) -> None:
    # Whoever is last may be gone already: the kernel ends the program with its guard.
    guarded.machine.run(f"kill -KILL {' '.join(map(str, guarded.family()))} || true")


def _signal(guarded: Guarded, signal: str, *pids: int) -> None:
    guarded.machine.run(["kill", f"-{signal}", *map(str, pids)])


def _tell(line: str) -> Callable[[Guarded, Program], None]:
    return lambda _, program: program.tell(line)


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(_kill("KILL"), id="program killed"),
        pytest.param(_kill("TERM"), id="program stopped by hand"),
        pytest.param(_kill("HUP"), id="program hung up on"),
        pytest.param(_kill("STOP"), id="program hangs"),
        pytest.param(_kill_guard("KILL"), id="guard killed"),
        pytest.param(_kill_guard("STOP"), id="guard hangs"),
        pytest.param(_kill_guard("ABRT"), id="guard aborted"),
        pytest.param(_kill_all, id="both killed"),
        pytest.param(_tell("unlisten"), id="listener vanishes"),
        pytest.param(_tell("mute"), id="program answers nothing"),
        pytest.param(_tell("exit 0"), id="program asks to be restarted"),
        pytest.param(_tell("exit 1"), id="program fails"),
    ],
)
def test_whatever_happens_ends_in_one_healthy_gateway(
    guarded: Guarded, program: Program, happens: Callable[[Guarded, Program], None]
) -> None:
    before = guarded.family()
    happens(guarded, program)
    guarded.wait_for_another(before[0])
    assert all(guarded.is_gone(pid) for pid in before), guarded.says()
    guarded.check_alone()


def test_stop_ends_both_and_is_no_failure(guarded: Guarded, machine: Machine) -> None:
    before = guarded.family()
    guarded.unit.stop()
    assert all(guarded.is_gone(pid) for pid in before)
    assert (guarded.show("ActiveState"), guarded.show("Result")) == ("inactive", "success")
    assert guarded.listeners() == set()


def test_restarts_at_once_end_in_one_gateway(guarded: Guarded, machine: Machine) -> None:
    machine.run(f"for n in $(seq 10); do systemctl restart {GUARD} & done; wait", timeout_s=120)
    guarded.wait_for("ActiveState", "active")
    assert len(guarded.family()) == 2
    guarded.check_alone()


def test_program_that_refuses_its_settings_is_parked(guarded: Guarded, program: Program) -> None:
    program.tell("exit 78")
    guarded.wait_for("ActiveState", "failed")
    assert (guarded.show("ExecMainStatus"), guarded.show("NRestarts")) == ("78", "0")
    assert "refuses its configuration" in guarded.show("StatusText")
    guarded.unit.start()
    guarded.check_alone()


def test_program_that_never_gets_ready_is_given_up(guarded: Guarded, program: Program) -> None:
    guarded.unit.stop()
    impatient = "ExecStart=\nExecStart=/usr/bin/openclaw-gateway guard --ready-timeout=1"
    guarded.unit.drop_in(f"[Service]\n{impatient}\nRestartSec=0\n")
    program.begins_with("deaf")
    guarded.unit.start(check=False)
    guarded.wait_for("SubState", "failed")
    assert "Start request repeated too quickly" in guarded.unit.says()
    assert f"does not listen on port {PORT}" in guarded.unit.says()
    assert guarded.show("ExecMainStatus") == "1"


def _status(machine: Machine, *words: str) -> dict[str, Any]:
    done = machine.run(["openclaw-gateway", "status", "--json", *words], check=False)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("words", [(), ("--guard=ada",), (f"--port={PORT}",)], ids=str)
def test_status_knows_the_guard_and_its_program(
    guarded: Guarded, machine: Machine, words: tuple[str, ...]
) -> None:
    found = _status(machine, *words)
    assert (found["state"], found["reason"]) == ("running", "healthy")
    assert found["unit_name"] == found["unit"]["name"] == GUARD
    assert found["owner"]["pid"] == guarded.pid
    assert (found["guarded"]["pid"], found["guarded"]["user"]) == (guarded.child_pid, USER)
    assert found["disagreements"] == []


def test_list_of_all_has_the_guard(guarded: Guarded, machine: Machine) -> None:
    done = machine.run(["openclaw-gateway", "status", "--all"])
    (row,) = [line for line in done.stdout.splitlines() if line.startswith(f"guard@{USER}")]
    assert f"{PORT}  running" in row
    assert row.endswith(f"/home/{USER}/.openclaw")


def test_status_says_how_far_a_start_is(
    guarded: Guarded, machine: Machine, program: Program
) -> None:
    guarded.unit.stop()
    program.begins_with("deaf")
    machine.systemctl("start", "--no-block", GUARD)
    guarded.wait_for("StatusText", "does not listen on port")
    found = _status(machine)
    assert found["state"] == "starting"
    assert "does not listen on port" in found["reason"]
    machine.systemctl("stop", GUARD)


def test_exits_of_the_program_are_told_with_their_cause(
    guarded: Guarded, machine: Machine, program: Program
) -> None:
    pid = guarded.pid
    program.tell("exit 3")
    guarded.wait_for_another(pid)
    cause = "the guarded program exited with 3"
    last = _status(machine)["last_exit"]
    assert (last["status"], last["cause"]) == ("3", cause)
    done = machine.run(["openclaw-gateway", "doctor", "--json", "--guard=ada"], check=False)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert any(cause in found["evidence"] for found in checks["last-exits"]["findings"])
    wrong = [
        found
        for check in checks.values()
        for found in check["findings"]
        if found["severity"] in ("warning", "error")
    ]
    assert wrong == []
    assert cause in machine.run(["openclaw-gateway", "logs", "--guard=ada"]).stdout
    assert cause in machine.run(["openclaw-gateway", "logs"]).stdout


def test_raw_gateway_that_took_the_port_is_named_before_and_after_it_parks_the_guard(
    guarded: Guarded, machine: Machine, program: Program
) -> None:
    guarded.unit.drop_in("")
    guarded.unit.restart()
    program.tell("unlisten")
    machine.until(f"! ss -Hltn sport = :{PORT} | grep -q .")
    raw = ["python3", "/opt/program.py", str(PORT), "/run/raw.fifo"]
    machine.run(["mkfifo", "/run/raw.fifo"])
    machine.run(["systemd-run", "--unit=raw", *raw])
    machine.until(f"curl -sf http://127.0.0.1:{PORT}/healthz")
    raw_pid = machine.unit("raw.service").pid
    try:
        found = _status(machine)
        assert found["state"] == "not-serving"
        assert f"pid {raw_pid} (" in found["reason"]
        assert found["next"][0]["command"] == "systemctl stop raw.service"
        assert guarded.unit.restart(check=False) != 0
        found = _status(machine, f"--guard={USER}")
        assert found["state"] == "parked"
        assert f"pid {raw_pid} (" in found["reason"]
    finally:
        machine.systemctl("stop", "raw.service")
    assert found["next"][0]["command"] == "systemctl stop raw.service"
    guarded.unit.restart()
    guarded.check_alone()


def test_programs_that_are_elsewhere_are_found_by_the_manuals_drop_in(
    guarded: Guarded, machine: Machine, account: Account
) -> None:
    guarded.unit.stop()
    elsewhere = f"/home/{USER}/.npm-global/bin"
    machine.run(
        f"mkdir -p {elsewhere} && mv {_COMMAND} {elsewhere} && chown -R {USER}: {elsewhere}"
    )
    assert guarded.unit.start(check=False) != 0
    assert (guarded.show("ExecMainStatus"), guarded.show("NRestarts")) == ("78", "0")
    assert "openclaw" in guarded.show("StatusText")
    account.types(displays(PAGE, _SECTION)[1])
    guarded.check_alone()
