"""Several gateways side by side, and the target that holds the profiles' together."""

from __future__ import annotations

from machine import Machine

from openclaw_gateway.supervisor.events import Event


def test_profiles_run_side_by_side_and_stop_one_by_one(machine: Machine) -> None:
    first, second = machine.profile("first"), machine.profile("second")
    ports = [int(unit.events(Event.STARTED)[0]["OPENCLAW_PORT"]) for unit in (first, second)]
    assert len({*ports, 18789}) == 3
    first.stop()
    assert first.show("Result") == "success"
    assert not machine.is_live(ports[0])
    assert machine.is_live(ports[1])
    assert machine.is_live()
    machine.run(["test", "-d", "/run/openclaw-gateway/second", "-a", "-d", second.state_dir])


def test_profiles_with_one_port_leave_the_first_in_control(machine: Machine) -> None:
    first = machine.profile("early", port=20003)
    second = machine.profile("late", port=20003, start=False)
    assert second.start(check=False) != 0
    assert (first.show("ActiveState"), second.show("ExecMainStatus")) == ("active", "78")
    (entry,) = second.events(Event.DUPLICATE)
    assert first.name in entry["MESSAGE"]


def test_journal_can_be_filtered_by_profile(machine: Machine) -> None:
    gateway = machine.profile("filtered")
    entries = machine.journal("OPENCLAW_PROFILE=filtered")
    assert {entry.get("UNIT") or entry["_SYSTEMD_UNIT"] for entry in entries} == {gateway.name}


def test_target_restarts_the_profiles_that_run_and_no_others(machine: Machine) -> None:
    running, resting = machine.profile("running"), machine.profile("resting")
    service_pid, pid = machine.unit().pid, running.pid
    resting.stop()
    machine.systemctl("restart", "openclaw-gateways.target")
    running.wait_for_another(pid)
    assert resting.show("ActiveState") == "inactive"
    assert machine.unit().pid == service_pid
