"""A Debian root booted with systemd as PID 1, with no network but a test's own, and thrown away afterwards."""

from __future__ import annotations

import io
import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Self

from testbed import roots
from testbed.network import Namespace
from testbed.sandbox import Sandbox, TestbedError, cgroups_of

_ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}
_POWEROFF = signal.SIGRTMIN + 4  # systemd(1), "Signals"


class CommandError(TestbedError):
    """
    A command in the container ended with a status that its caller did not expect, or not in time.

    Attributes:
        result: What it printed and its status; ``returncode`` is -9 after its time was up.
    """

    def __init__(self, message: str, result: subprocess.CompletedProcess[str]) -> None:
        self.result = result
        super().__init__(
            f"{message}: {shlex.join(result.args)}\n"
            f"--- stdout\n{result.stdout[-4000:]}\n--- stderr\n{result.stderr[-4000:]}"
        )


class Container:
    """
    A booted release, for use in a ``with`` statement.

    Attributes:
        release: ``bookworm`` or ``trixie``.
        state: What ``systemctl is-system-running`` said after the boot: ``running``, ``degraded``.
    """

    def __init__(
        self,
        release: str,
        *,
        kind: str = "test",
        above: Sequence[Path] = (),
        upper: Path | None = None,
        shown: Mapping[str, Path] | None = None,
        network: Namespace | None = None,
    ) -> None:
        """
        Describe a system; entering the ``with`` statement boots it.

        Args:
            release: ``bookworm`` or ``trixie``.
            kind: Of root, see ``roots``.
            above: What earlier containers kept in their ``upper``, topmost first.
            upper: A directory that keeps what this one changes. What another root is to stand on must be
                powered off in order; one that was killed can be booted again, as after a loss of power.
            shown: Directories of this host that it sees and cannot write to, by the path that they have there.
            network: What it has for a network; by default none.
        """
        self.release = release
        self.state = "off"
        self._network = network
        self._shown = shown or {}
        self._kind, self._above, self._upper = kind, above, upper
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            root = stack.enter_context(roots.use(self.release, self._kind))
            # Closed again after the boot: PID 1 goes on sending, and waits for whoever doesn't read.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
                ready.bind("")  # a name of the kernel's choice, no file: unix(7), "autobind"
                self._sandbox = stack.enter_context(
                    Sandbox(
                        (*self._above, *root.lowers),
                        [
                            *("--boot", "--resolv-conf=off", self._network_option),
                            "--notify-ready=yes",
                            *(f"--bind-ro={host}:{path}" for path, host in self._shown.items()),
                        ],
                        upper=self._upper,
                        environ={"NOTIFY_SOCKET": "@" + ready.getsockname()[1:].decode()},
                        keep_fds=root.locks,
                    )
                )
                self._leader = self._wait_for_boot(ready)
            self._leader_fd = os.pidfd_open(self._leader)
            stack.callback(os.close, self._leader_fd)
            waiting = ["systemctl", "is-system-running", "--wait"]
            self.state = self.run(waiting, check=False, timeout_s=120).stdout.strip()
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def _network_option(self) -> str:
        if self._network is None:
            return "--private-network"
        return f"--network-namespace-path={self._network.path}"

    def _wait_for_boot(self, ready: socket.socket, *, timeout_s: float = 120) -> int:
        """
        Wait until PID 1 says that it is ready, and return its process id on this host.

        See Also:
            systemd-nspawn(1), ``--notify-ready=``: it passes on ``READY=1``, and says itself
            ``X_NSPAWN_LEADER_PID=`` once PID 1 exists.
        """
        leader = -1
        deadline_s = time.monotonic() + timeout_s
        ended = os.pidfd_open(self._sandbox.process.pid)
        with selectors.DefaultSelector() as selector:
            selector.register(ready, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while True:
                events = selector.select(max(0.0, deadline_s - time.monotonic()))
                if not any(key.fileobj is ready for key, _ in events):
                    break
                message = ready.recv(4096).decode().splitlines()
                for line in message:
                    if line.startswith("X_NSPAWN_LEADER_PID="):
                        leader = int(line.partition("=")[2])
                if "READY=1" in message and leader > 0:
                    os.close(ended)
                    return leader
        os.close(ended)
        raise TestbedError(f"{self.release} did not boot:\n{self._sandbox.tail()}")

    def run(
        self,
        command: Sequence[str] | str,
        *,
        timeout_s: float = 60,
        check: bool = True,
        stdin: bytes = b"",
        environ: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a command in the container and wait for it, not for what it leaves in the background.

        It is in every namespace of the container and, for systemd, part of init.scope: no unit or
        login session of its own. Where that matters, use ``systemd-run --pipe --wait`` inside.

        Args:
            command: The arguments, or a text for ``sh -euc``.
            timeout_s: After so many seconds it and its process group are killed.
            check: Raise if its status is not 0.
            stdin: Its input.
            environ: Additions to a small clean environment; nothing of the host's is passed on.
            user: Account to run it as, without a login session.

        Raises:
            CommandError: It failed, or took too long.
        """
        __tracebackhide__ = True  # pytest: the message says it all
        argv = ["sh", "-euc", command] if isinstance(command, str) else list(command)
        as_user = ["runuser", "-u", user, "--"] if user is not None else []
        # Files, not pipes: a daemon left behind with our stdout must not keep us waiting.
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                self._nsenter([*as_user, *argv], environ),
                stdin=given,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            expired = False
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                expired = True
            finally:
                if process.returncode is None:
                    _kill(process)
            out.seek(0)
            err.seek(0)
            result = subprocess.CompletedProcess(
                argv,
                process.returncode,
                out.read().decode(errors="replace"),
                err.read().decode(errors="replace"),
            )
        if expired:
            raise CommandError(f"{self.release}: no end after {timeout_s:g} s", result)
        if check and result.returncode != 0:
            raise CommandError(f"{self.release}: status {result.returncode}", result)
        return result

    def shell(self) -> int:
        """Give the user's terminal a shell in the container; return its status."""
        environ = {"TERM": os.environ.get("TERM", "dumb")}
        return subprocess.run(self._nsenter(["bash", "-l"], environ), check=False).returncode

    def copy_in(self, source: Path, target: str) -> None:
        """
        Copy a file or a tree to the path ``target``, owned by root; directories above it are made.

        Through tar inside, not ``/proc/PID/root``: there an absolute symbolic link like /var/run
        leads to the host's.
        """
        place = PurePosixPath(target)

        def as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            return entry

        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(source, arcname=place.name, filter=as_root)
        self.run(["mkdir", "-p", str(place.parent)])
        self.run(["tar", "-x", "-C", str(place.parent)], stdin=archive.getvalue())

    def write(self, target: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file of root's in the container, in one rename; directories above it are made."""
        new = f"{target}.new"
        script = 'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"; mv -T "$1" "$3"'
        arguments = ["sh", "-euc", script, "sh", new, f"{mode:o}", target]
        self.run(arguments, stdin=text.encode())

    def read(self, source: str) -> str:
        """Return the text of a file in the container."""
        return self.run(["cat", source]).stdout

    def install(self, *packages: Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Install .deb files as an administrator would, with what apt's cache holds: no network."""
        paths = []
        for package in packages:
            paths.append(f"/var/tmp/{package.name}")  # /tmp is another file system that boots empty
            self.copy_in(package, paths[-1])
        apt = ["apt-get", "-q", "-y", "--no-install-recommends", "--allow-downgrades"]
        return self.run([*apt, "install", *paths], timeout_s=timeout_s)

    @contextmanager
    def forwarded(self, port: int) -> Iterator[int]:
        """Yield a port of this host's loopback that leads to one of the container's, as ``ssh -L`` has it."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            number = listener.fileno()
            relaying = [sys.executable, str(Path(__file__).with_name("relay.py"))]
            relay = subprocess.Popen(
                [*self.in_network(), *relaying, str(number), str(port)],
                pass_fds=[number],
            )
            try:
                yield listener.getsockname()[1]
            finally:
                relay.kill()
                relay.wait()

    def in_network(self) -> list[str]:
        """Return what stands before a command of this host that is to run in the container's network."""
        return ["nsenter", f"--target={self._leader}", "--net", "--"]

    def poweroff(self) -> None:
        """
        Shut the system down in order and wait until it is gone.

        Raises:
            TestbedError: It hung, and has been killed, or nspawn failed.
        """
        signal.pidfd_send_signal(self._leader_fd, _POWEROFF)
        status = self._sandbox.wait(timeout_s=120)
        if status != 0:
            raise TestbedError(f"{self.release} ended with {status}:\n{self._sandbox.tail()}")

    def kill(self) -> None:
        """End it at once, as if its power was lost."""
        self._resources.close()
        self.state = "off"

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have none of its processes run for a ``with`` block, as a hypervisor may do to a machine."""
        self._sandbox.freeze()
        try:
            yield
        finally:
            self._sandbox.thaw()

    def _nsenter(self, argv: Sequence[str], environ: Mapping[str, str] | None) -> list[str]:
        settings = [f"{name}={value}" for name, value in {**_ENVIRON, **(environ or {})}.items()]
        # Neither --root nor --wd: they are opened before setns, on the host's side.
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        nsenter = ["nsenter", f"--target={self._leader}", *namespaces, "--"]
        # PID 1's control group: logind 257 refuses callers in a group that it can't see (EUNATCH).
        group = cgroups_of(self._leader)[""] / "cgroup.procs"
        joined = ["sh", "-euc", 'echo $$ >"$0"; exec "$@"', str(group)]
        return [*joined, *nsenter, "env", "-i", *settings, *argv]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """
    Kill a command begun with nsenter, and its process group.

    The command first, so that nsenter reaps it. Otherwise that is up to the *host's* init; until it
    has done so the container can't shut down, and systemd-shutdown waits ten seconds for it.
    """
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in map(int, children or [str(process.pid)]):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended meanwhile
            continue
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it still holds its group's id
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
