"""One request and its answer, without a socket: heads cut off, bodies put together, answers rendered."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.server.exchange import (
    UNSENDABLE,
    BodyTooLongError,
    Exchange,
    HeadReader,
    UnreadableError,
    refusal,
)
from openclaw_gateway.server.message import MAX_HEAD_BYTES, MAX_HEADERS, Response

DATE = b"Thu, 01 Jan 1970 00:00:00 GMT"
GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def made(head: bytes) -> Exchange:
    return Exchange(head, address="192.0.2.1", date=lambda: DATE)


def with_length(length: int, *fields: bytes) -> Exchange:
    lines = b"".join(field + b"\r\n" for field in fields)
    return made(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n" % (length, lines))


@given(cuts=st.lists(st.integers(0, len(GET)), max_size=5))
def test_head_is_the_same_however_it_comes(cuts: list[int]) -> None:
    reader, buffer, heads = HeadReader(), bytearray(), []
    for begin, end in pairwise(sorted({0, *cuts, len(GET)})):
        buffer += GET[begin:end]
        heads.append(reader.take(buffer))
    assert heads == [None] * (len(heads) - 1) + [GET]
    assert not buffer


def test_pipelined_heads_come_off_one_by_one() -> None:
    reader, buffer = HeadReader(), bytearray(b"\r\n" + GET + GET + b"GET")
    assert [reader.take(buffer) for _ in range(3)] == [GET, GET, None]
    assert buffer == b"GET"


@pytest.mark.parametrize(
    ("came", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEADERS + 2), 431),
        (b"GET /" + b"a" * MAX_HEAD_BYTES, 431),
    ],
)
def test_what_can_not_become_a_head_is_refused_before_it_ends(came: bytes, status: int) -> None:
    with pytest.raises(UnreadableError) as caught:
        HeadReader().take(bytearray(came))
    assert caught.value.status == status
    answer = refusal(caught.value, date=DATE)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(caught.value.problem.encode() + b"\n")


def test_target_is_split_and_an_absolute_one_names_the_host() -> None:
    request = made(GET).request
    assert (request.path, request.query_string, request.address) == ("/a", "b=c", "192.0.2.1")
    absolute = made(b"GET http://y:1/a HTTP/1.1\r\nHost: x\r\n\r\n").request
    assert (absolute.path, absolute.headers["host"]) == ("/a", "y:1")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    ],
)
def test_head_alone_may_decide(head: bytes, status: int) -> None:
    refused = made(head).refused
    assert refused is not None and refused.status == status and refused.close


def test_old_version_can_not_be_upgraded() -> None:
    old = made(b"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    assert "upgrade" not in old.request.headers


@given(body=st.binary(max_size=64), cuts=st.lists(st.integers(0, 100), max_size=4))
def test_body_is_the_same_however_it_comes(body: bytes, cuts: list[int]) -> None:
    behind = b"GET / HTTP/1.1\r\n"
    came = body + behind
    exchange = with_length(len(body)) if body else with_length(1)
    if not body:
        came, body = b"x" + behind, b"x"
    whole = None
    edges = sorted({0, *(min(cut, len(came)) for cut in cuts), len(came)})
    for begin, end in pairwise(edges):
        if whole is None:
            whole = exchange.take_body(came[begin:end], eof=False, bound=64)
            rest = came[end:]
    assert whole == body
    assert exchange.left_over + rest == behind


def test_body_ends_with_its_bound_and_its_bytes_on_the_wire() -> None:
    with pytest.raises(BodyTooLongError, match="more than 3 bytes"):
        with_length(4).take_body(b"1234", eof=False, bound=3)
    assert with_length(3).take_body(b"123", eof=False, bound=3) == b"123"
    # One byte in each chunk, and each with an extension of a thousand.
    chunk = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
    exchange = made(CHUNKED)
    with pytest.raises(BodyTooLongError):
        for _ in range(1000):
            exchange.take_body(chunk, eof=False, bound=999)


@pytest.mark.parametrize("came", [b"x\r\n", b"5\r\nabcdefg\r\n"])
def test_malformed_chunks_are_refused(came: bytes) -> None:
    with pytest.raises(UnreadableError, match="malformed"):
        made(CHUNKED).take_body(came, eof=False, bound=99)


def test_body_that_ends_too_early_is_refused() -> None:
    exchange = with_length(4)
    assert exchange.take_body(b"12", eof=True, bound=99) is None
    with pytest.raises(UnreadableError, match="malformed"):
        exchange.take_body(b"", eof=True, bound=99)


def test_body_is_invited_only_if_the_peer_waits_for_it() -> None:
    assert with_length(4).invite_body() == b""
    assert with_length(4, b"Expect: 100-continue").invite_body().startswith(b"HTTP/1.1 100 ")


def test_answer_says_how_it_ends() -> None:
    exchange = made(GET)
    answer = exchange.respond(Response(200, "ok\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nok\n")
    assert b"\r\nDate: " + DATE + b"\r\n" in answer and b"close" not in answer
    assert exchange.may_continue
    last = made(GET)
    last.must_close = True
    assert b"\r\nConnection: close\r\n" in last.respond(Response())
    assert not last.may_continue


def test_head_and_no_content_have_no_body() -> None:
    head = made(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").respond(Response(200, "ok\n"))
    assert b"\r\nContent-Length: 3\r\n" in head and head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "wrong",
    [
        Response(99),
        Response("200"),  # type: ignore[arg-type]
        Response(200, 5),  # type: ignore[arg-type]
        Response(200, "", {"Content-Length": "3"}),
        Response(200, "", {"a b": "c"}),
        Response(200, "", {"a": "b\r\nc: d"}),
        Response(200, "", {"a": 5}),  # type: ignore[dict-item]
        Response(200, "", {"ä": "b"}),
    ],
)
def test_after_an_answer_that_can_not_be_sent_another_one_can(wrong: Response) -> None:
    exchange = made(GET)
    with pytest.raises(UNSENDABLE):
        exchange.respond(wrong)
    assert exchange.respond(Response(500, "failed\n", close=True)).startswith(b"HTTP/1.1 500 ")


def test_switch_agrees_on_nothing_but_websocket() -> None:
    upgrade = made(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    )
    answer = upgrade.switch("accepted")
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nSec-WebSocket-Accept: accepted\r\n" in answer
    assert b"Sec-WebSocket-Extensions" not in answer and b"Sec-WebSocket-Protocol" not in answer
