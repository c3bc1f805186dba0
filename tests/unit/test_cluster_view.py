"""What ``status --cluster`` makes of what it sees on etcd, one look after the other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from openclaw_gateway.admin.cluster import EXIT_CODES, State, View, watch
from openclaw_gateway.cluster.record import Record, Seen
from openclaw_gateway.errors import EtcdError

HELD = Record("a1", "o1", "http://gw-a:1", "gw-a", 15000, 3, 7)
STANDBY = Record("b1", "o2", "http://gw-b:1", "gw-b", 15000, 0, 8)


class Looks:
    """Scripted answers, and a clock that goes on by waiting only."""

    def __init__(self, answers: Sequence[Seen | None], *, standbys: Sequence[Record] = ()) -> None:
        self._answers, self._standbys = list(answers), list(standbys)
        self.now_s = 100.0

    def read(self) -> Seen | None:
        """Return the next answer, and the last one for ever."""
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def standbys(self) -> list[Record]:
        return self._standbys

    def watch(self, *, lease_s: float = 15.0) -> View:
        return watch(self, lease_s=lease_s, clock=lambda: self.now_s, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_renewed_record_is_an_active_gateway() -> None:
    view = Looks([Seen(HELD, 50, 42)] * 3 + [Seen(HELD, 51, 42)], standbys=[STANDBY]).watch()
    assert (view.state, view.reason) == (State.ACTIVE, "gw-a is active (token 42)")
    assert view.watched_s < 2
    assert view.standbys == (STANDBY,)


@pytest.mark.parametrize(
    ("own_s", "their_ms", "watched_s"), [(15, 15000, 15), (15, 60000, 60), (20, 0, 20)]
)
def test_record_that_nobody_renews_is_silent_after_the_longer_lease(
    own_s: float, their_ms: int, watched_s: float
) -> None:
    held = HELD._replace(lease_ms=their_ms)
    view = Looks([Seen(held, 50, 42)], standbys=[STANDBY]).watch(lease_s=own_s)
    assert view.state is State.SILENT
    assert view.watched_s == pytest.approx(watched_s, abs=0.3)
    assert "gw-a holds the record, and has not renewed it for" in view.reason
    assert view.reason.endswith("a standby takes over")


def test_silent_record_without_a_standby_says_so() -> None:
    assert Looks([Seen(HELD, 50, 42)]).watch().reason.endswith("nobody stands by")


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (None, "nobody is active"),
        (Seen(None, 0, 42), "nobody is active"),
        (
            Seen(HELD._replace(holder=""), 60, 42),
            "nobody is active; gw-a was, and gave the record back",
        ),
    ],
)
def test_vacant_cluster_is_not_watched(seen: Seen | None, reason: str) -> None:
    view = Looks([seen]).watch()
    assert (view.state, view.reason, view.watched_s) == (State.VACANT, reason, 0)


def test_record_that_can_not_be_read_is_held_all_the_same() -> None:
    view = Looks([Seen(None, 50, 42)]).watch()
    assert view.state is State.SILENT
    assert view.reason.startswith("a record that we can't read is held")
    assert Looks([Seen(None, 50, 42), Seen(None, 51, 42)]).watch().state is State.ACTIVE


def test_holder_that_leaves_while_we_watch_leaves_it_vacant() -> None:
    view = Looks([Seen(HELD, 50, 42), Seen(HELD._replace(holder=""), 51, 42)]).watch()
    assert view.state is State.VACANT


def test_etcd_that_does_not_answer_is_no_verdict() -> None:
    class Mute(Looks):
        def read(self) -> Seen | None:
            raise EtcdError("http://x:2379", "can't be reached: Connection refused")

    view = Mute([None]).watch()
    assert view.state is State.UNKNOWN
    assert view.reason == "etcd at http://x:2379: can't be reached: Connection refused"


def test_every_state_has_its_exit_code() -> None:
    assert EXIT_CODES.keys() == set(State)
