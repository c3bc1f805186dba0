"""Units of one cluster under systemd, sandbox and all: one is active, and what can't go on is started again to stand by."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from machine import Machine, Unit

_ENDPOINT = "http://127.0.0.1:20490"
_TIMES = {"leaseMs": 5000, "renewDeadlineMs": 3500, "retryMs": 500}
_ETCD = (
    "systemd-run --quiet --unit=etcd --service-type=notify /var/tmp/etcd --data-dir /var/tmp/etcd.data"
    f" --listen-client-urls {_ENDPOINT} --advertise-client-urls {_ENDPOINT}"
    " --listen-peer-urls http://127.0.0.1:20491"
)


@pytest.fixture
def units(machine: Machine) -> tuple[Unit, Unit]:
    """Return two units of one cluster, the first of them active. Each is a host, as it has a state directory."""
    program = shutil.which("etcd")
    if program is None:
        missing = "apt-get install etcd-server (etcd on older releases)"
        assert os.environ.get("ETCD_TESTS") != "required", missing
        pytest.skip(f"TESTS WITH etcd LEFT OUT: {missing}")
    machine.copy_in(Path(program), "/var/tmp/etcd")
    machine.run("chmod +x /var/tmp/etcd")
    machine.run(_ETCD)
    cluster = {"endpoints": [_ENDPOINT], "name": "home", **_TIMES}
    east = machine.profile("east", port=20400, cluster=cluster)
    becomes(east, ", active (token")
    west = machine.profile("west", port=20420, cluster=cluster)
    becomes(west, "standby: .* is active")
    return east, west


def becomes(unit: Unit, status: str) -> None:
    show = f"systemctl show --property=StatusText --value {unit.name}"
    unit.machine.until(f"{show} | grep -q '{status}'")


def test_units_of_a_cluster(machine: Machine, units: tuple[Unit, Unit]) -> None:
    """One machine and one story, as a boot costs more than all of it."""
    east, west = units
    assert west.show("ActiveState") == "active"
    assert json.loads(machine.get("/readyz", port=20400))["ready"] is True
    # 1. The active one is stopped: the kernel's timer works in the sandbox, and ends it. Who is active next is a
    # race of its restart, which finds its own record, with the other's wait for a whole lease.
    east.kill("STOP")
    machine.until(f"systemctl show --property=NRestarts --value {east.name} | grep -qx 1")
    show = "systemctl show --property=StatusText --value"
    machine.until(f"{show} {east.name} {west.name} | grep -c ', active (token' | grep -qx 1")
    said = [e for e in machine.journal(f"--unit={east.name}") if ": active (token" in e["MESSAGE"]]
    assert int(said[0]["OPENCLAW_FENCING_TOKEN"]) > 0
    # 2. etcd goes: nobody is active, both stand by, and neither is parked.
    machine.systemctl("stop", "etcd.service")
    for unit in units:
        becomes(unit, "standby: etcd unreachable")
    # systemd starts at once what may start at once; the service keeps no more than its own restart delay.
    assert west.show("ActiveState") == "active"
    # 3. It is back with its data: one of them is active again.
    machine.run(_ETCD)
    machine.until(f"{show} {east.name} {west.name} | grep -c ', active (token' | grep -qx 1")
    for unit in units:
        unit.stop()
        assert unit.show("Result") == "success"
    machine.systemctl("stop", "etcd.service")
