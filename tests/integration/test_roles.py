"""What clients and load balancers are told by a gateway's role in a cluster, on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from conftest import CAP_S, TOKEN
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.protocol.role import Role
from openclaw_gateway.server.http import Server
from wire import RefusedUpgrade, admitted, dialled, in_process, run, upgraded

ACTIVE = Role("home", True, "gw-a", "http://gw-a:18789", 42, 1_700_000_000_000, "active (token 42)")
STANDBY = ACTIVE._replace(active=False, reason="gw-a is active (token 42)")
ROUTES = ("/healthz", "/startupz", "/readyz", "/primary", "/replica", "/", "/nothing", "/tokens")
TOKEN_FIELD = "OpenClaw-Fencing-Token"

EXTENSION = """
def extend(registry):
    registry.method("tokens", lambda call: {"token": call.fencing_token}, scope=None)
    registry.route("GET", "/tokens", page, scope=None)
    registry.route("POST", "/tokens", page, scope=None)

def page(request):
    from openclaw_gateway.extension import Response
    return Response.json({"token": request.fencing_token})
"""


@pytest.fixture(autouse=True)
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install an extension that shows what handlers are told."""
    where = tmp_path / "packages"
    info = where / "tokens-1.dist-info"
    info.mkdir(parents=True)
    (where / "tokens_extension.py").write_text(EXTENSION)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tokens\nVersion: 1\n")
    entry = "[openclaw_gateway.extensions]\ntokens = tokens_extension:extend\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(where)


def served(
    port: int,
    state_dir: Path,
    visit: Callable[[Server], Any],
    *,
    role: Role | None,
    phase: Phase = Phase.READY,
) -> Any:
    """Return what a visit to a gateway of this role returns."""

    async def serve() -> Any:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(in_process(port, state_dir, []))
            server.phase = phase
            server.show_role(role)
            return await visit(server)

    return run(serve())


def ask(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> requests.Response:
    url = f"http://127.0.0.1:{port}{path}"
    return requests.request(method, url, headers=headers, timeout=CAP_S)


def statuses(port: int, state_dir: Path, role: Role | None, **options: Any) -> dict[str, int]:
    """Return what each route answers."""

    async def visit(server: Server) -> dict[str, int]:
        return {
            path: (await asyncio.to_thread(ask, port, path)).status_code
            for path in ROUTES
        }  # fmt: skip

    found: dict[str, int] = served(port, state_dir, visit, role=role, **options)
    return found


def test_active_gateway_serves_and_is_the_primary(port: int, state_dir: Path) -> None:
    assert statuses(port, state_dir, ACTIVE) == {
        "/healthz": 200, "/startupz": 200, "/readyz": 200, "/primary": 200, "/replica": 503,
        "/": 426, "/nothing": 404, "/tokens": 200,
    }  # fmt: skip


def test_without_a_cluster_it_is_the_primary_too(port: int, state_dir: Path) -> None:
    """As Patroni's is that has no replica: a balancer's settings need no change with the first one."""
    assert statuses(port, state_dir, None) == statuses(port, state_dir, ACTIVE)


def test_standby_lives_and_serves_nothing(port: int, state_dir: Path) -> None:
    assert statuses(port, state_dir, STANDBY) == {
        "/healthz": 200, "/startupz": 200, "/readyz": 503, "/primary": 503, "/replica": 200,
        "/": 503, "/nothing": 503, "/tokens": 503,
    }  # fmt: skip


def test_standby_shows_its_page_to_browsers(port: int, state_dir: Path) -> None:
    async def visit(_: Server) -> list[int]:
        html = {"Accept": "text/html"}
        return [
            (await asyncio.to_thread(ask, port, path, headers=html)).status_code
            for path in ("/", "/page.js", "/nothing")
        ]

    assert served(port, state_dir, visit, role=STANDBY) == [200, 200, 503]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING])
@pytest.mark.parametrize("role", [ACTIVE, STANDBY])
def test_who_starts_or_stops_is_neither(
    port: int, state_dir: Path, phase: Phase, role: Role
) -> None:
    found = statuses(port, state_dir, role, phase=phase)
    assert (found["/healthz"], found["/primary"], found["/replica"]) == (200, 503, 503)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(("role", "status"), [(ACTIVE, 200), (STANDBY, 503)])
def test_balancer_may_ask_as_it_asks_patroni(
    port: int, state_dir: Path, method: str, role: Role, status: int
) -> None:
    async def visit(server: Server) -> tuple[int, str | None]:
        answer = await asyncio.to_thread(ask, port, "/primary", method)
        return answer.status_code, answer.headers.get(TOKEN_FIELD)

    assert served(port, state_dir, visit, role=role) == (status, "42")


def test_other_methods_are_not_allowed(port: int, state_dir: Path) -> None:
    async def visit(server: Server) -> tuple[int, str | None]:
        answer = await asyncio.to_thread(ask, port, "/primary", "POST")
        return answer.status_code, answer.headers["Allow"]

    assert served(port, state_dir, visit, role=ACTIVE) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("path", ["/readyz", "/primary", "/replica"])
def test_who_may_know_is_told_the_role(port: int, state_dir: Path, path: str) -> None:
    proxied = {"X-Forwarded-For": "192.0.2.1"}

    async def visit(server: Server) -> list[Any]:
        return [
            (await asyncio.to_thread(ask, port, path, "GET", headers)).json()
            for headers in ({}, proxied, proxied | {"Authorization": f"Bearer {TOKEN}"})
        ]

    local, stranger, known = served(port, state_dir, visit, role=STANDBY)
    told = {
        "name": "home", "active": False, "holder": "gw-a", "url": "http://gw-a:18789", "token": 42,
        "sinceMs": 1_700_000_000_000, "reason": "gw-a is active (token 42)",
    }  # fmt: skip
    assert local["cluster"] == known["cluster"] == told
    assert local["failing"] == ["standby"]
    assert stranger == {"ready" if path == "/readyz" else path[1:]: path == "/replica"}


def test_client_of_a_standby_is_told_where_to_go(port: int, state_dir: Path) -> None:
    async def visit(server: Server) -> requests.Response:
        with pytest.raises(RefusedUpgrade) as refused:
            async with upgraded(port):
                pass
        assert refused.value.status == 503
        assert "the active gateway is at http://gw-a:18789" in refused.value.body
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        return await asyncio.to_thread(ask, port, "/", "GET", headers)

    answer = served(port, state_dir, visit, role=STANDBY)
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["OpenClaw-Active-Url"] == "http://gw-a:18789"
    assert answer.headers[TOKEN_FIELD] == "42"


def test_page_of_a_foreign_site_learns_nothing_of_a_standby(port: int, state_dir: Path) -> None:
    async def visit(server: Server) -> requests.Response:
        headers = {"Origin": "https://evil.example"}
        return await asyncio.to_thread(ask, port, "/", "GET", headers)

    answer = served(port, state_dir, visit, role=STANDBY)
    assert answer.status_code == 403
    assert "gw-a" not in answer.text


def test_standby_that_takes_over_lets_clients_in(port: int, state_dir: Path) -> None:
    async def visit(server: Server) -> None:
        with pytest.raises(RefusedUpgrade):
            async with upgraded(port):
                pass
        server.show_role(ACTIVE._replace(holder="gw-b", token=43))
        async with admitted(port) as wire:
            assert (await wire.call("tokens"))["payload"] == {"token": 43}

    served(port, state_dir, visit, role=STANDBY)


@pytest.mark.parametrize("role", [ACTIVE, None])
def test_token_is_told_to_clients_methods_and_routes(
    port: int, state_dir: Path, role: Role | None
) -> None:
    token = role.token if role else None

    async def visit(server: Server) -> None:
        async with admitted(port) as wire:
            assert (await wire.call("tokens"))["payload"] == {"token": token}
            cluster = (await wire.call("status"))["payload"].get("cluster")
            assert (cluster and cluster["token"]) == token
        answer = await asyncio.to_thread(ask, port, "/tokens")
        assert answer.json() == {"token": token}
        for path in ROUTES:
            shown = (await asyncio.to_thread(ask, port, path)).headers.get(TOKEN_FIELD)
            assert shown == (None if token is None else str(token))

    served(port, state_dir, visit, role=role)


def test_past_the_deadline_nothing_is_dispatched_and_health_says_so(
    port: int, state_dir: Path
) -> None:
    async def visit(server: Server) -> None:
        async with admitted(port) as open_before, dialled(port) as greeted_before:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n1")
            await writer.drain()
            async with asyncio.timeout(CAP_S):
                while server.snapshot().requests < 3:  # the two upgrades before it
                    await asyncio.sleep(0)
            server.fence = lambda: True
            writer.write(b"2")
            await open_before.send("tokens")
            assert await open_before.closed() is None
            await greeted_before.send("connect", {}, id="c")
            assert await greeted_before.closed() is None
            assert await reader.read() == b""
            writer.close()
        with pytest.raises(requests.ConnectionError):
            await asyncio.to_thread(ask, port, "/nothing")
        with pytest.raises(RefusedUpgrade) as refused:
            async with upgraded(port):
                pass
        assert refused.value.status == 0
        found = [await asyncio.to_thread(ask, port, path) for path in ROUTES[:5]]
        assert [answer.status_code for answer in found] == [200, 503, 503, 503, 503]

    served(port, state_dir, visit, role=ACTIVE)
