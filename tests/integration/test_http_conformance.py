"""
Requests that two servers could read in two ways, as llhttp and h11 publish them, made again by hand.

Behind each stands another request. It is answered only where the first one ends without a doubt.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import CAP_S, TOKEN, Daemon, Start

SOURCE = Path(__file__).parents[1] / "extension"

HOST = b"Host: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
POST = b"POST /echo HTTP/1.1\r\n" + HOST
NEXT = b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture(scope="session")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the worked example importable, with the metadata by which its entry points are found."""
    folder = tmp_path_factory.mktemp("extension")
    (folder / "weather_gateway").symlink_to(SOURCE / "weather_gateway")
    metadata = folder / "weather_gateway-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: weather-gateway\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[openclaw_gateway.extensions]\nweather = weather_gateway:extend\n"
    )
    return folder


@pytest.fixture
def serving(start: Start, extension: Path, state_dir: Path) -> Callable[..., Daemon]:
    def begin(gateway: str = "{}") -> Daemon:
        state_dir.mkdir(exist_ok=True)
        (state_dir / "openclaw.json").write_text(f"{{gateway: {gateway}}}")
        return start(PYTHONPATH=str(extension)).ready()

    return begin


def said(port: int, *pieces: bytes) -> bytes:
    """Send, say that it was all, and return everything that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=CAP_S) as client:
        received = b""
        with suppress(ConnectionError):
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                received += data
        return received


def statuses(received: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


FINE = {
    "plain": (GET + b"\r\n", [200, 404]),
    "head": (GET.replace(b"GET", b"HEAD") + b"\r\n", [200, 404]),
    "empty line before": (b"\r\n" + GET + b"\r\n", [200, 404]),
    "no space behind colon": (GET + b"X:y\r\n\r\n", [200, 404]),
    "empty value": (GET + b"X:\r\n\r\n", [200, 404]),
    "absolute target": (b"GET http://localhost/healthz HTTP/1.1\r\n" + HOST + b"\r\n", [200, 404]),
    "length 0": (GET + b"Content-Length: 0\r\n\r\n", [200, 404]),
    "length": (POST + b"Content-Length: 5\r\n\r\nhello", [201, 404]),
    "expect": (POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", [100, 201, 404]),
    "not closed": (POST + b"Connection: keep-alive\r\nContent-Length: 1\r\n\r\nx", [201, 404]),
    # Right, and the last of its connection all the same.
    "http/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", [200]),
    "close": (GET + b"Connection: close\r\n\r\n", [200]),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", [201]),
    "chunk extension": (POST + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n", [201]),
    "trailer": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", [201]),
    "body for health": (GET + b"Content-Length: 5\r\n\r\nhello", [200]),
    "chunks for health": (GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [200]),
    "post to health": (GET.replace(b"GET", b"POST") + b"Content-Length: 1\r\n\r\nx", [405]),
}

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = {
    # Two words about one body.
    "te and cl": (POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 400),
    "cl and te": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "cl twice": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "cl twice alike": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "cl list": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "te twice": (POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", 400),
    "te unknown": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "te list": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "te identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    "te quoted": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 501),
    "te vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "te in http/1.0": (CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n", 400),
    # Lengths that are none.
    "cl plus": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "cl minus": (POST + b"Content-Length: -5\r\n\r\nhello", 400),
    "cl hex": (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "cl empty": (POST + b"Content-Length:\r\n\r\n", 400),
    "cl inner space": (POST + b"Content-Length: 5 5\r\n\r\nhello", 400),
    "cl underscore": (POST + b"Content-Length: 1_0\r\n\r\nhello", 400),
    "cl endless": (POST + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n", 400),
    "cl other digits": (POST + "Content-Length: ٥\r\n\r\nhello".encode(), 400),
    # Lines.
    "bare lf": (GET + b"X: y\nZ: a\r\n\r\n", 400),
    "only lf": (GET.replace(b"\r\n", b"\n") + b"\n", 400),
    "bare cr": (GET + b"X: y\rZ: a\r\n\r\n", 400),
    "cr cr lf": (GET + b"X: y\r\r\n\r\n", 400),
    "folded": (GET + b"X: y\r\n z\r\n\r\n", 400),
    "folded te": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "folded first": (b"GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "space before colon": (POST + b"Content-Length : 5\r\n\r\nhello", 400),
    "tab before colon": (POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400),
    "no colon": (GET + b"X\r\n\r\n", 400),
    "no name": (GET + b": y\r\n\r\n", 400),
    "space in name": (GET + b"X Y: z\r\n\r\n", 400),
    "brackets in name": (GET + b"X[]: z\r\n\r\n", 400),
    "eight bits in name": (GET + b"X\xe9: z\r\n\r\n", 400),
    "nul in name": (GET + b"X\x00: z\r\n\r\n", 400),
    "nul in value": (GET + b"X: y\x00z\r\n\r\n", 400),
    "escape in value": (GET + b"X: \x1b[31m\r\n\r\n", 400),
    # The request line.
    "nul in target": (b"GET /health\x00z HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "space in target": (b"GET /health z HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "eight bits in target": (b"GET /h\xe4 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two spaces": (b"GET  /healthz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "tab for a space": (b"GET\t/healthz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "space in front": (b" GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no version": (b"GET /healthz\r\n" + HOST + b"\r\n", 400),
    "long version": (b"GET /healthz HTTP/1.10\r\n" + HOST + b"\r\n", 400),
    "short version": (b"GET /healthz HTTP/1\r\n" + HOST + b"\r\n", 400),
    "version 2": (b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "lower case version": (b"GET /healthz http/1.1\r\n" + HOST + b"\r\n", 400),
    "no method": (b"/healthz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "method with a colon": (b"GE:T /healthz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "connect": (b"CONNECT other:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    # Hosts.
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: other\r\n\r\n", 400),
    "host of a foreign target": (b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n", 403),
    # Chunks.
    "chunk size no hex": (CHUNKED + b"g\r\nx\r\n0\r\n\r\n", 400),
    "chunk size 0x": (CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n", 400),
    "chunk size minus": (CHUNKED + b"-1\r\nx\r\n0\r\n\r\n", 400),
    "chunk size plus": (CHUNKED + b"+1\r\nx\r\n0\r\n\r\n", 400),
    "chunk size empty": (CHUNKED + b"\r\nx\r\n0\r\n\r\n", 400),
    "chunk size space in front": (CHUNKED + b" 1\r\nx\r\n0\r\n\r\n", 400),
    "chunk size underscore": (CHUNKED + b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n", 400),
    "chunk size endless": (CHUNKED + b"0" * 400 + b"1\r\nx\r\n0\r\n\r\n", 400),
    "chunk size huge": (CHUNKED + b"F" * 20 + b"\r\nx\r\n0\r\n\r\n", 400),
    "chunk size lf": (CHUNKED + b"1\nx\r\n0\r\n\r\n", 400),
    "chunk longer than said": (CHUNKED + b"1\r\nxyz\r\n0\r\n\r\n", 400),
    "chunk ends in lf": (CHUNKED + b"1\r\nx\n\n0\r\n\r\n", 400),
    "chunk ends in junk": (CHUNKED + b"1\r\nxAB0\r\n\r\n", 400),
    "chunk extension with lf": (CHUNKED + b"1;a\nb\r\nx\r\n0\r\n\r\n", 400),
    "chunk extension without end": (CHUNKED + b"1;" + b"a" * 40_000, 431),
    "trailer without colon": (CHUNKED + b"0\r\nX\r\n\r\n", 400),
    # Bounds.
    "long line": (GET + b"X: " + b"y" * 20_000 + b"\r\n\r\n", 431),
    "long target": (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
    "many fields": (GET + b"X: y\r\n" * 200 + b"\r\n", 431),
    "no end of line": (b"G" * 20_000, 431),
    "body too long": (POST + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000, 413),
    "chunks too long": (CHUNKED + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 3, 413),
    "chunks too small": (CHUNKED + (b"1;" + b"a" * 8000 + b"\r\nx\r\n") * 100, 413),
    # Ends in the middle.
    "half a body": (POST + b"Content-Length: 500\r\n\r\nhello", 400),
}  # fmt: skip


def test_request_that_is_right_is_answered(serving: Callable[..., Daemon], port: int) -> None:
    daemon = serving()
    found = {name: statuses(said(port, raw + NEXT)) for name, (raw, _) in FINE.items()}
    assert found == {name: codes for name, (_, codes) in FINE.items()}
    # The very same, byte by byte where it is short.
    for name, (raw, codes) in FINE.items():
        pieces = [bytes([byte]) for byte in raw + NEXT]
        assert statuses(said(port, *pieces)) == codes, name
    daemon.stop()
    assert not [line for line in daemon.log if "failed" in line]


def test_request_that_can_be_read_in_two_ways_is_refused_and_the_last(
    serving: Callable[..., Daemon], port: int
) -> None:
    daemon = serving()
    # What ends in the middle has nothing behind it.
    found = {
        name: statuses(said(port, raw if name == "half a body" else raw + NEXT))
        for name, (raw, _) in REFUSED.items()
    }
    assert found == {name: [code] for name, (_, code) in REFUSED.items()}
    daemon.stop()
    # The route that the example may not have, ready, stopping, stopped; of all that, not a line.
    assert len(daemon.log) == 4, daemon.log


def test_refusals_have_the_security_headers_and_quote_nothing(
    serving: Callable[..., Daemon], port: int
) -> None:
    serving()
    for name, (raw, _) in REFUSED.items():
        received = said(port, raw)
        if not received and name == "half a body":
            continue
        head, _, body = received.partition(b"\r\n\r\n")
        for field in (b"X-Content-Type-Options: nosniff", b"Connection: close", b"Date: "):
            assert field in head, (name, received)
        assert body.isascii() and b"yyy" not in body, name


def test_body_is_given_as_it_came_and_never_decompressed(
    serving: Callable[..., Daemon], port: int
) -> None:
    serving()
    request = POST.replace(b"/echo", b"/echo?a=%20b") + b"Content-Encoding: gzip\r\n"
    received = said(port, request + b"Content-Length: 3\r\n\r\n\x1f\x8b\x08")
    assert statuses(received) == [201]
    assert b'"bytes":3' in received and b'"encoding":"gzip"' in received
    assert b'"query":{"a":" b"}' in received and b'"address":"127.0.0.1"' in received


def test_who_shows_the_secret_may_send_more(serving: Callable[..., Daemon], port: int) -> None:
    serving()
    request = POST.replace(b"/echo", b"/echo/x%20y") + b"Content-Length: 1000000\r\n"
    body = b"\r\n" + b"x" * 1_000_000
    assert statuses(said(port, request + body)) == [401]
    bearer = f"Authorization: Bearer {TOKEN}\r\n".encode()
    received = said(port, request + bearer + body)
    assert statuses(received) == [201]
    assert b'"bytes":1000000' in received and b'"parameters":{"name":"x y"}' in received


@pytest.mark.parametrize("count", [1, 17, 100])
def test_pipelined_requests_are_answered_in_order(
    serving: Callable[..., Daemon], port: int, count: int
) -> None:
    serving()
    body = POST + b"Content-Length: 2\r\n\r\nhi"
    received = said(port, (GET + b"\r\n" + body + NEXT) * count)
    assert statuses(received) == [200, 201, 404] * count


@pytest.mark.parametrize("path", [b"/wrong/splits", b"/wrong/floods"])
def test_route_that_answers_what_can_not_be_sent_is_one_that_fails(
    serving: Callable[..., Daemon], port: int, path: bytes
) -> None:
    daemon = serving()
    received = said(port, GET.replace(b"/healthz", path) + b"\r\n")
    assert statuses(received) == [500] and b"X-Forged" not in received
    assert path.decode() in daemon.wait_for("failed")


def test_route_that_blocks_holds_up_nobody(serving: Callable[..., Daemon], port: int) -> None:
    serving("{limits: {requestTimeoutMs: 1000}}")
    with socket.create_connection(("127.0.0.1", port), timeout=CAP_S) as blocked:
        blocked.sendall(GET.replace(b"/healthz", b"/wrong/blocks") + b"\r\n")
        assert statuses(said(port, GET + b"\r\n")) == [200]
        assert b" 503 " in blocked.recv(65536)
