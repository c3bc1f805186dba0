"""``status --cluster``: who is active in the cluster, with which token and since when, and who stands by."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple, Protocol

from openclaw_gateway.admin.judge.state import StatusCode
from openclaw_gateway.admin.look.selection import Selection
from openclaw_gateway.admin.look.subject import held, resolve
from openclaw_gateway.admin.render import Paint, moment, table
from openclaw_gateway.admin.report import Report, document, to_json
from openclaw_gateway.cluster.etcd import Etcd
from openclaw_gateway.cluster.record import Record, Seen
from openclaw_gateway.errors import EtcdError, UsageError
from openclaw_gateway.settings.location import own_path_beside
from openclaw_gateway.settings.model import Cluster

_PAUSE_S = 0.2
_TIMEOUT_S = 5.0


class State(StrEnum):
    """The one word for a cluster."""

    ACTIVE = "active"
    """Somebody renews the record."""
    SILENT = "silent"
    """Somebody holds it, and did not renew it for a whole lease."""
    VACANT = "vacant"
    """Nobody holds it."""
    UNKNOWN = "unknown"
    """etcd could not be asked."""


EXIT_CODES = {
    State.ACTIVE: StatusCode.HEALTHY,
    State.SILENT: StatusCode.UNWELL,
    State.VACANT: StatusCode.UNWELL,
    State.UNKNOWN: StatusCode.UNKNOWN,
}


class View(NamedTuple):
    """What was seen of a cluster."""

    seen: Seen | None
    """The record, ``None`` if there is none, or it could not be read."""
    is_renewed: bool
    """Whether it was written while we watched, so that whoever holds it lives."""
    watched_s: float
    standbys: tuple[Record, ...]
    problem: str = ""
    """Why etcd could not be asked."""

    @property
    def holder(self) -> Record | None:
        """Whoever holds the record; ``None`` if nobody is known to."""
        record = self.seen.record if self.seen is not None else None
        return record if record is not None and record.holder else None

    @property
    def waiting(self) -> tuple[Record, ...]:
        """Those who stand by; not who has just stopped doing so, and became the active one."""
        return tuple(
            one for one in self.standbys if self.holder is None or one.holder != self.holder.holder
        )

    @property
    def state(self) -> State:
        """The one word."""
        if self.problem:
            return State.UNKNOWN
        if self.seen is None or self.seen.revision == 0 or (self.seen.record and not self.holder):
            return State.VACANT
        return State.ACTIVE if self.is_renewed else State.SILENT

    @property
    def reason(self) -> str:
        """What the word means here."""
        record = self.seen.record if self.seen is not None else None
        who = record.host or record.holder if record is not None else ""
        match self.state:
            case State.UNKNOWN:
                return self.problem
            case State.VACANT if record is not None:
                return f"nobody is active; {who} was, and gave the record back"
            case State.VACANT:
                return "nobody is active"
            case State.SILENT:
                takes = "a standby takes over" if self.waiting else "nobody stands by"
                holds = f"{who} holds the record" if who else "a record that we can't read is held"
                return f"{holds}, and has not renewed it for {self.watched_s:.0f} s; {takes}"
            case _:
                return (
                    f"{who or 'somebody'} is active (token {self.seen.token if self.seen else 0})"
                )


class Records(Protocol):
    """Where the record and the announcements are read; ``Etcd`` is it."""

    def read(self) -> Seen | None:
        """Return the record. Raises ``EtcdError``."""

    def standbys(self) -> list[Record]:
        """Return who stands by. Raises ``EtcdError``."""


def watch(
    records: Records,
    *,
    lease_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> View:
    """
    Look at a cluster until it is known whether its active gateway lives: until its next renewal, as a rule.

    A record says nothing about when it was written. Clocks of several hosts differ, so that a time in
    it would not tell either; that it changes does.

    Args:
        records: Where to look.
        lease_s: Seconds without a change after which the holder is taken for dead; if the record names
            more, that counts.
        clock: Seconds, monotonic.
        sleep: Waits so many seconds.
    """
    began_s = clock()
    seen: Seen | None = None
    standbys: tuple[Record, ...] = ()
    try:
        seen = records.read()
        standbys = tuple(records.standbys())
        first = View(seen, False, 0.0, standbys)
        if seen is None or first.state is State.VACANT:
            return first
        theirs_s = seen.record.lease_ms / 1000 if seen.record is not None else 0.0
        deadline_s = began_s + max(lease_s, theirs_s)
        while clock() < deadline_s:
            sleep(_PAUSE_S)
            now = records.read()
            if now is None or now.revision != seen.revision:
                return View(now, True, clock() - began_s, tuple(records.standbys()))
        return View(seen, False, clock() - began_s, tuple(records.standbys()))
    except EtcdError as error:
        return View(seen, False, clock() - began_s, standbys, str(error))


def report(selection: Selection, *, wait_s: float, as_json: bool, paint: Paint) -> Report:
    """
    Be ``status --cluster``.

    Args:
        selection: Of which gateway the settings count.
        wait_s: Look again for so many seconds until somebody is active.
        as_json: Print one JSON document.
        paint: Colours.

    Returns:
        Exits with 0 if somebody is active, 1 if nobody is, 4 if that can't be told.

    Raises:
        UsageError: The gateway is in no cluster.
    """
    from openclaw_gateway.cluster.tenure import holder_id

    place = resolve(selection, held()).place
    cluster = place.cluster
    if cluster is None and not place.problem:
        own_path = own_path_beside(place.config_path)
        raise UsageError(
            "--cluster", f"{own_path} names no cluster", "openclaw-cluster(7) says how to make one"
        )
    here = holder_id(place.state_dir)
    view = View(None, False, 0.0, (), place.problem or "")
    if cluster is not None:
        view = _look(cluster, wait_s=wait_s)
    code = EXIT_CODES[view.state]
    if as_json:
        return Report(document(_values(view, cluster, here=here)), code)
    return Report(list(_lines(view, cluster, paint, here=here)), code)


def _look(cluster: Cluster, *, wait_s: float) -> View:
    etcd = Etcd(cluster, timeout_s=_TIMEOUT_S)
    deadline_s = time.monotonic() + wait_s
    try:
        view = watch(etcd, lease_s=cluster.lease_s)
        while view.state is not State.ACTIVE and time.monotonic() < deadline_s:
            time.sleep(_PAUSE_S)
            view = watch(etcd, lease_s=cluster.lease_s)
        return view
    finally:
        etcd.close()


def _lines(view: View, cluster: Cluster | None, paint: Paint, *, here: str) -> Iterator[str]:
    code = EXIT_CODES[view.state]
    word = paint.tone(code, view.state.upper())
    name = cluster.name if cluster is not None else "cluster"
    yield f"{paint.bold(name)}  {word}: {view.reason}  {paint.dim(f'(exit {int(code)})')}"
    rows = [("ROLE", "HOST", "SINCE", "URL")]
    if view.holder is not None:
        rows.append(_row(view.state.value, view.holder, here=here))
    rows += [_row("standby", record, here=here) for record in view.waiting]
    if len(rows) > 1:
        yield from table(rows)
    if view.holder is not None and not view.waiting and not view.problem:
        yield paint.warn("nobody stands by")
    if view.state is not State.ACTIVE:
        yield f"Next      {paint.bold('openclaw-gateway doctor')}"


def _row(role: str, record: Record, *, here: str) -> tuple[str, str, str, str]:
    where = " (here)" if record.holder == here else ""
    since = moment(record.since_ms / 1000) if record.since_ms is not None else "-"
    return role, f"{record.host or record.holder}{where}", since, record.url or "-"


def _values(view: View, cluster: Cluster | None, *, here: str) -> dict[str, object]:
    def told(record: Record) -> dict[str, object]:
        facts = to_json(record)
        assert isinstance(facts, dict)
        return {**facts, "here": record.holder == here}

    return {
        "cluster": cluster.name if cluster is not None else None,
        "state": view.state.value,
        "reason": view.reason,
        "exit_code": int(EXIT_CODES[view.state]),
        "token": view.seen.token or None if view.seen is not None else None,
        "active": told(view.holder) if view.holder is not None else None,
        "standbys": [told(record) for record in view.waiting],
        "watched_s": round(view.watched_s, 3),
        "endpoints": list(cluster.endpoints) if cluster is not None else [],
        "problem": view.problem or None,
    }
