"""Names that a request may call us by, and pages that it may come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.server.access import HOST_REFUSED, ORIGIN_REFUSED, refused


def judged(host: str | None, origin: str | None = None, *allowed: str, tls: bool = False) -> str:
    return refused(
        host, origin, allowed_hosts={"gateway.example"}, allowed_origins=allowed, tls=tls
    )


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.:1", "192.0.2.7:18789", "[2001:db8::1]:1", "::1", "Gateway.Example"],
)
def test_own_names_may_be_used(host: str) -> None:
    assert judged(host) == "" or host == "::1"


@pytest.mark.parametrize(
    "host",
    [
        None, "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::1",
        "evil.example@127.0.0.1x", "gateway.example.evil", "localhost:x@evil.example", "a b", "[]",
    ],
)  # fmt: skip
def test_foreign_names_may_not(host: str | None) -> None:
    assert judged(host) == HOST_REFUSED


@pytest.mark.parametrize(
    ("origin", "allowed", "expected"),
    [
        (None, [], ""),
        ("https://ui.example", [], ORIGIN_REFUSED),
        ("http://localhost:8080", [], ORIGIN_REFUSED),
        ("null", ["*"], ORIGIN_REFUSED),
        ("", ["*"], ORIGIN_REFUSED),
        ("https://UI.example", ["https://ui.example/"], ""),
        ("https://ui.example:8443", ["https://ui.example"], ORIGIN_REFUSED),
        ("https://any.example", ["*"], ""),
        ("https://a.example, https://b.example", ["*"], ORIGIN_REFUSED),
    ],
)
def test_page_needs_leave(origin: str | None, allowed: list[str], expected: str) -> None:
    assert judged("localhost", origin, *allowed) == expected


@pytest.mark.parametrize(
    ("host", "origin", "over_plain", "over_tls"),
    [
        ("localhost:18789", "http://localhost:18789", "", ORIGIN_REFUSED),
        ("LocalHost:18789", "http://localhost:18789", "", ORIGIN_REFUSED),
        ("[::1]:18789", "http://[::1]:18789", "", ORIGIN_REFUSED),
        # A proxy in front of us may speak TLS for us; nobody speaks plain HTTP for us if we speak TLS.
        ("gateway.example", "https://gateway.example", "", ""),
        ("127.0.0.1:18789", "https://127.0.0.1:18789", "", ""),
        ("127.0.0.1:18789", "http://127.0.0.1:18790", ORIGIN_REFUSED, ORIGIN_REFUSED),
        ("127.0.0.1:18789", "http://127.0.0.1", ORIGIN_REFUSED, ORIGIN_REFUSED),
        ("127.0.0.1", "ws://127.0.0.1", ORIGIN_REFUSED, ORIGIN_REFUSED),
        ("127.0.0.1", "null", ORIGIN_REFUSED, ORIGIN_REFUSED),
        ("127.0.0.1", "http://127.0.0.1, http://127.0.0.1", ORIGIN_REFUSED, ORIGIN_REFUSED),
        # What a page on a name that was rebound to us sends.
        ("evil.example", "http://evil.example", HOST_REFUSED, HOST_REFUSED),
    ],
)
def test_own_page_needs_none(host: str, origin: str, over_plain: str, over_tls: str) -> None:
    assert judged(host, origin) == over_plain
    assert judged(host, origin, tls=True) == over_tls


@given(st.text(max_size=80), st.text(max_size=80))
def test_nothing_makes_it_raise(host: str, origin: str) -> None:
    assert judged(host, origin, "*") in ("", HOST_REFUSED, ORIGIN_REFUSED)
