"""The exchange behind every probe, without a socket: however its answer comes in pieces."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.client.answer import (
    LIVE,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Exchange,
    Health,
    Readiness,
    judge,
    readiness,
)
from openclaw_gateway.protocol.role import Role

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n" + LIVE
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;x=y\r\n{"ok"\r\n16\r\n:true,"status":"live"}\r\n0\r\n\r\n'
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH


def fed(*pieces: bytes) -> Exchange:
    """Return an exchange that got these pieces, as many as it wanted."""
    exchange = Exchange("127.0.0.1", 1, "/healthz")
    for piece in pieces:
        if exchange.feed(piece):
            break
    return exchange


def test_request_names_its_host_and_asks_for_the_connection_to_be_closed() -> None:
    assert Exchange("::1", 18789, "/healthz").request == (
        b"GET /healthz HTTP/1.1\r\nHost: [::1]:18789\r\n"
        b"Accept: application/json\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, INTERIM])
@given(cuts=st.sets(st.integers(1, 150)))
def test_answer_means_the_same_in_any_pieces(answer: bytes, cuts: set[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    exchange = fed(*(answer[a:b] for a, b in itertools.pairwise(edges)))
    assert (exchange.status, exchange.body) == (200, LIVE)


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, INTERIM])
def test_cut_answer_is_none(answer: bytes) -> None:
    needed = len(answer) - len(b"\r\n") * (answer is CHUNKED)
    for length in range(needed):
        assert fed(answer[:length], b"").status is None


def test_answer_without_a_length_ends_with_the_connection() -> None:
    assert fed(b"HTTP/1.0 200 OK\r\n\r\n", LIVE, b"").body == LIVE


def test_no_more_is_taken_than_a_gateway_would_say() -> None:
    endless = Exchange("127.0.0.1", 1, "/healthz")
    assert endless.feed(b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_HEAD_BYTES)
    assert endless.status is None
    long = fed(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * MAX_BODY_BYTES * 9)
    assert len(long.body) == MAX_BODY_BYTES + 1
    assert judge(200, long.body) is Health.FOREIGN


@pytest.mark.parametrize(
    ("pieces", "wants_tls"),
    [
        ((b"",), True),
        ((b"\x15\x03\x01",), True),
        ((b"\x16\x03\x03",), True),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\nuse HTTPS", b""), True),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\nno", b""), False),
        ((b"HTTP/1.1 308 P\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n",), True),
        ((b"HTTP/1.1 308 P\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n",), False),
        ((b"SSH-2.0-OpenSSH\r\n",), False),
        ((LENGTH,), False),
    ],
)
def test_listener_that_wants_tls_is_recognized(pieces: tuple[bytes, ...], wants_tls: bool) -> None:
    assert fed(*pieces).speaks_tls is wants_tls


@given(st.lists(st.binary(max_size=40)))
def test_nothing_that_a_peer_sends_is_an_error(pieces: list[bytes]) -> None:
    exchange = fed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *pieces, b"")
    assert judge(200, exchange.body) in Health
    assert fed(*pieces, b"").speaks_tls in (True, False)


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b'{"ready":true}', Readiness(True, ())),
        (503, b'{"failing":["disk","\\u001b[31m",7]}', Readiness(False, ("disk", "7"))),
        (503, b"[", Readiness(False, ())),
        (404, b"{}", None),
    ],
)
def test_readiness(status: int, body: bytes, found: Readiness | None) -> None:
    assert readiness(status, body) == found


TOLD = {
    "name": "home", "active": False, "holder": "b1", "url": "ws://gw-b:1", "token": 42,
    "sinceMs": None, "reason": "gw-b is active (token 42)",
}  # fmt: skip


def told(**changes: object) -> bytes:
    return json.dumps({"ready": False, "failing": ["standby"], "cluster": TOLD | changes}).encode()


def test_role_is_read() -> None:
    found = readiness(503, told())
    assert found == Readiness(
        False,
        ("standby",),
        Role("home", False, "b1", "ws://gw-b:1", 42, None, "gw-b is active (token 42)"),
    )


@pytest.mark.parametrize(
    "changes",
    [{"name": 7}, {"active": 1}, {"token": "42"}, {"token": True}, {"sinceMs": 1.5}, {"url": None},
     {"reason": "\x1b[31m"}],
)  # fmt: skip
def test_role_that_can_not_be_read_is_none(changes: dict[str, object]) -> None:
    found = readiness(503, told(**changes))
    assert found is not None
    assert (found.failing, found.role) == (("standby",), None)


def test_role_is_no_longer_than_a_screen_bears() -> None:
    found = readiness(503, told(reason="x" * 3000))
    assert found is not None and found.role is not None
    assert len(found.role.reason) == 256
