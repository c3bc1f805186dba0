"""What a gateway uses does not grow with what it has been through, and idling costs next to nothing."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CAP_S, NotifySocket, Start, clean_environ
from faults.extent import extent

CONNECTS = extent("CONNECTS", 3_000, 100_000)
IDLE_HOURS = extent("IDLE_HOURS", 2, 24)
IDLE_LOOKS = extent("IDLE_LOOKS", 1, 12)

WATCHDOG_S = 30
"""As in our units, which ``test_units_have_the_watchdog_that_is_counted_with`` compares."""
LOOKS_PER_HOUR = 3 * 3600 // WATCHDOG_S
"""Three looks at everything in each watchdog interval."""

Note = Callable[[str, object], None]

pytestmark = pytest.mark.timeout(1200)


def resident_kib(pid: int) -> int:
    return _status(pid, "VmRSS:")


def switches(pid: int) -> int:
    """How often it went to sleep by itself, which is how often it was woken. proc_pid_status(5)."""
    return _status(pid, "voluntary_ctxt_switches:")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise AssertionError(f"no {name} in the status of {pid}")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def visit(port: int, number: int) -> None:
    """Connect in one of five ways, of which three are rude."""
    with socket.create_connection(("127.0.0.1", port), CAP_S) as client:
        match number % 5:
            case 0 | 1:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                while client.recv(4096):
                    pass
            case 2:
                client.sendall(
                    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
                )
                client.recv(4096)
            case 3:
                client.sendall(b"GET /healthz HT")
            case 4:  # with a reset instead of an end
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def settled_descriptors(pid: int, wanted: int) -> int:
    """Wait until no more descriptors are open than before; closing takes the loop a moment."""
    ends_s = time.monotonic() + CAP_S
    while (count := descriptors(pid)) > wanted and time.monotonic() < ends_s:
        time.sleep(0.1)
    return count


def test_connects_leave_memory_and_descriptors_where_they_were(
    start: Start, port: int, record_property: Note
) -> None:
    daemon = start().ready()
    fds = descriptors(daemon.pid)
    for number in range(1_000):
        visit(port, number)
    settled_descriptors(daemon.pid, fds)
    before_kib = resident_kib(daemon.pid)
    for number in range(CONNECTS):
        visit(port, number)
    assert settled_descriptors(daemon.pid, fds) <= fds
    grown_kib = resident_kib(daemon.pid) - before_kib
    record_property(
        "figures", f"{CONNECTS:,} connects, {grown_kib:+} KiB on {before_kib:,}, {fds} descriptors"
    )
    assert grown_kib < 2048


def test_hours_of_idling_leave_memory_and_descriptors_where_they_were(
    start: Start, notify: NotifySocket, record_property: Note
) -> None:
    """What an idle gateway does is its looks: as many as those hours have, a few milliseconds apart."""
    daemon = start(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="9000").ready()
    for _ in range(100):
        notify.wait_for("WATCHDOG=1")
    before_kib, fds = resident_kib(daemon.pid), descriptors(daemon.pid)
    looks = IDLE_HOURS * LOOKS_PER_HOUR
    for _ in range(looks):
        notify.wait_for("WATCHDOG=1")
    assert settled_descriptors(daemon.pid, fds) <= fds
    grown_kib = resident_kib(daemon.pid) - before_kib
    record_property(
        "figures",
        f"{looks:,} looks at the claim, {grown_kib:+} KiB on {before_kib:,}, {fds} descriptors",
    )
    assert grown_kib < 1024


def test_units_have_the_watchdog_that_is_counted_with() -> None:
    units = sorted(Path(__file__).parents[2].joinpath("systemd").rglob("openclaw-gateway*.service"))
    lines = [line for unit in units for line in unit.read_text().splitlines()]
    assert {line for line in lines if line.startswith("WatchdogSec=")} == {
        f"WatchdogSec={WATCHDOG_S}"
    }


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_idle_gateway_is_rarely_woken(
    state_dir: Path, port: int, notify: NotifySocket, record_property: Note
) -> None:
    """
    Counted from one look at the claim to a later one, with the watchdog that our units ask for.

    In a network namespace of its own: whoever looks for gateways on this machine wakes them all.
    """
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    environ = clean_environ(
        OPENCLAW_STATE_DIR=str(state_dir),
        OPENCLAW_GATEWAY_PORT=str(port),
        NOTIFY_SOCKET=notify.path,
        WATCHDOG_USEC=str(WATCHDOG_S * 1_000_000),
    )
    gateway = subprocess.Popen([*alone, sys.executable, "-m", "openclaw_gateway"], env=environ)
    try:
        for _ in range(2):  # a start's last wake-ups are not idling
            notify.wait_for("WATCHDOG=1")
        before = switches(gateway.pid)
        for _ in range(IDLE_LOOKS):
            notify.wait_for("WATCHDOG=1")
        woken = switches(gateway.pid) - before
    finally:
        gateway.kill()
        gateway.wait()
    per_look = woken / IDLE_LOOKS
    record_property("figures", f"{per_look * LOOKS_PER_HOUR / 60:.0f} wake-ups a minute")
    assert per_look <= 10
