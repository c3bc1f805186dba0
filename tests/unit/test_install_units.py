"""What ``install-units`` writes, where, and what it leaves alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from openclaw_gateway.admin import install
from openclaw_gateway.errors import InstallError

PROGRAM = "/opt/gateway/bin/openclaw-gateway"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def sources() -> None:
    if not Path(install.SOURCES).is_dir():
        pytest.skip("Debian's package has the units where dpkg looks after them")


@pytest.mark.usefixtures("sources")
def test_units_are_the_repositorys_but_for_the_program() -> None:
    for path, text in install.system_targets(PROGRAM, "/", 257):
        first, _, body = text.partition("\n")
        assert first.startswith("# openclaw-gateway install-units wrote this file")
        assert "/usr/bin/openclaw-gateway" not in body
        assert install.is_ours(text)
        if path.endswith("system/openclaw-gateway.service"):
            original = (REPOSITORY / "systemd/openclaw-gateway.service").read_text()
            assert body == original.replace("/usr/bin/openclaw-gateway", PROGRAM)
            assert f"ExecStart={PROGRAM} run" in body.splitlines()


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize(("release", "drop_ins"), [(252, 0), (254, 2), (257, 3)])
def test_drop_ins_are_those_that_this_systemd_knows(release: int, drop_ins: int) -> None:
    paths = [path for path, _ in install.system_targets(PROGRAM, "/", release)]
    assert sum(path.endswith(".conf") and ".d/0" in path for path in paths) == drop_ins


@pytest.mark.parametrize(
    ("program", "of_system", "problem"),
    [
        ("/usr/bin/openclaw-gateway", True, "Debian's package"),
        ("/nonexistent/openclaw-gateway", False, "no program that systemd could execute"),
    ],
)
def test_program_that_a_unit_could_not_execute_is_refused(
    program: str, of_system: bool, problem: str
) -> None:
    with pytest.raises(InstallError, match=problem):
        install.check_program(program, of_system=of_system)


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("name", ["a b", "100%", "a$b", "a'b", "a\\b"])
def test_path_that_a_unit_file_would_read_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    program = tmp_path / name / "openclaw-gateway"
    program.parent.mkdir()
    program.symlink_to("/bin/true")
    with pytest.raises(InstallError, match="characters that mean something else"):
        install.check_program(str(program), of_system=False)


@pytest.mark.usefixtures("sources")
def test_program_that_the_sandbox_hides_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "openclaw-gateway"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    install.check_program(str(program), of_system=False)
    if not str(tmp_path.resolve()).startswith("/tmp/"):
        pytest.skip("needs a temporary directory below /tmp")
    with pytest.raises(InstallError, match="sandbox") as refused:
        install.check_program(str(program), of_system=True)
    assert "install-units --user" in refused.value.hint


def test_only_what_it_wrote_is_replaced(tmp_path: Path) -> None:
    body = "[Service]\n"
    ours = install.Target(
        str(tmp_path / "x.service"), f"{install._MARK} sha256={install._digest(body)}\n{body}"
    )
    install.check_place(ours)
    install.write(ours)
    install.check_place(ours)
    install.write(ours)
    assert [path.name for path in tmp_path.iterdir()] == ["x.service"]
    edited = Path(ours.path)
    edited.write_text(ours.text + "Nice=5\n")
    with pytest.raises(InstallError, match="not as install-units wrote it"):
        install.check_place(ours)
    edited.unlink()
    edited.symlink_to("/dev/null")  # masked
    with pytest.raises(InstallError, match="there already"):
        install.check_place(ours)


def test_unit_of_a_package_is_not_hidden(tmp_path: Path) -> None:
    install.check_package(str(tmp_path), "user")
    unit = tmp_path / "usr/lib/systemd/user/openclaw-gateway.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    with pytest.raises(InstallError, match="a package has brought"):
        install.check_package(str(tmp_path), "user")


def test_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstallError, match=r"below/x\.service can't be written: Not a directory"):
        install.write(install.Target(f"{tmp_path}/file/below/x.service", ""))


def test_own_program_is_that_of_the_environment() -> None:
    program = Path(install.installed_program())
    assert program.parent == Path(sys.executable).parent or program.is_absolute()
