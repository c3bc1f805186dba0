"""HTTP's pure part: what no head may hold, which bytes are a probe, what a target and a route's path mean."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.server.message import (
    MAX_HEADERS,
    PROBE,
    Headers,
    Pattern,
    Request,
    Response,
    head_problem,
    split_target,
)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (b"", ""),
        (b"Content-Length: 0\r\n", ""),
        (b"Transfer-Encoding: chunked\r\n", ""),
        (b"X:\r\nY: \xff\tz\r\n", ""),
        (b"X: a\nY: b\r\n", "malformed"),
        (b"X: a\rY: b\r\n", "malformed"),
        (b"X: a\r\r\n", "malformed"),
        (b"X: a\x00b\r\n", "malformed"),
        (b"X: a\x0bb\r\n", "malformed"),
        (b"X: a\x7fb\r\n", "malformed"),
        (b"X: a\r\n b\r\n", "malformed"),
        (b"X: a\r\n\tb\r\n", "malformed"),
        (b"X : a\r\n", "malformed"),
        (b"Transfer-Encoding\t: chunked\r\n", "malformed"),
        (b"Content-Length: 1\r\nContent-Length: 1\r\n", "more than one"),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "more than one"),
        (b"transfer-encoding: chunked\r\nTRANSFER-ENCODING: x\r\n", "more than one"),
        (b"Content-Length: 1, 1\r\n", "no number"),
        (b"Content-Length: +1\r\n", "no number"),
        (b"Content-Length: -1\r\n", "no number"),
        (b"Content-Length: 0x1\r\n", "no number"),
        (b"Content-Length:\r\n", "no number"),
        (b"Content-Length: 1_0\r\n", "no number"),
        (b"Content-Length: " + b"9" * 19 + b"\r\n", "no number"),
        (b"X: y\r\n" * (MAX_HEADERS + 1), "more than 100 header fields"),
    ],
)
def test_head_that_two_servers_could_read_in_two_ways_is_refused(
    lines: bytes, problem: str
) -> None:
    found = head_problem(GET + lines + b"\r\n")
    assert (found is None) if not problem else (found is not None and problem in found[1])


def test_chunks_in_http_1_0_are_refused() -> None:
    head = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert head_problem(head) == (400, "Transfer-Encoding in HTTP/1.0")
    assert head_problem(head.replace(b"1.0", b"1.1")) is None


@given(st.binary(max_size=200))
def test_problem_never_quotes_the_peer(junk: bytes) -> None:
    found = head_problem(GET + junk)
    assert found is None or found[1].isascii()


@pytest.mark.parametrize(
    "probe",
    [
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:18789\r\n\r\n",
        b"HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nAccept: */*\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
def test_whole_probe_is_known(probe: bytes) -> None:
    assert PROBE.fullmatch(probe)


@pytest.mark.parametrize(
    "other",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n",
        b"GET /healthz http/1.1\r\nHost: x\r\n\r\n",
        b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /HEALTHZ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz?x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nAccept: a\nContent-Length: 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nx",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
    ],
)
def test_anything_else_is_no_probe(other: bytes) -> None:
    assert not PROBE.fullmatch(other)


@given(st.text(alphabet="GETHADPOS /healthz.1\r\n:-xcAUo", max_size=120))
def test_probe_has_one_host_and_no_body(text: str) -> None:
    raw = f"GET /healthz HTTP/1.1\r\n{text}\r\n\r\n".encode()
    if PROBE.fullmatch(raw):
        names = [line.partition(b":")[0].lower() for line in raw.split(b"\r\n")[1:-2]]
        assert names.count(b"host") == 1
        assert not {b"content-length", b"transfer-encoding", b"upgrade"} & set(names)
        assert head_problem(raw) is None


def test_headers_are_found_in_any_case_and_joined() -> None:
    headers = Headers([("X-A", "1"), ("x-a", "2"), ("Y", "3")])
    assert headers["X-a"] == "1, 2" and headers.get("y") == "3" and len(headers) == 2
    assert headers.get("z") is None and "3" not in repr(headers)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", ("/", "", "h")),
        ("/a?b=c?d#e", ("/a", "b=c?d", "h")),
        ("http://other:1/a?b", ("/a", "b", "other:1")),
        ("HTTPS://other", ("/", "", "other")),
        ("*", None),
        ("other:443", None),
        ("ftp://other/", None),
        ("http:///a", None),
        ("http://[::1/", None),
    ],
)
def test_target_is_split_into_path_query_and_host(
    target: str, expected: tuple[str, str, str] | None
) -> None:
    assert split_target(target, "h") == expected


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/a", "/a", {}),
        ("/a", "/a/", None),
        ("/a/{b}", "/a/x%20y", {"b": "x y"}),
        ("/a/{b}", "/a/x/y", None),
        ("/a/{b}", "/a/", None),
        ("/a.{b}/{c}", "/a.1/2", {"b": "1", "c": "2"}),
        ("/a.{b}", "/ax1", None),
    ],
)
def test_names_in_braces_match_one_part(
    pattern: str, path: str, expected: dict[str, str] | None
) -> None:
    assert Pattern(pattern).match(path) == expected


@pytest.mark.parametrize("path", ["a", "", "/{}", "/{a}/{a}", "/{a b}", "/{a", "/a b", "/a?b"])
def test_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(path))):
        Pattern(path)


def test_request_reads_its_query_and_its_body() -> None:
    request = Request("POST", "/", "a=1&a=2&b=%C3%A4&c=", Headers(), b'{"x": [1]}')
    assert request.query == {"a": "1", "b": "ä", "c": ""}
    assert request.json() == {"x": [1]} and request.text == '{"x": [1]}'


def test_response_in_json_is_compact_and_says_so() -> None:
    response = Response.json({"a": [1, 2]}, status=201)
    assert (response.status, response.body) == (201, '{"a":[1,2]}')
    assert response.headers == {"Content-Type": "application/json"}
    with pytest.raises(ValueError, match="JSON compliant"):
        Response.json(float("nan"))
