"""Whose gateway is meant: which lock records may be its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from gateways import record, unit

from openclaw_gateway.admin.look.selection import Scope, select
from openclaw_gateway.admin.look.subject import Subject, resolve
from openclaw_gateway.admin.look.units import Reply, Unit
from openclaw_gateway.claim.baseport import Holder

OF_SYSTEM = "/var/lib/openclaw-gateway/work"
WORK = unit(
    name="openclaw-gateway@work.service",
    active_state="inactive",
    main_pid=None,
    state_directory="openclaw-gateway/work",
)
NO_BUS = Reply((), "Failed to connect to bus")


def resolved(
    home: Path, flags: Mapping[str, str | None], answer: Reply, *, scope: Scope = Scope.ANY
) -> Subject:
    selection = select({"HOME": str(home)}, scope=scope, flags=flags)
    return resolve(selection, {}, shown=answer)


@pytest.mark.parametrize("directory", [OF_SYSTEM, "HOME/.openclaw-work"])
def test_profile_is_run_by_its_unit_or_by_hand(tmp_path: Path, directory: str) -> None:
    subject = resolved(tmp_path, {"--profile": "work"}, Reply((WORK,)))
    theirs = directory.replace("HOME", str(tmp_path))
    assert subject.is_of(record(state_dir=theirs, unit=None))
    assert not subject.is_of(record(state_dir=f"{theirs}-not", unit=None))


def test_unit_that_was_named_is_not_run_by_hand(tmp_path: Path) -> None:
    flags = {"--profile": "work"}
    subject = resolved(tmp_path, flags, Reply((WORK,)), scope=Scope.SYSTEM)
    assert subject.is_of(record(state_dir=OF_SYSTEM))
    assert not subject.is_of(record(state_dir=str(tmp_path / ".openclaw-work"), unit=None))


def test_unit_is_known_by_name_where_its_manager_is_silent(tmp_path: Path) -> None:
    subject = resolved(tmp_path, {"--profile": "work"}, NO_BUS)
    assert subject.is_of(record(state_dir="/srv/elsewhere", unit=WORK.name))
    assert not subject.is_of(record(state_dir="/srv/elsewhere", unit="openclaw-gateway.service"))


@pytest.mark.parametrize("flags", [{}, {"--port": "20001"}])
def test_port_alone_is_anybodys(tmp_path: Path, flags: dict[str, str | None]) -> None:
    assert resolved(tmp_path, flags, Reply(())).is_of(record(state_dir="/srv/elsewhere"))


GUARD = unit(
    name="openclaw-guard@ada.service",
    user="ada",
    state_directory="",
    argv=("openclaw-gateway", "guard"),
)


def holding(port: int, pid: int) -> dict[int, Holder]:
    return {port: Holder(pid, 1000, record(pid=pid, port=port, child_pid=pid + 1))}


def chosen(
    home: Path, *known: Unit, holders: Mapping[int, Holder] | None = None, **said: Any
) -> Subject:
    selection = select({"HOME": str(home)}, **said)
    return resolve(selection, holders or {}, shown=Reply(known))


def test_guard_that_has_the_port_is_meant_though_our_own_unit_is_enabled(tmp_path: Path) -> None:
    idle = unit(main_pid=None, active_state="failed")
    subject = chosen(tmp_path, idle, GUARD, holders=holding(18789, GUARD.main_pid or 0))
    assert subject.unit == GUARD
    assert (subject.unit_name, subject.guarded_account) == (GUARD.name, "ada")
    assert subject.profile_name is None


def test_our_own_gateway_is_meant_where_it_has_the_port(tmp_path: Path) -> None:
    parked = GUARD._replace(main_pid=None, active_state="failed")
    subject = chosen(tmp_path, unit(), parked, holders=holding(18789, unit().main_pid or 0))
    assert subject.unit == unit()


def test_guard_that_failed_is_meant_where_our_own_unit_is_switched_off(tmp_path: Path) -> None:
    off = unit(main_pid=None, active_state="inactive", enabled="disabled")
    parked = GUARD._replace(main_pid=None, active_state="failed")
    assert chosen(tmp_path, off, parked).unit == parked
    assert chosen(tmp_path, off, parked._replace(active_state="inactive", enabled="")).unit == off
    assert chosen(tmp_path, off, parked, scope=Scope.SYSTEM).unit == off


def test_guard_that_is_named_is_meant_whoever_runs(tmp_path: Path) -> None:
    parked = GUARD._replace(main_pid=None, active_state="failed")
    subject = chosen(tmp_path, unit(), parked, guard="ada")
    assert subject.unit == parked
    assert subject.selection.arguments == ("--guard=ada",)


def test_what_a_guard_starts_has_flags_of_its_own(tmp_path: Path) -> None:
    words = (
        "openclaw-gateway",
        "guard",
        "--port=20007",
        "--",
        "python3",
        "--port",
        "1",
        "--bind",
        "x",
    )
    subject = chosen(tmp_path, GUARD._replace(argv=words, main_pid=None), guard="ada")
    assert (subject.place.port, subject.place.problem) == (20007, None)


def test_unit_with_another_state_directory_than_the_one_named_is_another_gateway(
    tmp_path: Path,
) -> None:
    flags = {"--state-dir": str(tmp_path)}
    subject = resolved(tmp_path, flags, Reply((unit(),)))
    assert subject.unit is None
    assert subject.others == (
        "openclaw-gateway.service (system) is another gateway, "
        "with /var/lib/openclaw-gateway/default",
    )
    assert not subject.is_of(record())


def test_unit_with_the_state_directory_that_was_named_is_meant(tmp_path: Path) -> None:
    flags = {"--state-dir": "/var/lib/openclaw-gateway/default"}
    assert resolved(tmp_path, flags, Reply((unit(),))).unit == unit()
