"""The port is someone else's: a healthy gateway's, a hung one's, or another program's."""

from __future__ import annotations

import pytest
from machine import PORT, SERVICE, Machine, Unit

from openclaw_gateway.supervisor.events import Event

_A_MINUTE = 60
_STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"  # systemd's SD_MESSAGE_UNIT_STARTING
_IMPATIENT = {"healthTimeoutMs": 500}


def _starts(unit: Unit) -> int:
    return len(unit.machine.journal(f"UNIT={unit.name}", f"MESSAGE_ID={_STARTING}"))


def _parked(unit: Unit) -> bool:
    """Whether it ended once with 78, and systemd means to leave it at that."""
    return (
        unit.show("ActiveState") == "failed"
        and unit.show("Result") == "exit-code"
        and unit.show("ExecMainStatus") == "78"
        and unit.show("NRestarts") == "0"
        and unit.show("Job") == ""
        and _starts(unit) == 1
    )


@pytest.fixture
def owner(machine: Machine) -> Unit:
    """The system's own gateway, healthy."""
    service = machine.unit()
    service.restart()
    return service


def test_duplicate_is_parked_and_names_the_owner(machine: Machine, owner: Unit) -> None:
    owner_pid = owner.pid
    duplicate = machine.profile("named", start=False, port=PORT)
    assert duplicate.start(check=False) != 0
    assert _parked(duplicate)
    (entry,) = duplicate.events(Event.DUPLICATE)
    assert entry["OPENCLAW_OWNER_PID"] == str(owner_pid)
    assert f"pid {owner_pid}" in entry["MESSAGE"]
    assert SERVICE in entry["MESSAGE"]
    assert len(duplicate.journal("--identifier=openclaw-gateway")) == 1
    assert owner.pid == owner_pid
    assert machine.is_live()


def test_status_of_a_parked_duplicate_says_why(machine: Machine, owner: Unit) -> None:
    duplicate = machine.profile("status", start=False, port=PORT)
    duplicate.start(check=False)
    said = machine.run(["systemctl", "status", duplicate.name], check=False).stdout
    assert "78/CONFIG" in said
    assert f"already listening on ws://127.0.0.1:{PORT}" in said


def test_parked_duplicate_stays_parked_for_a_minute(machine: Machine, owner: Unit) -> None:
    duplicate = machine.profile("minute", start=False, port=PORT)
    duplicate.start(check=False)
    # The next entry about it would be the restart; "timeout" ends with 124 if none comes.
    following = ["journalctl", "--follow", "--lines=0", f"--unit={duplicate.name}"]
    waited = machine.run(
        ["timeout", str(_A_MINUTE), *following], check=False, timeout_s=_A_MINUTE + 60
    )
    assert (waited.returncode, waited.stdout) == (124, "")
    assert _parked(duplicate)
    assert machine.is_live()


def test_parked_duplicate_starts_by_hand_once_the_owner_is_gone(
    machine: Machine, owner: Unit
) -> None:
    duplicate = machine.profile("successor", start=False, port=PORT)
    duplicate.start(check=False)
    owner.stop()
    duplicate.restart()
    assert duplicate.show("ActiveState") == "active"
    assert machine.is_live()
    duplicate.stop()


def test_failure_notice_is_run_when_there_is_one(machine: Machine, owner: Unit) -> None:
    machine.write("/etc/openclaw-gateway/on-failure", '#!/bin/sh\necho "told of $1"\n', mode=0o755)
    duplicate = machine.profile("notice", start=False, port=PORT)
    duplicate.start(check=False)
    notice = "openclaw-gateway-failed@openclaw-gateway@notice.service"
    machine.until(f"systemctl show -P InactiveEnterTimestamp {notice} | grep -q .")
    assert f"told of {duplicate.name}" in machine.unit(notice).says()


def test_another_program_on_the_port_is_left_alone(machine: Machine) -> None:
    port = 20001
    server = ["python3", "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    machine.run(["systemd-run", "--unit=squatter", *server])
    machine.until(f"ss -Hltn sport = :{port} | grep -q .")
    squatter = machine.unit("squatter.service")
    squatter_pid = squatter.pid
    gateway = machine.profile("squatted", start=False, port=port, **_IMPATIENT)
    gateway.start(check=False)
    _assert_attempts_are_bounded(gateway)
    assert f"already listening on ws://127.0.0.1:{port}" in gateway.says()
    assert "a program that is not a gateway" in gateway.says()
    assert (squatter.show("ActiveState"), squatter.pid) == ("active", squatter_pid)
    squatter.stop()
    machine.systemctl("reset-failed", gateway.name)
    gateway.start()
    assert machine.is_live(port)


def test_owner_that_hangs_is_waited_for_within_bounds(machine: Machine) -> None:
    port = 20002
    owner = machine.profile("hung", drop_in="[Service]\nWatchdogSec=0\n", port=port)
    owner_pid = owner.pid
    owner.kill("STOP")
    gateway = machine.profile("behind", start=False, port=port, **_IMPATIENT)
    gateway.start(check=False)
    _assert_attempts_are_bounded(gateway)
    (first, *_) = gateway.events(Event.LOCK_FAILED)
    assert first["OPENCLAW_OWNER_PID"] == str(owner_pid)
    assert owner.name in first["MESSAGE"]
    owner.kill("CONT")
    assert owner.pid == owner_pid
    assert machine.is_live(port)


def _assert_attempts_are_bounded(gateway: Unit) -> None:
    """It fails with something else than 78, is tried again, and ends at the start limit."""
    gateway.wait_for("SubState", "failed")
    burst = int(gateway.show("StartLimitBurst"))
    assert gateway.show("ExecMainStatus") == "75"
    assert len(gateway.events(Event.LOCK_FAILED)) == burst
    assert gateway.events(Event.DUPLICATE) == []
    assert "Start request repeated too quickly" in gateway.says()
