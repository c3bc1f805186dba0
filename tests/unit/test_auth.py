"""Who may in, and what guessing costs."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.server.auth import Authenticator, Bursts, Guesses
from openclaw_gateway.server.proxies import Source, network
from openclaw_gateway.settings.load import AuthMode, Settings, load
from openclaw_gateway.settings.sources import Secret

HERE = Source("127.0.0.1", local=True)
STRANGER = Source("192.0.2.1", local=False)
DEFAULTS = load({}, {"HOME": "/nonexistent"})
LIMITS = DEFAULTS.limits


def settings(mode: AuthMode) -> Settings:
    return DEFAULTS._replace(auth_mode=mode, token=Secret("tok"), password=Secret("pass"))


def code(
    mode: AuthMode, source: Source = HERE, *, token: str | None = None, password: str | None = None
) -> str:
    """Return the refusal's details.code, ``""`` for who is let in."""
    judge = Authenticator(settings(mode), reached=Counter()).judge
    refusal = judge(source, token=token, password=password, now_s=0).refusal
    if refusal is None:
        return ""
    details = refusal.error["details"]
    assert isinstance(details, dict)
    return str(details["code"])


@pytest.mark.parametrize(
    ("mode", "token", "password", "expected"),
    [
        (AuthMode.TOKEN, "tok", None, ""),
        (AuthMode.TOKEN, None, "tok", ""),
        (AuthMode.TOKEN, "tok", "pass", ""),
        (AuthMode.TOKEN, "pass", "tok", "AUTH_TOKEN_MISMATCH"),
        (AuthMode.TOKEN, "tok ", None, "AUTH_TOKEN_MISMATCH"),
        (AuthMode.TOKEN, "pass", None, "AUTH_TOKEN_MISMATCH"),
        (AuthMode.TOKEN, "\ud800", None, "AUTH_TOKEN_MISMATCH"),
        (AuthMode.TOKEN, "", "", "AUTH_TOKEN_MISSING"),
        (AuthMode.TOKEN, None, None, "AUTH_TOKEN_MISSING"),
        (AuthMode.PASSWORD, None, "pass", ""),
        (AuthMode.PASSWORD, "pass", None, ""),
        (AuthMode.PASSWORD, "tok", None, "AUTH_PASSWORD_MISMATCH"),
        (AuthMode.PASSWORD, None, None, "AUTH_PASSWORD_MISSING"),
        (AuthMode.NONE, None, None, ""),
    ],
)
def test_secret_may_come_in_either_field(
    mode: AuthMode, token: str | None, password: str | None, expected: str
) -> None:
    assert code(mode, token=token, password=password) == expected


def test_mode_none_is_for_programs_of_this_machine() -> None:
    assert code(AuthMode.NONE, STRANGER) == "AUTH_TOKEN_MISSING"


@given(st.text())
def test_no_other_text_is_the_secret(guess: str) -> None:
    assert bool(code(AuthMode.TOKEN, token=guess)) == (guess != "tok")


def test_delay_doubles_up_to_5_seconds_and_ends_with_the_window() -> None:
    guesses = Guesses(LIMITS)
    delays, now_s = [], 0.0
    for _ in range(7):
        delay_s = guesses.wrong(HERE, now_s=now_s)
        delays.append(delay_s)
        now_s += delay_s
    assert delays == [0.25, 0.5, 1, 2, 4, 5, 5]
    assert guesses.wrong(HERE, now_s=LIMITS.auth_window_s + 1) == 0.25


def test_guesses_side_by_side_wait_for_one_moment() -> None:
    guesses = Guesses(LIMITS)
    waits = [guesses.wrong(HERE, now_s=0) for _ in range(20)]
    assert max(waits) == 5
    assert guesses.wrong(HERE, now_s=4.9) == 5


def test_local_program_is_never_locked_out() -> None:
    guesses = Guesses(LIMITS)
    for _ in range(10_000):
        guesses.wrong(HERE, now_s=1)
    assert guesses.locked_s(HERE, now_s=1) == 0


def test_local_program_is_locked_out_if_the_settings_say_so() -> None:
    guesses = Guesses(LIMITS)
    guesses.exempts_local = False
    for _ in range(LIMITS.auth_max_attempts):
        guesses.wrong(HERE, now_s=0.0)
    assert guesses.locked_s(HERE, now_s=0.0) > 0


def test_stranger_is_locked_out_for_a_while_and_then_is_not() -> None:
    reached: Counter[str] = Counter()
    judge = Authenticator(settings(AuthMode.TOKEN), reached=reached).judge
    for _ in range(LIMITS.auth_max_attempts):
        refusal = judge(STRANGER, token="x", password=None, now_s=1).refusal
        assert refusal and "mismatch" in str(refusal.error["message"])
    locked = judge(STRANGER, token="tok", password=None, now_s=2).refusal
    assert locked and locked.error["details"]["code"] == "AUTH_RATE_LIMITED"  # type: ignore[index]
    assert locked.error["retryAfterMs"] == 299_000 and reached["auth_max_attempts"] == 1
    other = Source("192.0.2.2", local=False)
    assert judge(other, token="tok", password=None, now_s=2).refusal is None
    assert judge(STRANGER, token="tok", password=None, now_s=302).refusal is None


def test_right_secret_ends_the_delays_at_once() -> None:
    judge = Authenticator(settings(AuthMode.TOKEN), reached=Counter()).judge
    for _ in range(5):
        judge(HERE, token="x", password=None, now_s=0)
    assert judge(HERE, token="tok", password=None, now_s=0) == (None, 0.0)
    assert judge(HERE, token="x", password=None, now_s=9).delay_s == 0.25


def test_new_secrets_count_at_once() -> None:
    authenticator = Authenticator(settings(AuthMode.TOKEN), reached=Counter())
    authenticator.use(settings(AuthMode.TOKEN)._replace(token=Secret("new")))
    assert authenticator.judge(HERE, token="tok", password=None, now_s=0).refusal
    assert authenticator.judge(HERE, token="new", password=None, now_s=0).refusal is None


def test_sources_that_are_remembered_are_bounded() -> None:
    guesses, bursts = Guesses(LIMITS), Bursts()
    for number in range(9_000):
        source = Source(f"2001:db8:{number >> 8:x}:{number & 255:x}::1", local=False)
        guesses.wrong(source, now_s=number / 1e6)
        bursts.add(source.network, now_s=number / 1e6)
    assert len(guesses._records) <= 4096
    ended = list(bursts.over(now_s=math.inf))
    assert len(ended) <= 4097 and sum(burst.times for burst in ended) == 9_000


def test_burst_is_told_once_when_it_ends() -> None:
    bursts = Bursts()
    for tenth in range(50):
        bursts.add("192.0.2.1", now_s=tenth / 10)
    assert list(bursts.over(now_s=5)) == [] and bursts
    (burst,) = bursts.over(now_s=8)
    assert (burst.source, burst.times, burst.first_s, burst.last_s) == ("192.0.2.1", 50, 0, 4.9)
    assert not bursts and list(bursts.over(now_s=99)) == []


def test_burst_without_an_end_is_told_every_minute() -> None:
    bursts = Bursts()
    told = 0
    for second in range(600):
        bursts.add("192.0.2.1", now_s=second)
        told += len(list(bursts.over(now_s=second)))
    assert 9 <= told <= 10


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nonsense", "unknown"),
    ],
)
def test_limits_are_counted_by_host(address: str, expected: str) -> None:
    assert network(address) == expected


def test_nothing_of_a_secret_shows_in_a_refusal(tmp_path: Path) -> None:
    judge = Authenticator(settings(AuthMode.TOKEN), reached=Counter()).judge
    refusal = judge(HERE, token="guess-4711", password=None, now_s=0).refusal
    assert refusal and "4711" not in repr(refusal) and "tok'" not in repr(refusal)
