"""systemd listens in the gateway's place: nobody is refused, not even during a restart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machine import LIVE, PORT, Machine, Unit


@pytest.fixture
def activated(machine: Machine) -> Iterator[Unit]:
    """The service, stopped, with systemd listening for it."""
    service = machine.unit()
    service.stop()
    machine.systemctl("enable", "--now", "openclaw-gateway.socket")
    yield service
    machine.systemctl("disable", "--now", "openclaw-gateway.socket")
    service.restart()


def test_first_connection_starts_the_service_and_is_served(
    machine: Machine, activated: Unit
) -> None:
    assert activated.show("ActiveState") == "inactive"
    assert machine.get("/healthz") == LIVE
    assert activated.show("ActiveState") == "active"


def test_connections_during_a_restart_wait_and_are_served(
    machine: Machine, activated: Unit
) -> None:
    activated.start()
    ask = f"curl -sS --fail -m 30 http://127.0.0.1:{PORT}/healthz >/dev/null"
    machine.run(
        f"systemctl restart --no-block openclaw-gateway; for n in $(seq 100); do {ask}; done"
    )
    assert activated.show("NRestarts") == "0"


def test_gateway_with_another_port_than_its_socket_is_refused(
    machine: Machine, activated: Unit
) -> None:
    machine.write(activated.config_path, '{"gateway": {"port": 20030}}')
    activated.start(check=False)
    assert activated.show("ExecMainStatus") == "78"
    assert (
        "make gateway.port and ListenStream= agree" in activated.says()
        or "ListenStream" in activated.says()
    )
    machine.write(activated.config_path, "{}")
    machine.systemctl("reset-failed", activated.name)
