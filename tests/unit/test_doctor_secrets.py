"""Which files doctor takes for open secrets, among those that a unit reads its environment from."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest
from gateways import PLACE, running, unit

from openclaw_gateway.admin.look.secrets import OpenFile, Secrets, look_for_secrets

TOKEN = "OPENCLAW_GATEWAY_TOKEN=secret-of-the-test\n"


def look(tmp_path: Path, *names: str) -> Secrets:
    """Look where there is nothing but a unit's environment files."""
    facts = running(
        place=PLACE._replace(config_path=str(tmp_path / "none.json")),
        lock=running().lock._replace(state_dir=str(tmp_path / "none")),
    )
    files = tuple(str(tmp_path / name) for name in names)
    return look_for_secrets(facts, (unit(environment_files=files),))


def write(path: Path, text: str, *, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)


def opened(path: Path, *, group: str | None = None) -> OpenFile:
    return OpenFile(str(path), 0o644, os.geteuid(), group)


@pytest.mark.parametrize(
    "text", [TOKEN, f"# ours\n\n  {TOKEN}", 'A=1\nOPENCLAW_GATEWAY_PASSWORD="secret of the test"']
)
def test_environment_file_with_a_secret_that_everyone_may_read(tmp_path: Path, text: str) -> None:
    write(tmp_path / "env", text, mode=0o644)
    assert look(tmp_path, "env") == Secrets((opened(tmp_path / "env"),))


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (TOKEN, 0o640),
        (f"#{TOKEN}", 0o644),
        ("OPENCLAW_GATEWAY_TOKEN=\n", 0o644),
        ('OPENCLAW_GATEWAY_TOKEN=""\n', 0o644),
        ("OPENCLAW_GATEWAY_PORT=1\n", 0o644),
        ("no assignment", 0o644),
    ],
)
def test_environment_file_that_is_as_it_should_be(tmp_path: Path, text: str, mode: int) -> None:
    write(tmp_path / "env", text, mode=mode)
    assert look(tmp_path, "env") == Secrets()


def test_environment_file_that_is_not_there_hides_nothing(tmp_path: Path) -> None:
    write(tmp_path / "env", TOKEN, mode=0o644)
    assert look(tmp_path, "gone", "env").open_files == (opened(tmp_path / "env"),)


def test_pattern_stands_for_the_files_that_it_matches(tmp_path: Path) -> None:
    for name in ("b.env", "a.env", "other"):
        write(tmp_path / name, TOKEN, mode=0o644)
    found = look(tmp_path, "*.env", "a.env").open_files
    assert [Path(file.path).name for file in found] == ["a.env", "b.env"]


def test_environment_file_that_can_not_be_looked_at_is_said(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (problem,) = look(tmp_path, "loop").problems
    assert problem == f"secrets in {tmp_path}/loop: Too many levels of symbolic links"


@pytest.mark.parametrize(
    ("user", "is_the_units"),
    [("nobody", True), (pwd.getpwuid(os.geteuid()).pw_name, False), ("nobodys-name", False)],
)
def test_settings_are_read_by_the_units_account_through_its_group(
    tmp_path: Path, user: str, is_the_units: bool
) -> None:
    """Closed to all but their owner, they would be closed to a gateway of another account."""
    settings = tmp_path / "openclaw.json"
    write(settings, '{"gateway": {"auth": {"token": "secret-of-the-test"}}}', mode=0o644)
    facts = running(
        place=PLACE._replace(config_path=str(settings)),
        lock=running().lock._replace(state_dir=str(tmp_path / "none")),
        unit=unit(user=user),
    )
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name if is_the_units else None
    assert look_for_secrets(facts, ()).open_files == (opened(settings, group=group),)
