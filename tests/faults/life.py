"""A gateway's whole life in a forked process that has everything imported: a hundred system calls instead of thousands."""

from __future__ import annotations

# What the daemon loads on its way, loaded here once for every life.
import asyncio  # noqa: F401
import fcntl
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import NoReturn

import sdnotify  # noqa: F401
import systemd.daemon  # noqa: F401

from conftest import CAP_S, clean_environ, free_port
from openclaw_gateway import gateway
from openclaw_gateway.claim.listener import STORED
from openclaw_gateway.claim.lockfile import lock_directory_parts
from openclaw_gateway.client import health, neighbours  # noqa: F401
from openclaw_gateway.server import http  # noqa: F401
from openclaw_gateway.settings import load as settings
from openclaw_gateway.supervisor import watchdog  # noqa: F401

NO_FLAGS: Mapping[str, str] = {}
Run = Callable[[Callable[[], settings.Settings], MutableMapping[str, str]], int]
"""``gateway.run``, or what does the same."""


class Home:
    """A state directory, a port, a notify socket, and the log of whoever lives there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state"
        self.port = free_port()
        self._log = path / "log"
        self._log.touch()
        self._heard = 0
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(path / "notify"))
        self._notify.setblocking(False)

    def close(self) -> None:
        self._notify.close()

    def live(
        self,
        *,
        watchdog_s: float | None = None,
        flags: Mapping[str, str] = NO_FLAGS,
        handed: Sequence[socket.socket] = (),
        run: Run = gateway.run,
    ) -> int:
        """
        Be the daemon, from its settings to its exit code; to be called in a child.

        Args:
            watchdog_s: For ``WATCHDOG_USEC``.
            flags: Of its command line.
            handed: Listening sockets that systemd has kept for it.
            run: What to be.
        """
        environ = {
            "OPENCLAW_STATE_DIR": str(self.state),
            "OPENCLAW_GATEWAY_PORT": str(self.port),
            "NOTIFY_SOCKET": str(self.path / "notify"),
        }
        if watchdog_s is not None:
            environ["WATCHDOG_USEC"] = str(int(watchdog_s * 1_000_000))
        if handed:
            spare = [os.dup(each.fileno()) for each in handed]
            aside = [fcntl.fcntl(fd, fcntl.F_DUPFD, 3 + len(handed)) for fd in spare]
            for at, fd in enumerate(aside):
                os.dup2(fd, 3 + at)
            for fd in {*spare, *aside} - set(range(3, 3 + len(handed))):
                os.close(fd)
            environ |= {
                "LISTEN_PID": str(os.getpid()),
                "LISTEN_FDS": str(len(handed)),
                "LISTEN_FDNAMES": ":".join([STORED] * len(handed)),
            }
        # Where sdnotify and libsystemd look.
        os.environ.update({name: environ[name] for name in environ if "OPENCLAW" not in name})
        self._become_log()
        return run(lambda: settings.load(flags, environ), environ)

    def _become_log(self) -> None:
        """Have everything that this process says on standard error go to the log."""
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 2)
        os.close(log)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)

    def is_ready(self) -> bool:
        """Whether a gateway has said so since we last asked."""
        ready = False
        while True:
            try:
                ready |= b"READY=1" in self._notify.recv(65536)
            except BlockingIOError:
                return ready

    def log(self) -> str:
        """Return what has been said since we last asked."""
        self._heard, before = os.path.getsize(self._log), self._heard
        with open(self._log) as file:
            file.seek(before)
            return file.read()

    def litter(self) -> list[str]:
        """Return the lock files left."""
        locks = self.state.joinpath(*lock_directory_parts())
        return sorted(os.listdir(locks)) if locks.exists() else []

    def execute(self, *arguments: str, path: str = "", **variables: str) -> NoReturn:
        """Become the daemon as started from a shell; to be called in a child. ``path`` leads to another build."""
        defaults = {
            "OPENCLAW_STATE_DIR": str(self.state),
            "OPENCLAW_GATEWAY_PORT": str(self.port),
            "NOTIFY_SOCKET": str(self.path / "notify"),
            "PYTHONPATH": path,
        }
        self._become_log()
        words = [sys.executable, "-m", "openclaw_gateway", *arguments]
        os.execve(sys.executable, words, clean_environ(**(defaults | variables)))

    def outcome(self, pid: int) -> int | None:
        """Wait until a child of ours ends, and return its exit code, or until a gateway is ready: ``None``."""
        pidfd = os.pidfd_open(pid)
        try:
            while True:
                readable, _, _ = select.select([pidfd, self._notify], [], [], CAP_S)
                assert readable, f"neither ready nor gone after {CAP_S} s:\n{self.log()}"
                if self.is_ready():
                    return None
                if pidfd in readable:
                    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finally:
            os.close(pidfd)

    def whole_life(self, *, handed: Sequence[socket.socket] = ()) -> int:
        """Let a gateway start without a tracer, ask it to stop once ready, and return its exit code."""
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = self.live(handed=handed)
            finally:
                os._exit(code)
        code = self.outcome(pid)
        if code is None:
            os.kill(pid, signal.SIGTERM)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code
