"""Whose gateway is meant: which lock records may be its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from gateways import record, unit

from openclaw_gateway.admin.look.selection import Scope, select
from openclaw_gateway.admin.look.subject import Subject, resolve
from openclaw_gateway.admin.look.units import Reply

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
