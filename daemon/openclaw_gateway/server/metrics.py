"""
How the gateway is, for Prometheus: one snapshot, in its text format.

Nothing here is loaded before the first scrape: the library takes 20 ms and 2.4 MiB then, in a thread.

Names follow Prometheus' own advice (base units, ``_total``, every series there from the start), and every
label's values are ours: methods that are registered, limits, checks, phases. No path, host or client is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from openclaw_gateway.claim.record import Phase
from openclaw_gateway.server.message import Response
from openclaw_gateway.server.snapshot import CHECKS, Snapshot
from openclaw_gateway.server.tally import BOUNDS_S

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_TYPE = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
"""What every Prometheus reads. Debian 12's library can't write OpenMetrics 1.0."""

_WITHOUT_LIBRARY = """\
metrics need the Python module prometheus_client, which is not installed:
    apt install python3-prometheus-client
The gateway finds it without a restart.
"""

_PREFIX = "openclaw_gateway_"


def answer(snapshot: Snapshot) -> Response:
    """Return the answer to a scrape; runs in a thread."""
    try:
        from prometheus_client.exposition import generate_latest
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "prometheus_client":
            raise
        return Response(501, _WITHOUT_LIBRARY)
    return Response(200, generate_latest(_Collector(snapshot)), _TYPE)


class _Collector:
    """A collector as the library wants one: asked once, by ``generate_latest``."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.process_collector import ProcessCollector

        yield from families(self._snapshot)
        yield from ProcessCollector(registry=None).collect()


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield every metric of ours, in the order of the manual."""
    from prometheus_client.core import GaugeMetricFamily

    state, _ = snapshot.verdict
    build = GaugeMetricFamily(
        f"{_PREFIX}build_info",
        "Version, and an id that is another one in each process; always 1.",
        labels=("version", "process_instance_id"),
    )
    build.add_metric((snapshot.version, snapshot.instance), 1)
    yield build
    yield _gauge("ready", "Whether clients are let in and no check fails.", snapshot.ready)
    yield _gauges(
        "phase",
        "Whether this is the phase of the gateway's life; one of them is 1.",
        "phase",
        {phase.value: phase is snapshot.phase for phase in Phase},
    )
    yield _gauge(
        "degraded",
        "Whether it runs and something is wrong: a check fails, or the watchdog of systemd gets no ping.",
        state == "degraded",
    )
    yield _gauges(
        "failing",
        "Whether a check of what the gateway needs for its work fails.",
        "check",
        {name: name in snapshot.failing for name in sorted({*CHECKS, *snapshot.failing})},
    )
    role = snapshot.role
    active = GaugeMetricFamily(
        f"{_PREFIX}active",
        "Whether it may serve: 1 for one gateway of a cluster at a time, 0 for those that stand by.",
        labels=() if role is None else ("cluster",),
    )
    active.add_metric(() if role is None else (role.name,), float(role is None or role.active))
    yield active
    yield from _of_clients(snapshot)
    yield from _of_calls(snapshot)
    yield from _of_process(snapshot)
    yield from _of_cluster(snapshot)


def _of_clients(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("clients", "Clients that got their hello.", snapshot.connected)
    yield _gauge("connections", "Open connections within the limits.", snapshot.connections)
    yield _gauge(
        "connections_unauthenticated",
        "Open connections within the limits that have shown no secret.",
        snapshot.unauthenticated,
    )
    yield _gauge(
        "connections_over_limit",
        "Open connections beyond the limits, which may ask for health and metrics only.",
        snapshot.over_limit,
    )
    limit = snapshot.limits["maxConnections"].limit
    yield _gauge("connections_max", "Connections that are let in at most.", limit or 0)
    yield _counter(
        "connections_accepted", "Connections accepted since the start.", snapshot.accepted
    )
    yield _counter(
        "http_requests", "HTTP requests since the start, probes among them.", snapshot.requests
    )
    yield _counters(
        "limit_reached",
        "How often each limit of the settings was reached since the start.",
        "limit",
        {name: limit.reached for name, limit in snapshot.limits.items()},
    )
    yield _counter(
        "auth_failures",
        "Wrong secrets since the start, and tries of those who are locked out.",
        snapshot.auth_failures,
    )


def _of_calls(snapshot: Snapshot) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    yield _counters(
        "rpc_requests",
        "Requests of the protocol since the start, by method; other for those that there are none of.",
        "method",
        snapshot.requested,
    )
    yield _counters(
        "rpc_outcomes",
        "What came of them: ok, the error's code, or abandoned if the client left before.",
        "outcome",
        snapshot.outcomes,
    )
    yield _gauge("rpc_in_flight", "Calls that wait for their answers.", snapshot.in_flight)
    seconds = HistogramMetricFamily(
        f"{_PREFIX}rpc_handler_seconds", "Seconds that the handlers of methods took."
    )
    at_most, buckets = 0, []
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), snapshot.durations.counts, strict=True):
        at_most += count
        buckets.append((bound, at_most))
    seconds.add_metric((), buckets, snapshot.durations.sum_s)
    yield seconds


def _of_process(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge(
        "event_loop_delay_max_seconds",
        "The longest time of the last one to two minutes that the event loop kept anybody waiting.",
        snapshot.loop_delay_s,
    )
    if snapshot.watchdog_s is not None:
        yield _gauge(
            "watchdog_interval_seconds",
            "Seconds within which systemd wants a ping.",
            snapshot.watchdog_s,
        )
    if snapshot.pinged_at_ms is not None:
        yield _gauge(
            "watchdog_last_ping_timestamp_seconds",
            "When systemd took the last ping, Unix time.",
            snapshot.pinged_at_ms / 1000,
        )
    yield _counter(
        "lock_restored",
        "Lock files made anew since the start, because somebody had removed them.",
        snapshot.locks_restored,
    )


def _of_cluster(snapshot: Snapshot) -> Iterator[Metric]:
    role, lease = snapshot.role, snapshot.lease
    if lease is not None and lease.expires_in_s is not None:
        yield _gauge(
            "cluster_lease_expiry_seconds",
            "Seconds until another host may take the record, unless it is renewed.",
            lease.expires_in_s,
        )
    if lease is not None:
        yield _counters(
            "cluster_renewals",
            "Requests to acquire or renew the record since the start, by how they ended.",
            "outcome",
            lease.renewals,
        )
    if role is not None and role.token is not None:
        yield _gauge(
            "cluster_fencing_token",
            "Token of the tenure that it knows of, its own or another's; each is higher than all before.",
            role.token,
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"{_PREFIX}{name}", text, value=float(value))


def _gauges(name: str, text: str, label: str, values: Mapping[str, bool]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"{_PREFIX}{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), float(value))
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"{_PREFIX}{name}", text, value=float(value))


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"{_PREFIX}{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
