"""What a probe makes of everything that may answer on a port, over real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from conftest import CAP_S
from openclaw_gateway.admin.look.health import check
from openclaw_gateway.claim import baseport
from openclaw_gateway.claim.baseport import BasePortLock
from openclaw_gateway.claim.lockfile import Contended
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import probe

LIVE = b'{"ok":true,"status":"live"}'

Serve = Callable[[Callable[[socket.socket], None]], int]


Ask = Callable[..., Health]


@pytest.fixture(params=["claim", "admin"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Both ways to ask for health: the claim's, and the lighter one of the administrator's commands."""

    def lightly(host: str, port: int, **options: float) -> Health:
        return check(host, port, **options).health

    return probe if request.param == "claim" else lightly


def http(status: str, body: bytes, *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 " + status.encode(), b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*head, b"", body])


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Run a listener whose every connection is given to a function; returns its port."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def begin(talk: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def loop() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    try:
                        talk(client)
                    except OSError:
                        continue

        threads.append(threading.Thread(target=loop))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield begin
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(CAP_S)


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (http("200 OK", LIVE), Health.HEALTHY),
        (http("200 OK", b' {"status": "live", "ok": true}\n'), Health.HEALTHY),
        (http("200 OK", b'{"ok":true,"status":"live","more":1}'), Health.FOREIGN),
        (http("200 OK", b'{"ok":1,"status":"live"}'), Health.FOREIGN),
        (http("200 OK", b'{"ok":true}'), Health.FOREIGN),
        (http("200 OK", b"[" * 4000), Health.FOREIGN),
        (http("200 OK", LIVE + b" " * 5000), Health.FOREIGN),
        (http("204 No Content", b""), Health.FOREIGN),
        (http("401 Unauthorized", LIVE), Health.FOREIGN),
        (http("302 Found", b"", b"Location: /health"), Health.FOREIGN),
        (http("503 Busy", b'{"ok":false,"status":"starting"}'), Health.STARTING),
        (http("503 Busy", b'{"ok":false,"status":"draining"}'), Health.STARTING),
        (http("503 Busy", b"busy"), Health.FOREIGN),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Health.FOREIGN),
        (b"\x15\x03\x01\x00\x02\x02F", Health.FOREIGN),
        (b"", Health.FOREIGN),
    ],
)
def test_answer(ask: Ask, serve: Serve, answer: bytes, health: Health) -> None:
    def talk(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(answer)

    assert ask("127.0.0.1", serve(talk), timeout_s=CAP_S) is health


def test_request_is_one_plain_get_without_a_proxy(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def talk(client: socket.socket) -> None:
        heard.append(client.recv(4096))
        client.sendall(http("200 OK", LIVE))

    port = serve(talk)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert probe("127.0.0.1", port, timeout_s=CAP_S) is Health.HEALTHY
    (request,) = heard
    assert request.startswith(b"GET /healthz HTTP/1.1\r\n")


def test_readiness_is_asked_of_what_is_healthy(serve: Serve) -> None:
    def talk(client: socket.socket) -> None:
        if client.recv(4096).startswith(b"GET /healthz "):
            client.sendall(http("200 OK", LIVE))
        else:
            reasons = b'{"ready":false,"failing":["disk","\\u001b[31m",7]}'
            client.sendall(http("503 Service Unavailable", reasons))

    fact = check("127.0.0.1", serve(talk), timeout_s=CAP_S)
    assert (fact.health, fact.ready) == (Health.HEALTHY, False)
    assert fact.failing == ("disk", "7"), "nothing that a terminal would obey"


def test_server_that_knows_no_readiness_is_neither_ready_nor_not(serve: Serve) -> None:
    def talk(client: socket.socket) -> None:
        known = client.recv(4096).startswith(b"GET /healthz ")
        client.sendall(http("200 OK", LIVE) if known else http("404 Not Found", b""))

    assert check("127.0.0.1", serve(talk), timeout_s=CAP_S).ready is None


def test_silence_is_mute(ask: Ask, serve: Serve) -> None:
    port = serve(lambda client: client.recv(4096) and client.recv(4096))
    assert ask("127.0.0.1", port, timeout_s=0.2) is Health.MUTE


@pytest.mark.parametrize("prefix", [b"", b"HTTP/1.1 200 OK\r\nX: "])
def test_trickle_ends_at_the_deadline(ask: Ask, serve: Serve, prefix: bytes) -> None:
    ended = threading.Event()

    def talk(client: socket.socket) -> None:
        client.sendall(prefix)
        while not ended.wait(0.01):
            client.sendall(b"x")

    port = serve(talk)
    began_s = time.monotonic()
    try:
        assert ask("127.0.0.1", port, timeout_s=0.3) is Health.FOREIGN
    finally:
        ended.set()
    assert time.monotonic() - began_s < CAP_S  # it would trickle for ever


def test_full_backlog_is_mute(ask: Ask) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        queued = []
        for _ in range(3):  # one more than the kernel completes, so that the rest is dropped
            queued.append(socket.socket())
            queued[-1].setblocking(False)
            queued[-1].connect_ex(address)
        assert ask(*address, timeout_s=0.3) is Health.MUTE
        for waiting in queued:
            waiting.close()


def test_nobody_is_refused(ask: Ask, port: int) -> None:
    assert ask("127.0.0.1", port) is Health.REFUSED


def test_unreachable_address_is_unknown(ask: Ask, port: int) -> None:
    assert ask("255.255.255.255", port) is Health.UNKNOWN


def test_base_port_tells_its_holder_to_whoever_asks(port: int) -> None:
    lock = BasePortLock(port)
    try:
        record = LockRecord(pid=4711, port=port, unit="x.service")
        ready = threading.Event()

        def answer() -> None:
            ready.set()
            while lock.fileno() >= 0 and not told:
                lock.answer(record)

        told: list[bool] = []
        thread = threading.Thread(target=answer)
        thread.start()
        ready.wait(CAP_S)
        found = baseport.holder(port)
        told.append(True)
        thread.join(CAP_S)
        assert found is not None and found.record == record
    finally:
        lock.release()


def test_base_port_that_is_held_is_contended_and_names_the_process(port: int) -> None:
    lock = BasePortLock(port)
    try:
        with pytest.raises(Contended) as caught:
            BasePortLock(port)
        assert (caught.value.pid, caught.value.uid) == (os.getpid(), os.getuid())
    finally:
        lock.release()
    BasePortLock(port).release()


def test_nobody_holds_a_free_base_port(port: int) -> None:
    assert baseport.holder(port) is None
