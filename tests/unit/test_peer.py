"""What is OpenClaw's own on a machine, told from what is ours."""

from __future__ import annotations

from pathlib import Path

from openclaw_gateway.admin.look.peer import Peer, find


def script(path: Path, first_line: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first_line}\n")
    path.chmod(0o755)
    return str(path)


def test_command_of_node_is_openclaws(tmp_path: Path) -> None:
    home = tmp_path / "home"
    in_path = script(tmp_path / "bin/openclaw", "#!/usr/bin/env node")
    installed = Path(script(tmp_path / "lib/node_modules/openclaw/openclaw.mjs", "#!/bin/sh"))
    (home / ".npm-global/bin").mkdir(parents=True)
    (home / ".npm-global/bin/openclaw").symlink_to(installed)
    found = find(str(tmp_path / "bin"), [str(home)])
    assert set(found.commands) >= {in_path, str(home / ".npm-global/bin/openclaw")}


def test_our_own_user_unit_is_in_the_way_where_there_is_one(tmp_path: Path) -> None:
    ours = tmp_path / "openclaw-gateway.service"
    assert find("", [], user_unit=str(ours)).in_the_way == ""
    ours.touch()
    assert find("", [], user_unit=str(ours)).in_the_way == str(ours)


def test_ours_is_not_openclaws(tmp_path: Path) -> None:
    ours = script(tmp_path / "bin/openclaw", "#!/usr/bin/python3")
    assert ours not in find(f"relative:{tmp_path}/bin", []).commands


def test_two_names_of_one_command_count_once(tmp_path: Path) -> None:
    script(tmp_path / "bin/openclaw", "#!/usr/bin/env node")
    (tmp_path / "same").symlink_to(tmp_path / "bin")
    found = find(f"{tmp_path}/bin:{tmp_path}/same", [])
    assert len([name for name in found.commands if name.startswith(str(tmp_path))]) == 1


def test_unit_that_openclaw_wrote_is_known_by_its_marker(tmp_path: Path) -> None:
    units = tmp_path / ".config/systemd/user"
    marked = script(
        units / "openclaw-gateway.service", "Environment=OPENCLAW_SERVICE_MARKER=openclaw"
    )
    script(units / "openclaw-gateway@.service", "Environment=PYTHONNOUSERSITE=1")
    assert find("", [str(tmp_path)]).units == (marked,)


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert find("", [str(tmp_path)]).units == Peer().units
