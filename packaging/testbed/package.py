"""Build the Debian package of this checkout in a release's build root, without a network."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from testbed import roots
from testbed.sandbox import Sandbox, TestbedError

OUTPUT = roots.CHECKOUT / "dist"
"""Holds a directory for each release."""
_PACKAGES = ("openclaw-gateway", "openclaw-gateway-command")

# Exit statuses of the scripts below, far from those of what they run.
_BUILD_FAILED = 70
_LINT_FAILED = 71

# What one source becomes differs from release to release, and so does its version. Its date is that of
# the source, or no two builds were the same; lintian wants it a little later.
_VERSION = r"""
. /etc/os-release
field() { dpkg-parsechangelog --show-field "$1"; }
date=$(LC_ALL=C date --utc --rfc-email --date="$(field Date) + 1 second")
entry=$(
    printf '%s (%s~deb%su1) %s; urgency=medium\n\n  * Built for Debian %s.\n\n -- %s  %s\n\n.' \
        "$(field Source)" "$(field Version)" "$VERSION_ID" "$VERSION_CODENAME" "$VERSION_ID" \
        "$(field Maintainer)" "$date"
)
printf '%s%s\n' "${entry%.}" "$(cat debian/changelog)" >changelog
cat changelog >debian/changelog
rm changelog
"""
_BUILD = f"""set -eu
place=$1 zone=$2 options="parallel=$(nproc) $3"
install -d -o builder -g builder "$place"
cp -r --preserve=mode,timestamps /in/source "$place/source"
chown -R builder: "$place"
cd "$place/source"
{_VERSION}as_builder="runuser -u builder -- env -i PATH=$PATH HOME=/build USER=builder LC_ALL=C.UTF-8 TZ=$zone"
$as_builder DEB_BUILD_OPTIONS="$options" dpkg-buildpackage -us -uc || exit {_BUILD_FAILED}
cd ..
find . -maxdepth 1 -type f -exec cp --preserve=timestamps -t /out {{}} +
"""
_LINT = f"""
$as_builder lintian --color=never --fail-on=error,warning -EIL +pedantic ./*.changes \\
    >/out/lintian.txt 2>&1 || exit {_LINT_FAILED}
"""
# Places of different depth and length, zones a day apart: what leaks into a package shows.
_FIRST = ("/build/one", "UTC0", "")
_SECOND = ("/build/a/second/place", "XST-14", "nocheck")

_TEST = """set -eu
dpkg --install /out/*.deb
cp -r /in/source /var/tmp/source
cd /var/tmp/source
# Three times what it takes: should it hang, pytest says where.
exec timeout --signal=INT 20m python3 -m pytest -p no:cacheprovider "$@"
"""


class Built(NamedTuple):
    """What a build made."""

    directory: Path
    """Holds all of it, with ``build.log`` and ``lintian.txt``."""
    deb: Path
    """The package of the gateway."""
    command_deb: Path
    """The package of the command ``openclaw``."""
    lintian: str
    """All that lintian said."""
    lint_ok: bool
    """Whether lintian found no error and no warning."""


def build(release: str, *, out: Path | None = None) -> Built:
    """
    Build the checkout's package, its tests included, and lint it; once for each state of the checkout.

    What git tracks or doesn't ignore is copied to a pristine root and built there, not as root.

    Args:
        release: ``bookworm`` or ``trixie``.
        out: A directory for the results, by default ``dist/RELEASE``; emptied before a new build.

    Raises:
        TestbedError: The build failed; its log stays in ``out``.
    """
    out = out or OUTPUT / release
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(out.with_name(f".{release}.lock"), "w") as lock,
        tempfile.TemporaryDirectory(prefix="testbed-source-") as copy,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        source = _copy_source(Path(copy, "source"))
        mark = out / "source.sha256"
        if not mark.exists() or mark.read_text() != source:
            _build(Path(copy), release, out, _BUILD + _LINT, _FIRST)
            mark.write_text(source)
    return _built(out)


def build_again(release: str, out: Path) -> Built:
    """Build without tests at another place and in another time zone, into ``out``; don't lint it."""
    with tempfile.TemporaryDirectory(prefix="testbed-source-") as copy:
        _copy_source(Path(copy, "source"))
        _build(Path(copy), release, out, _BUILD, _SECOND)
    return _built(out)


def run_tests(release: str, *arguments: str, log: Path) -> int:
    """
    Run the checkout's tests on the installed package with a release's own Python and libraries.

    As root, in a system that is not booted: most tests expect that no systemd runs.

    Args:
        release: ``bookworm`` or ``trixie``.
        *arguments: For pytest.
        log: A file for what it prints.

    Returns:
        pytest's exit status.
    """
    out = build(release).directory
    with tempfile.TemporaryDirectory(prefix="testbed-source-") as copy:
        _copy_source(Path(copy, "source"))
        return _in_build_root(release, _TEST, *arguments, source=Path(copy), log=log, out=out)


def _built(out: Path) -> Built:
    deb, command_deb = (next(out.glob(f"{name}_*.deb")) for name in _PACKAGES)
    lint_ok = (out / "lint.status").read_text() == "0"
    lintian = out / "lintian.txt"
    return Built(out, deb, command_deb, lintian.read_text() if lintian.exists() else "", lint_ok)


def _build(copy: Path, release: str, out: Path, script: str, how: tuple[str, str, str]) -> None:
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    log = out / "build.log"
    status = _in_build_root(release, script, *how, source=copy, log=log, out=out)
    if status not in (0, _LINT_FAILED):
        said = log.read_text(errors="replace")[-4000:]
        raise TestbedError(f"{release}: the build failed with {status}:\n{said}")
    (out / "lint.status").write_text(str(status))


def _in_build_root(
    release: str, script: str, *arguments: str, source: Path, log: Path, out: Path
) -> int:
    """Run a shell script with ``source`` at /in, and ``out`` at /out; return its exit status."""
    nspawn = ["--as-pid2", "--console=pipe", "--private-network", "--resolv-conf=off"]
    nspawn += [f"--bind-ro={source}:/in", f"--bind={out.absolute()}:/out"]
    command = ["sh", "-c", script, "sh", *arguments]
    with (
        roots.use(release, "build") as root,
        open(log, "w+b") as output,
        Sandbox(root.lowers, [*nspawn, *command], keep_fds=root.locks, output=output) as sandbox,
    ):
        return sandbox.wait(timeout_s=1800)


def _copy_source(target: Path) -> str:
    """Copy what belongs to the checkout, and return a digest of it all."""
    listed = subprocess.run(
        ["git", "-C", str(roots.CHECKOUT), "ls-files", "-z", "-co", "--exclude-standard"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    digest = hashlib.sha256()
    for name in sorted(filter(None, listed.split(b"\0"))):
        origin, copy = roots.CHECKOUT / os.fsdecode(name), target / os.fsdecode(name)
        if not os.path.lexists(origin):  # deleted, but not yet in git's eyes
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(origin, copy, follow_symlinks=False)
        content = os.fsencode(os.readlink(copy)) if copy.is_symlink() else copy.read_bytes()
        mode = origin.lstat().st_mode
        digest.update(b"%b\0%o\0%d\0%b" % (name, mode, len(content), content))
    return digest.hexdigest()
