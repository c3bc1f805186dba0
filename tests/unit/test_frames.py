"""Frames: any text in, well-formed ASCII out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from official import assert_valid_frame
from openclaw_gateway.protocol import frames
from openclaw_gateway.protocol.frames import ErrorCode, Event, Malformed, Request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text() | JSON.map(json.dumps) | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_request_or_malformed(text: str) -> None:
    parsed = frames.parse(text)
    assert isinstance(parsed, Request | Malformed)
    assert parsed.id and isinstance(parsed.id, str)


@given(st.text(min_size=1), st.text(min_size=1), JSON)
def test_request_comes_through_as_it_was_sent(id: str, method: str, params: object) -> None:
    text = json.dumps({"type": "req", "id": id, "method": method, "params": params})
    assert frames.parse(text) == Request(id, method, params)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1" * 5000])
def test_what_only_python_takes_for_json_is_refused(number: str) -> None:
    text = f'{{"type":"req","id":"1","method":"m","params":{number}}}'
    assert frames.parse(text) == Malformed("invalid", "not JSON")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"bytes"])
def test_what_is_not_json_is_not_encoded(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        frames.encode(value)


@given(st.text(min_size=1), JSON)
def test_answers_are_valid_ascii_whatever_the_client_put_into_the_id(
    id: str, value: object
) -> None:
    text = frames.answer(id, frames.encode(value))
    assert text.isascii()
    frame = assert_valid_frame(text)
    assert (frame["id"], frame["payload"]) == (id, value)


def test_error_has_what_it_was_given_and_no_nulls() -> None:
    plain = frames.error(ErrorCode.FORBIDDEN, "no")
    assert plain == {"code": "FORBIDDEN", "message": "no"}
    rich = frames.error(ErrorCode.UNAVAILABLE, "wait", details={"a": 1}, retry_after_ms=5)
    assert rich == {
        "code": "UNAVAILABLE",
        "message": "wait",
        "details": {"a": 1},
        "retryable": True,
        "retryAfterMs": 5,
    }
    assert_valid_frame(frames.refusal("1", rich))


def test_event_has_its_number_and_version() -> None:
    event = Event("tick", '{"ts":1}', state_version='{"presence":1,"health":2}')
    frame = assert_valid_frame(event.numbered(9))
    assert frame["seq"] == 9 and frame["stateVersion"] == {"presence": 1, "health": 2}
