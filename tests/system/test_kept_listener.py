"""systemd keeps the listening sockets while the gateway is away: nobody is refused."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from machine import LIVE, PORT, SERVICE, Machine, Unit

from faults.extent import extent
from official import OfficialClient

Record = Callable[[str, object], None]

RESTARTS = extent("RESTARTS", 6, 20)
CRASHES = extent("CRASHES", 2, 5)

_MUCH_LATER = "[Service]\nRestartSec=1h\nRestartMaxDelaySec=2h\n"
"""A restart that does not come while a test looks; systemd 252 does not know the second line, and says so."""

_LOAD = "/var/tmp/load.py"
_TOLD = "/var/tmp/load.json"


class Load:
    """Clients in a loop, as a service of the machine's own; see ``load.py``."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        machine.copy_in(Path(__file__).with_name("load.py"), _LOAD)
        machine.run(["rm", "-f", _TOLD])
        self._run(
            "systemd-run",
            "--unit=load",
            "--property=Type=notify",
            "python3",
            _LOAD,
            str(PORT),
            _TOLD,
        )

    def _run(self, *words: str) -> None:
        self._machine.run(list(words))

    def finish(self) -> dict[str, float]:
        """End it, and return what it counted."""
        self._machine.systemctl("stop", "load.service")
        told: dict[str, float] = json.loads(self._machine.read(_TOLD))
        return told


@pytest.fixture
def service(machine: Machine) -> Iterator[Unit]:
    """The service as shipped, running; as shipped again afterwards."""
    service = machine.unit()
    service.start()
    yield service
    machine.run(["rm", "-rf", f"/run/systemd/system/{SERVICE}.d"])
    machine.systemctl("daemon-reload")
    machine.write(service.config_path, "{}")
    machine.systemctl("reset-failed", SERVICE, check=False)
    service.restart()


def listening(machine: Machine, port: int = PORT) -> int:
    """Return how many sockets listen on a port."""
    return len(machine.run(f"ss -Hltn sport = :{port}").stdout.splitlines())


def crash(unit: Unit) -> None:
    """Kill the gateway, and wait until it is back."""
    pid = unit.pid
    unit.kill("KILL")
    unit.wait_for_another(pid)
    # Crashes count for the start limit, and this many are not what is tested.
    unit.machine.systemctl("reset-failed", unit.name)


def test_unit_keeps_both_addresses(machine: Machine, service: Unit) -> None:
    assert service.show("FileDescriptorStoreMax") == "8"
    assert service.show("NFileDescriptorStore") == "2"
    service.restart()
    crash(service)
    assert service.show("NFileDescriptorStore") == "2"
    assert listening(machine) == 2


def test_restarts_and_crashes_under_load_refuse_nobody(
    machine: Machine, service: Unit, record_property: Record
) -> None:
    load = Load(machine)
    for _ in range(RESTARTS):
        service.restart()
    for _ in range(CRASHES):
        crash(service)
    told = load.finish()
    assert told["refused"] == 0, told
    assert told["answered"] > RESTARTS
    record_property(
        f"{RESTARTS} restarts and {CRASHES} kill -9 under 8 clients",
        f"{told['refused']:.0f} refused of {told['tried']:.0f}, {told['cut']:.0f} cut in flight, "
        f"slowest answer {told['slowest_s']:.2f} s",
    )


def test_without_the_store_thousands_are_refused(
    machine: Machine, service: Unit, record_property: Record
) -> None:
    """The control: the same load on the same unit, and nothing kept."""
    service.drop_in("[Service]\nFileDescriptorStoreMax=0\n")
    service.restart()
    assert service.show("NFileDescriptorStore") == "0"
    load = Load(machine)
    for _ in range(RESTARTS):
        service.restart()
    for _ in range(CRASHES):
        crash(service)
    told = load.finish()
    assert told["refused"] > 1000, told
    record_property(
        f"the same without the store ({RESTARTS} restarts, {CRASHES} kill -9)",
        f"{told['refused']:.0f} refused of {told['tried']:.0f}, {told['cut']:.0f} cut in flight, "
        f"slowest answer {told['slowest_s']:.2f} s",
    )


def test_port_closes_with_a_stop(machine: Machine, service: Unit) -> None:
    service.stop()
    assert listening(machine) == 0
    assert service.show("NFileDescriptorStore") == "0"


def test_port_closes_with_a_stop_while_a_restart_is_pending(
    machine: Machine, service: Unit
) -> None:
    service.drop_in(_MUCH_LATER)
    service.kill("KILL")
    service.wait_for("SubState", "auto-restart")
    assert listening(machine) == 2
    service.stop()
    assert listening(machine) == 0


def test_port_closes_with_an_end_that_nothing_restarts(machine: Machine, service: Unit) -> None:
    machine.write(service.config_path, '{"gateway": {"bind": "nowhere"}}')
    service.restart(check=False)
    assert service.show("ExecMainStatus") == "78"
    assert listening(machine) == 0


def test_port_closes_when_the_start_limit_is_hit(machine: Machine, service: Unit) -> None:
    service.drop_in("[Unit]\nStartLimitBurst=1\n")
    machine.until(
        f"systemctl kill -s KILL {SERVICE} 2>/dev/null || true; systemctl is-failed -q {SERVICE}"
    )
    assert listening(machine) == 0


@pytest.mark.parametrize(
    ("gateway", "port", "addresses"),
    [
        ({"port": 20050}, 20050, {"127.0.0.1", "[::1]"}),
        ({"bind": "custom", "customBindHost": "127.0.0.2"}, PORT, {"127.0.0.1", "127.0.0.2"}),
    ],
    ids=["port", "address"],
)
def test_changed_settings_take_effect_at_the_next_restart(
    machine: Machine, service: Unit, gateway: dict[str, object], port: int, addresses: set[str]
) -> None:
    machine.write(service.config_path, json.dumps({"gateway": gateway}))
    service.restart()
    found = machine.run(f"ss -Hltn sport = :{port}").stdout
    assert set(re.findall(rf"(\S+):{port}\b", found)) == addresses
    assert machine.get("/healthz", port=port) == LIVE
    if port != PORT:
        assert listening(machine) == 0
    assert service.show("NFileDescriptorStore") == "2"
    machine.write(service.config_path, "{}")
    service.restart()
    assert listening(machine) == 2


def test_listener_survives_systemd_itself_being_executed_anew(
    machine: Machine, service: Unit
) -> None:
    machine.systemctl("daemon-reexec")
    machine.until(f"systemctl is-active -q {SERVICE}")
    load = Load(machine)
    service.restart()
    assert load.finish()["refused"] == 0


def test_profile_keeps_its_own(machine: Machine) -> None:
    profile = machine.profile("kept", port=20060)
    pid = profile.pid
    profile.kill("KILL")
    profile.wait_for_another(pid)
    assert profile.show("NFileDescriptorStore") == "2"
    machine.systemctl("disable", "--now", profile.name)
    assert listening(machine, 20060) == 0


def test_restart_takes_no_longer_than_without_the_store(
    machine: Machine, service: Unit, record_property: Record
) -> None:
    """Figures only: from exec to READY, with and without kept sockets."""

    def startup_ms() -> int:
        service.restart()
        began = int(service.show("ExecMainStartTimestampMonotonic"))
        return (int(service.show("ActiveEnterTimestampMonotonic")) - began) // 1000

    kept = sorted(startup_ms() for _ in range(7))
    service.drop_in("[Service]\nFileDescriptorStoreMax=0\n")
    bare = sorted(startup_ms() for _ in range(7))
    record_property("exec to READY, median of 7, ms", f"{kept[3]} kept, {bare[3]} bound anew")


SHUTDOWN = """
import asyncio, json, sys
import websockets
from systemd.daemon import notify

async def main():
    async with websockets.connect(f"ws://127.0.0.1:{sys.argv[1]}/") as socket:
        assert "connect.challenge" in await socket.recv()
        token = open(sys.argv[2]).read().strip()
        await socket.send(json.dumps({"type": "req", "id": "1", "method": "connect", "params": {
            "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": ["operator.read"],
            "client": {"id": "cli", "version": "1", "platform": "linux", "mode": "cli"},
            "auth": {"token": token}}}))
        assert json.loads(await socket.recv())["ok"]
        notify("READY=1")
        said = {}
        try:
            while True:
                frame = json.loads(await socket.recv())
                if frame.get("event") == "shutdown":
                    said = frame["payload"]
        except websockets.ConnectionClosed as closed:
            print(json.dumps([said, (closed.rcvd.code if closed.rcvd else None)]))

asyncio.run(main())
"""


Goodbye = Callable[..., list[object]]


@pytest.fixture
def goodbye(machine: Machine) -> Goodbye:
    """Return what a client is told when something ends the gateway: the event's payload and the close code."""
    machine.write("/var/tmp/shutdown.py", SHUTDOWN)

    def told(
        end: Callable[[], object],
        *,
        port: int = PORT,
        token: str = "/var/lib/openclaw-gateway/default/gateway.token",
    ) -> list[object]:
        client = ["python3", "/var/tmp/shutdown.py", str(port), token]
        machine.run(["rm", "-f", "/var/tmp/told"])
        machine.run(
            [
                "systemd-run",
                "--unit=told",
                "--property=Type=notify",
                "--property=RemainAfterExit=yes",
                "--property=StandardOutput=file:/var/tmp/told",
                *client,
            ]
        )
        end()
        machine.until("test -s /var/tmp/told")
        machine.systemctl("stop", "told.service", check=False)
        return list(json.loads(machine.read("/var/tmp/told")))

    return told


def told_of_a_restart(goodbye: Callable[[], list[object]]) -> dict[str, object]:
    """Return the payload; a busy machine may take longer to answer than clients should wait: then again."""
    for _ in range(10):
        payload, code = goodbye()
        assert code == 1012
        assert isinstance(payload, dict)
        if payload != {"reason": "gateway stopping"}:
            break
    assert payload["reason"] == "gateway restarting"
    assert isinstance(payload["restartExpectedMs"], int)
    assert 0 < payload["restartExpectedMs"] < 60_000
    return payload


def test_clients_are_told_when_and_only_when_it_is_a_restart(
    machine: Machine,
    service: Unit,
    goodbye: Goodbye,
    record_property: Record,
) -> None:
    def end_by_hand() -> None:
        pid = service.pid
        service.kill("TERM")
        service.wait_for_another(pid)

    payload = told_of_a_restart(lambda: goodbye(service.restart))
    record_property("restartExpectedMs", payload["restartExpectedMs"])
    assert goodbye(end_by_hand) == [{"reason": "gateway stopping"}, 1012]
    assert goodbye(service.stop) == [{"reason": "gateway stopping"}, 1012]
    service.start()


def test_official_client_is_back_at_its_first_retry(machine: Machine, service: Unit) -> None:
    token = machine.read("/var/lib/openclaw-gateway/default/gateway.token").strip()
    with closing(OfficialClient(PORT, before=machine.in_network(), token=token)) as client:

        def goodbye(end: Callable[[], object]) -> list[object]:
            """End the gateway, and return what the client is told."""
            end()
            event = client.wait_for("event", event="shutdown")["event"]
            return [event["payload"], client.wait_for("close")["code"]]

        def restarted() -> list[object]:
            told = goodbye(service.restart)
            since = len(client.seen)
            client.wait_for("hello")
            # A try that failed would have been closed, or refused.
            assert {"close", "refused"}.isdisjoint(each["kind"] for each in client.seen[since:])
            return told

        client.wait_for("hello")
        told_of_a_restart(restarted)
        assert goodbye(service.stop) == [{"reason": "gateway stopping"}, 1012]
        service.start()
        client.wait_for("hello")


def test_user_gateway_keeps_its_own_and_tells_of_its_restart(
    machine: Machine, goodbye: Goodbye
) -> None:
    machine.run(["useradd", "--create-home", "kay"])
    machine.run(["loginctl", "enable-linger", "kay"])
    machine.until("systemctl is-active -q user@$(id -u kay)")
    settings = "/home/kay/.openclaw/openclaw.json"
    machine.write(settings, json.dumps({"gateway": {"port": 20070}}), mode=0o600)
    machine.run(["chown", "-R", "kay:", "/home/kay/.openclaw"])

    def systemctl(*words: str) -> str:
        return machine.run(["systemctl", "--user", "--machine=kay@", *words]).stdout.strip()

    systemctl("start", SERVICE)
    assert systemctl("show", "-P", "NFileDescriptorStore", SERVICE) == "2"
    there = {"port": 20070, "token": "/home/kay/.openclaw/gateway.token"}
    told_of_a_restart(lambda: goodbye(lambda: systemctl("restart", SERVICE), **there))
    assert goodbye(lambda: systemctl("stop", SERVICE), **there) == [
        {"reason": "gateway stopping"},
        1012,
    ]
    assert listening(machine, 20070) == 0


def test_status_says_who_keeps_the_port_while_nobody_runs(machine: Machine, service: Unit) -> None:
    service.drop_in(_MUCH_LATER)
    service.kill("KILL")
    service.wait_for("SubState", "auto-restart")
    began_s = time.monotonic()
    said = machine.run(["openclaw-gateway", "status", "--json"], check=False)
    assert time.monotonic() > began_s
    found = json.loads(said.stdout)
    assert found["state"] == "starting", found
    assert "systemd keeps the port" in found["reason"]
    checks = machine.run(["openclaw-gateway", "doctor", "--json"], check=False).stdout
    assert "another program" not in checks


def test_standby_says_that_systemd_has_the_port_for_a_unit_that_is_away(
    machine: Machine, service: Unit
) -> None:
    service.drop_in(_MUCH_LATER)
    service.kill("KILL")
    service.wait_for("SubState", "auto-restart")
    standby = machine.profile("standing", start=False, port=PORT)
    machine.write("/etc/openclaw-gateway/standing/openclaw-gateway.json", '{"standby": true}')
    machine.systemctl("start", "--no-block", standby.name)
    machine.until(
        f'systemctl show -P StatusText {standby.name} | grep -q "standby behind pid 1 (systemd"'
    )
    assert standby.show("NFileDescriptorStore") == "0"
    machine.systemctl("disable", "--now", standby.name)
