"""Every limit, reached: the one who goes too far is stopped, everybody else is served, and /healthz answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from conftest import CAP_S, TOKEN, Daemon, Start, clean_environ
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import probe
from wire import RefusedUpgrade, Wire, admitted, dialled, run

Limited = Callable[..., Daemon]


@pytest.fixture
def limited(start: Start, state_dir: Path) -> Limited:
    def begin(**limits: int) -> Daemon:
        state_dir.mkdir(exist_ok=True)
        config = {"gateway": {"limits": limits}}
        (state_dir / "openclaw.json").write_text(json.dumps(config))
        return start()

    return begin


@contextmanager
def mute(port: int, count: int, host: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Hold connections open that say nothing."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((host, port), timeout=CAP_S))
            for _ in range(count)
        ]


def upgrade(port: int) -> requests.Response:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    answer = requests.get(f"http://127.0.0.1:{port}/", headers=headers, timeout=CAP_S, stream=True)
    if answer.status_code != 101:
        assert answer.text
    answer.close()
    return answer


def ended(connection: socket.socket) -> bool:
    """Wait until the gateway hangs up."""
    connection.settimeout(CAP_S)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


async def reached(port: int, limit: str) -> int:
    async with admitted(port) as wire:
        status = (await wire.call("status"))["payload"]
        return status["limits"][limit]["reached"]


def test_thousand_mute_sockets_leave_healthz_answering(start: Start, port: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        start().ready()
        with mute(port, 1000):
            for _ in range(20):
                assert probe("127.0.0.1", port, timeout_s=1) is Health.HEALTHY
            # Whoever wants more than health is told why not.
            answer = upgrade(port)
            assert answer.status_code == 503
            assert "max_unauthenticated_per_address" in answer.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_mute_connection_is_dropped_after_the_handshake_timeout(
    limited: Limited, port: int
) -> None:
    limited(handshakeTimeoutMs=500).ready()
    with mute(port, 3) as (silent, half, dripping):
        half.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        dripping.sendall(b"G")
        assert ended(silent) and ended(half) and ended(dripping)
    assert run(reached(port, "handshakeTimeoutMs")) == 3


def test_default_handshake_timeout_is_ten_seconds_at_most(start: Start, port: int) -> None:
    start().ready()

    async def visit() -> int:
        async with admitted(port) as wire:
            status = (await wire.call("status"))["payload"]
            return status["limits"]["handshakeTimeoutMs"]["limit"]

    assert run(visit()) <= 10_000


def test_websocket_without_a_hello_is_closed_after_the_handshake_timeout(
    limited: Limited, port: int
) -> None:
    limited(handshakeTimeoutMs=500).ready()

    async def visit() -> int | None:
        async with dialled(port) as wire:
            return await wire.closed()

    assert run(visit()) == 1008


def test_idle_client_with_a_hello_stays(limited: Limited, port: int) -> None:
    limited(handshakeTimeoutMs=500, tickIntervalMs=250).ready()

    async def visit() -> None:
        async with admitted(port) as wire:
            for _ in range(4):
                await wire.event("tick")
            assert (await wire.call("health"))["ok"]

    run(visit())


@pytest.mark.parametrize(
    "limit", ["maxConnections", "maxConnectionsPerAddress", "maxUnauthenticatedPerAddress"]
)
def test_connections_are_bounded_and_places_come_free(
    limited: Limited, port: int, limit: str
) -> None:
    limited(**{limit: 3}).ready()
    with mute(port, 3):
        answer = upgrade(port)
        assert (answer.status_code, answer.headers["Connection"]) == (503, "close")
        assert probe("127.0.0.1", port) is Health.HEALTHY
    while upgrade(port).status_code != 101:
        pass
    # This one may count upgrades that were tried while the places came free.
    assert run(reached_soon(port, limit)) >= 1


async def reached_soon(port: int, limit: str) -> int:
    """Ask for a limit's count through a connection that may have to wait for its place."""
    while True:
        try:
            return await reached(port, limit)
        except RefusedUpgrade:
            continue


def test_clients_with_a_hello_take_no_place_from_those_without(limited: Limited, port: int) -> None:
    limited(maxUnauthenticatedPerAddress=2).ready()

    async def visit() -> None:
        async with admitted(port), admitted(port), admitted(port), admitted(port) as last:
            assert (await last.call("status"))["payload"]["clients"]["connected"] == 4

    run(visit())


def test_other_addresses_are_not_hurt_by_one_that_fills_its_places(
    limited: Limited, port: int
) -> None:
    limited(maxConnectionsPerAddress=2).ready()
    with ExitStack() as stack:
        for _ in range(2):
            neighbour = stack.enter_context(socket.socket())
            neighbour.bind(("127.0.0.9", 0))
            neighbour.connect(("127.0.0.1", port))
        run(reached(port, "maxConnectionsPerAddress"))


def test_requests_in_flight_are_bounded_per_client(limited: Limited, port: int) -> None:
    limited(maxInFlight=1).ready()

    async def visit() -> int:
        async with admitted(port) as wire, admitted(port) as other:
            # Many: the first may have its answer before the second is read.
            for number in range(50):
                await wire.send("logs.tail", id=f"{number}")
            answers = [await wire.answer(f"{number}") for number in range(50)]
            refused = [answer["error"]["code"] for answer in answers if not answer["ok"]]
            assert set(refused) == {"UNAVAILABLE"}
            assert (await other.call("health"))["ok"]
            return len(refused)

    refused = run(visit())
    assert run(reached(port, "maxInFlight")) == refused


def test_request_rate_is_bounded_per_client(limited: Limited, port: int) -> None:
    limited(requestsPerSecond=10).ready()

    async def visit() -> None:
        async with admitted(port) as wire, admitted(port) as other:
            answers = [await wire.call("health", id=f"{number}") for number in range(50)]
            refused = [answer["error"] for answer in answers if not answer["ok"]]
            assert len(refused) > 20
            assert refused[0]["retryable"] is True and refused[0]["retryAfterMs"] > 0
            assert (await other.call("health"))["ok"]

    run(visit())


def test_slow_reader_is_cut_off_and_the_others_are_not(limited: Limited, port: int) -> None:
    daemon = limited(maxBufferedBytes=65536).ready()

    async def visit() -> None:
        async with admitted(port) as other:
            with raw_client(port) as slow:
                sent = 0
                try:
                    # It asks, and never reads: the kernel's buffers fill, then ours.
                    while sent < 100_000:
                        slow.send(masked('{"type":"req","id":"1","method":"status"}'))
                        sent += 1
                except (ConnectionError, TimeoutError):
                    pass
                await asyncio.to_thread(daemon.wait_for, "cut off a slow client")
            limits = (await other.call("status"))["payload"]["limits"]
            assert limits["maxBufferedBytes"]["reached"] == 1
            assert daemon_rss_bytes(daemon) < 200 << 20

    run(visit())


def daemon_rss_bytes(daemon: Daemon) -> int:
    return int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def raw_client(port: int) -> Iterator[socket.socket]:
    """Open a connection with its hello, whose receive buffer is small and never read again."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        say_hello(client)
        yield client


def say_hello(client: socket.socket) -> None:
    """Upgrade a connection, and wait for the hello."""
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    client.sendall(masked(json.dumps(CONNECT)))
    received = b""
    while b"hello-ok" not in received:
        data = client.recv(4096)
        assert data, received
        received += data


CONNECT: dict[str, Any] = {
    "type": "req",
    "id": "c",
    "method": "connect",
    "params": {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": "test", "version": "1", "platform": "linux", "mode": "test"},
        "scopes": ["operator.admin"],
        "auth": {"token": TOKEN},
    },
}


def masked(text: str) -> bytes:
    """Return a client's text frame, masked with zeros. RFC 6455, section 5.2."""
    data = text.encode()
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
    return b"\x81" + size + bytes(4) + data


def test_reader_that_is_merely_behind_gets_everything(limited: Limited, port: int) -> None:
    limited(maxBufferedBytes=50 << 20, maxInFlight=1000, requestsPerSecond=100000).ready()

    async def visit() -> None:
        async with admitted(port) as wire:
            for number in range(1000):
                await wire.send("system-presence", id=f"{number}")
            for number in range(1000):
                assert (await wire.answer(f"{number}"))["ok"]

    run(visit())


def test_stranger_cannot_make_us_hold_more_than_a_handshake(start: Start, port: int) -> None:
    daemon = start().ready()
    before = daemon_rss_bytes(daemon)

    def flood(connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            connection.settimeout(CAP_S)
            # One frame, announced as no more than a client may send, in pieces that are none too big.
            connection.sendall(b"\x81\xff" + struct.pack("!Q", 20_000_000) + bytes(4))
            for _ in range(1000):
                connection.sendall(b"x" * 10_000)

    async def visit() -> int | None:
        async with dialled(port) as wire:
            await asyncio.to_thread(flood, wire.socket.raw.dup())
            return await wire.closed()

    run(visit())
    assert daemon_rss_bytes(daemon) - before < 8 << 20
    assert run(reached(port, "maxPreauthBytes")) == 1


GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (GET, GET * 1000),
        (
            GET.replace(b"\r\n\r\n", b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
            b"x" * 65536,
        ),
    ],
    ids=["pipelined", "upgrade"],
)
@pytest.mark.parametrize("reads", [False, True])
def test_requests_sent_without_end_do_not_pile_up(
    start: Start, port: int, first: bytes, then: bytes, *, reads: bool
) -> None:
    daemon = start().ready()
    before = daemon_rss_bytes(daemon)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.settimeout(1)  # held back for so long is as good as put out
        sent = 0
        with suppress(ConnectionError, TimeoutError):
            connection.sendall(first)
            while sent < 24 << 20:
                connection.sendall(then)
                sent += len(then)
                if reads:
                    connection.recv(65536)
        assert daemon_rss_bytes(daemon) - before < 16 << 20
    assert probe("127.0.0.1", port) is Health.HEALTHY


def test_some_pipelined_requests_are_all_answered(start: Start, port: int) -> None:
    start().ready()
    with socket.create_connection(("127.0.0.1", port), timeout=CAP_S) as connection:
        connection.sendall(GET * 100)
        received = b""
        while received.count(b'"live"}') < 100:
            data = connection.recv(65536)
            assert data
            received += data


def test_handshake_has_its_whole_time_on_a_connection_that_served_before(
    limited: Limited, port: int
) -> None:
    limited(handshakeTimeoutMs=2000, tickIntervalMs=1000).ready()

    async def until_it_is_old() -> None:
        async with admitted(port) as clock:
            for _ in range(4):
                await clock.event("tick")

    with socket.create_connection(("127.0.0.1", port), timeout=CAP_S) as connection:
        connection.sendall(GET)
        assert b"200 OK" in connection.recv(65536)
        run(until_it_is_old())
        say_hello(connection)


def test_descriptor_limit_refuses_politely_and_recovers(start: Start, port: int) -> None:
    daemon = start().ready()
    own = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
    old = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    with mute(port, 1) as (first,):
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (own + 4, old[1]))
        with mute(port, 20):
            answer = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=CAP_S)
            assert (answer.status_code, answer.headers["Connection"]) == (503, "close")
            assert answer.text == "no file descriptor left for it\n"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
        first.close()
        # The very same limit: it was those connections that were too many.
        while probe("127.0.0.1", port) is not Health.HEALTHY:
            pass
    assert run(reached(port, "descriptors")) >= 1


def test_few_descriptors_make_for_fewer_places_instead_of_failures(
    port: int, state_dir: Path
) -> None:
    command = ["prlimit", "--nofile=128:128", sys.executable, "-m", "openclaw_gateway", "run"]
    environ = clean_environ(
        OPENCLAW_STATE_DIR=str(state_dir),
        OPENCLAW_GATEWAY_PORT=str(port),
        OPENCLAW_GATEWAY_TOKEN=TOKEN,
    )
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stderr and "ready on" in daemon.stderr.readline()
            with mute(port, 90):
                for _ in range(5):
                    assert probe("127.0.0.1", port) is Health.HEALTHY
                assert upgrade(port).status_code == 503

            async def visit() -> None:
                async with admitted(port) as wire:
                    limits = (await wire.call("status"))["payload"]["limits"]
                    assert limits["maxConnections"]["limit"] == 64
                    assert limits["descriptors"]["reached"] == 0

            run(reached_soon(port, "maxConnections"))
            run(visit())
        finally:
            daemon.terminate()


def test_storm_of_frames_from_one_client_does_not_silence_the_others(
    start: Start, port: int
) -> None:
    start().ready()

    async def storm(wire: Wire) -> None:
        while True:
            await wire.socket.send_str("[" * 1000)
            await asyncio.sleep(0)

    async def drain(wire: Wire) -> None:
        while await wire.socket.receive():
            pass

    async def visit() -> None:
        async with admitted(port) as wild, admitted(port) as calm:
            tasks = [asyncio.create_task(storm(wild)), asyncio.create_task(drain(wild))]
            try:
                for number in range(10):
                    assert (await calm.call("health", id=f"{number}"))["ok"]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    run(visit())


def test_any_bytes_on_the_wire_end_in_an_answer_or_a_close(start: Start, port: int) -> None:
    daemon = start().ready()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    before = daemon_rss_bytes(daemon)
    for _ in range(60):
        with raw_client(port) as client, suppress(OSError):  # it may hang up on us first
            for _ in range(dice.randrange(1, 8)):
                first, second = dice.randrange(256), 0x80 | dice.randrange(128)
                frame = bytes([first, second]) + dice.randbytes(dice.randrange(200))
                client.sendall(dice.choice([frame, masked(dice.choice(["", "{", "[1]", "null"]))]))
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    assert probe("127.0.0.1", port) is Health.HEALTHY
    assert daemon_rss_bytes(daemon) - before < 16 << 20
    daemon.stop()
    assert len(daemon.log) == 3, daemon.log  # of all that, not a line


@pytest.mark.parametrize("cut", [20, 0], ids=["in two pieces", "whole"])
@pytest.mark.parametrize("beyond", [False, True], ids=["within the limit", "beyond it"])
def test_probe_is_answered_and_counted_like_any_request(
    limited: Limited, port: int, cut: int, *, beyond: bool
) -> None:
    limited(maxConnections=4).ready()
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

    def probed() -> bytes:
        with mute(port, 3 if beyond else 1), mute(port, 1) as (client,):
            client.sendall(whole[:cut])
            client.sendall(whole[cut:])
            received = b""
            while not received.endswith(b'"live"}'):
                data = client.recv(65536)
                assert data, received
                received += data
            return received

    async def visit() -> None:
        async with admitted(port) as wire:
            before = (await wire.call("status", id="a"))["payload"]["served"]["requests"]
            received = await asyncio.to_thread(probed)
            assert (b"Connection: close" in received) == beyond
            after = (await wire.call("status", id="b"))["payload"]["served"]["requests"]
            assert after == before + 1

    run(visit())


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
    ],
)
def test_request_that_never_ends_is_over_after_its_time(
    limited: Limited, port: int, request_head: bytes
) -> None:
    limited(handshakeTimeoutMs=500).ready()
    with mute(port, 1) as (client,):
        # The second request of its connection: it has its own time.
        client.sendall(GET)
        assert b"live" in client.recv(65536)
        client.sendall(request_head)
        received = b""
        with suppress(ConnectionError):
            while data := client.recv(65536):
                received += data
        assert b" 200 " not in received


def test_zeros_that_unpack_are_not_unpacked(start: Start, port: int) -> None:
    daemon = start().ready()
    before = daemon_rss_bytes(daemon)
    packed = gzip.compress(bytes(64 << 20))
    for path in ("/healthz", "/readyz", "/", "/nothing"):
        with suppress(requests.ConnectionError):  # it hangs up while we send
            requests.post(
                f"http://127.0.0.1:{port}{path}",
                data=packed,
                headers={"Content-Encoding": "gzip"},
                timeout=CAP_S,
            )
    assert daemon_rss_bytes(daemon) - before < 4 << 20


def test_lines_about_one_peer_are_few(limited: Limited, port: int) -> None:
    daemon = limited(maxBufferedBytes=65536, requestsPerSecond=100_000).ready()
    for _ in range(8):
        with raw_client(port) as slow, suppress(ConnectionError, TimeoutError):
            for _ in range(100_000):
                slow.send(masked('{"type":"req","id":"1","method":"status"}'))
    assert run(reached(port, "maxBufferedBytes")) == 8
    daemon.stop()
    assert sum("cut off a slow client" in line for line in daemon.log) == 5
