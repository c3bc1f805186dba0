"""What the process table says, read from a process table made for the occasion."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openclaw_gateway.host import process
from openclaw_gateway.host.process import Description, ProcessFacts


def stat_line(pid: int, command: str, start_ticks: int) -> str:
    return f"{pid} ({command}) S 1 2 " + "0 " * 16 + f"{start_ticks} 0 0\n"


@pytest.mark.parametrize("command", ["gateway", "a) S 1 2", "", ") ) ("])
def test_start_ticks_are_field_22_whatever_the_command_is_called(
    tmp_path: Path, command: str
) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5/stat").write_text(stat_line(5, command, 4711))
    assert process.facts(5, proc=str(tmp_path)) == ProcessFacts(5, 4711)


def test_no_process_no_facts(tmp_path: Path) -> None:
    assert process.facts(5, proc=str(tmp_path)) is None


def test_cut_short_stat_is_no_fact(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5/stat").write_text("5 (x) S 1")
    assert process.facts(5, proc=str(tmp_path)) is None


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/openclaw-gateway.service\n", "openclaw-gateway.service"),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/openclaw-gateway.service\n",
            "openclaw-gateway.service",
        ),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
        ("1:cpu:/x.service\n9:name=systemd:/system.slice/y.service\n0::/\n", "y.service"),
        ("0::/system.slice/a.service/payload\n", "a.service"),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_unit_is_the_innermost_service_or_scope(
    tmp_path: Path, cgroup: str, unit: str | None
) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5/cgroup").write_text(cgroup)
    assert process.unit_of(5, proc=str(tmp_path)) == unit


def test_a_long_command_is_named_whole(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5/comm").write_text("openclaw-gatewa\n")
    (tmp_path / "5/cmdline").write_bytes(b"/usr/bin/python3\0/usr/bin/openclaw-gateway\0run\0")
    described = process.describe(5, uid=0, unit="x.service", proc=str(tmp_path))
    assert str(described) == "pid 5 (openclaw-gateway, user root, unit x.service)"


def test_a_process_that_is_hidden_still_has_its_pid() -> None:
    assert str(Description(5, None, None, None)) == "pid 5"


def test_our_own_facts_are_those_of_the_kernel() -> None:
    own = process.facts(os.getpid())
    assert own is not None and own.start_ticks > 0


@pytest.mark.parametrize(("line_pid", "expected"), [("812", 812), ("0", None), ("-1", None)])
def test_flock_holder_is_read_from_the_kernels_list(
    tmp_path: Path, line_pid: str, expected: int | None
) -> None:
    device = os.makedev(0xFE, 0)
    (tmp_path / "locks").write_text(
        "1: POSIX  ADVISORY  WRITE 1 fe:00:77 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE {line_pid} fe:00:77 0 EOF\n"
    )
    assert process.flock_holder(device, 77, proc=str(tmp_path)) == expected
    assert process.flock_holder(device, 78, proc=str(tmp_path)) is None


def holding(proc: Path, pid: int, comm: str, inode: int) -> None:
    """Put a process that has a socket open into a process table."""
    (proc / f"{pid}/fd").mkdir(parents=True)
    (proc / f"{pid}/comm").write_text(f"{comm}\n")
    (proc / f"{pid}/fd/3").symlink_to(f"socket:[{inode}]")


def test_socket_belongs_to_who_serves_it_and_not_to_the_manager_that_has_a_copy(
    tmp_path: Path,
) -> None:
    holding(tmp_path, 1, "systemd", 77)
    assert process.socket_owner(77, proc=str(tmp_path)) == 1
    holding(tmp_path, 812, "claw-gateway", 77)
    assert process.socket_owner(77, proc=str(tmp_path)) == 812
    assert process.socket_owner(78, proc=str(tmp_path)) is None
