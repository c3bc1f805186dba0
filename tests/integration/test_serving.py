"""What clients see: health routes, the greeting, the goodbye."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from conftest import CAP_S, TOKEN, Start, clean_environ
from wire import upgraded

HEALTH = ["/healthz", "/health"]
ROUTES = [*HEALTH, "/startupz", "/startup", "/readyz", "/ready"]


@pytest.mark.parametrize("route", HEALTH)
def test_health_is_exact(start: Start, port: int, route: str) -> None:
    start().ready()
    answer = requests.get(f"http://127.0.0.1:{port}{route}", timeout=CAP_S)
    assert (answer.status_code, answer.content) == (200, b'{"ok":true,"status":"live"}')
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "no-store"


def test_every_route_answers_get_and_head_with_the_security_headers(
    start: Start, port: int
) -> None:
    start().ready()
    for route in ROUTES:
        for method in ("GET", "HEAD"):
            answer = requests.request(method, f"http://127.0.0.1:{port}{route}", timeout=CAP_S)
            assert answer.status_code == 200, route
            assert bool(answer.content) == (method == "GET")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("method", "route", "status"),
    [("POST", "/healthz", 405), ("GET", "/nothing", 404), ("GET", "/", 426)],
)
def test_wrong_requests_are_told_so(
    start: Start, port: int, method: str, route: str, status: int
) -> None:
    start().ready()
    answer = requests.request(method, f"http://127.0.0.1:{port}{route}", timeout=CAP_S)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_is_no_http_is_told_so_with_the_security_headers(start: Start, port: int) -> None:
    start().ready()
    with socket.create_connection(("127.0.0.1", port), timeout=CAP_S) as connection:
        connection.sendall(b"GET / HTTP/9.9.9\r\n\r\n")
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.split()[1] == b"400"
    assert b"X-Content-Type-Options: nosniff\r\n" in received
    assert b"Referrer-Policy: no-referrer\r\n" in received


@pytest.mark.parametrize(
    ("authorization", "told"),
    [
        ({"Authorization": f"Bearer {TOKEN}"}, True),
        ({"Authorization": "Bearer no"}, False),
        ({}, False),
    ],
)
def test_readiness_tells_a_stranger_the_details_for_the_secret_only(
    start: Start, port: int, authorization: dict[str, str], *, told: bool
) -> None:
    start().ready()
    headers = {"X-Forwarded-For": "192.0.2.1", **authorization}
    answer = requests.get(f"http://127.0.0.1:{port}/readyz", headers=headers, timeout=CAP_S)
    assert answer.status_code == 200
    assert answer.json().keys() == ({"ready", "failing", "uptimeMs"} if told else {"ready"})


def test_readiness_tells_a_local_caller_the_details(start: Start, port: int) -> None:
    start().ready()
    body = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=CAP_S).json()
    assert body["ready"] is True and body["failing"] == [] and body["uptimeMs"] >= 0
    body = requests.get(f"http://127.0.0.1:{port}/startupz", timeout=CAP_S).json()
    assert body == {"ok": True, "status": "started"}


def test_websocket_is_challenged_at_once_and_told_of_the_restart(start: Start, port: int) -> None:
    daemon = start().ready()

    async def visit() -> int | None:
        async with upgraded(port) as client:
            challenge = json.loads(await client.receive() or b"")
            assert challenge["event"] == "connect.challenge"
            assert challenge["payload"]["nonce"] and challenge["payload"]["ts"] > 0
            daemon.signal(signal.SIGTERM)
            while await client.receive() is not None:
                pass
            return client.close_code

    assert asyncio.run(visit()) == 1012
    assert daemon.finish() == 0


def test_mute_clients_do_not_hold_up_the_stop(start: Start, port: int) -> None:
    daemon = start().ready()
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    try:
        for number, client in enumerate(clients):
            if number % 3:
                client.sendall(upgrade[: 40 if number % 3 == 1 else None])
        for client in clients[2::3]:
            assert client.recv(12) == b"HTTP/1.1 101"
        assert daemon.stop() == 0
    finally:
        for client in clients:
            client.close()


def test_second_signal_ends_the_drain(start: Start, port: int) -> None:
    daemon = start().ready()
    with socket.create_connection(("127.0.0.1", port)):
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("stopping on SIGTERM")
        daemon.signal(signal.SIGINT)
        assert daemon.finish() == 0


def test_log_whose_reader_is_gone_does_not_keep_us_from_stopping(
    state_dir: Path, port: int
) -> None:
    daemon = subprocess.Popen(
        [sys.executable, "-m", "openclaw_gateway", "--port", str(port)],
        env=clean_environ(
            OPENCLAW_STATE_DIR=str(state_dir), PYTHONUNBUFFERED="", OPENCLAW_GATEWAY_TOKEN=TOKEN
        ),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert daemon.stderr
    try:
        assert "ready on" in daemon.stderr.readline()
        daemon.stderr.close()
        daemon.terminate()
        assert daemon.wait(CAP_S) == 0
    finally:
        daemon.kill()


def socket_of(pid: int, port: int, *, listens: bool) -> socket.socket:
    """Return a process's listener, or a connection that came to it, taken through pidfd_getfd(2)."""
    pidfd = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                continue
            number = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, int(name), 0)
            if number < 0 and ctypes.get_errno() == errno.EPERM:
                pytest.skip(
                    "needs the right to take another process's descriptors, as for ptrace(2)"
                )
            assert number >= 0, os.strerror(ctypes.get_errno())
            taken = socket.socket(fileno=number)
            found = taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == listens
            if taken.family == socket.AF_INET and found and taken.getsockname()[1] == port:
                return taken
            taken.close()
    finally:
        os.close(pidfd)
    raise AssertionError(f"process {pid} has no such socket on {port}")


def test_small_answers_are_not_held_back_for_the_one_before(start: Start, port: int) -> None:
    daemon = start().ready()
    with requests.Session() as session:
        session.get(f"http://127.0.0.1:{port}/healthz", timeout=CAP_S)
        with socket_of(daemon.pid, port, listens=False) as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_listener_that_was_shut_down_ends_the_gateway_with_one_line(
    start: Start, port: int
) -> None:
    daemon = start().ready()
    with socket_of(daemon.pid, port, listens=True) as listener:
        listener.shutdown(socket.SHUT_RDWR)
    assert daemon.finish() == 1
    said = [line for line in daemon.log if "takes no connections any more" in line]
    assert len(said) == 1 and "Invalid argument" in said[0]
    assert not [line for line in daemon.log if "Traceback" in line]
    start().ready()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_port_is_free_after_the_stop(start: Start, port: int, number: signal.Signals) -> None:
    daemon = start().ready()
    daemon.signal(number)
    assert daemon.finish() == 0
    with socket.create_server(("127.0.0.1", port)) as successor:
        assert successor.getsockname()[1] == port
