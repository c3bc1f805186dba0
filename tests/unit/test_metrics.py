"""A snapshot as Prometheus reads it: names, helps, bounded labels, and that nothing is loaded for it before."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from test_snapshot import SNAPSHOT

from openclaw_gateway.claim.record import Phase
from openclaw_gateway.protocol.role import Role
from openclaw_gateway.server import metrics
from openclaw_gateway.server.snapshot import CHECKS, Limit, Snapshot
from openclaw_gateway.server.tally import BOUNDS_S, OUTCOMES, Durations

MANUAL = Path(__file__).parents[2] / "packaging/man/openclaw-gateway.8"
ALL = SNAPSHOT._replace(
    failing=CHECKS,
    problem="it hangs",
    durations=Durations((1, 2, *([0] * (len(BOUNDS_S) - 2)), 3), 0.25),
    outcomes=dict.fromkeys(OUTCOMES, 1),
)


def read(snapshot: Snapshot) -> dict[str, Metric]:
    response = metrics.answer(snapshot)
    assert response.status == 200
    assert response.headers == {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    assert isinstance(response.body, bytes)
    families = list(text_string_to_metric_families(response.body.decode()))
    found = {family.name: family for family in families}
    assert len(found) == len(families)
    return found


def values(snapshot: Snapshot, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's values by those of its labels."""
    (family,) = (f for f in read(snapshot).values() if any(s.name == name for s in f.samples))
    return {tuple(s.labels.values()): s.value for s in family.samples if s.name == name}


def value(snapshot: Snapshot, name: str) -> float:
    return values(snapshot, f"openclaw_gateway_{name}")[()]


def test_every_metric_has_its_help_and_a_name_of_ours() -> None:
    for name, family in read(ALL).items():
        assert name.startswith(("openclaw_gateway_", "process_"))
        assert family.documentation and family.type != "unknown"
        assert family.documentation[0].isupper() and family.documentation.endswith(".")


def test_labels_are_names_of_ours_and_no_path_host_or_client() -> None:
    for family in read(ALL).values():
        for sample in family.samples:
            assert set(sample.labels) <= {
                "version", "process_instance_id", "phase", "check", "limit", "method", "outcome", "le",
                "cluster",
            }  # fmt: skip
            for text in ("/state", "/config", "/lock", "127.0.0.1", "wss"):
                assert text not in str(sample.labels.values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ready", 0), ("degraded", 1), ("clients", 7), ("connections", 8),
        ("connections_unauthenticated", 9), ("connections_over_limit", 10), ("connections_max", 1024),
        ("connections_accepted_total", 12), ("http_requests_total", 13), ("rpc_in_flight", 11),
        ("auth_failures_total", 24), ("event_loop_delay_max_seconds", 0.0224),
        ("watchdog_interval_seconds", 60), ("watchdog_last_ping_timestamp_seconds", 0.021),
        ("lock_restored_total", 23), ("cluster_fencing_token", 42), ("cluster_lease_expiry_seconds", 12.5),
        ("rpc_handler_seconds_count", 6), ("rpc_handler_seconds_sum", 0.25),
    ],
)  # fmt: skip
def test_number_is_the_snapshots(name: str, expected: float) -> None:
    assert value(ALL, name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("active", {("c",): 1}),
        ("build_info", {("abc", "1.2.3"): 1}),
        ("phase", {(phase.value,): phase is Phase.READY for phase in Phase}),
        ("failing", {("state-directory",): 1}),
        ("limit_reached_total", {("descriptors",): 1, ("maxConnections",): 0}),
        ("rpc_requests_total", {("health",): 14, ("other",): 1}),
        ("cluster_renewals_total", {("written",): 3}),
        ("rpc_outcomes_total", {(name,): 1 for name in OUTCOMES}),
    ],
)
def test_labelled_numbers_are_the_snapshots(
    name: str, expected: dict[tuple[str, ...], float]
) -> None:
    assert values(ALL, f"openclaw_gateway_{name}") == expected


def test_buckets_count_all_that_took_up_to_their_bound() -> None:
    found = values(ALL, "openclaw_gateway_rpc_handler_seconds_bucket")
    assert (found["0.0001",], found["0.00025",], found["60.0",], found["+Inf",]) == (1, 3, 3, 6)


@pytest.mark.parametrize(
    ("changes", "ready", "degraded", "active", "phase"),
    [
        ({}, 1, 0, 1, "ready"),
        ({"failing": CHECKS}, 0, 1, 1, "ready"),
        ({"problem": "it hangs"}, 1, 1, 1, "ready"),
        ({"phase": Phase.STARTING}, 0, 0, 1, "starting"),
        ({"phase": Phase.DRAINING}, 0, 0, 1, "draining"),
        (
            {"role": Role("c", False, "b", "", 41, None, "b is active"), "phase": Phase.STANDBY},
            *(0, 0, 0, "standby"),
        ),
        ({"role": None}, 1, 0, 1, "ready"),
    ],
)
def test_state_is_told_in_numbers(
    changes: dict[str, Any], ready: int, degraded: int, active: int, phase: str
) -> None:
    snapshot = SNAPSHOT._replace(failing=())._replace(**changes)
    assert value(snapshot, "ready") == ready
    assert value(snapshot, "degraded") == degraded
    assert list(values(snapshot, "openclaw_gateway_active").values()) == [active]
    phases = values(snapshot, "openclaw_gateway_phase")
    assert [name for (name,), on in phases.items() if on] == [phase]


def test_what_is_not_there_is_left_out() -> None:
    """No watchdog is not a watchdog that never barked."""
    found = read(SNAPSHOT._replace(watchdog_s=None, pinged_at_ms=None, role=None, lease=None))
    assert not [name for name in found if "watchdog" in name or "cluster" in name]


def test_check_that_is_new_is_shown_too() -> None:
    found = values(SNAPSHOT._replace(failing=("new",)), "openclaw_gateway_failing")
    assert found == {("new",): 1, ("state-directory",): 0}


def test_manual_names_every_metric_and_no_other() -> None:
    manual = MANUAL.read_text().partition(".Ss Metrics")[2].partition(".Sh ")[0]
    told = re.findall(r"^\.It Li (\S+)", manual, re.MULTILINE)
    ours = [
        f"{name}_total" if family.type == "counter" else name
        for name, family in read(ALL).items()
        if name.startswith("openclaw_gateway_")
    ]
    assert [f"openclaw_gateway_{name}" for name in told] == ours


def test_series_are_few() -> None:
    """OpenClaw's own exporter has at most 2,048."""
    many = ALL._replace(requested={f"method{n}": n for n in range(100)})
    many = many._replace(limits={"maxConnections": Limit(1, 1)} | dict(ALL.limits))
    assert sum(len(family.samples) for family in read(many).values()) < 300


def test_library_is_loaded_by_the_first_scrape_and_not_before() -> None:
    script = (
        "import sys, openclaw_gateway.server.http, openclaw_gateway.server.metrics\n"
        "sys.exit('prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
