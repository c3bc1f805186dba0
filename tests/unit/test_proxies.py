"""Whose request it is: a trusted proxy's word counts, nobody else's, and what is forwarded is never local."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.server.proxies import (
    NO_CLIENT,
    UNTRUSTED,
    USER_SCOPES,
    Source,
    TrustedProxies,
    User,
    identify,
    network,
    resolve,
)

PROXY, HERE, CLIENT = "10.0.0.1", "127.0.0.1", "192.0.2.7"
TRUSTED = TrustedProxies(["10.0.0.0/8", HERE, "2001:db8:1::/48", "nonsense", "10.0.0.0/99", ""])


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        # Nobody that is trusted: its own address, unless it looks like a proxy.
        (CLIENT, {}, Source(CLIENT, False)),
        (CLIENT, {"x-forwarded-for": "127.0.0.1"}, UNTRUSTED),
        (CLIENT, {"x-forwarded-proto": "https"}, UNTRUSTED),
        (CLIENT, {"x-real-ip": CLIENT}, UNTRUSTED),
        (CLIENT, {"forwarded": "for=192.0.2.1"}, UNTRUSTED),
        ("127.0.0.2", {}, Source("127.0.0.2", True)),
        ("127.0.0.2", {"x-forwarded-for": CLIENT}, UNTRUSTED),
        ("::1", {}, Source("::1", True)),
        ("::ffff:127.0.0.1", {}, Source("::ffff:127.0.0.1", True)),
        # A program of this machine, where a proxy runs too.
        (HERE, {}, Source(HERE, True)),
        ("::ffff:127.0.0.1", {"x-forwarded-for": CLIENT}, Source(CLIENT, False)),
        (HERE, {"x-forwarded-for": CLIENT}, Source(CLIENT, False)),
        # From the right: what a client sent along stands on the left.
        (PROXY, {"x-forwarded-for": f"203.0.113.9, {CLIENT}"}, Source(CLIENT, False)),
        (PROXY, {"x-forwarded-for": f"{CLIENT}, 10.9.9.9, 127.0.0.1"}, Source(CLIENT, False)),
        (PROXY, {"x-forwarded-for": f"{CLIENT}, unknown"}, Source(CLIENT, False)),
        (PROXY, {"x-forwarded-for": f"{CLIENT}:4711"}, Source(CLIENT, False)),
        (PROXY, {"x-forwarded-for": "[2001:db8::7]:4711"}, Source("2001:db8::7", False)),
        (PROXY, {"x-forwarded-for": '"[2001:db8::7]"'}, Source("2001:db8::7", False)),
        (PROXY, {"x-forwarded-for": "2001:db8::7"}, Source("2001:db8::7", False)),
        (PROXY, {"x-forwarded-for": f"::ffff:{CLIENT}"}, Source(CLIENT, False)),
        ("2001:db8:1::9", {"x-forwarded-for": CLIENT}, Source(CLIENT, False)),
        # Nobody to be found.
        (PROXY, {}, NO_CLIENT),
        (PROXY, {"x-forwarded-for": ""}, NO_CLIENT),
        (PROXY, {"x-forwarded-for": "127.0.0.1, 10.1.1.1"}, NO_CLIENT),
        (PROXY, {"x-forwarded-proto": "https"}, NO_CLIENT),
        (PROXY, {"forwarded": f"for={CLIENT}"}, NO_CLIENT),
        (PROXY, {"x-real-ip": CLIENT}, NO_CLIENT),
        (HERE, {"x-forwarded-for": "127.0.0.1"}, NO_CLIENT),
    ],
)
def test_client_is_the_right_most_address_that_is_not_trusted(
    peer: str, headers: dict[str, str], expected: Source | str
) -> None:
    assert resolve(peer, headers, trusted=TRUSTED, real_ip_fallback=False) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-real-ip": CLIENT}, Source(CLIENT, False)),
        ({"x-real-ip": CLIENT, "x-forwarded-for": "203.0.113.9"}, Source("203.0.113.9", False)),
        ({"x-real-ip": CLIENT, "x-forwarded-for": "127.0.0.1"}, Source(CLIENT, False)),
        ({"x-real-ip": "127.0.0.1"}, NO_CLIENT),
        ({"x-real-ip": PROXY}, NO_CLIENT),
    ],
)
def test_real_ip_counts_after_forwarded_for_where_it_is_wanted(
    headers: dict[str, str], expected: Source | str
) -> None:
    assert resolve(PROXY, headers, trusted=TRUSTED, real_ip_fallback=True) == expected
    assert resolve(CLIENT, headers, trusted=TRUSTED, real_ip_fallback=True) == UNTRUSTED


@given(st.text(max_size=60), st.sampled_from([PROXY, HERE, CLIENT]))
def test_forwarded_request_is_never_local(value: str, peer: str) -> None:
    found = resolve(peer, {"x-forwarded-for": value}, trusted=TRUSTED, real_ip_fallback=True)
    assert isinstance(found, str) or not found.local


@pytest.mark.parametrize(
    ("entries", "address", "expected"),
    [
        (["192.0.2.1"], "192.0.2.1", True),
        (["192.0.2.1"], "::ffff:192.0.2.1", True),
        (["::ffff:192.0.2.1"], "192.0.2.1", True),
        (["::ffff:192.0.2.0/120"], "192.0.2.9", True),
        (["192.0.2.9/24"], "192.0.2.1", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["::/0"], "192.0.2.1", False),
        ([" 192.0.2.1 "], "192.0.2.1", True),
        (["example.org", "192.0.2.1:80", "*"], "192.0.2.1", False),
        (["192.0.2.1"], "unknown", False),
    ],
)
def test_entry_is_an_address_or_a_block_and_nonsense_matches_nothing(
    entries: list[str], address: str, *, expected: bool
) -> None:
    assert (address in TrustedProxies(entries)) is expected


@given(st.lists(st.text(max_size=30)), st.text(max_size=30))
def test_no_entry_and_no_address_makes_it_raise(entries: list[str], address: str) -> None:
    assert address not in TrustedProxies(entries) or network(address) != "unknown"


@pytest.mark.parametrize(
    ("headers", "rule", "expected"),
    [
        ({"x-user": " ada "}, {}, User("ada", USER_SCOPES)),
        ({}, {}, None),
        ({"x-user": "  "}, {}, None),
        ({"x-user": "ada"}, {"allowed": ["bob"]}, None),
        ({"x-user": "bob"}, {"allowed": ["bob"]}, User("bob", USER_SCOPES)),
        ({"x-user": "ada"}, {"required": ["X-Verified"]}, None),
        ({"x-user": "ada", "x-verified": ""}, {"required": ["X-Verified"]}, None),
        (
            {"x-user": "ada", "x-verified": "1"},
            {"required": ["X-Verified"]},
            User("ada", USER_SCOPES),
        ),
        ({"x-user": "ada", "x-openclaw-scopes": ""}, {}, User("ada", frozenset())),
        (
            {"x-user": "ada", "x-openclaw-scopes": "operator.read, operator.admin"},
            {},
            User("ada", frozenset({"operator.read"})),
        ),
    ],
)
def test_user_is_who_the_proxy_says_and_never_an_administrator(
    headers: dict[str, str], rule: dict[str, list[str]], expected: User | None
) -> None:
    assert identify(headers, user_header="X-User", **rule) == expected
