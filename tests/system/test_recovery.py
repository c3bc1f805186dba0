"""It dies, hangs or goes deaf, and is back."""

from __future__ import annotations

import time
from collections.abc import Callable

from machine import PORT, Machine

from openclaw_gateway.supervisor.events import Event

Record = Callable[[str, object], None]

_WATCHED = "[Service]\nWatchdogSec=3\n"


def test_killed_gateway_is_back_at_the_first_attempt(
    machine: Machine, record_property: Record
) -> None:
    service = machine.unit()
    service.restart()
    pid = service.pid
    service.kill("KILL")
    service.wait_for_another(pid)
    assert service.show("NRestarts") == "1"
    assert machine.is_live()
    (entry,) = machine.journal(f"_PID={service.pid}", f"MESSAGE_ID={Event.STARTED.message_id}")
    assert entry["OPENCLAW_PORT"] == str(PORT)
    record_property("kill -9 to READY, seconds", f"{service.ready_at_s - service.died_at_s:.2f}")


def test_stopped_gateway_is_restarted_and_leaves_its_stack(
    machine: Machine, record_property: Record
) -> None:
    gateway = machine.profile("stopped", drop_in=_WATCHED)
    pid = gateway.pid
    stopped_s = gateway.kill("STOP")
    gateway.wait_for_another(pid)
    said = gateway.says()
    assert "Watchdog timeout" in said
    assert "Fatal Python error: Aborted" in said
    assert 'File "' in said
    record_property(
        "SIGSTOP to READY, WatchdogSec=3, seconds", f"{gateway.ready_at_s - stopped_s:.2f}"
    )


def test_gateway_that_accepts_nothing_is_restarted_though_its_loop_lives(
    machine: Machine, record_property: Record
) -> None:
    gateway = machine.profile("deaf", drop_in=_WATCHED)
    pid = gateway.pid
    deaf_s = time.monotonic()
    # Each accept finds nobody waiting; everything else goes on.
    inject = ["-e", "trace=accept4", "-e", "inject=accept4:error=EAGAIN"]
    command = ["strace", "--quiet=all", "--output=/dev/null", "-p", str(pid), *inject]
    machine.run(["systemd-run", "--unit=deafener", *command])
    gateway.wait_for_another(pid)
    said = gateway.says()
    assert gateway.events(Event.DEGRADED)
    assert "Watchdog timeout" in said
    assert "Fatal Python error: Aborted" in said
    record_property("deaf to READY, WatchdogSec=3, seconds", f"{gateway.ready_at_s - deaf_s:.2f}")


def test_fifty_restarts_are_each_ready_when_systemctl_returns(machine: Machine) -> None:
    one = f"systemctl restart openclaw-gateway && curl -sS --fail -m 10 http://127.0.0.1:{PORT}/healthz"
    machine.run(f"for n in $(seq 50); do {{ {one}; }} || exit 1; done", timeout_s=300)
    assert machine.unit().show("NRestarts") == "0"


def test_twenty_restarts_at_once_end_in_one_gateway(machine: Machine) -> None:
    service = machine.unit()
    machine.run(
        "for n in $(seq 20); do systemctl restart openclaw-gateway & done; wait", timeout_s=300
    )
    service.wait_for("ActiveState", "active")
    assert service.show("NRestarts") == "0"
    assert machine.run(["pgrep", "--full", "bin/openclaw-gateway run$"]).stdout.split() == [
        str(service.pid)
    ]
    assert machine.is_live()
