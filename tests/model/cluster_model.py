"""
Hosts that share one record on etcd, driven by the real rule, in every order and with every fault.

Time is counted in ticks, which all hosts share and nobody sees: each host's clock runs at a rate of its own. Whatever a
host does, it may do late: a request may be asked for at any time after the last one, be committed at any time after it
was sent, also when its sender does not wait any more, and its answer may come at any time after that, or never.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from openclaw_gateway.cluster import rule
from openclaw_gateway.cluster.record import Record, Seen
from openclaw_gateway.cluster.rule import Answer, Identity, Outcome, Phase, Request, Tenure, Terms

Action = tuple[str, int]

UNITS = 5
"""What the fastest clock counts in a tick. The slowest one counts 4: the most that 15/12 and a tick allow."""

LEASE, KILL, DEADLINE, RETRY = 15.0, 12.0, 8.0, 4.0


class Variant(NamedTuple):
    """How the protocol is built; each part can be left out, to see that it is needed."""

    kernel_timer: bool = True
    counted_from: str = "sent"
    """What a tenure's deadline is counted from: when its request was "sent", or when its answer was "received"."""
    lost_answer_counts_from: str = "first"
    """A write that was sent twice counts from when it was "first" or "last" sent."""
    kill: float = KILL
    lease_is_revoked: bool = False
    """Whether etcd may take the record from its holder by itself, as it was seen to do with leases."""
    vanished_counts_as_held: bool = True
    heeds_lease_of_others: bool = True


AS_BUILT = Variant()


class Message(NamedTuple):
    """A write, or a read, on its way to etcd."""

    request: Request
    record: Record
    over: int
    sent_s: float


class Flight(NamedTuple):
    """A request that its sender waits for."""

    message: Message
    answer: tuple[Outcome, Seen] | None = None
    """What etcd said, once it was committed; not received yet."""


class Host(NamedTuple):
    """One machine."""

    start: int = 1
    """Which start this is; 0 if nothing runs."""
    is_stopped: bool = False
    """By SIGSTOP, or a hypervisor."""
    tenure: Tenure = Tenure()
    flight: Flight | None = None
    asked_at: int = -1
    stray: Message | None = None
    """A request that nobody waits for any more, which may arrive yet."""
    killed_at_s: float | None = None
    """When the kernel's timer strikes, on this host's clock; ``None`` if it is not armed."""
    is_acting: bool = False
    """Whether a request has passed the fence, and its effect is yet to come."""
    is_leaving: bool = False
    """Whether the last client has gone after a stop that was asked for."""


class World(NamedTuple):
    """Everything."""

    now: int
    hosts: tuple[Host, ...]
    store: Seen
    stops: int
    kills: int
    losses: int
    deletions: int


class Model:
    """The hosts' protocol; ``successors`` is what ``explore`` wants."""

    def __init__(
        self,
        variant: Variant = AS_BUILT,
        *,
        rates: tuple[int, ...] = (4, 5),
        leases: tuple[float, ...] = (LEASE, LEASE),
        horizon: int = 6,
    ) -> None:
        self._variant, self._rates, self._horizon = variant, rates, horizon
        self._terms = [Terms(lease, DEADLINE, variant.kill, RETRY) for lease in leases]

    def begin(
        self, *, stops: int = 0, kills: int = 0, losses: int = 0, deletions: int = 0
    ) -> World:
        """Return the world at its beginning, with so many faults to come."""
        hosts = tuple(Host() for _ in self._rates)
        return World(0, hosts, Seen(None, 0, 0), stops, kills, losses, deletions)

    def clock_s(self, world: World, at: int) -> float:
        return float(world.now * self._rates[at])

    def _identity(self, world: World, at: int) -> Identity:
        return Identity(f"host{at}", f"host{at}-start{world.hosts[at].start}")

    def problem(self, world: World) -> str | None:
        """Say who can have an effect right now after another's tenure has begun."""
        for at, host in enumerate(world.hosts):
            if not host.start or host.is_stopped or host.is_leaving:
                continue
            acts = host.is_acting or self._serves(world, at)
            if acts and host.tenure.token < world.store.token:
                return f"host {at} serves by token {host.tenure.token} after {world.store.token} was given"
        return None

    def _serves(self, world: World, at: int) -> bool:
        """Whether a request that comes now would pass the fence."""
        tenure = world.hosts[at].tenure
        return not rule.is_past(tenure, self.clock_s(world, at), terms=self._terms[at])

    def successors(self, world: World) -> Iterator[tuple[Action, World]]:
        if world.now < self._horizon:
            yield ("tick", -1), self._tick(world)
        if world.deletions and world.store.revision:
            gone = Seen(None, 0, world.store.token)
            yield ("delete", -1), world._replace(store=gone, deletions=world.deletions - 1)
        if self._variant.lease_is_revoked and world.store.record and world.store.record.holder:
            free = world.store.record._replace(holder="")
            revoked = Seen(free, world.store.revision + 1, world.store.token)
            yield ("revoke", -1), world._replace(store=revoked)
        for at, host in enumerate(world.hosts):
            for action, after in self._of_host(world, at, host):
                yield (action, at), after

    def _tick(self, world: World) -> World:
        later = world._replace(now=world.now + 1)
        for at, host in enumerate(later.hosts):
            struck = host.killed_at_s is not None and self.clock_s(later, at) >= host.killed_at_s
            if struck and self._variant.kernel_timer:
                later = _put(later, at, _dead(host))
        return later

    def _of_host(self, world: World, at: int, host: Host) -> Iterator[tuple[str, World]]:
        if host.stray is not None:
            committed, _ = _commit(world, host.stray)
            yield "a stray request arrives", _put(committed, at, host._replace(stray=None))
        flight = host.flight
        if flight is not None and flight.answer is None:
            committed, answer = _commit(world, flight.message)
            yield (
                "commit",
                _put(committed, at, host._replace(flight=Flight(flight.message, answer))),
            )
        if not host.start:
            if world.kills:
                fresh = Host(
                    start=self._next_start(world, at), stray=host.stray, asked_at=world.now - 1
                )
                yield "start again", _put(world, at, fresh)
            return
        if world.kills:
            yield "kill -9", _put(world, at, _dead(host))._replace(kills=world.kills - 1)
        if host.is_stopped:
            yield "continue", _put(world, at, host._replace(is_stopped=False))
            return
        if world.stops:
            stopped = host._replace(is_stopped=True)
            yield "stop", _put(world, at, stopped)._replace(stops=world.stops - 1)
        yield from self._steps(world, at, host)

    def _next_start(self, world: World, at: int) -> int:
        return world.now + 2  # another one than any before: no host starts twice in a tick

    def _steps(self, world: World, at: int, host: Host) -> Iterator[tuple[str, World]]:
        """What the process itself does."""
        faded = rule.at(host.tenure, self.clock_s(world, at), terms=self._terms[at])
        if faded != host.tenure:
            yield "fade", _put(world, at, host._replace(tenure=faded))
        if host.is_acting:
            yield "act", _put(world, at, host._replace(is_acting=False))
        elif not host.is_leaving and self._serves(world, at):
            yield "let a request in", _put(world, at, host._replace(is_acting=True))
        if host.flight is None:
            message = self._next(world, at, host)
            if message is not None and host.asked_at < world.now:
                asking = host._replace(flight=Flight(message), asked_at=world.now)
                yield message.request.value, _put(world, at, asking)
            if host.tenure.phase is Phase.ACTIVE and not host.is_acting and not host.is_leaving:
                leaving = host._replace(tenure=rule.fade(host.tenure), is_leaving=True)
                yield "say goodbye", _put(world, at, leaving)
            return
        if host.flight.answer is not None:
            yield "receive", _put(world, at, self._received(world, at, host, *host.flight.answer))
        if world.losses:
            lost = self._received(world, at, host, Outcome.UNKNOWN, None)
            if host.flight.answer is None:
                lost = lost._replace(stray=host.flight.message)
            yield "wait no more", _put(world, at, lost)._replace(losses=world.losses - 1)

    def _next(self, world: World, at: int, host: Host) -> Message | None:
        request = rule.REQUESTS[host.tenure.phase]
        if request is None:
            return None
        seen = host.tenure.seen
        identity = self._identity(world, at)
        seq = 1 if request is Request.ACQUIRE else host.tenure.seq + 1
        record = Record(*identity, lease_ms=round(self._terms[at].lease_s * 1000), seq=seq)
        if host.is_leaving:
            record = record._replace(holder="")
        return Message(
            request, record, seen.revision if seen is not None else 0, self.clock_s(world, at)
        )

    def _received(
        self, world: World, at: int, host: Host, outcome: Outcome, seen: Seen | None
    ) -> Host:
        assert host.flight is not None
        now_s, variant = self.clock_s(world, at), self._variant
        sent_s = host.flight.message.sent_s if variant.counted_from == "sent" else now_s
        before = host.tenure
        if variant.lost_answer_counts_from == "last" and before.unsure_s is not None:
            before = before._replace(unsure_s=sent_s)
        if seen is not None and seen.record is not None and not variant.heeds_lease_of_others:
            seen = seen._replace(record=seen.record._replace(lease_ms=0))
        if seen is not None and not seen.revision:
            if not variant.vanished_counts_as_held:
                seen, before = None, before._replace(ever=False)
            elif not seen.token:
                seen = None
        tenure = rule.after(
            before,
            Answer(outcome, sent_s, now_s, now_s, seen),
            identity=self._identity(world, at),
            terms=self._terms[at],
        )
        if host.is_leaving and outcome is Outcome.WRITTEN:
            tenure = tenure._replace(phase=Phase.LOST)
        armed = tenure.sent_s + self._terms[at].kill_s
        moved = tenure.sent_s != host.tenure.sent_s or tenure.token != host.tenure.token
        kill_s = None if host.is_leaving else armed if moved else host.killed_at_s
        return host._replace(tenure=tenure, flight=None, killed_at_s=kill_s)


def _put(world: World, at: int, host: Host) -> World:
    return world._replace(hosts=(*world.hosts[:at], host, *world.hosts[at + 1 :]))


def _dead(host: Host) -> Host:
    """Return a host whose process is gone, and maybe not what it sent."""
    flight = host.flight
    stray = flight.message if flight is not None and flight.answer is None else host.stray
    return Host(start=0, stray=stray)


def _commit(world: World, message: Message) -> tuple[World, tuple[Outcome, Seen]]:
    """Do at etcd what a message asks for."""
    store = world.store
    if message.request is Request.READ:
        return world, (Outcome.READ, store)
    if message.over != store.revision:
        return world, (Outcome.REFUSED, store)
    acquires = message.request is Request.ACQUIRE
    # A revision is never used twice, not even after the record was deleted.
    revision = world.now * 1000 + store.revision % 1000 + 1
    revision = max(revision, store.revision + 1, store.token + 1)
    written = Seen(message.record, revision, revision if acquires else store.token)
    return world._replace(store=written), (Outcome.WRITTEN, written)
