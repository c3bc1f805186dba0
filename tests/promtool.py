"""
Prometheus' own checker, from Debian's package ``promtool``, or ``prometheus`` before Debian 13.

Where the package is not installed it is unpacked into a cache and not installed: installing it would start
a Prometheus on the machine of whoever runs the tests. That needs no root either.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from given import CAP_S

_PACKAGES = ("promtool", "prometheus")
"""Where it is in Debian 13, and where before."""
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openclaw-gateway"


@functools.cache
def promtool() -> str:
    """
    Return the path of ``promtool``.

    Where it can't be had, the running test is left out, loudly; with ``PROMTOOL_TESTS=required``, which CI
    sets, it fails.
    """
    found = shutil.which("promtool")
    if found is not None:
        return found
    problem = _unpack(_CACHE / "prometheus")
    if problem:
        assert os.environ.get("PROMTOOL_TESTS") != "required", problem
        pytest.skip(f"TESTS WITH PROMTOOL LEFT OUT: {problem}")
    return str(_CACHE / "prometheus/usr/bin/promtool")


def _unpack(folder: Path) -> str:
    """Unpack Debian's package, once for all runs side by side. Returns why that can't be done."""
    if shutil.which("apt-get") is None:
        return "no apt-get to get Debian's package with"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "complete").exists() and (folder / "usr/bin/promtool").exists():
            return ""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in _PACKAGES:
            done = subprocess.run(
                ["apt-get", "-q", "-o", "Acquire::Retries=1", "download", name],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=5 * CAP_S,
                check=False,
            )
            if done.returncode == 0:
                break
        else:
            return f"apt-get download {name}: {done.stderr.strip().splitlines()[-1:]}"
        (package,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True, timeout=CAP_S)
        package.unlink()
        (folder / "complete").touch()
    return ""


def run(*arguments: str | Path, stdin: str = "") -> str:
    """Run it and return what it says, problems included; fails the test if it exits with anything but 0."""
    done = subprocess.run(
        [promtool(), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
