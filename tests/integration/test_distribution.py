"""A source archive and a wheel: what is in them, and that a gateway from them runs and installs its units."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from conftest import CAP_S, Daemon, clean_environ, free_port

REPOSITORY = Path(__file__).parents[2]
_MADE = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", ".pybuild"
)  # fmt: skip


def run(*words: str | Path, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=clean_environ(**variables),
        capture_output=True,
        text=True,
        timeout=5 * CAP_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked elsewhere."""
    work = tmp_path_factory.mktemp("distribution")
    shutil.copytree(REPOSITORY, work / "copy", symlinks=True, ignore=_MADE)
    build = "import setuptools; setuptools.setup()"
    run(sys.executable, "-c", build, "-q", "sdist", "-d", work, cwd=work / "copy")
    (archive,) = work.glob("*.tar.gz")
    run("tar", "--extract", "--file", archive, cwd=work)
    return work / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def environment(source: Path) -> Path:
    """A virtual environment with a wheel of that archive; what it depends on is borrowed from ours."""
    pip = (sys.executable, "-m", "pip", "-q")
    wheels = source.parent / "wheels"
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source, cwd=source)
    (wheel,) = wheels.glob("*.whl")
    made = source.parent / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", made, cwd=source)
    run(*pip, "--python", made / "bin/python", "install", "--no-deps", wheel, cwd=source)
    (site,) = made.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


def test_archive_has_what_the_readme_begins_with(source: Path) -> None:
    for path in sorted(REPOSITORY.rglob("*")):
        name = path.relative_to(REPOSITORY)
        if any(_MADE(str(REPOSITORY), [part]) or part[0] == "." for part in name.parts):
            continue
        assert (source / name).exists(), name
    plan = run("make", "--dry-run", "run", "PYTHON=python3", cwd=source)
    assert "packaging/need" in plan and "openclaw-gateway run" in plan
    assert os.access(source / "packaging/need", os.X_OK)


@pytest.mark.skipif(
    any(
        Path(directory, "systemd/user/openclaw-gateway.service").exists()
        for directory in ("/usr/lib", "/lib")
    ),
    reason="the package is installed, whose units a wheel must not hide",
)
def test_wheel_installs_its_units_and_they_run_its_own_program(
    environment: Path, tmp_path: Path
) -> None:
    program = environment / "bin/openclaw-gateway"
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
    shown = run(program, "install-units", "--user", "--dry-run", cwd=tmp_path, **home)
    assert f"ExecStart={program} run" in shown and not (tmp_path / "config").exists()
    said = run(program, "install-units", "--user", cwd=tmp_path, **home)
    unit = tmp_path / "config/systemd/user/openclaw-gateway.service"
    assert said.splitlines()[0] == f"wrote {unit}"
    assert "systemctl --user enable --now openclaw-gateway" in said
    assert run(program, "install-units", "--user", cwd=tmp_path, **home) == said
    if shutil.which("systemd-analyze"):
        checked = subprocess.run(
            ["systemd-analyze", "verify", "--user", "--man=no", unit],
            env=clean_environ(**home, XDG_RUNTIME_DIR=str(tmp_path)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert str(unit.name) not in checked.stderr, checked.stderr
    (assets,) = environment.glob("lib/python*/site-packages/openclaw_gateway/server/assets")
    ours = REPOSITORY / "daemon/openclaw_gateway/server/assets"
    assert sorted(os.listdir(assets)) == sorted(os.listdir(ours))
    (start,) = (
        line.partition("=")[2]
        for line in unit.read_text().splitlines()
        if line.startswith("ExecStart=")
    )
    words, port = start.split(), free_port()
    daemon = Daemon("--port", str(port), environ=clean_environ(**home), words=words)
    try:
        daemon.ready()
        assert daemon.stop() == 0
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
