"""An extension from another package: what it adds is served, what it does wrong stays its own."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests

from conftest import CAP_S, TOKEN, Daemon, Start
from openclaw_gateway.server.methods import MAX_CALLS_PER_METHOD
from wire import admitted, run

SOURCE = Path(__file__).parents[1] / "extension"


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the extension as anyone would, but into a folder of its own."""
    target = tmp_path_factory.mktemp("packages")
    build = tmp_path_factory.mktemp("source") / "extension"
    subprocess.run(["cp", "-r", SOURCE, build], check=True)
    if find_spec("pip") is None:
        pytest.skip("needs pip to install a package")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", target, build], check=True, timeout=CAP_S
    )
    return target


@pytest.fixture
def extended(start: Start, packages: Path, state_dir: Path) -> Callable[..., Daemon]:
    def begin(limits: str = "{requestTimeoutMs: 1000}") -> Daemon:
        state_dir.mkdir(exist_ok=True)
        (state_dir / "openclaw.json").write_text(f"{{gateway: {{limits: {limits}}}}}")
        return start(PYTHONPATH=str(packages))

    return begin


def test_extension_is_called_like_any_method(extended: Callable[..., Daemon], port: int) -> None:
    extended().ready()

    async def visit() -> None:
        async with admitted(port, "operator.read") as wire:
            answer = await wire.call("weather.now", {"city": "Oslo"})
            assert answer["payload"]["celsius"] == 3 and answer["payload"]["asked_by"]
            assert (await wire.call("weather.soon"))["payload"] == {"outlook": "fair"}
            unknown = (await wire.call("weather.now", {"city": "Atlantis"}))["error"]
            assert unknown == {"code": "INVALID_REQUEST", "message": "no weather for Atlantis"}
            bad = (await wire.call("weather.now", {"town": "Oslo"}))["error"]["message"]
            assert "must have required property 'city'" in bad
        async with admitted(port, "operator.pairing") as wire:
            refused = await wire.call("weather.now", {"city": "Oslo"})
            assert refused["error"]["details"]["missingScope"] == "operator.read"

    run(visit())


def test_route_wants_a_bearer_token_unless_it_is_open(
    extended: Callable[..., Daemon], port: int
) -> None:
    extended().ready()
    url = f"http://127.0.0.1:{port}"
    assert requests.get(f"{url}/weather", timeout=CAP_S).text == "Oslo\nCairo"
    refused = requests.get(f"{url}/weather/Oslo", timeout=CAP_S)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    wrong = {"Authorization": "Bearer wrong"}
    assert requests.get(f"{url}/weather/Oslo", headers=wrong, timeout=CAP_S).status_code == 401
    right = {"Authorization": f"Bearer {TOKEN}"}
    answer = requests.get(f"{url}/weather/Oslo", headers=right, timeout=CAP_S)
    assert answer.json() == {"celsius": 3}
    rebound = requests.get(f"{url}/weather", headers={"Host": "evil.example"}, timeout=CAP_S)
    assert rebound.status_code == 403


def test_extension_that_fails_to_load_is_named_and_leaves_nothing_behind(
    extended: Callable[..., Daemon], port: int
) -> None:
    daemon = extended().ready()
    log = "\n".join(daemon.log)
    assert "extension broken" in log and "method 'health' is taken" in log
    assert "extension missing" in log and "weather_gateway.nowhere" in log
    assert "extension quitting" in log and "not good enough" in log

    async def visit() -> None:
        async with admitted(port) as wire:
            error = (await wire.call("weather.never"))["error"]
            assert error["message"] == "unknown method: weather.never"

    run(visit())
    # A route that is taken stays whose it is.
    health = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=CAP_S)
    assert health.json() == {"ok": True, "status": "live"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "wrong.raises failed; the log says why"),
        ("exits", "wrong.exits failed; the log says why"),
        ("exits_slowly", "wrong.exits_slowly failed; the log says why"),
        ("hangs", "wrong.hangs did not answer within 1 s"),
        ("hangs_softly", "wrong.hangs_softly did not answer within 1 s"),
        ("blocks", "wrong.blocks did not answer within 1 s"),
        ("hangs_deaf", "wrong.hangs_deaf did not answer within 1 s"),
        ("floods", "the answer of wrong.floods has more than 26214400 bytes"),
        ("babbles", "wrong.babbles failed; the log says why"),
    ],
)
def test_handler_hurts_its_own_call_and_no_other(
    extended: Callable[..., Daemon], port: int, name: str, message: str
) -> None:
    daemon = extended().ready()

    async def visit() -> None:
        async with admitted(port) as wire, admitted(port) as other:
            await wire.send(f"wrong.{name}", id="bad")
            for number in range(20):
                for client in (wire, other):
                    assert (await client.call("health", id=f"{number}"))["ok"]
            error = (await wire.answer("bad"))["error"]
            assert (error["code"], error["message"]) == ("UNAVAILABLE", message)
            assert (await wire.call("weather.soon"))["ok"]

    run(visit())
    assert daemon.stop() == 0


def test_calls_of_one_method_are_bounded(extended: Callable[..., Daemon], port: int) -> None:
    extended().ready()

    async def visit() -> None:
        async with admitted(port) as wire:
            for number in range(MAX_CALLS_PER_METHOD + 1):
                await wire.send("wrong.hangs", id=f"{number}")
            busy = (await wire.answer(f"{MAX_CALLS_PER_METHOD}"))["error"]
            assert "is busy" in busy["message"] and busy["retryable"] is True
            assert (await wire.call("weather.now", {"city": "Oslo"}, id="x"))["ok"]
            late = (await wire.answer("0"))["error"]
            assert "did not answer" in late["message"]
            # Who asked has given up, but the threads are there still.
            assert "is busy" in (await wire.call("wrong.hangs", id="y"))["error"]["message"]

    run(visit())


def test_flood_of_small_things_is_stopped_and_holds_up_nobody(
    extended: Callable[..., Daemon], port: int
) -> None:
    extended("{requestTimeoutMs: 60000, maxPayloadBytes: 4000000}").ready()

    async def visit() -> None:
        async with admitted(port) as wire, admitted(port) as other:
            await wire.send("wrong.floods_finely", id="bad")
            for number in range(20):
                assert (await other.call("health", id=f"{number}"))["ok"]
            error = (await wire.answer("bad"))["error"]
            assert error["message"].endswith("has more than 4000000 bytes")

    run(visit())


def test_call_that_finds_no_thread_is_answered_and_keeps_no_place(
    extended: Callable[..., Daemon], port: int
) -> None:
    daemon = extended().ready()
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    (size_kib,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmSize:")]
    old = resource.prlimit(daemon.pid, resource.RLIMIT_AS)

    async def visit() -> None:
        async with admitted(port) as wire:
            # Room for what we do on the way, and none for a thread's stack of 8 MiB.
            room = (int(size_kib) << 10) + (4 << 20)
            resource.prlimit(daemon.pid, resource.RLIMIT_AS, (room, old[1]))
            for number in range(MAX_CALLS_PER_METHOD + 1):
                error = (await wire.call("weather.soon", id=f"{number}"))["error"]
                assert error["message"] == "weather.soon failed; the log says why"
            resource.prlimit(daemon.pid, resource.RLIMIT_AS, old)
            assert (await wire.call("weather.soon", id="x"))["ok"]

    run(visit())
    assert "new thread" in daemon.wait_for("weather.soon failed")


def test_client_that_leaves_takes_its_calls_along(
    extended: Callable[..., Daemon], port: int
) -> None:
    extended("{requestTimeoutMs: 60000}").ready()

    async def visit() -> None:
        async with admitted(port) as wire, admitted(port) as other:

            async def in_flight() -> int:
                """Without the very call that asks."""
                return (
                    int((await other.call("status"))["payload"]["clients"]["requestsInFlight"]) - 1
                )

            await wire.send("wrong.hangs", id="bad")
            await wire.call("health")  # requests of one client are begun in their order
            assert await in_flight() == 1
            await wire.socket.close()
            # What is told of a leave may come with a join: whoever is left are the gateway and the other.
            while len((await other.event("presence"))["payload"]["presence"]) > 2:
                pass
            assert await in_flight() == 0

    run(visit())


def test_route_hurts_its_own_request_and_no_other(
    extended: Callable[..., Daemon], port: int
) -> None:
    daemon = extended().ready()
    url = f"http://127.0.0.1:{port}"
    failed = requests.get(f"{url}/wrong/raises", timeout=CAP_S)
    assert failed.status_code == 500 and "4711" not in failed.text
    assert "4711" in daemon.wait_for("route")
    assert requests.get(f"{url}/wrong/hangs", timeout=CAP_S).status_code == 503
    assert requests.get(f"{url}/weather", timeout=CAP_S).status_code == 200


@pytest.mark.parametrize("route", ["exits", "nothing"])
def test_route_that_exits_or_returns_nothing_is_one_that_fails(
    extended: Callable[..., Daemon], port: int, route: str
) -> None:
    daemon = extended().ready()
    url = f"http://127.0.0.1:{port}"
    failed = requests.get(f"{url}/wrong/{route}", timeout=CAP_S)
    assert (failed.status_code, failed.text) == (500, "failed; the log says why\n")
    assert f"/wrong/{route}" in daemon.wait_for("failed")
    assert requests.get(f"{url}/weather", timeout=CAP_S).status_code == 200
    assert daemon.stop() == 0
