"""Behind a reverse proxy: each client counts as itself, and nobody but a trusted proxy may speak for others."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from conftest import CAP_S, TOKEN, Daemon, Start
from wire import RefusedUpgrade, admitted, dialled, run

ONE, OTHER = "192.0.2.1", "198.51.100.1"


@pytest.fixture
def behind(start: Start, state_dir: Path) -> Callable[..., Daemon]:
    def begin(**gateway: Any) -> Daemon:
        state_dir.mkdir(exist_ok=True)
        config = {"gateway": {"trustedProxies": ["127.0.0.1", "::1"], **gateway}}
        (state_dir / "openclaw.json").write_text(json.dumps(config))
        return start().ready()

    return begin


def client(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}


def test_guesses_of_one_client_lock_out_no_other_and_the_log_names_it(
    behind: Callable[..., Daemon], port: int
) -> None:
    daemon = behind(auth={"rateLimit": {"maxAttempts": 1}})

    async def code(address: str, token: str) -> str:
        async with dialled(port, headers=client(address)) as wire:
            answer = await wire.connect(token=token)
            return "" if answer["ok"] else answer["error"]["details"]["code"]

    assert run(code(ONE, "wrong")) == "AUTH_TOKEN_MISMATCH"
    assert run(code(ONE, TOKEN)) == "AUTH_RATE_LIMITED"
    assert run(code(OTHER, TOKEN)) == ""
    assert f"wrong token from {ONE}" in daemon.wait_for("wrong token")


def test_places_are_counted_by_the_client_and_not_by_the_proxy(
    behind: Callable[..., Daemon], port: int
) -> None:
    behind(limits={"maxConnectionsPerAddress": 2})

    async def visit() -> None:
        async with AsyncExitStack() as stack:
            for address in (ONE, OTHER) * 2:
                await stack.enter_async_context(admitted(port, headers=client(address)))
            for address in (ONE, OTHER):
                with pytest.raises(RefusedUpgrade, match="max_connections_per_address"):
                    await stack.enter_async_context(dialled(port, headers=client(address)))
            wire = await stack.enter_async_context(admitted(port, headers=client("203.0.113.1")))
            status = (await wire.call("status"))["payload"]
            assert status["clients"]["connected"] == 5
            assert status["limits"]["maxConnectionsPerAddress"]["reached"] == 2
        # All of them have left the books.
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(admitted(port, headers=client(ONE)))

    run(visit())


def test_one_connection_of_a_proxy_serves_many_clients(
    behind: Callable[..., Daemon], port: int
) -> None:
    behind(limits={"maxConnectionsPerAddress": 1})
    with requests.Session() as session:
        for number in range(5):
            answer = session.get(
                f"http://127.0.0.1:{port}/nothing",
                headers=client(f"192.0.2.{number}"),
                timeout=CAP_S,
            )
            assert answer.status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-For": "unknown"},
        {"X-Forwarded-Proto": "https"},
        {"Forwarded": f"for={ONE}"},
        {"X-Real-IP": ONE},
    ],
)
def test_proxy_that_names_no_client_is_refused(
    behind: Callable[..., Daemon], port: int, headers: dict[str, str]
) -> None:
    behind()

    async def visit() -> None:
        with pytest.raises(RefusedUpgrade, match="the proxy names no client"):
            async with dialled(port, headers=headers):
                pass

    run(visit())
    for route, status in (("/healthz", 200), ("/nothing", 403)):
        url = f"http://127.0.0.1:{port}{route}"
        assert requests.get(url, headers=headers, timeout=CAP_S).status_code == status


def test_real_ip_counts_where_it_is_wanted(behind: Callable[..., Daemon], port: int) -> None:
    daemon = behind(allowRealIpFallback=True)

    async def visit() -> None:
        async with dialled(port, headers={"X-Real-IP": ONE}) as wire:
            assert not (await wire.connect(token="wrong"))["ok"]

    run(visit())
    assert f"wrong token from {ONE}" in daemon.wait_for("wrong token")


def test_anybody_else_who_looks_forwarded_is_refused_even_with_the_secret(
    start: Start, port: int
) -> None:
    start().ready()
    headers = {**client(ONE), "Authorization": f"Bearer {TOKEN}"}

    async def visit() -> None:
        with pytest.raises(RefusedUpgrade, match=r"gateway\.trustedProxies") as refused:
            async with dialled(port, headers=headers):
                pass
        assert refused.value.status == 403

    run(visit())
    for route, status in (("/healthz", 200), ("/nothing", 403)):
        url = f"http://127.0.0.1:{port}{route}"
        assert requests.get(url, headers=headers, timeout=CAP_S).status_code == status


def test_program_of_this_machine_is_local_beside_a_proxy_of_this_machine(
    behind: Callable[..., Daemon], port: int
) -> None:
    behind()
    url = f"http://127.0.0.1:{port}/readyz"
    assert requests.get(url, timeout=CAP_S).json().keys() == {"ready", "failing", "uptimeMs"}
    forwarded = requests.get(url, headers=client(ONE), timeout=CAP_S)
    assert forwarded.json() == {"ready": True}
