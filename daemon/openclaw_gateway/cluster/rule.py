"""
Who may be a cluster's active gateway, pure: answers and clock readings go in, the next state comes out.

One record on etcd, written by compare-and-swap on its revision, says who is active. Its holder renews it every
``retry_s``; whoever stands by takes it over once its revision has not changed for a whole lease. An etcd lease is
not used: etcd was seen to revoke leases that were renewed 0.1 s before (etcd-io/etcd#15247), and to acknowledge
renewals of revoked ones (#20616), while its key-value store is strictly serializable.

Why there are never two active gateways
---------------------------------------
Let *m* be the last of the owner's writes that it knows to have been written. It was sent at sent(m), by the owner's
clock, *before* it was committed.

1. At sent(m) + ``kill_s``, 12/15 of the lease, the kernel kills the owner, whatever state it is in: a timer of the
   kernel's was armed for that before the owner became active, and only an acknowledged write moves it. A write
   whose answer was lost is acknowledged by a read that shows it, and counts from when it was *first* sent.
2. Another host takes over only if its own compare-and-swap finds the revision that it first received at seen(m'),
   and a whole lease has passed since on its clock. It received that revision after the write m' was committed.
3. The swap succeeds only if no write came after m'. So m' is m, or a later write of the owner's whose answer was
   lost: commit(m) <= commit(m') <= seen(m').
4. Therefore owner's end <= sent(m) + 12 < commit(m) + 15 <= seen(m') + 15 <= takeover, for a lease of 15 s.

The middle step compares 12 s of the owner's clock with 15 s of the other's: the two may run at different *rates*,
up to 15/12, and what time they show does not matter. The owner's clock goes on while the machine is suspended
(CLOCK_BOOTTIME); the other's need not (CLOCK_MONOTONIC), as late is safe. A released record (no holder) and one of
our own host and state directory are taken at once: the holder wrote the first after its last client was gone, and
of the second the lock on the state directory, which is ours now, proves that its process is dead.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from openclaw_gateway.cluster.record import Seen

_READ_EVERY_S = 1.0


class Phase(StrEnum):
    """What a start is to its cluster."""

    STANDBY = "standby"
    """Reads the record, and does not serve."""
    ACQUIRING = "acquiring"
    """May take the record, and is about to."""
    ACTIVE = "active"
    """Holds the record and serves."""
    FADING = "fading"
    """Says goodbye to its clients, and keeps the record until the last one is gone, if it can."""
    LOST = "lost"
    """Does not hold the record any more, and never will again: the process ends."""


class Terms(NamedTuple):
    """How long everything may take."""

    lease_s: float
    """For so long an unchanged record keeps others out."""
    renew_deadline_s: float
    """So long after the last acknowledged write was sent, goodbyes begin."""
    kill_s: float
    """So long after it the kernel ends us: 12/15 of the lease."""
    retry_s: float
    """From one renewal to the next."""

    @property
    def read_every_s(self) -> float:
        """From one look of a standby's at the record to the next."""
        return min(_READ_EVERY_S, self.retry_s)


class Identity(NamedTuple):
    """Who we are in the record."""

    holder: str
    """Of this machine and state directory: whoever starts there with our locks may say so."""
    owner_id: str
    """Of this start alone."""


class Tenure(NamedTuple):
    """What is known, and what we are by it."""

    phase: Phase = Phase.STANDBY
    seen: Seen | None = None
    """The record as last known; ``None`` before the first answer."""
    since_s: float = 0.0
    """When its revision was first received, on CLOCK_MONOTONIC."""
    ever: bool = False
    """Whether there was a record at any time: one that vanished may still have a holder who does not know."""
    sent_s: float = 0.0
    """When the last acknowledged write was sent, on CLOCK_BOOTTIME; means nothing before there is one."""
    seq: int = 0
    """The number of that write."""
    unsure_s: float | None = None
    """When the next write was first sent, if it was and no answer came; ``None`` if there is none such."""
    token: int = 0
    """Our fencing token; 0 before we were active."""


class Outcome(StrEnum):
    """How a request ended."""

    READ = "read"
    WRITTEN = "written"
    REFUSED = "refused"
    """Another revision stands there: nothing was written, and what stands there is known."""
    UNKNOWN = "unknown"
    """No answer, or none that tells: a write may have been done, or be yet."""


class Answer(NamedTuple):
    """What came of one request, and when."""

    outcome: Outcome
    sent_s: float
    """CLOCK_BOOTTIME before it was sent."""
    received_s: float
    """CLOCK_MONOTONIC when its answer was there, or was given up."""
    now_s: float
    """CLOCK_BOOTTIME then."""
    seen: Seen | None = None
    """What stands on etcd; ``None`` if unknown, or for a read if there is no record and never was."""


class Request(StrEnum):
    """What to ask of etcd."""

    READ = "read"
    ACQUIRE = "acquire"
    RENEW = "renew"


REQUESTS = {
    Phase.STANDBY: Request.READ,
    Phase.ACQUIRING: Request.ACQUIRE,
    Phase.ACTIVE: Request.RENEW,
    Phase.FADING: Request.RENEW,
    Phase.LOST: None,
}
"""What each phase asks next."""


def after(tenure: Tenure, answer: Answer, *, identity: Identity, terms: Terms) -> Tenure:
    """
    Return what we are after an answer to the request of our phase.

    Total: an answer that comes too late for a phase, or fits none, leaves it or leads to a safer one.
    """
    tenure = found = at(tenure, answer.now_s, terms=terms)
    holds = tenure.phase in (Phase.ACTIVE, Phase.FADING)
    match tenure.phase, answer.outcome:
        case Phase.LOST, _:
            pass
        case _, Outcome.READ if holds:
            pass
        case _, Outcome.UNKNOWN if holds:
            first_s = answer.sent_s if tenure.unsure_s is None else tenure.unsure_s
            found = tenure._replace(unsure_s=first_s)
        case _, Outcome.WRITTEN if holds and answer.seen is not None:
            found = _acknowledged(tenure, answer.seen, answer.sent_s)
        case _ if holds:
            found = _refused(tenure, answer, identity, terms)
        case _, Outcome.UNKNOWN:
            # If it was written after all, the next read finds a record of our own host.
            found = tenure._replace(phase=Phase.STANDBY)
        case Phase.ACQUIRING, Outcome.WRITTEN if answer.seen is not None:
            found = _acquired(tenure, answer.seen, answer, terms)
        case _:
            watching = _watch(tenure, answer.seen or Seen(None, 0, 0), answer.received_s)
            may = may_take(watching, answer.received_s, identity=identity, terms=terms)
            found = watching._replace(phase=Phase.ACQUIRING if may else Phase.STANDBY)
    return found


def at(tenure: Tenure, now_s: float, *, terms: Terms) -> Tenure:
    """Return what we are at a time on CLOCK_BOOTTIME: past its deadline a tenure fades, and never is active again."""
    if tenure.phase is Phase.ACTIVE and is_past(tenure, now_s, terms=terms):
        return tenure._replace(phase=Phase.FADING)
    return tenure


def fade(tenure: Tenure) -> Tenure:
    """Return what we are once we were asked to stop: who is active says goodbye first, others have nothing to keep."""
    match tenure.phase:
        case Phase.ACTIVE | Phase.FADING:
            return tenure._replace(phase=Phase.FADING)
        case _:
            return tenure._replace(phase=Phase.LOST)


def is_past(tenure: Tenure, now_s: float, *, terms: Terms) -> bool:
    """Whether nothing may be served at ``now_s`` on CLOCK_BOOTTIME: there is no tenure, or it is past its deadline."""
    holds = tenure.phase in (Phase.ACTIVE, Phase.FADING)
    return not holds or now_s >= tenure.sent_s + terms.renew_deadline_s


def may_take(tenure: Tenure, now_s: float, *, identity: Identity, terms: Terms) -> bool:
    """Whether the record may be taken at ``now_s`` on CLOCK_MONOTONIC, if it still is what we know."""
    seen = tenure.seen
    if seen is None:
        return False
    if seen.revision == 0:
        # Nothing stands there. Somebody may have deleted it under a holder, who learns it at the next renewal.
        never = not tenure.ever and seen.token == 0
        return never or now_s >= tenure.since_s + terms.lease_s
    if seen.record is not None and seen.record.holder in ("", identity.holder):
        return True
    return now_s >= takeover_s(tenure, terms=terms)


def takeover_s(tenure: Tenure, *, terms: Terms) -> float:
    """Return when the record may be taken from a silent holder, on CLOCK_MONOTONIC: after the longer of both leases."""
    theirs = tenure.seen.record if tenure.seen is not None else None
    lease_s = max(terms.lease_s, theirs.lease_ms / 1000 if theirs is not None else 0.0)
    return tenure.since_s + lease_s


def _watch(tenure: Tenure, seen: Seen, received_s: float) -> Tenure:
    same = tenure.seen is not None and tenure.seen.revision == seen.revision
    return tenure._replace(
        seen=seen,
        since_s=tenure.since_s if same else received_s,
        ever=tenure.ever or seen.revision > 0,
    )


def _acquired(tenure: Tenure, seen: Seen, answer: Answer, terms: Terms) -> Tenure:
    watching = _watch(tenure, seen, answer.received_s)
    if answer.now_s >= answer.sent_s + terms.renew_deadline_s:
        # The answer took so long that the tenure is over before it began. The record is ours: take it again.
        return watching
    return watching._replace(
        phase=Phase.ACTIVE, sent_s=answer.sent_s, seq=1, unsure_s=None, token=seen.revision
    )


def _acknowledged(tenure: Tenure, seen: Seen, sent_s: float) -> Tenure:
    return tenure._replace(seen=seen, sent_s=sent_s, seq=tenure.seq + 1, unsure_s=None)


def _refused(tenure: Tenure, answer: Answer, identity: Identity, terms: Terms) -> Tenure:
    """
    Deal with a record that is not what we wrote last.

    1. We send write 8; it is committed, and its answer is lost. 2. We send write 8 again, compared with the
    revision of 7: refused, and what stands there is our 8. It is acknowledged by that, from when it was *first*
    sent: which of the two was committed, and when, nobody tells.
    """
    record = answer.seen.record if answer.seen is not None else None
    ours = record is not None and (record.owner_id, record.seq) == (
        identity.owner_id,
        tenure.seq + 1,
    )
    if answer.seen is None or not ours or tenure.unsure_s is None:
        return tenure._replace(phase=Phase.LOST, seen=answer.seen or tenure.seen)
    found = _acknowledged(tenure, answer.seen, tenure.unsure_s)
    return at(found, answer.now_s, terms=terms)
