"""An answer to the probe of a port, in whatever pieces it comes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.client.answer import LIVE, Exchange, Health, judge

BODY = LIVE if isinstance(LIVE, bytes) else str(LIVE).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
    BODY
)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def heard(*pieces: bytes) -> Exchange:
    """Feed pieces until no more is wanted, which must come to pass."""
    exchange = Exchange("127.0.0.1", 18789, "/healthz")
    assert any(exchange.feed(piece) for piece in pieces)
    return exchange


def is_healthy(exchange: Exchange) -> bool:
    assert exchange.status is not None
    return judge(exchange.status, exchange.body) is Health.HEALTHY


def test_head_that_comes_before_its_body() -> None:
    assert is_healthy(heard(HEAD, BODY))


@pytest.mark.parametrize(
    "answer",
    [HEAD + BODY, CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)],
    ids=["with a length", "in chunks"],
)
def test_byte_for_byte(answer: bytes) -> None:
    assert is_healthy(heard(*(bytes([byte]) for byte in answer)))


@given(st.lists(st.integers(0, len(HEAD + BODY)), max_size=4))
def test_any_cut(cuts: list[int]) -> None:
    answer = HEAD + BODY
    at = sorted({0, *cuts, len(answer)})
    assert is_healthy(heard(*(answer[begin:end] for begin, end in pairwise(at))))


def test_body_that_never_comes_is_no_answer() -> None:
    assert heard(HEAD, b"").status is None


def test_body_without_a_length_ends_with_the_connection() -> None:
    assert is_healthy(heard(b"HTTP/1.0 200 OK\r\n\r\n", BODY, b""))
