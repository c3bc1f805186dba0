"""What a guard writes for node_exporter: one series per port, every label known, nothing that is not so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from openclaw_gateway.guard.rule import Phase
from openclaw_gateway.guard.textfile import ENDED, SILENT, STANDBY, Snapshot, Textfile, exposition
from openclaw_gateway.protocol.role import Lease, Role
from openclaw_gateway.supervisor.events import Priority
from openclaw_gateway.supervisor.journal import PlainJournal
from openclaw_gateway.supervisor.vitals import Vitals

MANUAL = Path(__file__).parents[2] / "packaging/man/openclaw-guard.8"
SEEN = Snapshot(
    port=18789, phase=Phase.READY, is_well=True, looks={SILENT: 2, "healthy": 3}, written_at_s=100.5,
    child_started_s=90.25, pinged_at_s=95.0, watchdog_s=180.0,
    role=Role("home", True, "a", "wss://a", 42, 7, "active (token 42)"),
    lease=Lease(12.5, {"written": 4, "unknown": 0}),
)  # fmt: skip


def read(seen: Snapshot) -> dict[str, float]:
    """Return every sample by name and labels but the port's, and check that all have that."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition(seen)):
        assert family.name.startswith("openclaw_guard_")
        assert family.documentation and family.type in ("gauge", "counter")
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("port") == "18789"
            name = sample.name.removeprefix("openclaw_guard_")
            found["".join([name, *(f"{{{value}}}" for value in labels.values())])] = sample.value
    return found


def test_everything_that_is_seen_is_told() -> None:
    found = read(SEEN)
    version = next(name for name in found if name.startswith("build_info"))
    assert {name: value for name, value in found.items() if value and name != version} == {
        "phase{ready}": 1,
        "ready": 1,
        "looks_total{silent}": 2,
        "looks_total{healthy}": 3,
        "written_timestamp_seconds": 100.5,
        "child_start_time_seconds": 90.25,
        "watchdog_interval_seconds": 180,
        "watchdog_last_ping_timestamp_seconds": 95,
        "active{home}": 1,
        "cluster_lease_expiry_seconds": 12.5,
        "cluster_renewals_total{written}": 4,
        "cluster_fencing_token": 42,
    }


@pytest.mark.parametrize(
    ("phase", "is_well", "ready", "degraded"),
    [
        (Phase.STARTING, False, 0, 0),
        (Phase.STARTING, True, 0, 0),
        (Phase.READY, True, 1, 0),
        (Phase.READY, False, 0, 1),
        (Phase.STOPPING, True, 0, 0),
        (STANDBY, False, 0, 0),
        (ENDED, False, 0, 0),
    ],
)
def test_ready_is_ready_and_well(phase: str, is_well: bool, ready: int, degraded: int) -> None:
    found = read(SEEN._replace(phase=phase, is_well=is_well))
    assert (found["ready"], found["degraded"], found[f"phase{{{phase}}}"]) == (ready, degraded, 1)
    assert sum(value for name, value in found.items() if name.startswith("phase")) == 1


def test_what_is_not_known_is_left_out() -> None:
    bare = Snapshot(18789, Phase.STARTING, False, {}, 1.0, None, None, None)
    assert not [name for name in read(bare) if re.search("child|watchdog|cluster|active", name)]


def test_label_is_quoted_as_the_format_wants_it() -> None:
    role = Role('a"b\\c', True, "", "", None, None, "")
    assert r'active{port="18789",cluster="a\"b\\c"} 1' in exposition(SEEN._replace(role=role))


@pytest.mark.parametrize(
    ("later_s", "written_s"), [(9.9, 100.0), (10.0, 110.0), (3600.0, 3700.0), (-1.0, 99.0)]
)
def test_file_is_refreshed_once_it_is_old_or_from_the_future(
    tmp_path: Path, later_s: float, written_s: float
) -> None:
    now_s = [100.0]
    path = tmp_path / "guard.prom"
    textfile = Textfile(
        str(path),
        port=18789,
        vitals=Vitals(),
        journal=PlainJournal(Priority.ERROR),
        clock=lambda: now_s[0],
    )
    textfile.entered(Phase.READY)
    now_s[0] += later_s
    textfile.refresh()
    assert f'written_timestamp_seconds{{port="18789"}} {written_s!r}' in path.read_text()


def test_manual_names_every_metric_and_no_other() -> None:
    manual = MANUAL.read_text().partition(".Sh METRICS")[2].partition(".Sh ")[0]
    told = re.findall(r"^\.It Li (\S+)", manual, re.MULTILINE)
    names = re.findall(r"^# HELP openclaw_guard_(\S+)", exposition(SEEN), re.MULTILINE)
    assert told == names
