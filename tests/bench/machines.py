"""The installed package under a real systemd, and beside it a unit that does next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from machine import SERVICE, Machine, booted_with_package

from bench.processes import LIBRARIES
from testbed import roots
from testbed.sandbox import TestbedError, require_host

BARE = Path(__file__).with_name("bare.py")
FLOOR = "floor.service"
_UNIT = f"""[Service]
Type=notify
NotifyAccess=main
Restart=always
RestartSec=100ms
StartLimitIntervalSec=0
ExecStart=/usr/bin/python3 /opt/bare.py {LIBRARIES}
"""


@contextmanager
def booted() -> Iterator[dict[str, Machine]]:
    """Boot each release with the package, by its name; none where that is impossible, which is said."""
    with ExitStack() as stack:
        machines: dict[str, Machine] = {}
        try:
            require_host()
            for release in roots.RELEASES:
                machines[release] = stack.enter_context(booted_with_package(release))
        except TestbedError as error:
            print(f"WITHOUT A REAL SYSTEMD: {error}", file=sys.stderr)
        for machine in machines.values():
            machine.copy_in(BARE, "/opt/bare.py")
            machine.write(f"/run/systemd/system/{FLOOR}", _UNIT)
            machine.systemctl("daemon-reload")
            machine.systemctl("start", FLOOR)
        yield machines


def restart_ms(machine: Machine, name: str = SERVICE) -> float:
    """From SIGKILL of a unit's main process to the next one's READY, the unit's own delay of 100 ms included."""
    unit = machine.unit(name)
    machine.systemctl("reset-failed", name)  # or the start limit would end this
    pid = unit.pid
    unit.kill("KILL")
    unit.wait_for_another(pid)
    return (unit.ready_at_s - unit.died_at_s) * 1000
