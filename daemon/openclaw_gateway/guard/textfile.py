"""
A guard's metrics, in a file for node_exporter's textfile collector.

A guard serves no HTTP, and shall not for this alone: a listener beside the gateway's would want a port, a
secret and a parser of its own, in a process that is to cost little beside what it guards; and a Unix socket
Prometheus can't scrape. A file is what its users know for programs of that kind. What it says is true of the
moment that stands in it, which the alert rules look at: a guard that was killed takes no file along.

The text is written by hand, as loading prometheus_client would double a guard's memory for twenty lines.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from openclaw_gateway import __version__
from openclaw_gateway.client.answer import Health
from openclaw_gateway.guard.rule import Look, Phase
from openclaw_gateway.lifecycle import StopRequested
from openclaw_gateway.protocol.role import Lease, Role
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal
from openclaw_gateway.supervisor.vitals import Vitals

ENDED = "ended"
"""The phase of a guard whose program has ended otherwise than by a stop that was asked for."""

SILENT = "silent"
"""A look that found nobody listening."""

STANDBY = "standby"
"""The phase of a host that waits for its cluster's record."""

_PHASES = (STANDBY, *(phase.value for phase in Phase), ENDED)

_FINDINGS = (SILENT, *(health.name.lower() for health in Health))

_FRESH_S = 10.0
"""Seconds for which what was written is good enough, if nothing else has changed."""

_UNWRITABLE = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
        errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE,
        errno.ENFILE, errno.ESTALE,
    }
)  # fmt: skip
"""open(2), write(2), rename(2): what a place says that takes no file, now or ever."""


class Snapshot(NamedTuple):
    """
    What a guard knows at one moment.

    Attributes:
        port: What the program is to serve; it has one guard at a time, and so tells guards apart.
        phase: The program's, or ``ENDED``, or ``STANDBY``.
        is_well: Whether the last look found it well.
        looks: How often each thing was found.
        written_at_s: Now, Unix time; so are the next two.
        child_started_s: When the program was started; ``None`` if it was not yet.
        pinged_at_s: When systemd took the last ping; ``None`` if it never did.
        watchdog_s: Seconds within which systemd wants a ping; ``None`` if it does not watch.
        role: The host's part in a cluster; ``None`` without one.
        lease: How the cluster's record is kept; likewise.
    """

    port: int
    phase: str
    is_well: bool
    looks: Mapping[str, int]
    written_at_s: float
    child_started_s: float | None
    pinged_at_s: float | None
    watchdog_s: float | None
    role: Role | None = None
    lease: Lease | None = None


_Metric = tuple[str, str, str, Mapping[str, float]]
"""Name, type, help, and values by what stands in the braces beside the port."""


def exposition(snapshot: Snapshot) -> str:
    """
    Return it in Prometheus' text format 0.0.4.

    Each metric bears the port: node_exporter puts the files of all guards of a machine together, and
    refuses all of them if two have the same series.
    """
    lines: list[str] = []
    for name, kind, text, values in _metrics(snapshot):
        full = f"openclaw_guard_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
        for label, value in values.items():
            lines.append(f'{full}{{port="{snapshot.port}"{label}}} {value!r}')
    return "\n".join([*lines, ""])


def _metrics(snapshot: Snapshot) -> Iterator[_Metric]:
    is_ready = snapshot.phase == Phase.READY
    yield _gauge("build_info", "Version of the guard; always 1.", 1, _label("version", __version__))
    phases = {_label("phase", phase): int(phase == snapshot.phase) for phase in _PHASES}
    text = "Whether this is the phase of the guarded program; one of them is 1."
    yield "phase", "gauge", text, phases
    text = "Whether the program is ready, and was well at the last look."
    yield _gauge("ready", text, int(is_ready and snapshot.is_well))
    text = "Whether the program is ready, and was not well at the last look."
    yield _gauge("degraded", text, int(is_ready and not snapshot.is_well))
    found = {_label("found", name): snapshot.looks.get(name, 0) for name in _FINDINGS}
    text = "Looks at the program since the guard was started, by what was found."
    yield "looks_total", "counter", text, found
    text = "When the guard wrote this, Unix time; it does so once a minute at least."
    yield _gauge("written_timestamp_seconds", text, snapshot.written_at_s)
    if snapshot.child_started_s is not None:
        text = "When the program was started, Unix time."
        yield _gauge("child_start_time_seconds", text, snapshot.child_started_s)
    if snapshot.watchdog_s is not None:
        text = "Seconds within which systemd wants a ping."
        yield _gauge("watchdog_interval_seconds", text, snapshot.watchdog_s)
    if snapshot.pinged_at_s is not None:
        text = "When systemd took the last ping, Unix time."
        yield _gauge("watchdog_last_ping_timestamp_seconds", text, snapshot.pinged_at_s)
    yield from _of_cluster(snapshot)


def _of_cluster(snapshot: Snapshot) -> Iterator[_Metric]:
    role, lease = snapshot.role, snapshot.lease
    if role is None:
        return
    text = "Whether the program may run here: 1 on one host of a cluster at a time."
    yield _gauge("active", text, int(role.active), _label("cluster", role.name))
    if lease is not None and lease.expires_in_s is not None:
        text = "Seconds until another host may take the record, unless it is renewed."
        yield _gauge("cluster_lease_expiry_seconds", text, lease.expires_in_s)
    if lease is not None:
        ended = {_label("outcome", outcome): count for outcome, count in lease.renewals.items()}
        text = "Requests to acquire or renew the record since the start, by how they ended."
        yield "cluster_renewals_total", "counter", text, ended
    if role.token is not None:
        text = "Token of the tenure that it knows of; each is higher than all before."
        yield _gauge("cluster_fencing_token", text, role.token)


def _gauge(name: str, text: str, value: float, label: str = "") -> _Metric:
    return name, "gauge", text, {label: value}


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f',{name}="{escaped}"'


class Textfile:
    """
    The file, written anew whenever something changes and at each look; or none, if nobody wants one.

    Attributes:
        lease: Returns how the cluster's record is kept.
    """

    def __init__(
        self,
        path: str | None,
        *,
        port: int,
        vitals: Vitals,
        journal: Journal,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Write nothing yet.

        Args:
            path: The file; ``None`` for none.
            port: What is guarded.
            vitals: What the guard's heartbeat knows.
            journal: Told once when the file can't be written; the guard goes on without.
            clock: The wall clock, Unix time.
        """
        self._clock = clock
        self._path, self._vitals, self._journal = path, vitals, journal
        self._told = self._written = False
        self._looks: Counter[str] = Counter()
        self._snapshot = Snapshot(
            port,
            Phase.STARTING,
            is_well=False,
            looks=self._looks,
            written_at_s=0.0,
            child_started_s=None,
            pinged_at_s=None,
            watchdog_s=None,
        )
        self.lease: Callable[[], Lease | None] = lambda: None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """
        Write for as long as the block lasts.

        After a stop that was asked for the file is removed; after any other end it says that.
        """
        try:
            yield
        except StopRequested:
            self._remove()
            raise
        except BaseException:
            self._change(phase=ENDED, is_well=False)
            raise
        self._remove()

    def shows(self, role: Role) -> None:
        """Show the host's part in its cluster; a standby has no program."""
        phase = self._snapshot.phase if role.active else STANDBY
        if self._snapshot.phase == STANDBY and role.active:
            phase = Phase.STARTING
        self._change(role=role, phase=phase)

    def started(self) -> None:
        """Show that the program has been started just now."""
        self._change(phase=Phase.STARTING, child_started_s=self._clock())

    def entered(self, phase: Phase) -> None:
        """Show what the program has come to."""
        self._change(phase=phase)

    def looked(self, look: Look, *, is_well: bool) -> None:
        """Count a look at the program."""
        self._looks[look.health.name.lower() if look.health is not None else SILENT] += 1
        if is_well != self._snapshot.is_well:
            self._change(is_well=is_well)
        else:
            self.refresh()

    def refresh(self) -> None:
        """Write once more if the last time is a while ago, or by a clock that was set back still to come."""
        if not 0 <= self._clock() - self._snapshot.written_at_s < _FRESH_S:
            self._change()

    def _change(self, **fields: Any) -> None:
        self._snapshot = self._snapshot._replace(
            written_at_s=self._clock(),
            pinged_at_s=self._vitals.pinged_at_s,
            watchdog_s=self._vitals.watchdog_s,
            lease=self.lease(),
            **fields,
        )
        if self._path is None:
            return
        try:
            with open(f"{self._path}.new", "w", encoding="utf-8") as file:
                file.write(exposition(self._snapshot))
            # In one step: node_exporter may read at any moment.
            os.replace(f"{self._path}.new", self._path)
            self._written = True
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            self._tell(error)

    def _remove(self) -> None:
        if self._path is not None and self._written:
            try:
                os.unlink(self._path)
            except OSError as error:
                if error.errno not in _UNWRITABLE:
                    raise

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            sentence = f"no metrics: {self._path}: {os.strerror(error.errno or 0)}"
            self._journal.write(Event.METRICS_UNWRITTEN, sentence, METRICS_PATH=self._path)
