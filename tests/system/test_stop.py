"""A stop ends well and soon, whatever the clients do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from machine import Machine

Record = Callable[[str, object], None]

_EACH = 100
_PORT = 20020
_HERE, _AWAY = "10.18.0.1", "10.18.0.2"

# A second network, so that clients can vanish: nothing tells us that they are gone.
_NETWORK = f"""
ip netns add away
ip link add near type veth peer name far netns away
ip address add {_HERE}/24 dev near
ip link set near up
ip -n away address add {_AWAY}/24 dev far
ip -n away link set far up
"""


def _crowd(machine: Machine, name: str, *kinds: str, prefix: tuple[str, ...] = ()) -> None:
    """Connect clients of these kinds; they stay."""
    program = ["python3", "/var/tmp/crowd.py", _HERE, str(_PORT), str(_EACH), *kinds]
    service = ["systemd-run", f"--unit={name}", "--property=Type=notify"]
    machine.run([*service, *prefix, *program])


def test_stop_with_hundreds_of_unwilling_clients(machine: Machine, record_property: Record) -> None:
    machine.run(_NETWORK)
    room = {"maxConnectionsPerAddress": 1000, "maxUnauthenticatedPerAddress": 1000}
    gateway = machine.profile(
        "crowded", port=_PORT, bind="custom", customBindHost=_HERE, limits=room
    )
    machine.copy_in(Path(__file__).with_name("crowd.py"), "/var/tmp/crowd.py")
    _crowd(machine, "here", "idle", "mute", "half")
    _crowd(machine, "gone", "idle", "half", prefix=("ip", "netns", "exec", "away"))
    machine.run("ip -n away link set far down")
    connected = machine.run(f"ss -Htn state established sport = :{_PORT} | wc -l").stdout
    assert int(connected) >= 5 * _EACH
    gateway.stop()
    assert gateway.show("Result") == "success"
    assert gateway.show("ExecMainStatus") == "0"
    assert "timed out" not in gateway.says()
    assert machine.run(f"ss -Hltn sport = :{_PORT}").stdout == ""
    took_us = int(gateway.show("InactiveEnterTimestampMonotonic")) - int(
        gateway.show("ActiveExitTimestampMonotonic")
    )
    assert took_us > 0
    record_property(
        f"stop with {5 * _EACH} idle, mute and half-open clients, seconds", f"{took_us / 1e6:.2f}"
    )
