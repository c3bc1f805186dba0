"""
Run systemd-nspawn on a throw-away overlay, so that nothing it does or leaves can outlive it.

A shell, ``holder.sh``, owns each run: mounts, control groups and processes end with it, and it ends
when we close our end of a pipe or die in any way. (PR_SET_PDEATHSIG would not do: it fires when the
*thread* that started the run ends.)
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_HOLDER = Path(__file__).with_name("holder.sh")
_TOOLS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
"""Program to the package that has it."""


class TestbedError(Exception):
    """
    The test bed itself could not do its work; says nothing about what is under test.

    Attributes:
        hint: What to do about it; empty if there is nothing to advise.
    """

    __test__ = False  # the name starts with "Test": tell pytest that it isn't one

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\nhint: {hint}" if hint else message)
        self.hint = hint


def require_host() -> None:
    """
    Check that this host can run a root: privileges, tools, cgroup2 and overlayfs.

    Raises:
        TestbedError: Something is missing; nothing was started.
    """
    if os.geteuid() != 0:
        raise TestbedError("booting a system needs the privileges of root", hint="run it with sudo")
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise TestbedError(f"{tool} is not installed", hint=f"apt-get install {package}")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        raise TestbedError("the kernel has no overlayfs", hint="modprobe overlay")
    cgroups_of("self")


def cgroups_of(pid: int | str) -> dict[str, Path]:
    """
    Return the directories of the control groups that a process is in.

    Returns:
        By hierarchy: ``""`` is cgroup2; on a hybrid host there is ``name=systemd`` as well.

    Raises:
        TestbedError: No cgroup2 hierarchy is mounted.

    See Also:
        cgroups(7), "/proc files"; proc_pid_mountinfo(5).
    """
    paths = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    directories = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            hierarchy = ""
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            hierarchy = "name=systemd"
        else:
            continue
        mount_root, mount_point = left.split(" ")[3:5]
        directories[hierarchy] = Path(mount_point, os.path.relpath(paths[hierarchy], mount_root))
    if "" not in directories:
        raise TestbedError("no cgroup2 hierarchy is mounted", hint="mount -t cgroup2 none DIR")
    return directories


class Sandbox:
    """
    One systemd-nspawn over ``lowers``, started by the constructor.

    Attributes:
        process: The holder; ends when the run has ended and its traces are gone.
    """

    def __init__(
        self,
        lowers: Sequence[Path],
        nspawn: Sequence[str],
        *,
        upper: Path | None = None,
        environ: Mapping[str, str] | None = None,
        keep_fds: Sequence[int] = (),
        output: IO[bytes] | None = None,
    ) -> None:
        """
        Start the run.

        Args:
            lowers: Read-only directories, topmost first.
            nspawn: Arguments of systemd-nspawn after the common ones.
            upper: Where changes are kept; ``None`` to keep them in memory and drop them at the end.
            environ: Additions to systemd-nspawn's own environment.
            keep_fds: Inherited by the holder: locks that must last as long as the run.
            output: Where the run's output goes; by default to a file of its own.

        Raises:
            TestbedError: The host lacks something, or there is a path that overlayfs can't be told.
        """
        require_host()
        if any(set(str(path)) & set(":,\\\n") for path in (*lowers, upper or "")):
            raise TestbedError(f"overlayfs cannot name {lowers[0]}", hint="keep roots elsewhere")
        machine = f"testbed-{secrets.token_hex(4)}"
        self._output: IO[bytes] = output or tempfile.TemporaryFile()  # noqa: SIM115
        work = tempfile.mkdtemp(prefix=f"{machine}-")
        ours = cgroups_of("self")
        self._group = ours[""] / machine
        groups = " ".join(str(own / machine) for own in ours.values())
        common = [
            *("systemd-nspawn", "--quiet", f"--directory={work}/root", f"--machine={machine}"),
            *("--register=no", "--keep-unit", "--link-journal=no"),
        ]
        holder = [str(_HOLDER), work, ":".join(map(str, lowers)), str(upper or ""), machine, groups]
        lifeline, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--propagation=private", "--"),
                    *(*holder, *common, *nspawn),
                ],
                stdin=lifeline,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {}), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                pass_fds=keep_fds,
                start_new_session=True,  # a Ctrl-C is for us; the holder sees our end of the pipe
            )
        except BaseException:
            os.close(self._lifeline)
            os.rmdir(work)
            raise
        finally:
            os.close(lifeline)

    def tail(self) -> str:
        """Return the last of what the run has printed, 4 KB at most."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), 4000, max(0, size - 4000)).decode(errors="replace")

    def wait(self, *, timeout_s: float) -> int:
        """
        Wait for the run to end by itself.

        Returns:
            systemd-nspawn's exit status: the command's, or 0 after an orderly power-off.

        Raises:
            TestbedError: It did not end in time; it has been killed.
        """
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.close()
            raise TestbedError(f"no end after {timeout_s:g} s:\n{self.tail()}") from None

    def freeze(self) -> None:
        """
        Have none of its processes run, until it is thawed or closed; return once that is so.

        Raises:
            TestbedError: The kernel did not say so in time.

        See Also:
            The kernel's cgroup-v2.rst, ``cgroup.freeze``: what is frozen can be killed.
        """
        (self._group / "cgroup.freeze").write_text("1")
        poller = select.poll()
        with open(self._group / "cgroup.events") as events:
            poller.register(events, select.POLLPRI)
            while "frozen 1" not in events.read():
                if not poller.poll(30_000):
                    raise TestbedError(f"{self._group} does not freeze")
                events.seek(0)

    def thaw(self) -> None:
        """Have its processes go on."""
        (self._group / "cgroup.freeze").write_text("0")

    def close(self) -> None:
        """Kill what still runs and wait until its processes, mounts and groups are gone."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self.process.wait()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
