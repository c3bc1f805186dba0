"""Reading what ``systemctl show`` prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateways import RUNNING, unit
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.admin.look.units import (
    NO_SYSTEMD,
    SYSTEM,
    Manager,
    parse,
    seconds,
    show,
    unit_name,
)


def test_running_unit_is_read() -> None:
    read = unit()
    assert (read.name, read.active_state, read.enabled) == (
        "openclaw-gateway.service",
        "active",
        "enabled",
    )
    assert read.main_pid == 812
    assert read.prevents == (78, 243)
    assert (read.restart_s, read.start_timeout_s, read.stop_timeout_s) == (2.0, 90.0, 30.0)
    assert (read.start_limit_interval_s, read.start_limit_burst) == (600.0, 5)
    assert read.state_directory == "openclaw-gateway/default"
    assert read.drop_ins == ("/etc/systemd/system/openclaw-gateway.service.d/10-port.conf",)
    assert read.environment == {"A": "1", "B": "two words"}
    assert read.environment_files == ("/etc/one", "/etc/two")
    assert read.argv == ("/usr/bin/openclaw-gateway", "run", "--port", "18789")


def test_path_of_an_environment_file_may_hold_blanks() -> None:
    text = RUNNING.replace("/etc/one (", "/etc/one (1) (")
    (read,) = parse(text, SYSTEM, now_s=1000.0)
    assert read.environment_files == ("/etc/one (1)", "/etc/two")


def test_moments_become_ages() -> None:
    read = unit()
    assert read.active_age_s == pytest.approx(499.69)
    assert read.startup_s == pytest.approx(0.31)
    assert read.watchdog_age_s == pytest.approx(4.0)
    assert read.exited_age_s is None


def test_inactive_unit_has_no_age_of_activity() -> None:
    text = RUNNING.replace("ActiveState=active", "ActiveState=inactive")
    read = parse(text, SYSTEM, now_s=1000.0)[0]
    assert (read.active_age_s, read.startup_s, read.watchdog_age_s) == (None, None, None)


def test_units_are_blocks() -> None:
    other = "Id=openclaw-gateway@work.service\nLoadState=not-found\n"
    names = [found.name for found in parse(f"{RUNNING}\n{other}", SYSTEM, now_s=1.0)]
    assert names == ["openclaw-gateway.service", "openclaw-gateway@work.service"]


def test_what_an_old_systemd_does_not_say_is_empty() -> None:
    (read,) = parse("Id=x.service\n", SYSTEM, now_s=1.0)
    assert (read.main_pid, read.watchdog_s, read.prevents, read.argv) == (None, None, (), ())


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert isinstance(parse(text, SYSTEM, now_s=0.0), list)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1min 30s", 90.0),
        ("100ms", 0.1),
        ("0", 0.0),
        ("2h 3min", 7380.0),
        ("2 h", 7200.0),
        ("1w 2d", 777600.0),
        ("infinity", None),
        ("", None),
        ("5 parsecs", None),
    ],
)
def test_time_span(text: str, expected: float | None) -> None:
    assert seconds(text) == expected


def test_without_systemd_nobody_is_asked(tmp_path: Path) -> None:
    assert show(["x.service"], runtime=str(tmp_path / "none")) == ((), NO_SYSTEMD)


def test_manager_is_addressed_by_whoever_looks() -> None:
    assert SYSTEM.command(0) == "systemctl"
    assert SYSTEM.command(1000) == "sudo systemctl"
    assert Manager(1000000).command(1000000) == "systemctl --user"
    assert Manager(1000000).command(0) == "systemctl --user -M 1000000@"


def test_unit_of_a_profile() -> None:
    assert unit_name(None) == "openclaw-gateway.service"
    assert unit_name("work") == "openclaw-gateway@work.service"
