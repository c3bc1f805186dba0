"""
Keeps a tenure by the rule: reads the clocks, asks etcd, arms the kernel's timer, tells whoever serves.

Here everything is synchronous, for a process that has one thread: ``advance`` does what is due, and waits about
``retry_s`` for etcd at the most. ``tasks`` does the same from an event loop.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4

from openclaw_gateway.cluster import rule
from openclaw_gateway.cluster.announcement import Announcement
from openclaw_gateway.cluster.etcd import Etcd
from openclaw_gateway.cluster.record import Record
from openclaw_gateway.cluster.rule import Answer, Identity, Outcome, Phase, Request, Tenure, Terms
from openclaw_gateway.cluster.timer import KillTimer
from openclaw_gateway.errors import EtcdError, TenureLostError
from openclaw_gateway.protocol.role import Lease, Role
from openclaw_gateway.settings.model import Cluster
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal

_WRITES = (Outcome.WRITTEN, Outcome.REFUSED, Outcome.UNKNOWN)
"""How a request to acquire or renew may end."""

_RELEASE_TRIES = 3
"""The first may find that a write was done whose answer was lost, or look for that."""


class Ask(NamedTuple):
    """One request, with all that it needs: what a thread may be given."""

    request: Request
    record: Record
    """What to write, unless it is a read."""
    over: int
    """The revision that it is compared with."""


def holder_id(
    state_dir: str, *, machine_id: str = "/etc/machine-id", host: str | None = None
) -> str:
    """
    Return the host's id in the record: the same for each start on one machine with one name and one state directory.

    A machine without an id, as a container may be, gets another one each time: its restart waits for the lease of its
    predecessor. So does one that was renamed. Two machines with one id, as cloned disks make them, are told apart by
    their names: three were booted from one root, each with the id that lay in /var/lib/dbus/machine-id, and took the
    record from each other. With one name and one path as well they still would: machine-id(5).

    Args:
        state_dir: The claimed state directory.
        machine_id: The file with the machine's id.
        host: The machine's name; ``None`` for that which the kernel has.
    """
    machine = ""
    with suppress(FileNotFoundError), open(machine_id, encoding="ascii") as file:
        machine = file.read().strip()
    if len(machine) != 32:  # empty, or "uninitialized" while an image boots for the first time
        machine = uuid4().hex
    # Hashed, as the id is confidential: machine-id(5).
    return hashlib.sha256(
        f"{machine}\0{host or os.uname().nodename}\0{os.path.realpath(state_dir)}".encode()
    ).hexdigest()[:32]


class Keeper:
    """
    One start's part in its cluster, from standby to the release of the record.

    Attributes:
        terms: How long everything may take.
        etcd: Asked by whoever runs ``ask``.
        announcement: Says that we stand by; for people.
        unreachable_since_s: On CLOCK_MONOTONIC, when etcd began not to answer; ``None`` while it does.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        state_dir: str,
        journal: Journal,
        show: Callable[[Role], None],
    ) -> None:
        """
        Begin as a standby that knows nothing yet.

        Args:
            cluster: Where the record is, and how long everything may take.
            state_dir: The claimed state directory.
            journal: Told of what a person should know.
            show: Called with each new role, at the moment when it begins to count.

        Raises:
            OSError: The kernel makes no timer.
        """
        self.terms = Terms(
            cluster.lease_s, cluster.renew_deadline_s, cluster.kill_s, cluster.retry_s
        )
        self.etcd = Etcd(cluster, timeout_s=cluster.retry_s)
        self.unreachable_since_s: float | None = None
        self._name = cluster.name
        self._identity = Identity(holder_id(state_dir), str(uuid4()))
        self._record = Record(
            *self._identity,
            url=cluster.url,
            host=socket.gethostname(),
            lease_ms=round(cluster.lease_s * 1000),
        )
        began_ms = time.time_ns() // 1_000_000
        self.announcement = Announcement(cluster, self._record._replace(since_ms=began_ms))
        self._journal, self._show = journal, show
        self._timer = KillTimer()
        self._renewals = dict.fromkeys(_WRITES, 0)
        self._tenure = Tenure()
        self._due_s = time.monotonic()
        self._problem = ""
        self._told: object = None
        self._stopping = False
        self._maybe_taken = False
        self.role = self._now()

    @property
    def phase(self) -> Phase:
        """What we are to the cluster."""
        return self._tenure.phase

    @property
    def stands_by(self) -> bool:
        """Whether we wait to become the active one."""
        return self.phase in (Phase.STANDBY, Phase.ACQUIRING)

    @property
    def token(self) -> int:
        """Our fencing token; 0 if we were never active."""
        return self._tenure.token

    @property
    def revision(self) -> int:
        """The record's revision as last known; 0 for none."""
        return self._tenure.seen.revision if self._tenure.seen is not None else 0

    @property
    def due_s(self) -> float:
        """When there is something to do next, on CLOCK_MONOTONIC."""
        if self._tenure.phase is Phase.LOST:
            return float("inf")
        return min(self._due_s, time.monotonic() + self.fades_in_s)

    @property
    def fades_in_s(self) -> float:
        """Seconds until ``look`` would find that an active tenure is past its deadline; infinite in all other phases."""
        if self._tenure.phase is not Phase.ACTIVE:
            return float("inf")
        return self._until(self.terms.renew_deadline_s)

    @property
    def hurry_in_s(self) -> float:
        """Seconds until whoever still says goodbye should simply leave: halfway from the deadline to the kernel's."""
        if not self._tenure.token:
            return float("inf")
        if self._tenure.phase is Phase.LOST:
            return 0.0
        return self._until((self.terms.renew_deadline_s + self.terms.kill_s) / 2)

    def _until(self, after_sent_s: float) -> float:
        return max(self._tenure.sent_s + after_sent_s - boottime_s(), 0.0)

    def lease(self) -> Lease:
        """Return how the record is kept."""
        active = self._tenure.phase is Phase.ACTIVE
        expires_in_s = self._until(self.terms.lease_s) if active else None
        return Lease(expires_in_s, {outcome.value: n for outcome, n in self._renewals.items()})

    def is_over(self) -> bool:
        """
        Whether a tenure that we had is past its deadline, so that nothing may be served any more.

        Asked before each thing that is done for a client; takes 1 µs. A standby, which never had one, is kept from
        serving by its role.
        """
        return self.token != 0 and rule.is_past(self._tenure, boottime_s(), terms=self.terms)

    def wake(self) -> None:
        """Have the next request be due now: the record may have changed."""
        self._due_s = time.monotonic()

    def look(self) -> None:
        """Notice that time has passed."""
        self._enter(rule.at(self._tenure, boottime_s(), terms=self.terms))

    def next(self) -> Ask | None:
        """Return what to ask now, and count it as begun; ``None`` if nothing is due."""
        now_s = time.monotonic()
        request = rule.REQUESTS[self.phase]
        if request is None or now_s < self.due_s:
            return None
        reads = request is Request.READ
        self._due_s = now_s + (self.terms.read_every_s if reads else self.terms.retry_s)
        takeover_s = rule.takeover_s(self._tenure, terms=self.terms)
        if reads and now_s < takeover_s:
            self._due_s = min(self._due_s, takeover_s)
        seen = self._tenure.seen
        record = self._record._replace(seq=self._tenure.seq + 1)
        if request is Request.ACQUIRE:
            record = record._replace(seq=1, since_ms=time.time_ns() // 1_000_000)
            self._record = record
            self._maybe_taken = True
        return Ask(request, record, seen.revision if seen is not None else 0)

    def take(self, answer: Answer, problem: str) -> None:
        """
        Go on with an answer to the last request.

        Args:
            answer: It, or that there was none.
            problem: Why not; "" if there was one.
        """
        self._problem = problem
        if not problem:
            self.unreachable_since_s = None
        elif self.unreachable_since_s is None:
            self.unreachable_since_s = answer.received_s
            self._journal.write(
                Event.CLUSTER_UNREACHABLE, f"{problem}; {self._consequence()}", CLUSTER=self._name
            )
        before = self._tenure
        if rule.REQUESTS[before.phase] is not Request.READ:
            self._renewals[answer.outcome] += 1
        after = rule.after(before, answer, identity=self._identity, terms=self.terms)
        late = after.unsure_s is None and before.unsure_s == after.sent_s != before.sent_s
        if after.phase is Phase.ACQUIRING or late:
            self.wake()
        self._enter(after)

    def leave_open(self, answer: Answer) -> None:
        """Go on without the answer to a request that is still under way."""
        self._enter(rule.after(self._tenure, answer, identity=self._identity, terms=self.terms))

    def advance(self) -> None:
        """
        Do what is due, waiting for etcd itself; for a process without any other thread.

        It does not wait past the deadline, nor past the time to hurry: whoever waits can't stop its child.
        """
        self.look()
        left_s = self.fades_in_s if self.phase is Phase.ACTIVE else self.hurry_in_s
        if left_s <= 0:
            return
        asked = self.next()
        if asked is not None:
            self.etcd.timeout_s = min(self.terms.retry_s, left_s)
            self.take(*ask(self.etcd, asked))

    def fade(self) -> None:
        """Begin to give the record back, as a stop was asked for: it is kept until ``release``."""
        self._stopping = True
        self._enter(rule.fade(self._tenure))

    def error(self) -> TenureLostError | None:
        """Return why we may not serve any more; ``None`` while we may, or if a stop was asked for."""
        if self._stopping or self.phase not in (Phase.FADING, Phase.LOST):
            return None
        return TenureLostError(self._name, self._reason(), fencing_token=self.token or None)

    def release(self) -> None:
        """Give the record back: nobody is served any more. Asks etcd for about ``2 * retry_s`` at the most."""
        self.etcd.timeout_s = self.terms.retry_s
        for _ in range(_RELEASE_TRIES):
            asked = self.parting()
            if asked is None or self.part(*ask(self.etcd, asked)):
                break
        self.announcement.unsay()

    def parting(self) -> Ask | None:
        """
        Return the request that gives the record back, nobody being served any more; ``None`` if it is not ours.

        If we were about to take it when the stop came, and no answer told whether we did, it is looked at first: a
        record of a process that is gone would keep the others out for a lease.
        """
        self._timer.disarm()
        seen = self._tenure.seen
        record = self._record._replace(holder="", seq=self._tenure.seq + 1)
        if self.phase is Phase.LOST and self._maybe_taken:
            return Ask(Request.READ, record, 0)
        if self.phase is not Phase.FADING or seen is None:
            return None
        return Ask(Request.RENEW, record, seen.revision)

    def part(self, answer: Answer, problem: str) -> bool:
        """Take the answer to that; whether there is nothing more to do."""
        if answer.outcome is Outcome.REFUSED:
            found = rule.after(self._tenure, answer, identity=self._identity, terms=self.terms)
            self._tenure = found
            return found.phase is Phase.LOST
        seen, self._maybe_taken = answer.seen, False
        record = seen.record if seen is not None else None
        writer = record.owner_id if record is not None else ""
        if answer.outcome is Outcome.READ and writer == self._identity.owner_id:
            self._tenure = Tenure(Phase.FADING, seen=seen, seq=1)  # what takes a record is number 1
            return False
        self._tenure = self._tenure._replace(phase=Phase.LOST)
        return True

    def _enter(self, tenure: Tenure) -> None:
        before, self._tenure = self._tenure, tenure
        if tenure.sent_s != before.sent_s:
            # Before anybody is served by it.
            self._timer.arm(tenure.sent_s + self.terms.kill_s)
        role = self._now()
        if role != self.role:
            self.role = role
            self._tell(role)
            self._show(role)

    def _tell(self, role: Role) -> None:
        """Log who is active, once for each time that it becomes another."""
        known = (role.active, role.holder, role.token)
        if known == self._told or self._tenure.seen is None:
            return
        self._told = known
        if role.active:
            event = Event.CLUSTER_ACTIVE
        elif self.phase in (Phase.STANDBY, Phase.ACQUIRING):
            event = Event.CLUSTER_STANDBY
        else:
            return
        sentence = f"cluster {self._name}: {role.reason}"
        self._journal.write(event, sentence, CLUSTER=self._name, FENCING_TOKEN=role.token)

    def _now(self) -> Role:
        """Return what we are, for the server and for people."""
        tenure = self._tenure
        record = tenure.seen.record if tenure.seen is not None else None
        active = tenure.phase is Phase.ACTIVE
        if active:
            record = self._record
        held = record is not None and record.holder != ""
        return Role(
            self._name,
            active,
            record.holder if record is not None else "",
            record.url if held and record is not None else "",
            (tenure.token if active else tenure.seen.token if held and tenure.seen else 0) or None,
            record.since_ms if held and record is not None else None,
            self._reason(),
        )

    def _reason(self) -> str:
        """Say in one line what we are, and why."""
        tenure, seen = self._tenure, self._tenure.seen
        record = seen.record if seen is not None else None
        holder = record.host if record is not None and record.holder else ""
        match tenure.phase:
            case Phase.ACTIVE:
                reason = f"active (token {tenure.token})"
            case Phase.FADING | Phase.LOST if self._stopping:
                reason = "stopping"
            case Phase.FADING:
                cause = self._problem or "we were stopped, or too busy"
                deadline_s = self.terms.renew_deadline_s
                reason = f"the record was not renewed for {deadline_s:g} s: {cause}"
            case Phase.LOST:
                reason = f"the record was taken from us: {holder or 'nobody'} has it"
            case _ if self._problem:
                reason = f"etcd unreachable: {self._problem}"
            case _ if holder and seen is not None:
                reason = f"{holder} is active (token {seen.token})"
            case _ if record is not None:
                reason = f"nobody is active; {record.host} was"
            case _ if seen is not None and seen.revision:
                reason = "the record can't be read; it is waited for as if it were held"
            case _:
                reason = "nobody is active yet"
        return reason

    def _consequence(self) -> str:
        if self.phase is Phase.ACTIVE:
            left_s = self._until(self.terms.renew_deadline_s)
            return f"active for {left_s:.1f} s more, unless it can be reached before"
        return "standing by until it can be reached"


def ask(etcd: Etcd, asked: Ask) -> tuple[Answer, str]:
    """
    Ask etcd, in whatever thread this is.

    Returns:
        The answer, and why there is none, "" if there is one.
    """
    sent_s = boottime_s()
    outcome, seen, problem = Outcome.READ, None, ""
    try:
        if asked.request is Request.READ:
            seen = etcd.read()
        else:
            write = etcd.acquire if asked.request is Request.ACQUIRE else etcd.renew
            swap = write(asked.record, over=asked.over)
            outcome = Outcome.WRITTEN if swap.succeeded else Outcome.REFUSED
            seen = swap.seen
    except EtcdError as error:
        outcome, problem = Outcome.UNKNOWN, str(error)
    return Answer(outcome, sent_s, time.monotonic(), boottime_s(), seen), problem


def unanswered(sent_s: float) -> Answer:
    """Return the answer that stands for one which is not waited for any more."""
    return Answer(Outcome.UNKNOWN, sent_s, time.monotonic(), boottime_s())


def boottime_s() -> float:
    """Return the seconds since the machine was booted, those in suspend too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
