"""The status page over HTTP: who gets it, with what headers, and who does not."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest
import requests

from conftest import CAP_S, TOKEN, Start
from openclaw_gateway.admin.judge.state import EXIT_CODES, State, StatusCode
from openclaw_gateway.server import page
from openclaw_gateway.server.page import PATHS

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
"""What browsers send for a page."""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def get(port: int, path: str = "/", method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(
        method,
        f"http://127.0.0.1:{port}{path}",
        headers={"Accept": CHROMIUM if path.partition("?")[0] == "/" else "*/*", **headers},
        timeout=CAP_S,
        allow_redirects=False,
    )


def test_page_and_its_files_need_no_secret_and_are_bound_to_us(start: Start, port: int) -> None:
    start().ready()
    for path in PATHS:
        answer = get(port, path)
        assert answer.status_code == 200, path
        assert answer.headers["Content-Security-Policy"] == CSP
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        head = get(port, path, "HEAD")
        assert (head.status_code, head.content) == (200, b"")
        different = {"Date", "Content-Length"}
        assert {k: v for k, v in head.headers.items() if k not in different} == {
            k: v for k, v in answer.headers.items() if k not in different
        }
        assert int(head.headers["Content-Length"]) == len(answer.content)


def test_page_holds_no_data_and_asks_nobody_else_for_anything(
    start: Start, port: int, state_dir: Path
) -> None:
    start().ready()
    for path in PATHS:
        text = get(port, path).text
        for secret in (TOKEN, str(state_dir), f":{port}"):
            assert secret not in text, path
        links = re.findall(r"https?://[^\"' >]*", text)
        assert set(links) <= {"http://www.w3.org/2000/svg"}, path  # a name, not an address
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text
    html = get(port).text
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", html)
    files = set(re.findall(r"(?:href|src)=\"([^\"]+)\"", html))
    assert {f"/{name}" for name in files} == PATHS - {"/"}


def test_page_is_for_browsers_and_the_websocket_for_clients(start: Start, port: int) -> None:
    start().ready()
    assert get(port, Accept="*/*").status_code == 426
    assert get(port, Accept="application/json, text/htmlx").status_code == 426
    assert get(port, Upgrade="websocket", Connection="Upgrade").status_code == 426  # no version
    assert get(port, method="POST").status_code == 405
    answer = get(port, "/page.js", "POST")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert get(port, "/?token=abc").status_code == 200
    assert get(port, "/page.html").status_code == 404
    assert get(port, "/assets/page.js").status_code == 404


def test_browser_keeps_the_files_and_asks_whether_they_changed(start: Start, port: int) -> None:
    start().ready()
    for path in PATHS:
        answer = get(port, path)
        assert answer.headers["Cache-Control"] == "no-cache"
        tag = answer.headers["ETag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = get(port, path, **{"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["ETag"] == tag
            assert again.headers["Content-Security-Policy"] == CSP
        assert get(port, path, **{"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"X-Forwarded-For": "192.0.2.1"},
    ],
)
def test_foreign_names_pages_and_proxies_get_nothing(
    start: Start, port: int, headers: dict[str, str]
) -> None:
    start().ready()
    for path in PATHS:
        answer = get(port, path, **headers)
        assert answer.status_code == 403, path
        assert "<" not in answer.text


def test_page_can_be_switched_off_and_on_by_a_reload(
    start: Start, port: int, state_dir: Path
) -> None:
    state_dir.mkdir(mode=0o700)
    settings = state_dir / "openclaw.json"
    settings.write_text("{gateway: {controlUi: {enabled: false}}}")
    daemon = start().ready()
    assert {path: get(port, path).status_code for path in PATHS} == {
        path: 426 if path == "/" else 404 for path in PATHS
    }
    settings.write_text("{}")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("settings reloaded")
    assert {get(port, path).status_code for path in PATHS} == {200}


def test_upgrade_from_the_page_itself_is_let_through(start: Start, port: int) -> None:
    start().ready()
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "192.0.2.7:18789"):
        lines = {**upgrade, "Host": host, "Origin": f"http://{host}"}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with socket.create_connection(("127.0.0.1", port), timeout=CAP_S) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\n{head}\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 101"


def test_colours_are_those_of_the_verb_status() -> None:
    script = (Path(page.__file__).parent / "assets/page.js").read_text()
    (table,) = re.findall(r"const TONES = {(.*?)};", script, re.DOTALL)
    tones = dict(re.findall(r"(\w+): \"(\w+)\"", table))
    expected = {
        StatusCode.HEALTHY: "good",
        StatusCode.STARTING: "warn",
        StatusCode.UNKNOWN: "warn",
        StatusCode.UNWELL: "bad",
        StatusCode.NOT_RUNNING: "bad",
    }
    for state in State:
        assert tones.get(state.value, "bad") == expected[EXIT_CODES[state]], state
