"""Records and verdicts: the decision table is total, and the codec takes anything."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.claim.decision import Obstacle, Verdict, decide
from openclaw_gateway.claim.record import (
    MAX_RECORD_BYTES,
    RECORD_BLOCK_BYTES,
    LockRecord,
    Phase,
    believable,
    encode,
    parse,
)
from openclaw_gateway.client.answer import Health
from openclaw_gateway.host.process import ProcessFacts

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


def verdict(obstacle: Obstacle, health: Health, **facts: object) -> Verdict:
    ordinary = {
        "own_invocation": False,
        "waited_s": 0.0,
        "patience_s": 5.0,
        "free_s": 0.0,
        "lock_timeout_s": 5.0,
    }
    return decide(obstacle, health, **(ordinary | facts))  # type: ignore[arg-type]


@pytest.mark.parametrize("obstacle", Obstacle)
@pytest.mark.parametrize("health", Health)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("waited_s", [0.0, 4.9, 5.0, 60.0])
@pytest.mark.parametrize("free_s", [0.0, 5.0])
def test_decision_is_total_and_keeps_the_promises(
    obstacle: Obstacle, health: Health, own: bool, waited_s: float, free_s: float
) -> None:
    found = verdict(obstacle, health, own_invocation=own, waited_s=waited_s, free_s=free_s)
    assert (found is Verdict.DUPLICATE) == (health is Health.HEALTHY and not own)
    if found is Verdict.RECLAIM:
        assert (obstacle, health, free_s) == (Obstacle.RECORD, Health.REFUSED, 5.0)
    if found is Verdict.GIVE_UP:
        assert waited_s >= 5.0
    if found is Verdict.WAIT and waited_s >= 5.0:
        assert (obstacle, health) == (Obstacle.RECORD, Health.REFUSED)


@pytest.mark.parametrize(
    ("obstacle", "health", "facts", "expected"),
    [
        (Obstacle.STATE_DIRECTORY, Health.HEALTHY, {}, Verdict.DUPLICATE),
        (Obstacle.STATE_DIRECTORY, Health.HEALTHY, {"own_invocation": True}, Verdict.WAIT),
        (Obstacle.STATE_DIRECTORY, Health.REFUSED, {"free_s": 99.0}, Verdict.WAIT),
        (Obstacle.STATE_DIRECTORY, Health.STARTING, {"waited_s": 4.9}, Verdict.WAIT),
        (Obstacle.STATE_DIRECTORY, Health.STARTING, {"waited_s": 5.0}, Verdict.GIVE_UP),
        (Obstacle.CONFIG, Health.REFUSED, {"waited_s": 99.0, "free_s": 99.0}, Verdict.GIVE_UP),
        (Obstacle.RECORD, Health.REFUSED, {"free_s": 4.9, "waited_s": 9.0}, Verdict.WAIT),
        (Obstacle.RECORD, Health.REFUSED, {"free_s": 5.0}, Verdict.RECLAIM),
        (Obstacle.RECORD, Health.MUTE, {"waited_s": 5.0}, Verdict.GIVE_UP),
        (Obstacle.BASE_PORT, Health.MUTE, {"waited_s": 5.0}, Verdict.GIVE_UP),
        (Obstacle.LISTENER, Health.FOREIGN, {}, Verdict.WAIT),
        (Obstacle.LISTENER, Health.FOREIGN, {"waited_s": 5.0}, Verdict.GIVE_UP),
        (Obstacle.LISTENER, Health.HEALTHY, {"waited_s": 5.0}, Verdict.DUPLICATE),
    ],
)
def test_decision(
    obstacle: Obstacle, health: Health, facts: dict[str, object], expected: Verdict
) -> None:
    assert verdict(obstacle, health, **facts) is expected


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
    near_the_edge = OURS._replace(config_path="x" * (RECORD_BLOCK_BYTES - 600))
    for padding in range(200):
        record = near_the_edge._replace(unit="u" * padding)
        lengths = {len(encode(record._replace(phase=phase))) for phase in Phase}
        assert len(lengths) == 1 and lengths.pop() % RECORD_BLOCK_BYTES == 0


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


def test_every_obstacle_and_health_reads_as_a_noun() -> None:
    for word in itertools.chain(Obstacle, Health):
        assert word.value == word.value.strip() and not word.value.endswith(".")
