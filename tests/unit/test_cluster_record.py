"""The cluster's record: what is written is read again, and whatever else stands there is survived."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.cluster.record import Record, encode, parse
from openclaw_gateway.protocol.fields import MAX_RECORD_BYTES

RECORD = Record("h" * 32, "o", "ws://gw-a:18789", "gw-a", 15000, 7, 1_700_000_000_000)


def test_record_is_json_with_the_documented_keys() -> None:
    assert json.loads(encode(RECORD)) == {
        "holder": "h" * 32,
        "ownerId": "o",
        "url": "ws://gw-a:18789",
        "host": "gw-a",
        "leaseMs": 15000,
        "seq": 7,
        "sinceMs": 1_700_000_000_000,
    }


@given(
    st.builds(
        Record,
        *[st.text(max_size=20)] * 4,
        lease_ms=st.integers(0, 86_400_000),
        seq=st.integers(0, 2**53),
        since_ms=st.none() | st.integers(0, 2**53),
    )
)
def test_what_is_written_is_read_again(record: Record) -> None:
    assert parse(encode(record)) == record


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(value: bytes) -> None:
    parse(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[1]",
        b'{"holder": "h"}',
        b'{"holder": 1, "ownerId": "o"}',
        b"[" * 100_000,
        encode(RECORD) + b" " * MAX_RECORD_BYTES,
    ],
)
def test_anything_else_is_no_record(value: bytes) -> None:
    assert parse(value) is None


def test_longest_lease_and_longest_record_are_read() -> None:
    longest = RECORD._replace(lease_ms=86_400_000)
    assert parse(encode(longest).ljust(MAX_RECORD_BYTES)) == longest


@pytest.mark.parametrize("lease", [-1, 86_400_001, 10**12, "15000", True, 1.5])
def test_absurd_lease_of_another_is_not_waited_for(lease: object) -> None:
    found = parse(json.dumps({"holder": "h", "ownerId": "o", "leaseMs": lease}).encode())
    assert found == Record("h", "o")
