"""What a probe makes of everything that may answer on a port, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import CAP_S, NotifySocket, Start
from openclaw_gateway.claim import baseport
from openclaw_gateway.claim.baseport import BasePortLock
from openclaw_gateway.claim.lockfile import Contended
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import check, check_url, probe, probe_on_loop

LIVE = b'{"ok":true,"status":"live"}'

Serve = Callable[[Callable[[socket.socket], None]], int]


Ask = Callable[..., Health]


def on_loop(host: str, port: int, *, timeout_s: float = 2.0) -> Health:
    return asyncio.run(probe_on_loop(host, port, timeout_s=timeout_s))


def by_url(host: str, port: int, *, timeout_s: float = 2.0) -> Health:
    return check_url(f"http://{host}:{port}", timeout_s=timeout_s).health


@pytest.fixture(params=[probe, on_loop, by_url])
def ask(request: pytest.FixtureRequest) -> Ask:
    """The ways to ask for health: on a plain socket, on an event loop, and of a URL."""
    return request.param  # type: ignore[no-any-return]


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


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


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
        (http("200 OK", b"", b"Transfer-Encoding: chunked") + b"x", Health.FOREIGN),
        (CHUNKED + b"1b\r\n" + LIVE + b"\r\n0\r\n\r\n", Health.HEALTHY),
        (CHUNKED + b"1b\r\n" + LIVE + b"\r\n", Health.FOREIGN),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + http("200 OK", LIVE), Health.HEALTHY),
        (b"HTTP/1.0 200 OK\r\n\r\n" + LIVE, Health.HEALTHY),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + LIVE, Health.FOREIGN),
        (b"HTTP/1.1 OK\r\n\r\n" + LIVE, Health.FOREIGN),
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
        # A library's user sees nothing of an answer whose head is not complete.
        expected = Health.MUTE if ask is by_url else Health.FOREIGN
        assert ask("127.0.0.1", port, timeout_s=0.3) is expected
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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key, in PEM."""
    made = tmp_path_factory.mktemp("tls") / "both.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-subj", "/CN=nobody.example", "-keyout", str(made), "-out", f"{made}.crt"]
    subprocess.run(words, check=True, capture_output=True)
    made.write_text(made.read_text() + Path(f"{made}.crt").read_text())
    return made


def der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(f"{certificate}.crt").read_text())


def securely(
    certificate: Path,
    talk: Callable[[socket.socket], None],
    *,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> Callable[[socket.socket], None]:
    """Speak TLS and nothing else, as OpenClaw does, whose listener takes TLS 1.3 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(certificate)

    def wrapped(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as secure:
            talk(secure)

    return wrapped


def as_gateway(client: socket.socket) -> None:
    known = client.recv(4096).startswith((b"GET /healthz ", b"GET /readyz "))
    client.sendall(http("200 OK", LIVE) if known else http("404 Not Found", b""))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_healthy_gateway_that_speaks_tls_is_one(
    serve: Serve, certificate: Path, version: ssl.TLSVersion
) -> None:
    port = serve(securely(certificate, as_gateway, version=version))
    assert probe("127.0.0.1", port, timeout_s=CAP_S) is Health.HEALTHY
    fact = check("127.0.0.1", port, timeout_s=CAP_S)
    assert (fact.health, fact.ready, fact.scheme) == (Health.HEALTHY, True, "https")


def test_healthy_gateway_that_speaks_tls_makes_a_start_under_systemd_a_duplicate(
    serve: Serve, certificate: Path, start: Start, notify: NotifySocket
) -> None:
    port = serve(securely(certificate, as_gateway))
    second = start(NOTIFY_SOCKET=notify.path, OPENCLAW_GATEWAY_PORT=str(port))
    assert second.finish() == 78, second.log


def test_web_server_that_speaks_tls_is_no_gateway(serve: Serve, certificate: Path) -> None:
    port = serve(securely(certificate, lambda client: client.sendall(http("404 No", b""))))
    assert probe("127.0.0.1", port, timeout_s=CAP_S) is Health.FOREIGN
    assert check("127.0.0.1", port, timeout_s=CAP_S).scheme is None


HINTS = [
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    http("400 Bad Request", b"The plain HTTP request was sent to HTTPS port"),
    http("301 Moved Permanently", b"", b"Location: https://127.0.0.1/healthz"),
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"",
]


@pytest.mark.parametrize("hint", HINTS)
def test_listener_that_asks_for_tls_gets_it(serve: Serve, certificate: Path, hint: bytes) -> None:
    secure = securely(certificate, as_gateway)

    def talk(client: socket.socket) -> None:
        if client.recv(1, socket.MSG_PEEK) == b"\x16":  # a handshake message
            secure(client)
        else:
            client.recv(4096)
            client.sendall(hint)

    assert probe("127.0.0.1", serve(talk), timeout_s=CAP_S) is Health.HEALTHY


def test_both_attempts_share_one_deadline(serve: Serve) -> None:
    asked = 0

    def talk(client: socket.socket) -> None:
        nonlocal asked
        asked += 1
        client.recv(4096)
        if asked > 1:  # a handshake that never goes on
            client.recv(4096)

    began_s = time.monotonic()
    assert probe("127.0.0.1", serve(talk), timeout_s=0.3) is Health.FOREIGN
    assert asked == 2
    assert time.monotonic() - began_s < CAP_S


def test_pinned_certificate_is_the_only_one_that_counts(serve: Serve, certificate: Path) -> None:
    port = serve(securely(certificate, as_gateway))
    own = der(certificate)
    other = own[:-1] + bytes([own[-1] ^ 1])
    for pinned, health in ((own, Health.HEALTHY), (other, Health.FOREIGN)):
        assert probe("127.0.0.1", port, timeout_s=CAP_S, certificate=pinned) is health
        asking = probe_on_loop("127.0.0.1", port, timeout_s=CAP_S, certificate=pinned)
        assert asyncio.run(asking) is health


def test_certificate_that_nobody_vouches_for_is_not_trusted_under_a_url(
    serve: Serve, certificate: Path
) -> None:
    port = serve(securely(certificate, as_gateway))
    assert check_url(f"https://127.0.0.1:{port}", timeout_s=CAP_S).health is Health.UNKNOWN


def test_plain_probe_loads_no_http_library_and_no_tls(serve: Serve) -> None:
    code = (
        "import sys; from openclaw_gateway.client.health import probe\n"
        f"print(probe('127.0.0.1', {serve(as_gateway)}, timeout_s={CAP_S}), *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(Health.HEALTHY)
    assert not {"requests", "http.client", "ssl", "asyncio", "email"} & set(done.stdout.split())


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
