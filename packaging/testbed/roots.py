"""
Debian roots kept between runs: made once per release, stacked with overlayfs, shared by all.

    base   debootstrap
    build  base + what building and linting the package needs: there is no network at build time
    plain  base + the package's dependencies, downloaded but *not* installed
    test   plain + the tools that tests use inside
    watched  test + Prometheus, which runs from the boot on
    clustered  test + etcd, which runs from the boot on, as a cluster of one

A layer is a directory named by a hash of all that goes into it, the layers below it included. It is
written under another name and renamed when complete, so what has the right name is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

from testbed.sandbox import Sandbox, TestbedError, require_host

RELEASES = ("bookworm", "trixie")
CHECKOUT = Path(__file__).parents[2]
_RECIPE = 4
"""Raise it to have every root made anew."""

_SYSTEM = ("systemd-sysv", "dbus", "libpam-systemd", "ca-certificates")
_BUILDERS = ("build-essential", "fakeroot", "lintian", "man-db", "python3-pip")
_TESTERS = (
    "dbus-user-session",  # without a bus of its own a user manager can't be reached by -M user@
    *("autopkgtest", "dpkg-dev", "curl", "iproute2", "man-db", "strace", "sudo"),
    "libatomic1",  # for the Node that tests bring along
)

_WATCHERS = ("prometheus", "prometheus-node-exporter")
_CLUSTERED = ("etcd-server", "etcd-client")

_APT = """set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt="apt-get -q -y --no-install-recommends -o Acquire::Retries=3"
# The manual's index is of no use here and slow to write.
echo 'man-db man-db/auto-update boolean false' | debconf-set-selections
# Of Debian's index keep what has been downloaded: apt reads all of it at every call.
trim() {
    names=$(cd /var/cache/apt/archives; ls ./*.deb | sed 's|^./||; s|_.*||')
    for index in /var/lib/apt/lists/*_Packages; do
        awk -v names="$names" '
            BEGIN { RS = ""; ORS = "\\n\\n"; split(names, list); for (i in list) kept[list[i]] }
            $2 in kept' "$index" >"$index.kept"
        mv "$index.kept" "$index"
    done
    rm -f /var/lib/apt/lists/*_Translation-* /var/cache/apt/*.bin
    apt-get -q check
}
"""
_BUILD = """
$apt update; $apt satisfy "$@"; $apt clean
# Tests that expect "permission denied" mean nothing as root; Debian's builders aren't root either.
useradd --create-home --home-dir /build builder
"""
_PLAIN = """
$apt update; $apt -o APT::Keep-Downloaded-Packages=true --download-only install "$@"; trim
# There is nothing to reach from a booted root: fail at once.
echo 'Acquire::Retries "0";' >/etc/apt/apt.conf.d/90testbed
"""
_TEST = """
rm -r /var/lib/apt/lists/*
$apt update; $apt -o APT::Keep-Downloaded-Packages=true install "$@"; trim
"""


class Layer(NamedTuple):
    """What a kind of root stands on, the script that makes it, and the packages it is given."""

    below: str | None
    script: str
    packages: tuple[str, ...]


class Root(NamedTuple):
    """A root in use: its directories, topmost first, and the locks that keep them there."""

    lowers: tuple[Path, ...]
    locks: tuple[int, ...]


@cache
def layers() -> dict[str, Layer]:
    """
    Return every kind of root.

    What the package needs is read from ``debian/control``: its run-time dependencies are among those
    for building (that is how dh_python3 finds them), and those for its tests bear ``<!nocheck>``.
    """
    needed = _build_dependencies((CHECKOUT / "debian/control").read_text())
    modules = [line for line in needed if line.startswith("python3-")]
    for_tests = [line.split()[0] for line in modules if "<!nocheck>" in line]
    at_run_time = [line.split()[0] for line in modules if "<!nocheck>" not in line]
    return {
        "base": Layer(None, "", _SYSTEM),
        "build": Layer("base", _BUILD, (*_BUILDERS, *needed)),
        "plain": Layer("base", _PLAIN, ("python3", *at_run_time)),
        "test": Layer("plain", _TEST, (*_TESTERS, *for_tests)),
        "watched": Layer("test", _TEST, _WATCHERS),
        "clustered": Layer("test", _TEST, _CLUSTERED),
    }


def _build_dependencies(control: str) -> list[str]:
    """Return the entries of ``Build-Depends`` as they stand there. deb-src-control(5)."""
    lines = [line for line in control.splitlines() if not line.startswith("#")]
    text = "\n".join(lines).partition("\nBuild-Depends:")[2]
    field: list[str] = []
    for line in text.splitlines():
        if field and not line.startswith(" "):
            break
        field.append(line)
    return [entry for entry in map(str.strip, "".join(field).split(",")) if entry]


def cache_directory() -> Path:
    """Return where roots are kept: ``TESTBED_CACHE``, else in the user's cache directory."""
    if given := os.environ.get("TESTBED_CACHE"):
        return Path(given).absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "openclaw-gateway", "roots")


def _name(release: str, kind: str) -> str:
    """Return the directory name of a layer, which changes with anything that it is made from."""
    layer = layers()[kind]
    below = _name(release, layer.below) if layer.below else ""
    made_from = [_RECIPE, release, kind, below, _APT, layer.script, layer.packages]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:12]
    return f"{release}-{kind}-{digest}"


@contextmanager
def use(release: str, kind: str) -> Iterator[Root]:
    """
    Have a root ready, making what is missing, and keep it from being pruned meanwhile.

    Any number of processes may do this at once; one makes the root, the others wait for it.

    Raises:
        TestbedError: It could not be made. What was half made is removed next time.
    """
    chain: list[str] = []
    below: str | None = kind
    while below is not None:
        chain.insert(0, below)
        below = layers()[below].below
    with ExitStack() as stack:
        root = Root((), ())
        for step in chain:
            path = cache_directory() / _name(release, step)
            lock = stack.enter_context(_locked(path.with_name(path.name + ".lock")))
            root = root._replace(locks=(*root.locks, lock))
            while not path.is_dir():
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not path.is_dir():
                    _make(path, release, layers()[step], below=root)
                fcntl.flock(lock, fcntl.LOCK_SH)  # not atomic (flock(2)): hence the loop
            root = root._replace(lowers=(path, *root.lowers))
        yield root


def prune() -> list[str]:
    """Remove every layer that is out of date and not in use; return their names."""
    current = {_name(release, kind) for release in RELEASES for kind in layers()}
    removed = []
    for lock_path in sorted(cache_directory().glob("*.lock")):
        name = lock_path.name.removesuffix(".lock")
        if name in current:
            continue
        with open(lock_path, "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            for suffix in ("", ".part", ".part.work"):
                shutil.rmtree(lock_path.with_name(name + suffix), ignore_errors=True)
            lock_path.with_suffix(".log").unlink(missing_ok=True)
            lock_path.unlink()
            removed.append(name)
    return removed


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold a shared lock on a file, made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            # prune() may have unlinked the file between our open and our lock.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _make(path: Path, release: str, layer: Layer, *, below: Root) -> None:
    """Make a layer under another name, then give it its own."""
    began_s = time.monotonic()
    part = path.with_name(path.name + ".part")
    for left_over in (part, part.with_name(part.name + ".work")):
        if left_over.exists():
            shutil.rmtree(left_over)
    log = path.with_name(path.name + ".log")
    print(f"testbed: making {path.name}, log in {log}", file=sys.stderr, flush=True)
    with open(log, "w+b") as output:
        if layer.below is None:
            status = _debootstrap(part, release, layer.packages, below.locks, output)
        else:
            status = _add(part, layer, below, output)
    if status != 0:
        said = log.read_text(errors="replace")[-4000:]
        raise TestbedError(
            f"making {path.name} failed with {status}:\n{said}",
            hint="making a root needs a network; an earlier line of the log may say more",
        )
    os.sync()  # the overlay was mounted "volatile": nothing of it has been written out yet
    part.rename(path)
    print(f"testbed: made {path.name} in {time.monotonic() - began_s:.0f} s", file=sys.stderr)


def _debootstrap(
    part: Path, release: str, packages: Sequence[str], locks: tuple[int, ...], output: IO[bytes]
) -> int:
    require_host()
    # Namespaces of its own: if we are killed, so is all of it, and its mounts go with it.
    namespaces = ["setpriv", "--pdeathsig=KILL", "--", "unshare", "--fork", "--kill-child"]
    namespaces += ["--pid", "--mount", "--mount-proc", "--propagation=private", "--"]
    include = f"--include={','.join(packages)}"
    status = subprocess.run(
        [*namespaces, "debootstrap", "--variant=minbase", include, release, str(part)],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        umask=0o022,
        pass_fds=locks,  # nobody starts over before the last of it is gone
    ).returncode
    if status == 0:
        # Empty: each boot gets an id of its own. Absent: each boot would be a "first boot", which
        # enables every unit (machine-id(5)).
        Path(part, "etc/machine-id").write_bytes(b"")
        Path(part, "etc/resolv.conf").unlink(missing_ok=True)
        Path(part, "etc/hostname").unlink(missing_ok=True)
    return status


def _add(part: Path, layer: Layer, below: Root, output: IO[bytes]) -> int:
    nspawn = ["--as-pid2", "--console=pipe", "--resolv-conf=bind-host"]
    command = ["sh", "-c", _APT + layer.script, "sh", *layer.packages]
    with Sandbox(
        below.lowers, [*nspawn, *command], upper=part, keep_fds=below.locks, output=output
    ) as sandbox:
        return sandbox.wait(timeout_s=1800)
