"""Metrics over the wire: who gets them, under which names, and that Prometheus' own checker has no complaint."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

import promtool
from conftest import CAP_S, TOKEN, Start
from scrape import numbers
from wire import admitted, run

PATHS = ("/metrics", "/api/diagnostics/prometheus")
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def scrape(port: int, path: str = "/metrics", **headers: str) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{port}{path}", headers=BEARER | headers, timeout=CAP_S)


@pytest.mark.parametrize("path", PATHS)
def test_bearer_of_the_secret_gets_metrics_that_promtool_accepts(
    start: Start, port: int, path: str
) -> None:
    start().ready()
    response = scrape(port, path)
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert promtool.run("check", "metrics", stdin=response.text) == ""
    found = numbers(response)
    assert found["openclaw_gateway_ready"] == 1
    # Who scrapes has shown the secret, and takes no place of those who have not.
    assert found["openclaw_gateway_connections_unauthenticated"] == 0
    assert found["process_open_fds"] > 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["127.0.0.1", "gateway.example.org"])
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic YTpi", "Bearer"])
def test_without_the_secret_there_is_nothing_under_any_name(
    start: Start, port: int, path: str, host: str, authorization: str | None
) -> None:
    start().ready()
    headers = {"Host": host} | ({"Authorization": authorization} if authorization else {})
    response = requests.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=CAP_S)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "openclaw_gateway" not in response.text
    expected = 1 if authorization == "Bearer wrong" else 0
    assert numbers(scrape(port))["openclaw_gateway_auth_failures_total"] == expected


def test_scraper_comes_by_host_name_and_a_page_does_not(start: Start, port: int) -> None:
    start().ready()
    assert scrape(port, Host="gateway.example.org:9000").status_code == 200
    assert scrape(port, Origin="http://evil.example").status_code == 403
    # Anything else is still asked for by a name of ours.
    assert scrape(port, "/weather", Host="gateway.example.org").status_code == 403


def test_scraper_shows_a_password_where_that_is_the_secret(start: Start, port: int) -> None:
    start("--auth", "password", OPENCLAW_GATEWAY_TOKEN="", OPENCLAW_GATEWAY_PASSWORD=TOKEN).ready()
    assert scrape(port, Host="gateway.example.org").status_code == 200


def test_without_any_secret_a_name_that_is_not_ours_gets_nothing(start: Start, port: int) -> None:
    """Programs of this machine are let in; a page in its browser may have bound its name to us."""
    start("--auth", "none", OPENCLAW_GATEWAY_TOKEN="").ready()
    url = f"http://127.0.0.1:{port}/metrics"
    assert requests.get(url, timeout=CAP_S).status_code == 200
    rebound = requests.get(url, headers={"Host": "evil.example"}, timeout=CAP_S)
    assert rebound.status_code == 403


@pytest.mark.parametrize("path", PATHS)
def test_other_verbs_are_refused_and_head_has_no_body(start: Start, port: int, path: str) -> None:
    start().ready()
    url = f"http://127.0.0.1:{port}{path}"
    post = requests.post(url, headers=BEARER, data="x", timeout=CAP_S)
    assert (post.status_code, post.headers["Allow"]) == (405, "GET, HEAD")
    head = requests.head(url, headers=BEARER, timeout=CAP_S)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) > 5000


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Forwarded-For": "192.0.2.7", "X-User": "ada"}, 200),
        ({"X-Forwarded-For": "192.0.2.7"}, 401),
        # The proxy's word is no secret of the scraper's: a page could have sent it there.
        ({"X-Forwarded-For": "192.0.2.7", "X-User": "ada", "Host": "evil.example"}, 403),
    ],
    ids=["user", "nobody", "page"],
)
def test_user_of_a_proxy_is_let_in_by_a_name_of_ours(
    start: Start, port: int, state_dir: Path, headers: dict[str, str], status: int
) -> None:
    state_dir.mkdir(mode=0o700)
    trusted = {"userHeader": "X-User", "allowLoopback": True}
    gateway = {
        "trustedProxies": ["127.0.0.1"],
        "auth": {"mode": "trusted-proxy", "trustedProxy": trusted},
    }
    (state_dir / "openclaw.json").write_text(json.dumps({"gateway": gateway}))
    start(OPENCLAW_GATEWAY_TOKEN="").ready()
    url = f"http://127.0.0.1:{port}/metrics"
    assert requests.get(url, headers=headers, timeout=CAP_S).status_code == status


def test_without_the_library_the_answer_says_what_to_install(
    start: Start, port: int, tmp_path: Path
) -> None:
    absent = (
        "raise ModuleNotFoundError('No module named prometheus_client', name='prometheus_client')"
    )
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "prometheus_client.py").write_text(absent)
    start(PYTHONPATH=str(hidden)).ready()
    response = scrape(port)
    assert response.status_code == 501
    assert "apt install python3-prometheus-client" in response.text
    # It is asked for anew each time, so that installing it is enough.
    (hidden / "prometheus_client.py").unlink()
    assert scrape(port).status_code == 200


def test_library_that_fails_otherwise_is_a_fault_and_is_logged(
    start: Start, port: int, tmp_path: Path
) -> None:
    (tmp_path / "prometheus_client.py").write_text("import no_such_module")
    daemon = start(PYTHONPATH=str(tmp_path)).ready()
    assert scrape(port).status_code == 500
    daemon.wait_for("no_such_module")


def test_metrics_say_what_status_says(start: Start, port: int) -> None:
    start().ready()

    async def visit() -> dict[str, Any]:
        async with admitted(port) as wire:
            for _ in range(3):
                await wire.call("health")
            await wire.call("no.such.method")
            answer: dict[str, Any] = (await wire.call("status"))["payload"]
            return answer

    status = run(visit())
    found = numbers(scrape(port))
    prefix = "openclaw_gateway_"
    for name, count in status["rpc"]["requests"].items():
        assert found[f"{prefix}rpc_requests_total{{{name}}}"] == count
    for name, limit in status["limits"].items():
        assert found[f"{prefix}limit_reached_total{{{name}}}"] == limit["reached"]
    # The call of status itself was not over yet.
    assert found[f"{prefix}rpc_outcomes_total{{ok}}"] == status["rpc"]["outcomes"]["ok"] + 1
    assert found[f"{prefix}rpc_handler_seconds_count"] == status["rpc"]["handlers"]["count"] + 1


def test_scraper_is_served_where_a_limit_is_reached(
    start: Start, port: int, state_dir: Path
) -> None:
    state_dir.mkdir()
    (state_dir / "openclaw.json").write_text(
        json.dumps({"gateway": {"limits": {"maxConnections": 1}}})
    )
    start().ready()
    with socket.create_connection(("127.0.0.1", port), timeout=CAP_S) as first:
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        first.recv(65536)  # it is in
        found = numbers(scrape(port))
        assert found["openclaw_gateway_limit_reached_total{maxConnections}"] >= 1
        assert found["openclaw_gateway_connections"] == 1
        assert found["openclaw_gateway_connections_over_limit"] == 1
        url = f"http://127.0.0.1:{port}/weather"
        assert requests.get(url, headers=BEARER, timeout=CAP_S).status_code == 503
