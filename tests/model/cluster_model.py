"""
Hosts that share one record on etcd, driven by the real rule, in every order and with every fault.

Time is counted in ticks, which all hosts share and nobody sees: each host's clock runs at a rate of its own. Whatever a
host does, it may do late: a request may be asked for at any time after the last one, be committed at any time after it
was sent, also when its sender does not wait any more, and its answer may come at any time after that, or never.

All times in a world are relative to its present, and numbers that are only compared are the smallest that compare the
same: so there are finitely many worlds, and the search goes through all of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from openclaw_gateway.cluster import rule
from openclaw_gateway.cluster.record import Record, Seen
from openclaw_gateway.cluster.rule import Answer, Identity, Outcome, Phase, Request, Tenure, Terms

Action = tuple[str, int]

LEASE, KILL, DEADLINE = 20.0, 16.0, 8.0
"""On a clock that counts 5 in a tick a lease is 4 ticks; on one that counts 4, the kernel strikes after 4 as well."""


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
    has_asked: bool = False
    """Whether it has begun a request in this tick."""
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

    hosts: tuple[Host, ...]
    store: Seen
    stops: int
    kills: int
    losses: int
    deletions: int
    leaves: int
    starts: int


class Model:
    """The hosts' protocol; ``successors`` is what ``explore`` wants."""

    def __init__(
        self,
        variant: Variant = AS_BUILT,
        *,
        rates: tuple[int, ...] = (4, 5),
        leases: tuple[float, ...] = (LEASE, LEASE),
        slow: bool = False,
    ) -> None:
        """
        Set up.

        Args:
            variant: How the protocol is built.
            rates: What each host's clock counts in a tick.
            leases: Each host's.
            slow: Whether what a request does may come later than its look at the fence.
        """
        self._slow = slow
        self._variant, self._rates = variant, rates
        self._terms = [
            Terms(lease, DEADLINE, variant.kill * lease / LEASE, DEADLINE / 4) for lease in leases
        ]
        self._long_ago_s = -max(leases)

    def begin(
        self,
        *,
        stops: int = 0,
        kills: int = 0,
        losses: int = 0,
        deletions: int = 0,
        leaves: int = 0,
        starts: int = 0,
    ) -> World:
        """Return a world in which host 0 has just become active, with so many faults to come."""
        hosts = tuple(Host() for _ in self._rates)
        world = World(hosts, Seen(None, 0, 0), stops, kills, losses, deletions, leaves, starts)
        for action in (("read", 0), ("acquire", 0), ("commit", 0), ("receive", 0)):
            world = dict(self.successors(world))[action]
        return world

    def problem(self, world: World) -> str | None:
        """Say who can have an effect right now after another's tenure has begun."""
        for at, host in enumerate(world.hosts):
            if not host.start or host.is_stopped or host.is_leaving:
                continue
            acts = host.is_acting or self._serves(host, at)
            if acts and host.tenure.token < world.store.token:
                return f"host {at} serves by token {host.tenure.token} after {world.store.token} was given"
        return None

    def successors(self, world: World) -> Iterator[tuple[Action, World]]:
        """
        Yield what can happen, and what comes of it, up to the first takeover.

        Whoever took over then is where the first host was at the beginning, and what it does is seen from there:
        the tests have each host be the first.
        """
        for action, after in self._happenings(world):
            yield action, _canonical(after)

    def _serves(self, host: Host, at: int) -> bool:
        """Whether a request that comes now would pass the fence."""
        return not rule.is_past(host.tenure, 0.0, terms=self._terms[at])

    def _happenings(self, world: World) -> Iterator[tuple[Action, World]]:
        yield ("tick", -1), self._tick(world)
        store = world.store
        if world.deletions and store.revision:
            gone = Seen(None, 0, store.token)
            yield ("delete", -1), world._replace(store=gone, deletions=world.deletions - 1)
        if self._variant.lease_is_revoked and store.record and store.record.holder:
            free = Seen(store.record._replace(holder=""), _newest(world) + 1, store.token)
            yield ("revoke", -1), world._replace(store=free)
        for at, host in enumerate(world.hosts):
            for action, after in self._of_host(world, at, host):
                yield (action, at), after

    def _tick(self, world: World) -> World:
        hosts = []
        for rate, host in zip(self._rates, world.hosts, strict=True):
            later = _shifted(host, -float(rate), long_ago_s=self._long_ago_s)
            struck = later.killed_at_s is not None and later.killed_at_s <= 0
            hosts.append(_dead(later) if struck and self._variant.kernel_timer else later)
        return world._replace(hosts=tuple(hosts))

    def _of_host(self, world: World, at: int, host: Host) -> Iterator[tuple[str, World]]:
        if host.stray is not None:
            committed, _ = _commit(world, host.stray)
            yield "a stray request arrives", _put(committed, at, host._replace(stray=None))
        flight = host.flight
        if flight is not None and flight.answer is None:
            committed, answer = _commit(world, flight.message)
            waiting = host._replace(flight=Flight(flight.message, answer))
            yield "commit", _put(committed, at, waiting)
        if not host.start:
            if world.starts:
                past = _of_the_past(world, at)
                fresh = Host(stray=past.hosts[at].stray)
                yield "start again", _put(past, at, fresh)._replace(starts=world.starts - 1)
            return
        if world.kills:
            yield "kill -9", _put(world, at, _dead(host))._replace(kills=world.kills - 1)
        if at and host.tenure.phase is Phase.ACTIVE:
            return
        if host.is_stopped:
            yield "continue", _put(world, at, host._replace(is_stopped=False))
            return
        if world.stops:
            stopped = host._replace(is_stopped=True)
            yield "stop", _put(world, at, stopped)._replace(stops=world.stops - 1)
        yield from self._steps(world, at, host)

    def _steps(self, world: World, at: int, host: Host) -> Iterator[tuple[str, World]]:
        """Yield what the process itself does."""
        faded = rule.at(host.tenure, 0.0, terms=self._terms[at])
        if faded != host.tenure:
            yield "fade", _put(world, at, host._replace(tenure=faded))
        if host.is_acting:
            yield "act", _put(world, at, host._replace(is_acting=False))
        elif self._slow and not host.is_leaving and self._serves(host, at):
            yield "let a request in", _put(world, at, host._replace(is_acting=True))
        if host.tenure.phase is Phase.LOST and not host.is_acting:
            yield "end", _put(world, at, _dead(host))
        if host.flight is None:
            message = self._next(at, host)
            if message is not None and message.request is Request.READ:
                # At once: an answer that comes late only has the lease count from later.
                reading = host._replace(flight=Flight(message, (Outcome.READ, world.store)))
                read = self._received(at, reading, Outcome.READ, world.store)
                yield "read", _put(world, at, read)
            elif message is not None and not host.has_asked:
                asking = host._replace(flight=Flight(message), has_asked=True)
                yield message.request.value, _put(world, at, asking)
            if host.tenure.phase is Phase.ACTIVE and world.leaves and not host.is_acting:
                leaving = host._replace(
                    tenure=rule.fade(host.tenure), is_leaving=True, killed_at_s=None
                )
                yield "say goodbye", _put(world, at, leaving)._replace(leaves=world.leaves - 1)
            return
        if host.flight.answer is not None:
            yield "receive", _put(world, at, self._received(at, host, *host.flight.answer))
        if world.losses:
            lost = self._received(at, host, Outcome.UNKNOWN, None)
            if host.flight.answer is None:
                lost = lost._replace(stray=host.flight.message)
            yield "wait no more", _put(world, at, lost)._replace(losses=world.losses - 1)

    def _next(self, at: int, host: Host) -> Message | None:
        request = rule.REQUESTS[host.tenure.phase]
        if request is None:
            return None
        seen = host.tenure.seen
        seq = 1 if request is Request.ACQUIRE else host.tenure.seq + 1
        lease_ms = round(self._terms[at].lease_s * 1000)
        record = Record(*_identity(at), lease_ms=lease_ms, seq=seq)
        if host.is_leaving:
            record = record._replace(holder="")
        return Message(request, record, seen.revision if seen is not None else 0, 0.0)

    def _received(self, at: int, host: Host, outcome: Outcome, seen: Seen | None) -> Host:
        assert host.flight is not None
        variant, before = self._variant, host.tenure
        sent_s = host.flight.message.sent_s if variant.counted_from == "sent" else 0.0
        if variant.lost_answer_counts_from == "last" and before.unsure_s is not None:
            before = before._replace(unsure_s=sent_s)
        if seen is not None and seen.record is not None and not variant.heeds_lease_of_others:
            seen = seen._replace(record=seen.record._replace(lease_ms=0))
        if seen is not None and not seen.revision and not variant.vanished_counts_as_held:
            seen, before = Seen(None, 0, 0), before._replace(ever=False)
        tenure = rule.after(
            before,
            Answer(outcome, sent_s, 0.0, 0.0, seen),
            identity=_identity(at),
            terms=self._terms[at],
        )
        if host.is_leaving and outcome is Outcome.WRITTEN:
            tenure = tenure._replace(phase=Phase.LOST)
        moved = (tenure.sent_s, tenure.token) != (host.tenure.sent_s, host.tenure.token)
        kill_s = tenure.sent_s + self._terms[at].kill_s if moved else host.killed_at_s
        return host._replace(
            tenure=tenure, flight=None, killed_at_s=None if host.is_leaving else kill_s
        )


def _identity(at: int) -> Identity:
    return Identity(f"host{at}", f"host{at}, this start")


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
    revision = _newest(world) + 1
    token = revision if message.request is Request.ACQUIRE else store.token
    written = Seen(message.record, revision, token)
    return world._replace(store=written), (Outcome.WRITTEN, written)


def _seens(world: World) -> Iterator[Seen]:
    """Yield every picture of the record, in etcd and in heads."""
    yield world.store
    for host in world.hosts:
        if host.tenure.seen is not None:
            yield host.tenure.seen
        if host.flight is not None and host.flight.answer is not None:
            yield host.flight.answer[1]


def _messages(world: World) -> Iterator[Message]:
    for host in world.hosts:
        if host.flight is not None:
            yield host.flight.message
        if host.stray is not None:
            yield host.stray


def _revisions(world: World) -> set[int]:
    found = {message.over for message in _messages(world)}
    found |= {host.tenure.token for host in world.hosts}
    for seen in _seens(world):
        found |= {seen.revision, seen.token}
    return found


def _newest(world: World) -> int:
    """Return a revision that none in the world exceeds: etcd never uses one twice."""
    return max(_revisions(world))


def _map(
    world: World, *, record: Callable[[Record], Record], revision: Callable[[int], int]
) -> World:
    """Return the world with each record and each revision replaced, wherever it stands."""

    def of_seen(seen: Seen) -> Seen:
        body = None if seen.record is None else record(seen.record)
        return Seen(body, revision(seen.revision), revision(seen.token))

    def of_message(message: Message) -> Message:
        return message._replace(record=record(message.record), over=revision(message.over))

    hosts = []
    for host in world.hosts:
        tenure, flight = host.tenure, host.flight
        tenure = tenure._replace(token=revision(tenure.token))
        if tenure.seen is not None:
            tenure = tenure._replace(seen=of_seen(tenure.seen))
        if flight is not None:
            answer = flight.answer
            answer = None if answer is None else (answer[0], of_seen(answer[1]))
            flight = Flight(of_message(flight.message), answer)
        stray = None if host.stray is None else of_message(host.stray)
        hosts.append(host._replace(tenure=tenure, flight=flight, stray=stray))
    return world._replace(hosts=tuple(hosts), store=of_seen(world.store))


def _of_the_past(world: World, at: int) -> World:
    """Return the world with all that a host's last start wrote known as an earlier start's."""
    identity = _identity(at)

    def record(found: Record) -> Record:
        if found.owner_id != identity.owner_id:
            return found
        return found._replace(owner_id=f"host{at}, an earlier start", seq=0)

    return _map(world, record=record, revision=lambda number: number)


def _shifted(host: Host, by_s: float, *, long_ago_s: float) -> Host:
    """Return a host with all its times later or earlier; what is long past stays there."""

    def at(time_s: float) -> float:
        return max(time_s + by_s, long_ago_s)

    tenure, flight = host.tenure, host.flight
    unsure_s = None if tenure.unsure_s is None else at(tenure.unsure_s)
    tenure = tenure._replace(
        since_s=at(tenure.since_s), sent_s=at(tenure.sent_s), unsure_s=unsure_s
    )
    if flight is not None:
        message = flight.message._replace(sent_s=at(flight.message.sent_s))
        flight = flight._replace(message=message)
    if host.killed_at_s is not None:
        host = host._replace(killed_at_s=at(host.killed_at_s))
    return host._replace(tenure=tenure, flight=flight, has_asked=False)


def _canonical(world: World) -> World:
    """Return the same world in the one form that all worlds have which differ in nothing that matters."""
    hosts = []
    for host in world.hosts:
        tenure = host.tenure
        match tenure.phase:
            case Phase.STANDBY | Phase.ACQUIRING:
                tenure = tenure._replace(sent_s=0.0, seq=0, unsure_s=None, token=0)
                if tenure.seen is None:
                    tenure = tenure._replace(since_s=0.0)
            case Phase.LOST:
                tenure = tenure._replace(seen=None, since_s=0.0, unsure_s=None, seq=0)
            case _:
                tenure = tenure._replace(since_s=0.0)
        stray = host.stray
        if stray is not None:
            # What does nothing any more when it arrives may as well have been lost.
            dead = stray.request is Request.READ or (
                stray.over != world.store.revision and stray.over != 0
            )
            stray = None if dead else stray._replace(sent_s=0.0)
        hosts.append(host._replace(tenure=tenure, stray=stray))
    world = world._replace(hosts=tuple(hosts))
    order = {number: rank for rank, number in enumerate(sorted(_revisions(world) | {0}))}

    def record(found: Record) -> Record:
        for at, host in enumerate(world.hosts):
            if found.owner_id == _identity(at).owner_id:
                holds = host.start and host.tenure.phase in (Phase.ACTIVE, Phase.FADING)
                # Of a number only one thing is ever asked: whether it is that of the next write.
                seq = max(found.seq - host.tenure.seq + 2, 0) if holds else 0
                return found._replace(seq=seq)
        return found

    world = _map(world, record=record, revision=order.__getitem__)
    return world._replace(
        hosts=tuple(
            host._replace(tenure=host.tenure._replace(seq=2))
            if host.tenure.phase in (Phase.ACTIVE, Phase.FADING)
            else host
            for host in world.hosts
        )
    )
