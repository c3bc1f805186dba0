"""The wire, byte by byte: what each bad beginning gets, who is let in, what a reload changes."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from conftest import CAP_S, Start
from openclaw_gateway.claim.record import Phase
from wire import admitted, dialled, in_process, run


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("not JSON", 1008),
        ("[]", 1008),
        ('{"type":"req","id":"1","method":"health"}', 1008),
        ('{"type":"req","id":"1","method":"connect"}', 1008),
        ("x" * 65_537, 1009),
        ("x" * 1_000_000, 1009),
        (b"binary", 1003),
    ],
    # pytest hands the test's name to child processes: it must not be a megabyte long.
    ids="no-json no-object not-connect no-params long very-long binary".split(),
)
def test_bad_beginning_is_closed_with_its_code(
    start: Start, port: int, frame: str | bytes, code: int
) -> None:
    start().ready()

    async def visit() -> int | None:
        async with dialled(port) as wire:
            if isinstance(frame, bytes):
                await wire.socket.send_bytes(frame)
            else:
                await wire.socket.send_str(frame)
            return await wire.closed()

    assert run(visit()) == code


@pytest.mark.parametrize(("size", "code"), [(4095, None), (4097, 1009), (100_000, 1009)])
def test_frame_after_the_hello_is_bounded_by_max_payload(
    start: Start, port: int, state_dir: Path, size: int, code: int | None
) -> None:
    state_dir.mkdir()
    (state_dir / "openclaw.json").write_text("{gateway: {limits: {maxPayloadBytes: 4096}}}")
    start().ready()

    async def visit() -> int | None:
        async with admitted(port) as wire:
            await wire.socket.send_str("x" * size)
            if code is None:
                return (await wire.answer("invalid"))["ok"]
            assert await wire.closed() == code
        async with admitted(port) as wire:
            status = (await wire.call("status"))["payload"]
            assert status["limits"]["maxPayloadBytes"] == {"limit": 4096, "reached": 1}
        return None

    assert not run(visit())


def test_junk_after_the_hello_is_answered_and_the_session_goes_on(start: Start, port: int) -> None:
    start().ready()

    async def visit() -> None:
        async with admitted(port) as wire:
            for junk in ("{", "[]", "1", '{"type":"event","event":"x"}', "\x00"):
                await wire.socket.send_str(junk)
                assert (await wire.answer("invalid"))["error"]["code"] == "INVALID_REQUEST"
            assert (await wire.call("health"))["ok"] is True

    run(visit())


def test_refusal_is_answered_and_closed_by_the_gateway_itself(start: Start, port: int) -> None:
    start().ready()

    async def visit() -> None:
        async with dialled(port) as wire:
            refused = await wire.connect(token="wrong")
            assert refused["error"]["details"]["code"] == "AUTH_TOKEN_MISMATCH"
            assert refused["error"]["details"]["recommendedNextStep"] == "update_auth_credentials"
            assert await wire.closed() == 1008

    run(visit())


def test_only_administrators_see_where_things_are(start: Start, port: int) -> None:
    start().ready()

    async def visit() -> None:
        async with dialled(port) as wire:
            snapshot = (await wire.connect("operator.read"))["payload"]["snapshot"]
            assert not {"configPath", "stateDir", "authMode"} & snapshot.keys()
        async with dialled(port) as wire:
            snapshot = (await wire.connect("operator.admin"))["payload"]["snapshot"]
            assert snapshot["authMode"] == "token"

    run(visit())


def test_wrong_secrets_meet_a_growing_delay_and_one_line_in_the_log(
    start: Start, port: int
) -> None:
    daemon = start().ready()

    async def guess() -> float:
        async with dialled(port) as wire:
            began_s = asyncio.get_running_loop().time()
            assert not (await wire.connect(token="wrong"))["ok"]
            return asyncio.get_running_loop().time() - began_s

    async def visit() -> None:
        delays = [await guess() for _ in range(4)]
        assert delays[0] >= 0.25 and delays[3] >= 2
        # The delay is the guesser's, not everybody's at this address.
        async with dialled(port) as wire:
            assert (await wire.connect())["ok"]

    run(visit())
    assert "wrong token from 127.0.0.1, 4 times" in daemon.wait_for("wrong token")
    daemon.stop()
    assert sum("wrong token" in line for line in daemon.log) == 1


def test_lock_out_is_logged_too(start: Start, port: int, state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "openclaw.json").write_text(
        '{gateway: {trustedProxies: ["127.0.0.1"], auth: {rateLimit: {maxAttempts: 1}}}}'
    )
    daemon = start().ready()

    async def guess() -> str:
        async with dialled(port, headers={"X-Forwarded-For": "192.0.2.1"}) as wire:
            return (await wire.connect(token="wrong"))["error"]["details"]["code"]

    assert run(guess()) == "AUTH_TOKEN_MISMATCH"
    daemon.wait_for("wrong token")
    assert run(guess()) == "AUTH_RATE_LIMITED"
    daemon.wait_for("wrong token")


def test_late_refusal_gets_through_whatever_the_handshake_timeout(
    start: Start, port: int, state_dir: Path
) -> None:
    state_dir.mkdir()
    (state_dir / "openclaw.json").write_text("{gateway: {limits: {handshakeTimeoutMs: 500}}}")
    start().ready()

    async def guess() -> str:
        async with dialled(port) as wire:
            return (await wire.connect(token="wrong"))["error"]["details"]["code"]

    for _ in range(4):
        assert run(guess()) == "AUTH_TOKEN_MISMATCH"


@pytest.mark.parametrize("method", ["health", "status", "system-presence"])
def test_params_are_looked_at_even_where_they_change_nothing(
    start: Start, port: int, method: str
) -> None:
    start().ready()

    async def visit() -> None:
        async with admitted(port) as wire:
            for number, params in enumerate(([], "x", {"nonsense": 1})):
                error = (await wire.call(method, params, id=f"{number}"))["error"]
                assert error["message"].startswith(f"invalid {method} params: ")
            known = {"health": {"probe": True}, "status": {"includeChannelSummary": False}}
            assert (await wire.call(method, known.get(method, {}), id="x"))["ok"]

    run(visit())


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "rebound.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost"}, 101),
        ({"Host": "LOCALHOST.:123"}, 101),
        ({"Host": "192.0.2.7:18789"}, 101),
        ({"Host": "[2001:db8::1]:18789"}, 101),
        ({"Host": "gateway.example"}, 101),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://UI.example"}, 101),
        ({}, 101),
    ],
)
def test_upgrade_depends_on_host_and_origin(
    start: Start, port: int, state_dir: Path, headers: dict[str, str], status: int
) -> None:
    state_dir.mkdir()
    (state_dir / "openclaw.json").write_text(
        '{gateway: {allowedHosts: ["Gateway.example"], '
        'controlUi: {allowedOrigins: ["https://ui.example"]}}}'
    )
    start().ready()
    url = f"http://127.0.0.1:{port}"
    answer = requests.get(url, headers={**UPGRADE, **headers}, timeout=CAP_S, stream=True)
    assert answer.status_code == status
    answer.close()
    # A name that is rebound to us still gets no more than this.
    health = requests.get(f"{url}/healthz", headers=headers, timeout=CAP_S)
    assert (health.status_code, health.json()) == (200, {"ok": True, "status": "live"})


def test_client_behind_a_proxy_is_no_local_one(start: Start, port: int, state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "openclaw.json").write_text('{gateway: {trustedProxies: ["127.0.0.0/8"]}}')
    start("--auth", "none").ready()

    async def visit() -> None:
        async with dialled(port) as wire:
            assert (await wire.connect(token=None))["ok"]
        async with dialled(port, headers={"X-Forwarded-For": "192.0.2.1"}) as wire:
            assert not (await wire.connect(token=None))["ok"]

    run(visit())
    forwarded = {"X-Forwarded-For": "192.0.2.1"}
    ready = requests.get(f"http://127.0.0.1:{port}/readyz", headers=forwarded, timeout=CAP_S)
    assert ready.json() == {"ready": True}


def test_token_is_made_once_kept_private_and_never_logged(
    start: Start, port: int, state_dir: Path
) -> None:
    daemon = start(OPENCLAW_GATEWAY_TOKEN="").ready()
    path = state_dir / "gateway.token"
    token = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(token) >= 43
    assert [entry for entry in os.listdir(state_dir) if "token" in entry] == ["gateway.token"]

    async def visit() -> bool:
        async with dialled(port) as wire:
            return (await wire.connect(token=token))["ok"]

    assert run(visit())
    daemon.stop()
    assert str(path) in daemon.log[0] and token not in "".join(daemon.log)
    again = start(OPENCLAW_GATEWAY_TOKEN="").ready()
    assert path.read_text().strip() == token and run(visit())
    again.stop()
    assert not any("made one" in line for line in again.log)


def test_token_file_left_half_made_by_a_crash_is_replaced(start: Start, state_dir: Path) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "gateway.token.new").write_text("half")
    start(OPENCLAW_GATEWAY_TOKEN="").ready()
    assert len((state_dir / "gateway.token").read_text().strip()) >= 43
    assert not (state_dir / "gateway.token.new").exists()


def test_token_file_that_others_may_read_is_refused_by_name(start: Start, state_dir: Path) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "gateway.token").write_text("secret\n")
    (state_dir / "gateway.token").chmod(0o644)
    daemon = start(OPENCLAW_GATEWAY_TOKEN="")
    assert daemon.finish() == 78
    assert "is open to others (mode 0644)" in "\n".join(daemon.log)
    assert stat.S_IMODE((state_dir / "gateway.token").stat().st_mode) == 0o644


def test_reload_changes_secrets_and_limits_and_sessions_go_on(
    start: Start, port: int, state_dir: Path
) -> None:
    state_dir.mkdir()
    config = state_dir / "openclaw.json"
    config.write_text('{gateway: {auth: {token: "old"}}}')
    daemon = start(OPENCLAW_GATEWAY_TOKEN="").ready()

    async def visit() -> None:
        async with dialled(port) as wire:
            assert (await wire.connect("operator.read", token="old"))["ok"]
            config.write_text('{gateway: {auth: {token: "new"}, limits: {maxInFlight: 7}}}')
            daemon.signal(signal.SIGHUP)
            await asyncio.to_thread(daemon.wait_for, "settings reloaded")
            assert (await wire.call("health"))["ok"]
            limits = (await wire.call("status"))["payload"]["limits"]
            assert limits["maxInFlight"]["limit"] == 7
        async with dialled(port) as wire:
            assert not (await wire.connect(token="old"))["ok"]
        async with dialled(port) as wire:
            assert (await wire.connect(token="new"))["ok"]

    run(visit())


def test_status_counts_every_request_once_and_every_outcome(start: Start, port: int) -> None:
    daemon = start().ready()

    async def visit() -> None:
        async with dialled(port) as wire:
            assert not (await wire.connect(token="wrong"))["ok"]
        async with admitted(port) as wire:
            before = (await wire.call("status"))["payload"]
            assert (await wire.call("health"))["ok"]
            assert (await wire.call("config.get"))["ok"]
            for method in ("no.such.method", "x" * 5000):
                assert not (await wire.call(method))["ok"]
            assert not (await wire.call("health", {"probe": "yes"}))["ok"]
            after = (await wire.call("status"))["payload"]
        asked = {
            name: n - before["rpc"]["requests"][name]
            for name, n in after["rpc"]["requests"].items()
        }
        came = {
            name: n - before["rpc"]["outcomes"][name]
            for name, n in after["rpc"]["outcomes"].items()
        }
        # The call that is answered is counted as asked for, and its outcome is not known yet.
        assert {name: n for name, n in asked.items() if n} == {
            "status": 1, "health": 2, "config.get": 1, "other": 2,
        }  # fmt: skip
        assert {name: n for name, n in came.items() if n} == {"ok": 3, "invalid_request": 3}
        assert sum(asked.values()) == sum(came.values())
        assert after["auth"] == {"mode": "token", "failures": 1}
        assert after["claim"]["ownerId"] and after["pid"] == daemon.pid
        assert [os.path.exists(path) for path in after["claim"]["lockPaths"]] == [True, True]
        assert (after["state"], after["phase"], after["ready"]) == ("unmanaged", "ready", True)

    run(visit())


def test_call_of_a_client_that_has_left_has_its_outcome_too(start: Start, port: int) -> None:
    """``logs.tail`` runs in a thread: its client may have gone before it is done."""
    start().ready()

    async def visit() -> None:
        async with admitted(port) as wire:
            for _ in range(50):
                await wire.send("logs.tail", {})
            wire.socket.writer.transport.abort()
        async with admitted(port) as wire:
            while True:
                rpc = (await wire.call("status"))["payload"]["rpc"]
                settled = sum(rpc["outcomes"].values())
                if settled == sum(rpc["requests"].values()) - 1:
                    return

    run(visit())


def test_health_event_comes_when_something_begins_to_fail(port: int, state_dir: Path) -> None:
    failing: list[str] = []

    async def visit() -> None:
        async with in_process(port, state_dir, failing) as server:
            server.phase = Phase.READY
            async with admitted(port) as wire:
                assert (await wire.call("health"))["payload"]["ok"] is True
                failing.append("state-directory")
                event = await wire.event("health")
                assert "ok" not in event["payload"]
                answer = (await wire.call("health"))["payload"]
                assert (answer["ok"], answer["failing"]) == (False, ["state-directory"])
                assert event["stateVersion"]["health"] > 1

    run(visit())


def test_client_that_was_let_in_just_before_a_stop_is_answered(port: int, state_dir: Path) -> None:
    """Its request is on its way; one that is not will be hung up on after a moment."""

    async def visit() -> None:
        async with in_process(port, state_dir, []) as server:
            server.phase = Phase.READY
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            silent, _ = await asyncio.open_connection("127.0.0.1", port)
            while server.snapshot().connections < 2:
                await asyncio.sleep(0)
            stopping = asyncio.create_task(server.stop(hurry=asyncio.Event()))
            for _ in range(100):  # turns of the loop, for all that a stop does before it waits
                await asyncio.sleep(0)
            assert server.draining
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ") and b"onnection: close" in answer
            writer.close()
            await stopping
            with suppress(ConnectionResetError):
                assert await silent.read() == b""

    run(visit())


@pytest.mark.parametrize(
    ("back_in_s", "payload"),
    [
        (None, {"reason": "gateway stopping"}),
        (0.2594, {"reason": "gateway restarting", "restartExpectedMs": 259}),
    ],
)
def test_clients_are_told_when_we_are_back_if_it_is_a_restart(
    port: int, state_dir: Path, back_in_s: float | None, payload: dict[str, object]
) -> None:
    async def visit() -> None:
        async with in_process(port, state_dir, []) as server:
            server.phase = Phase.READY
            async with admitted(port) as wire:
                stopping = asyncio.create_task(
                    server.stop(hurry=asyncio.Event(), back_in_s=back_in_s)
                )
                assert (await wire.event("shutdown"))["payload"] == payload
                assert await wire.closed() == 1012
                await stopping

    run(visit())


@pytest.mark.parametrize(
    ("phase", "reason"),
    [(Phase.STARTING, "startup-sidecars"), (Phase.DRAINING, "gateway-restarting")],
)
def test_gateway_that_is_not_ready_tells_clients_to_come_back(
    port: int, state_dir: Path, phase: Phase, reason: str
) -> None:
    async def visit() -> None:
        async with in_process(port, state_dir, []) as server:
            server.phase = phase
            async with dialled(port) as wire:
                error = (await wire.connect())["error"]
                assert (error["code"], error["retryable"]) == ("UNAVAILABLE", True)
                assert error["details"]["reason"] == reason
                assert await wire.closed() == 1013

    run(visit())
