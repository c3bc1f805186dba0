"""Lock records: the codec takes anything, and only the living are believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.claim.record import (
    MAX_PID,
    RECORD_BLOCK_BYTES,
    LockRecord,
    Phase,
    believable,
    encode,
    parse,
)
from openclaw_gateway.host.process import ProcessFacts
from openclaw_gateway.protocol.fields import MAX_RECORD_BYTES

OURS = LockRecord(
    pid=812,
    port=18789,
    start_ticks=4711,
    owner_id="6c1d",
    created_at="2026-11-23T03:29:03.831Z",
    config_path="/home/ä/openclaw.json",
    state_dir="/home/ä",
    host="127.0.0.1",
    phase=Phase.STARTING,
    boot_id="6125e0b9-fa35-4851-84e4-27daee6ecb0c",
    pid_namespace=4026531836,
    unit="openclaw-gateway.service",
    invocation_id="ab" * 16,
    version="0.1.0",
)
NODE = LockRecord(pid=812, port=18789, start_ticks=4711, owner_id="6c1d")


ALIVE = ProcessFacts(812, 4711)
RECYCLED = ProcessFacts(812, 9999)


@pytest.mark.parametrize(
    ("record", "owner", "expected"),
    [
        pytest.param(None, None, False, id="no record"),
        pytest.param(OURS, ALIVE, False, id="its writer takes the flock that we now have"),
        pytest.param(NODE, ALIVE, True, id="alive, and takes no flock"),
        pytest.param(NODE, RECYCLED, False, id="recycled pid"),
        pytest.param(NODE, None, False, id="gone"),
        pytest.param(NODE._replace(start_ticks=None), ALIVE, False, id="no start time"),
        pytest.param(NODE._replace(pid=1), ProcessFacts(1, 4711), False, id="pid 1"),
        pytest.param(NODE._replace(pid=77), ProcessFacts(77, 4711), False, id="our own pid"),
    ],
)
def test_only_a_living_owner_that_takes_no_flock_is_believed(
    record: LockRecord | None, owner: ProcessFacts | None, expected: bool
) -> None:
    assert believable(record, owner, own_pid=77) is expected


def test_record_survives_the_disk() -> None:
    assert parse(encode(OURS)) == OURS


def test_record_has_the_keys_that_other_gateways_read() -> None:
    on_disk = json.loads(encode(OURS))
    assert on_disk["startTime"] == 4711
    assert {"pid", "ownerId", "createdAt", "configPath", "stateDir", "port"} <= on_disk.keys()


def test_record_keeps_its_length_through_all_phases() -> None:
    room = RECORD_BLOCK_BYTES - len(json.dumps(json.loads(encode(OURS._replace(config_path="")))))
    lengths = set()
    for padding in range(room - 50, room + 50):
        record = OURS._replace(config_path="x" * padding)
        of_record = {len(encode(record._replace(phase=phase))) for phase in Phase}
        assert len(of_record) == 1
        lengths |= of_record
    assert lengths == {RECORD_BLOCK_BYTES, 2 * RECORD_BLOCK_BYTES}


@pytest.mark.parametrize("pid", [0, -1, 2**31, True, 1.0, "812", None])
def test_record_without_a_sane_pid_is_none(pid: object) -> None:
    assert parse(json.dumps({"pid": pid, "port": 1}).encode()) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"{",
        b'{"pid": 81',
        b"\xff\xfe",
        b"[" * 60000,
        b"[]",
        b" " * (MAX_RECORD_BYTES + 1),
        b'{"pid": ' + b"9" * 5000 + b"}",
    ],
)
def test_malformed_record_is_none(data: bytes) -> None:
    assert parse(data) is None


def test_keys_of_the_wrong_type_are_dropped() -> None:
    record = parse(b'{"pid": 5, "port": "x", "phase": [], "unit": 7, "startTime": true, "new": 1}')
    assert record == LockRecord(pid=5)


def test_trailing_space_of_other_implementations_is_fine() -> None:
    assert parse(b'{\n "pid": 5,\n "port": 18789\n}\n\t \t  \t\n') == LockRecord(pid=5, port=18789)


@given(st.binary(max_size=300))
def test_parse_never_raises(data: bytes) -> None:
    record = parse(data)
    assert record is None or record.pid > 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@given(st.fixed_dictionaries({"pid": json_values, "port": json_values, "phase": json_values}))
def test_parse_yields_a_sane_record_or_none(raw: dict[str, object]) -> None:
    record = parse(json.dumps(raw).encode())
    if record is not None:
        assert 0 < record.pid < 2**31
        assert record.port is None or 0 < record.port < 65536


@pytest.mark.parametrize(
    ("pid", "port", "expected"),
    [
        (1, 1, LockRecord(pid=1, port=1)),
        (MAX_PID, 65535, LockRecord(pid=MAX_PID, port=65535)),
        (5, 0, LockRecord(pid=5)),
        (5, 65536, LockRecord(pid=5)),
        (5, -1, LockRecord(pid=5)),
        (0, 1, None),
        (MAX_PID + 1, 1, None),
    ],
)
def test_pid_and_port_end_where_the_kernels_do(
    pid: int, port: int, expected: LockRecord | None
) -> None:
    assert parse(json.dumps({"pid": pid, "port": port}).encode()) == expected


@pytest.mark.parametrize(
    ("written", "ours", "local"),
    [(None, 7, True), (7, 7, True), (8, 7, False), (8, 0, True), (0, 7, True)],
)
def test_pid_of_another_namespace_is_nobodys_here(
    written: int | None, ours: int, local: bool
) -> None:
    assert OURS._replace(pid_namespace=written).is_local(ours) is local
