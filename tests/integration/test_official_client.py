"""The official client, driven for real: it connects, calls, hears events, comes back, and knows when it is refused."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import CAP_S, TOKEN, NotifySocket, Resume, Start
from official import OfficialClient, assert_valid
from openclaw_gateway import __version__
from openclaw_gateway.host.ports import listening

Dial = Callable[..., OfficialClient]


@pytest.fixture
def dial(port: int) -> Iterator[Dial]:
    clients: list[OfficialClient] = []

    def begin(**options: Any) -> OfficialClient:
        client = OfficialClient(port, **options)
        clients.append(client)
        return client

    yield begin
    for client in clients:
        client.close()


def configure(state_dir: Path, gateway: str) -> None:
    state_dir.mkdir(exist_ok=True)
    (state_dir / "openclaw.json").write_text(f"{{gateway: {gateway}}}")


def test_client_gets_its_hello_and_calls_every_method(
    start: Start, dial: Dial, state_dir: Path, port: int
) -> None:
    configure(state_dir, '{auth: {token: "hidden"}}')
    daemon = start().ready()
    client = dial(token="hidden")  # the file's counts, whatever the environment has
    hello = client.wait_for("hello")["hello"]
    assert_valid(hello, "HelloOk")
    assert hello["snapshot"]["stateDir"] == str(state_dir)
    assert hello["server"]["version"] == __version__

    health = client.call("health")
    assert health["ok"] is True and health["ts"] > 0 and health["durationMs"] >= 0

    status = client.call("status")
    assert (status["runtimeVersion"], status["pid"]) == (__version__, daemon.pid)
    assert status["uptimeMs"] >= 0 and status["processMemory"]["rssBytes"] > 1 << 20
    assert status["clients"]["connected"] == 1
    assert status["claim"]["stateDir"] == str(state_dir) and status["claim"]["port"] == port

    presence = client.call("system-presence")
    for entry in presence:
        assert_valid(entry, "PresenceEntry")
    assert [entry["mode"] for entry in presence] == ["gateway", "backend"]

    config = client.call("config.get", {})
    assert config["valid"] is True and config["exists"] is True
    assert config["parsed"]["gateway"]["auth"]["token"] == "__OPENCLAW_REDACTED__"
    assert "hidden" not in str(config)

    logs = client.call("logs.tail", {"limit": 1})
    assert_valid(logs, "LogsTailResult")
    assert len(logs["lines"]) == 1 and "ready on" in logs["lines"][0]
    assert client.call("logs.tail", {"cursor": logs["cursor"]})["lines"] == []


def test_errors_reach_the_client_as_it_knows_them(start: Start, dial: Dial) -> None:
    start().ready()
    client = dial(token=TOKEN, scopes=["operator.read"])
    client.wait_for("hello")
    assert client.fail("logs.tail", {"limit": 0})["message"] == (
        "invalid logs.tail params: at /limit: must be >= 1"
    )
    missing = client.fail("no.such.method")
    assert (missing["code"], missing["details"]["code"]) == ("FORBIDDEN", "MISSING_SCOPE")


def test_client_without_scopes_may_ask_for_health_only(start: Start, dial: Dial) -> None:
    start().ready()
    client = dial(token=TOKEN, scopes=[])
    client.wait_for("hello")
    assert client.call("health")["ok"] is True
    assert client.fail("status")["details"]["missingScope"] == "operator.read"


def test_client_hears_of_others_and_of_ticks_without_a_gap(
    start: Start, dial: Dial, state_dir: Path
) -> None:
    configure(state_dir, "{limits: {tickIntervalMs: 1000}}")
    start().ready()
    client = dial(token=TOKEN)
    assert client.wait_for("hello")["hello"]["policy"]["tickIntervalMs"] == 1000
    client.wait_for("event", event="presence")
    other = dial(token=TOKEN, clientName="cli", mode="cli", instanceId="another")
    other.wait_for("hello")
    joined = client.wait_for("event", event="presence")["event"]
    assert "another" in [entry.get("instanceId") for entry in joined["payload"]["presence"]]
    other.close()
    left = client.wait_for("event", event="presence")["event"]
    assert "another" not in [entry.get("instanceId") for entry in left["payload"]["presence"]]
    assert left["stateVersion"]["presence"] > joined["stateVersion"]["presence"]
    # Three intervals: with two of them silent, this client would have hung up.
    for _ in range(3):
        tick = client.wait_for("event", event="tick")["event"]
    seqs = [
        seen["event"]["seq"]
        for seen in client.seen
        if seen["kind"] == "event" and "seq" in seen["event"]
    ]
    assert seqs == list(range(1, tick["seq"] + 1))
    assert not [seen for seen in client.seen if seen["kind"] in ("gap", "close")]


def test_client_survives_a_restart_by_reconnecting(start: Start, dial: Dial) -> None:
    first = start().ready()
    client = dial(token=TOKEN)
    boot_id = client.wait_for("hello")["hello"]["server"]["bootId"]
    first.signal(signal.SIGTERM)
    goodbye = client.wait_for("event", event="shutdown")["event"]
    assert_valid(goodbye["payload"], "ShutdownEvent")
    close = client.wait_for("close")
    assert (close["code"], close["reason"]) == (1012, "service restart")
    assert first.finish() == 0
    start().ready()
    assert client.wait_for("hello")["hello"]["server"]["bootId"] != boot_id
    assert client.call("health")["ok"] is True


def test_client_is_back_at_its_first_try_if_systemd_keeps_the_listener(
    resume: Resume, notify: NotifySocket, dial: Dial, port: int
) -> None:
    first = resume()
    notify.wait_for("READY=1")
    client = dial(token=TOKEN)
    boot_id = client.wait_for("hello")["hello"]["server"]["bootId"]
    assert first.stop() == 0
    client.wait_for("close")
    before = len(client.seen)
    # Its first try is let in by nobody yet, and refused by nobody.
    deadline_s = time.monotonic() + CAP_S
    while not any(found.queued for found in listening(port)):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    resume()
    assert client.wait_for("hello")["hello"]["server"]["bootId"] != boot_id
    assert [seen["kind"] for seen in client.seen[before:]].count("hello") == 1
    assert {"close", "refused"}.isdisjoint(seen["kind"] for seen in client.seen[before:])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"token": "wrong"}, "AUTH_TOKEN_MISMATCH"),
        ({"password": "wrong"}, "AUTH_TOKEN_MISMATCH"),
        ({}, "AUTH_TOKEN_MISSING"),
        ({"token": TOKEN, "minProtocol": 9, "maxProtocol": 9}, "PROTOCOL_MISMATCH"),
    ],
)
def test_refused_client_understands_and_stops_trying(
    start: Start, dial: Dial, options: dict[str, Any], code: str
) -> None:
    start().ready()
    client = dial(**options)
    refused = client.wait_for("refused")
    assert refused["error"]["details"]["code"] == code
    assert client.wait_for("paused")["why"]["detailCode"] == code


def test_client_of_an_origin_that_is_not_allowed_is_told_before_the_upgrade(
    start: Start, dial: Dial, state_dir: Path
) -> None:
    configure(state_dir, '{controlUi: {allowedOrigins: ["https://ui.example"]}}')
    start().ready()
    refused = dial(token=TOKEN, origin="https://evil.example").wait_for("refused")["error"]
    assert refused["details"] == {"reason": "websocket-upgrade-rejected", "httpStatus": 403}
    dial(token=TOKEN, origin="https://ui.example").wait_for("hello")


def test_password_lets_in_from_either_field(start: Start, dial: Dial, state_dir: Path) -> None:
    configure(state_dir, '{auth: {mode: "password", password: "open sesame"}}')
    start(OPENCLAW_GATEWAY_TOKEN="").ready()
    dial(password="open sesame").wait_for("hello")
    dial(token="open sesame").wait_for("hello")
    refused = dial(password="wrong").wait_for("refused")["error"]
    assert refused["details"]["code"] == "AUTH_PASSWORD_MISMATCH"


def test_no_secret_is_asked_for_in_mode_none(start: Start, dial: Dial) -> None:
    start("--auth", "none").ready()
    dial().wait_for("hello")
