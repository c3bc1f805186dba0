"""One client's session: every first frame's fate, who may call what, and that nothing makes it raise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from official import assert_valid_frame
from openclaw_gateway.protocol import frames
from openclaw_gateway.protocol.calls import Answer, Failure
from openclaw_gateway.protocol.frames import ErrorCode, Event, error
from openclaw_gateway.protocol.schema import closed
from openclaw_gateway.protocol.session import (
    BURST_S,
    DRAINING,
    STARTING,
    Authenticate,
    Budget,
    Close,
    Effect,
    Invoke,
    Limited,
    Refusal,
    Refused,
    Send,
    Session,
)
from openclaw_gateway.server.methods import Registry
from openclaw_gateway.settings.load import load

LIMITS = load({}, {"HOME": "/nonexistent"}).limits
SNAPSHOT = {
    "presence": [{"ts": 1}],
    "health": {"ok": True, "ts": 1, "durationMs": 0},
    "stateVersion": {"presence": 1, "health": 1},
    "uptimeMs": 5,
}


def registry() -> Registry:
    made = Registry()
    made.method("health", lambda _: {}, scope=None, instant=True)
    made.method("read", lambda _: {}, scope="operator.read", params=closed({"x": {}}))
    made.method("admin", lambda _: {}, scope="operator.admin")
    return made


def fresh(**limits: Any) -> Session:
    return Session("c1", methods=registry().methods, limits=LIMITS._replace(**limits))


def request(method: str, params: object = None, *, id: object = "1", **more: object) -> str:
    frame: dict[str, object] = {"type": "req", "id": id, "method": method, **more}
    return json.dumps(frame if params is None else {**frame, "params": params})


def hello(**changes: object) -> dict[str, object]:
    client = {"id": "test", "version": "1", "platform": "linux", "mode": "test"}
    return {"minProtocol": 4, "maxProtocol": 4, "client": client, **changes}


def opened(*scopes: str, role: str = "operator", **limits: Any) -> Session:
    session = fresh(**limits)
    (authenticate,) = session.receive(
        request("connect", hello(scopes=list(scopes), role=role)), now_s=0
    )
    assert isinstance(authenticate, Authenticate)
    session.welcome(
        connect=authenticate.connect, server={"version": "1"}, events=[], snapshot=SNAPSHOT
    )
    assert session.is_open
    return session


def sent(effects: list[Effect]) -> dict[str, Any]:
    """Return the one frame among the effects, after checking it against the official schema."""
    (text,) = [effect.text for effect in effects if isinstance(effect, Send)]
    return assert_valid_frame(text)


def closing(effects: list[Effect]) -> tuple[int, str] | None:
    found = [(e.code, e.reason) for e in effects if isinstance(e, Close)]
    return found[0] if found else None


def test_greeting_is_a_challenge_without_seq() -> None:
    frame = sent(fresh().open(nonce="n", now_ms=7))
    assert frame == {
        "type": "event",
        "event": "connect.challenge",
        "payload": {"nonce": "n", "ts": 7},
    }


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "null", "{}", '{"type":"req"}', "NaN", "[" * 60_000, "\ud800", '{"a":1e999}'],
)
def test_first_frame_that_is_no_request_closes_with_1008(text: str) -> None:
    assert fresh().receive(text, now_s=0) == [Close(1008, "invalid request frame")]


def test_first_frame_beyond_the_limit_closes_with_1009() -> None:
    effects = fresh(max_preauth_bytes=1024).receive("é" * 600, now_s=0)
    assert effects == [
        Limited("max_preauth_bytes"),
        Close(1009, "too big before the handshake"),
    ]


@pytest.mark.parametrize(
    ("text", "message", "code"),
    [
        (request("health"), "invalid handshake: first request must be connect", 1008),
        (request("connect"), "invalid connect params: must have required property", 1008),
        (request("connect", []), "invalid connect params: must be object", 1008),
        (request("connect", hello(x=1)), "invalid connect params: at root: unexpected pro", 1008),
        (request("connect", hello(client={})), "invalid connect params: at /client: must", 1008),
        (request("connect", hello(minProtocol=5, maxProtocol=9)), "protocol mismatch", 1002),
        (request("connect", hello(minProtocol=3, maxProtocol=3)), "protocol mismatch", 1002),
        (request("connect", hello(minProtocol=5, maxProtocol=4)), "protocol mismatch", 1002),
        (request("connect", hello(role="king")), "invalid role", 1008),
    ],
)
def test_refused_handshake_is_answered_and_closed(text: str, message: str, code: int) -> None:
    session = fresh()
    effects = session.receive(text, now_s=0)
    frame, close = sent(effects), closing(effects)
    assert frame["error"]["code"] == "INVALID_REQUEST"
    assert frame["error"]["message"].startswith(message)
    assert close == (code, frames.close_reason(frame["error"]["message"]))
    assert session.receive(request("health"), now_s=0) == []


@pytest.mark.parametrize(("low", "high"), [(3, 4), (4, 4), (1, 99), (3, 3)])
def test_probes_get_in_with_any_range_from_3_on(low: int, high: int) -> None:
    client = {"id": "cli", "version": "dev", "platform": "linux", "mode": "probe"}
    params = hello(minProtocol=low, maxProtocol=high, client=client)
    (effect,) = fresh().receive(request("connect", params), now_s=0)
    assert isinstance(effect, Authenticate)


def test_mismatch_tells_both_ranges() -> None:
    effects = fresh().receive(request("connect", hello(minProtocol=7, maxProtocol=8)), now_s=0)
    assert sent(effects)["error"]["details"] == {
        "code": "PROTOCOL_MISMATCH",
        "clientMinProtocol": 7,
        "clientMaxProtocol": 8,
        "expectedProtocol": 4,
        "minimumProbeProtocol": 3,
    }


def test_credentials_and_known_scopes_reach_the_authenticator() -> None:
    params = hello(
        auth={"token": "t", "password": "p"},
        scopes=["operator.read", "operator.nonsense", "operator.read"],
    )
    (effect,) = fresh().receive(request("connect", params, id="7"), now_s=0)
    assert isinstance(effect, Authenticate)
    connect = effect.connect
    assert (connect.request_id, connect.token, connect.password) == ("7", "t", "p")
    assert connect.scopes == ("operator.read",) and connect.role == "operator"


def test_hello_is_complete_by_the_schema() -> None:
    session = fresh()
    (effect,) = session.receive(request("connect", hello(scopes=["operator.read"])), now_s=0)
    assert isinstance(effect, Authenticate)
    (send,) = session.welcome(
        connect=effect.connect, server={"version": "1"}, events=["tick"], snapshot=SNAPSHOT
    )
    assert isinstance(send, Send)
    payload = assert_valid_frame(send.text, method="connect")["payload"]
    assert payload["auth"] == {"role": "operator", "scopes": ["operator.read"]}
    assert payload["features"] == {"methods": ["admin", "health", "read"], "events": ["tick"]}
    assert payload["policy"] == {
        "maxPayload": 26214400,
        "maxBufferedBytes": 52428800,
        "tickIntervalMs": 30000,
    }


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [(STARTING, "startup-sidecars"), (DRAINING, "gateway-restarting")],
)
def test_phases_that_take_nobody_say_when_to_come_back(refusal: Refusal, reason: str) -> None:
    session = fresh()
    session.receive(request("connect", hello()), now_s=0)
    effects = session.refuse("1", refusal)
    shape = sent(effects)["error"]
    assert shape["code"] == "UNAVAILABLE" and shape["details"]["reason"] == reason
    assert shape["retryable"] is True and shape["retryAfterMs"] > 0
    assert closing(effects) == (1013, shape["message"])


def test_handshake_that_takes_too_long_is_closed_and_a_late_verdict_changes_nothing() -> None:
    session = fresh()
    (effect,) = session.receive(request("connect", hello()), now_s=0)
    assert isinstance(effect, Authenticate)
    assert session.expire() == [Close(1008, "handshake timeout")]
    late = session.welcome(
        connect=effect.connect, server={"version": "1"}, events=[], snapshot=SNAPSHOT
    )
    assert late == [] and session.refuse("1", STARTING) == [] and not session.is_open
    assert session.overflow() == [] and session.expire() == []


def test_open_session_has_no_deadline() -> None:
    assert opened().expire() == []


def test_binary_frame_closes_with_1003() -> None:
    assert opened().receive_binary() == [Close(1003, "text frames only")]


@pytest.mark.parametrize(
    ("scopes", "method", "allowed"),
    [
        ((), "health", True),
        ((), "read", False),
        (("operator.read",), "read", True),
        (("operator.write",), "read", True),
        (("operator.read",), "admin", False),
        (("operator.write",), "admin", False),
        (("operator.admin",), "admin", True),
        (("operator.admin",), "read", True),
        (("operator.approvals",), "read", False),
    ],
)
def test_scope_decides_who_may_call(scopes: tuple[str, ...], method: str, allowed: bool) -> None:
    effects = opened(*scopes).receive(request(method), now_s=1)
    if allowed:
        assert isinstance(effects[0], Invoke)
        return
    shape = sent(effects)["error"]
    scope = f"operator.{method}"
    assert shape == {
        "code": "FORBIDDEN",
        "message": f"missing scope: {scope}",
        "details": {"code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope]},
    }


@pytest.mark.parametrize(
    ("scope", "text", "code", "message"),
    [
        ("operator.admin", request("no.such"), "INVALID_REQUEST", "unknown method: no.such"),
        ("operator.read", request("no.such"), "FORBIDDEN", "missing scope: operator.admin"),
        ("operator.admin", request("connect", hello()), "INVALID_REQUEST", "connect is only valid"),
        (
            "operator.read",
            request("read", {"y": 1}),
            "INVALID_REQUEST",
            "invalid read params: at root: unexpected property 'y'",
        ),
        ("operator.read", request("read", []), "INVALID_REQUEST", "invalid read params: must be"),
        ("operator.read", "junk", "INVALID_REQUEST", "invalid request frame: not JSON"),
        (
            "operator.read",
            request("read", id=""),
            "INVALID_REQUEST",
            "invalid request frame: at /id",
        ),
        (
            "operator.read",
            request("read", x=1),
            "INVALID_REQUEST",
            "invalid request frame: at root",
        ),
    ],
)
def test_request_that_cannot_be_called_is_answered(
    scope: str, text: str, code: str, message: str
) -> None:
    shape = sent(opened(scope).receive(text, now_s=1))["error"]
    assert shape["code"] == code and shape["message"].startswith(message)


@pytest.mark.parametrize(
    ("text", "answered"),
    [(request("read", id=""), "invalid"), ("{", "invalid"), (request("read", x=1, id="q"), "q")],
)
def test_bad_frame_is_answered_by_its_id_if_it_has_one(text: str, answered: str) -> None:
    assert sent(opened("operator.read").receive(text, now_s=1))["id"] == answered


def test_newer_clients_profile_id_and_trace_are_let_pass() -> None:
    text = request("health", expectedProfileId="p", traceparent="00-ab")
    assert isinstance(opened().receive(text, now_s=1)[0], Invoke)


def test_node_may_not_call_what_operators_may() -> None:
    session = opened("operator.admin", role="node")
    shape = sent(session.receive(request("admin"), now_s=1))["error"]
    assert shape["message"] == "unauthorized role: node"


def test_settled_calls_are_answered_once_open_and_dropped_once_closed() -> None:
    session = opened()
    session.receive(request("health", id="a"), now_s=1)
    session.receive(request("health", id="b"), now_s=1)
    assert session.in_flight == 2
    assert sent(session.settle("a", Answer('{"ok":true}')))["payload"] == {"ok": True}
    failure = Failure(error(ErrorCode.UNAVAILABLE, "no"))
    session.shut_down(Event("shutdown", '{"reason":"stop"}'))
    assert session.settle("b", failure) == [] and session.in_flight == 0


@pytest.mark.parametrize(
    ("text", "method", "code"),
    [
        ("junk", "", "INVALID_REQUEST"),
        (request("nobody.knows.it"), "", "FORBIDDEN"),
        (request("connect"), "", "FORBIDDEN"),
        (request("read", {"y": 1}), "read", "INVALID_REQUEST"),
        (request("admin"), "admin", "FORBIDDEN"),
    ],
)
def test_request_without_a_call_is_counted_by_a_name_of_ours(
    text: str, method: str, code: str
) -> None:
    effects = opened("operator.read").receive(text, now_s=0)
    assert effects[1:] == [Refused(method, code)]


def test_request_that_breaks_a_limit_is_counted_as_refused_too() -> None:
    session = opened(max_in_flight=0)
    effects = session.receive(request("health"), now_s=0)
    assert effects[::2] == [Limited("max_in_flight"), Refused("health", "UNAVAILABLE")]
    session = opened(requests_per_second=1)
    for _ in range(BURST_S):
        session.receive("junk", now_s=0)
    effects = session.receive(request("health"), now_s=0)
    # It was not read: whose it is nobody knows.
    assert effects[::2] == [Limited("requests_per_second"), Refused("", "UNAVAILABLE")]


def test_requests_in_flight_are_bounded() -> None:
    session = opened(max_in_flight=2)
    for number in range(2):
        assert isinstance(session.receive(request("health", id=f"{number}"), now_s=1)[0], Invoke)
    effects = session.receive(request("health", id="x"), now_s=1)
    assert effects[0] == Limited("max_in_flight")
    assert sent(effects)["error"]["retryable"] is True
    session.settle("0", Answer("{}"))
    assert isinstance(session.receive(request("health"), now_s=1)[0], Invoke)


def test_request_rate_is_bounded_and_recovers() -> None:
    session = opened(requests_per_second=5)
    for _ in range(5 * BURST_S):
        (invoke,) = session.receive(request("health"), now_s=1)
        assert isinstance(invoke, Invoke)
        session.settle("1", Answer("{}"))
    effects = session.receive("junk counts too", now_s=1)
    shape = sent(effects)["error"]
    assert effects[0] == Limited("requests_per_second")
    assert shape["code"] == "UNAVAILABLE" and shape["retryAfterMs"] == 201
    assert isinstance(session.receive(request("health"), now_s=1.21)[0], Invoke)


def test_big_frame_is_paid_by_its_size_before_it_is_read() -> None:
    session = opened("operator.admin", requests_per_second=100)
    big = json.dumps("x" * (22 << 20))
    assert isinstance(session.receive(request("health", id="a"), now_s=1)[0], Invoke)
    text = request("admin", id="b").replace("}", f', "params": {big}}}')
    assert isinstance(session.receive(text, now_s=1)[0], Invoke)
    effects = session.receive(text + "no JSON at all", now_s=2)
    assert effects[0] == Limited("requests_per_second")
    refused = sent(effects)
    assert refused["id"] == "b" and 53_000 < refused["error"]["retryAfterMs"] < 56_000
    assert sent(session.receive("[" + text, now_s=2))["id"] == "invalid"
    assert sent(session.receive(request("health", id="c"), now_s=2))["id"] == "c"
    assert isinstance(session.receive(text, now_s=58)[0], Invoke)


@given(st.lists(st.floats(0, 10, allow_nan=False), max_size=200), st.integers(1, 50))
def test_budget_never_exceeds_its_rate_and_burst(pauses: list[float], rate: int) -> None:
    budget, now_s, spent = Budget(rate, burst_s=2), 0.0, 0
    for pause_s in pauses:
        now_s += pause_s
        spent += not budget.spend(now_s)
        assert spent <= 2 * rate + rate * now_s + 1e-6


def test_events_are_numbered_without_gaps_and_by_scope() -> None:
    session = opened("operator.read")
    deaf = opened()
    tick = Event("tick", '{"ts":1}')
    presence = Event("presence", '{"presence":[]}', "operator.read", '{"presence":2,"health":1}')
    seqs = [sent(session.notify(event))["seq"] for event in (tick, presence, tick)]
    assert seqs == [1, 2, 3]
    assert deaf.notify(presence) == [] and sent(deaf.notify(tick))["seq"] == 1
    assert fresh().notify(tick) == []


def test_goodbye_has_a_reason_for_those_with_a_hello_only() -> None:
    event = Event("shutdown", '{"reason":"gateway stopping"}')
    effects = opened().shut_down(event)
    assert sent(effects)["payload"] == {"reason": "gateway stopping"}
    assert closing(effects) == (1012, "service restart")
    assert fresh().shut_down(event) == [Close(1012, "service restart")]


@given(st.text())
def test_close_reason_fits_a_control_frame(text: str) -> None:
    assert len(frames.close_reason(text).encode()) <= 123


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)
NEARLY = st.fixed_dictionaries(
    {"type": st.sampled_from(["req", "res", 1]), "id": JSON | st.just("1"), "method": JSON},
    optional={"params": JSON, "x": JSON, "traceparent": JSON},
)
CONNECTS = st.builds(
    lambda changes: {"type": "req", "id": "1", "method": "connect", "params": hello(**changes)},
    st.dictionaries(
        st.sampled_from("minProtocol maxProtocol client auth scopes role device caps".split()), JSON
    ),
)
CALLS = st.builds(
    lambda name, params: {"type": "req", "id": "1", "method": name, "params": params},
    st.sampled_from(["health", "read", "admin", "connect", "x"]),
    JSON,
)
TEXTS = st.text() | (NEARLY | CONNECTS | CALLS | JSON).map(json.dumps)
STEPS = TEXTS | st.sampled_from(
    ["binary", "welcome", "refuse", "expire", "event", "goodbye", "late"]
)


@given(st.integers(500, 20_000) | st.integers(850, 1000), st.sampled_from("[{"))
def test_nesting_of_any_depth_ends_in_an_answer(depth: int, kind: str) -> None:
    deep = "[" * depth + "]" * depth if kind == "[" else '{"a":' * depth + "1" + "}" * depth
    connect = request("connect", hello(computerUse="deep")).replace('"deep"', deep)
    (effect, *_) = fresh(max_preauth_bytes=1 << 20).receive(connect, now_s=0)
    assert isinstance(effect, Authenticate | Close)
    for key in ("params", "traceparent", "id", "x"):
        text = request("health", **{key: "deep"}).replace('"deep"', deep)
        (effect, *_) = opened("operator.admin").receive(text, now_s=0)
        assert isinstance(effect, Invoke | Send)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), STEPS), max_size=12))
def test_any_frames_in_any_order_get_an_answer_or_a_close(steps: list[tuple[bool, str]]) -> None:
    session = fresh(max_in_flight=3, requests_per_second=4)
    connect = None
    closed_ = False
    for is_text, step in steps:
        before_open = session.is_open
        if is_text or step not in ACTIONS:
            effects = session.receive(step, now_s=0)
            if before_open:
                assert any(isinstance(e, Send | Invoke | Close) for e in effects)
        else:
            effects = ACTIONS[step](session, connect)
        for effect in effects:
            assert not closed_, "nothing follows a close"
            match effect:
                case Send(text):
                    assert text.isascii()
                    frame = json.loads(text)
                    assert frame["type"] in ("res", "event")
                case Authenticate(asked):
                    connect = asked
                case Close(code, reason):
                    closed_ = True
                    assert 1000 < code < 1014 and len(reason.encode()) <= 120
        assert session.in_flight <= 3


ACTIONS: dict[str, Any] = {
    "binary": lambda session, _: session.receive_binary(),
    "expire": lambda session, _: session.expire(),
    "refuse": lambda session, _: session.refuse("1", STARTING),
    "event": lambda session, _: session.notify(Event("tick", '{"ts":1}')),
    "goodbye": lambda session, _: session.shut_down(Event("shutdown", '{"reason":"x"}')),
    "late": lambda session, _: session.overflow(),
    "welcome": lambda session, connect: (
        session.welcome(connect=connect, server={"version": "1"}, events=[], snapshot=SNAPSHOT)
        if connect
        else []
    ),
}
