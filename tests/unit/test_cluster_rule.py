"""What each answer makes of each phase, as a table that leaves none out; and the times, to the second."""

from __future__ import annotations

import pytest

from openclaw_gateway.cluster import rule
from openclaw_gateway.cluster.record import Record, Seen
from openclaw_gateway.cluster.rule import Answer, Identity, Outcome, Phase, Tenure, Terms

TERMS = Terms(lease_s=15, renew_deadline_s=10, kill_s=12, retry_s=2)
US = Identity("holder-us", "start-us")
OURS = Record(*US, seq=5)
THEIRS = Record("holder-b", "start-b", host="gw-b", lease_ms=15000, seq=3)

ACTIVE = Tenure(
    Phase.ACTIVE, seen=Seen(OURS, 50, 7), since_s=1.0, ever=True, sent_s=100.0, seq=5, token=7
)


def in_phase(phase: Phase) -> Tenure:
    """Return a tenure that has come to a phase, with another's record seen where it stands by."""
    if phase in (Phase.STANDBY, Phase.ACQUIRING):
        return Tenure(phase, seen=Seen(THEIRS, 40, 30), since_s=1.0, ever=True)
    return ACTIVE._replace(phase=phase)


def answer(outcome: Outcome, seen: Seen | None = None, **times: float) -> Answer:
    """Return an answer to a request that was sent at 102 s since boot."""
    return Answer(
        outcome, **({"sent_s": 102.0, "received_s": 3.0, "now_s": 102.1} | times), seen=seen
    )


def after(tenure: Tenure, given: Answer) -> Tenure:
    return rule.after(tenure, given, identity=US, terms=TERMS)


ANSWERS = {
    "read theirs": answer(Outcome.READ, Seen(THEIRS, 40, 30)),
    "read released": answer(Outcome.READ, Seen(THEIRS._replace(holder=""), 41, 30)),
    "read our host's": answer(
        Outcome.READ, Seen(OURS._replace(owner_id="an earlier start"), 42, 7)
    ),
    "written": answer(Outcome.WRITTEN, Seen(OURS._replace(seq=6), 60, 60)),
    "refused, theirs": answer(Outcome.REFUSED, Seen(THEIRS, 43, 43)),
    "refused, ours": answer(Outcome.REFUSED, Seen(OURS._replace(seq=6), 51, 7)),
    "unknown": answer(Outcome.UNKNOWN),
}

S, A, X, F, L = Phase.STANDBY, Phase.ACQUIRING, Phase.ACTIVE, Phase.FADING, Phase.LOST
TABLE = {
    #                    read: theirs, released, our host's; written; refused: theirs, ours; unknown
    Phase.STANDBY: (S, A, A, S, S, A, S),
    Phase.ACQUIRING: (S, A, A, X, S, A, S),
    Phase.ACTIVE: (X, X, X, X, L, L, X),
    Phase.FADING: (F, F, F, F, L, L, F),
    Phase.LOST: (L, L, L, L, L, L, L),
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_in_each_phase(phase: Phase, name: str) -> None:
    expected = TABLE[phase][list(ANSWERS).index(name)]
    if (phase, name) == (Phase.STANDBY, "written"):
        expected = A  # never asked for; what stands there is our own host's, so it is taken, and by a write that we know of
    assert after(in_phase(phase), ANSWERS[name]).phase is expected


@pytest.mark.parametrize("phase", Phase)
def test_each_phase_asks_what_it_needs(phase: Phase) -> None:
    expected = {S: "read", A: "acquire", X: "renew", F: "renew", L: None}
    assert rule.REQUESTS[phase] == expected[phase]


@pytest.mark.parametrize(
    ("phase", "faded"), [(S, L), (A, L), (X, F), (F, F), (L, L)], ids=lambda phase: phase.value
)
def test_stop_says_goodbye_first_where_there_is_somebody(phase: Phase, faded: Phase) -> None:
    assert rule.fade(in_phase(phase)).phase is faded


class TestStandby:
    def first_seen(self, seen: Seen | None, at_s: float = 1.0) -> Tenure:
        return after(Tenure(), answer(Outcome.READ, seen, received_s=at_s))

    def again(self, tenure: Tenure, seen: Seen | None, at_s: float) -> Phase:
        return after(tenure, answer(Outcome.READ, seen, received_s=at_s)).phase

    def test_takes_at_once_what_never_was(self) -> None:
        assert self.first_seen(None).phase is Phase.ACQUIRING

    def test_takes_over_a_whole_lease_after_it_first_received_the_revision(self) -> None:
        seen = Seen(THEIRS, 40, 30)
        assert self.again(self.first_seen(seen), seen, 15.9) is Phase.STANDBY
        assert self.again(self.first_seen(seen), seen, 16.0) is Phase.ACQUIRING

    def test_a_change_begins_the_lease_anew(self) -> None:
        later = after(
            self.first_seen(Seen(THEIRS, 40, 30)),
            answer(Outcome.READ, Seen(THEIRS._replace(seq=4), 44, 30), received_s=15.0),
        )
        assert self.again(later, Seen(THEIRS._replace(seq=4), 44, 30), 29.9) is Phase.STANDBY
        assert self.again(later, Seen(THEIRS._replace(seq=4), 44, 30), 30.0) is Phase.ACQUIRING

    @pytest.mark.parametrize(("theirs_ms", "due_s"), [(30000, 31.0), (5000, 16.0), (0, 16.0)])
    def test_waits_for_the_longer_of_both_leases(self, theirs_ms: int, due_s: float) -> None:
        seen = Seen(THEIRS._replace(lease_ms=theirs_ms), 40, 30)
        assert self.again(self.first_seen(seen), seen, due_s - 0.1) is Phase.STANDBY
        assert self.again(self.first_seen(seen), seen, due_s) is Phase.ACQUIRING

    def test_what_can_not_be_read_is_waited_for_too(self) -> None:
        seen = Seen(None, 40, 30)
        assert self.again(self.first_seen(seen), seen, 15.9) is Phase.STANDBY
        assert self.again(self.first_seen(seen), seen, 16.0) is Phase.ACQUIRING

    @pytest.mark.parametrize("token", [0, 30])
    def test_a_record_that_vanished_may_still_have_a_holder(self, token: int) -> None:
        gone = None if token == 0 else Seen(None, 0, token)
        tenure = after(
            self.first_seen(Seen(THEIRS, 40, 30)), answer(Outcome.READ, gone, received_s=5.0)
        )
        assert tenure.phase is Phase.STANDBY
        assert self.again(tenure, gone, 19.9) is Phase.STANDBY
        assert self.again(tenure, gone, 20.0) is Phase.ACQUIRING

    def test_silence_of_etcd_does_not_take_over(self) -> None:
        tenure = self.first_seen(Seen(THEIRS, 40, 30))
        assert after(tenure, answer(Outcome.UNKNOWN, received_s=99.0)).phase is Phase.STANDBY


class TestAcquiring:
    def test_the_tenure_counts_from_before_the_request(self) -> None:
        found = after(in_phase(A), answer(Outcome.WRITTEN, Seen(OURS, 60, 60)))
        assert (found.phase, found.sent_s, found.seq, found.token) == (X, 102.0, 1, 60)

    def test_an_answer_after_the_deadline_is_worth_nothing(self) -> None:
        found = after(in_phase(A), answer(Outcome.WRITTEN, Seen(OURS, 60, 60), now_s=112.0))
        assert found.phase is Phase.ACQUIRING
        assert found.seen == Seen(OURS, 60, 60)


class TestActive:
    def test_only_an_acknowledged_write_moves_the_deadline(self) -> None:
        unsure = after(ACTIVE, answer(Outcome.UNKNOWN))
        assert (unsure.sent_s, unsure.unsure_s) == (100.0, 102.0)
        sure = after(ACTIVE, answer(Outcome.WRITTEN, Seen(OURS._replace(seq=6), 51, 0)))
        assert (sure.sent_s, sure.unsure_s, sure.seq) == (102.0, None, 6)

    def test_a_write_whose_answer_was_lost_counts_from_when_it_was_first_sent(self) -> None:
        unsure = after(ACTIVE, answer(Outcome.UNKNOWN))
        unsure = after(unsure, answer(Outcome.UNKNOWN, sent_s=104.0, now_s=104.1))
        ours = Seen(OURS._replace(seq=6), 51, 7)
        found = after(unsure, answer(Outcome.REFUSED, ours, sent_s=106.0, now_s=106.1))
        assert (found.phase, found.sent_s, found.seq, found.unsure_s) == (X, 102.0, 6, None)

    def test_a_write_whose_answer_was_lost_may_be_done_by_the_second_request(self) -> None:
        unsure = after(ACTIVE, answer(Outcome.UNKNOWN))
        written = Seen(OURS._replace(seq=6), 51, 0)
        found = after(unsure, answer(Outcome.WRITTEN, written, sent_s=104.0, now_s=104.1))
        assert (found.sent_s, found.seq, found.unsure_s) == (104.0, 6, None)

    @pytest.mark.parametrize(
        "record",
        [None, THEIRS, OURS, OURS._replace(seq=6, owner_id="another start"), OURS._replace(seq=7)],
    )
    def test_any_other_record_ends_it(self, record: Record | None) -> None:
        unsure = after(ACTIVE, answer(Outcome.UNKNOWN))
        assert after(unsure, answer(Outcome.REFUSED, Seen(record, 51, 7))).phase is Phase.LOST

    def test_fades_at_the_deadline_for_good(self) -> None:
        assert rule.at(ACTIVE, 109.9, terms=TERMS).phase is Phase.ACTIVE
        faded = rule.at(ACTIVE, 110.0, terms=TERMS)
        assert faded.phase is Phase.FADING
        late = answer(Outcome.WRITTEN, Seen(OURS._replace(seq=6), 51, 0), sent_s=105, now_s=110.5)
        assert after(faded, late).phase is Phase.FADING
        assert after(ACTIVE, late).phase is Phase.FADING

    @pytest.mark.parametrize(
        ("phase", "now_s", "past"),
        [
            (S, 0.0, True),
            (A, 0.0, True),
            (X, 109.9, False),
            (X, 110.0, True),
            (F, 109.9, False),
            (F, 110.0, True),
            (L, 0.0, True),
        ],
    )
    def test_the_fence_is_the_deadline(self, phase: Phase, now_s: float, past: bool) -> None:
        assert rule.is_past(in_phase(phase), now_s, terms=TERMS) is past
