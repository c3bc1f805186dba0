"""
The guarded process: started so that it can't outlive us, watched and signalled by descriptor.

It is started from the main thread of a process that has no other: ``PR_SET_PDEATHSIG`` is about the
*thread* that forked, and a fork beside other threads may copy a lock that somebody holds.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from errno import ECHILD
from typing import NoReturn

from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.guard.rule import Exit
from openclaw_gateway.host.process import PROC, descendants

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
"""Both from include/uapi/linux/prctl.h; see prctl(2)."""

_TAKEN_OUT = ("NOTIFY_SOCKET", "NODE_COMPILE_CACHE", "OPENCLAW_SERVICE_MARKER")
_TAKEN_OUT_PREFIXES = ("WATCHDOG_", "LISTEN_", "OPENCLAW_SERVICE_KIND")


def environment(
    environ: Mapping[str, str],
    *,
    port: int,
    state_dir: str,
    config_path: str,
    unit: str | None,
    fencing_token: int | None = None,
) -> dict[str, str]:
    """
    Return the child's environment: ours, without what is ours alone, and with the places that both mean.

    ``NODE_COMPILE_CACHE`` makes OpenClaw put a launcher in front of its gateway, so that the listener is not our
    child's and a SIGKILL ends the wrong one. The service marker makes it end other listeners of its port.
    ``OPENCLAW_SYSTEMD_UNIT`` has ``openclaw gateway restart`` ask systemd, and lets the child find its stop budget.

    Args:
        environ: Ours.
        port: The guarded port.
        state_dir: The claimed state directory.
        config_path: The configuration file.
        unit: Our own unit; ``None`` outside systemd.
        fencing_token: Of this tenure, for whatever the child writes elsewhere; ``None`` without a cluster.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _TAKEN_OUT and not name.startswith(_TAKEN_OUT_PREFIXES)
    }
    kept |= {
        "OPENCLAW_GATEWAY_PORT": str(port),
        "OPENCLAW_STATE_DIR": state_dir,
        "OPENCLAW_CONFIG_PATH": config_path,
    }
    if unit is not None:
        kept["OPENCLAW_SYSTEMD_UNIT"] = unit
    if fencing_token is not None:
        kept["OPENCLAW_FENCING_TOKEN"] = str(fencing_token)
    return kept


class Child:
    """
    One process of ours, from its start to its end.

    Attributes:
        pid: Its process id, which stays its own until ``reap`` has told how it ended.
        pidfd: Becomes readable when it has ended. pidfd_open(2).
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """
        Start a program: standard input from ``/dev/null``, output where ours goes, a process group of its own.

        Args:
            argv: The program, looked up in the ``PATH`` of ``environ``, and its arguments. No shell.
            environ: Its whole environment.

        Raises:
            ConfigurationError: It can't be executed; names it, and says why.
            OSError: The kernel has no room for another process.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        # Orphans of the child come to us instead of to pid 1: they stay in view, and are reaped.
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        parent = os.getpid()
        told, tell = os.pipe()  # close-on-exec: a successful execve(2) is an end of file
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _become(libc, argv, environ, parent=parent, tell=tell)
            self.pidfd = os.pidfd_open(self.pid)
        finally:
            os.close(tell)
        with open(told, "rb") as failure:
            said = failure.read()
        if said:
            self._await_end()
            number = int(said)
            raise ConfigurationError(
                "guard",
                argv[0],
                f"cannot be executed: {os.strerror(number)}",
                hint='name a program that is on the unit\'s PATH, or its whole path, after "--"',
            )

    def stop(self) -> None:
        """End it now, whatever it is doing, and take it in: for a guard that can't go on."""
        self.signal(signal.SIGKILL)
        self._await_end()

    def _await_end(self) -> None:
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)

    def signal(self, number: int) -> None:
        """Send a signal to this process and to no other, whatever has become of its pid."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> Exit | None:
        """
        Take in whatever has ended: the child, and orphans of its that became ours.

        Returns:
            How the child ended; ``None`` while it lives.
        """
        found = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # ECHILD: nobody is left
                return found
            if pid == 0:
                return found
            if pid == self.pid:
                code = os.waitstatus_to_exitcode(status)
                found = Exit(code=code) if code >= 0 else Exit(signal=-code)

    def family(self, *, proc: str = PROC) -> Iterator[int]:
        """Yield the pids of the child and of all that came of it, and is still below us."""
        yield from descendants(os.getpid(), proc=proc)


def _become(
    libc: ctypes.CDLL,
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    parent: int,
    tell: int,
) -> NoReturn:
    """Be the child, from fork(2) to execve(2); a failure is told to the parent as its errno."""
    number = ECHILD
    try:
        # 1. Our parent dies. 2. We ask to be killed when it dies: too late, it has. So look
        # afterwards whose children we are. SIGKILL, as a stopped process would not see SIGTERM.
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() == parent:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            # Python ignores SIGPIPE and SIGXFSZ, and we block what stops us: neither is the child's affair.
            for ours in signal.valid_signals():
                with suppress(OSError, ValueError):  # those that can't be caught
                    signal.signal(ours, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvpe(argv[0], list(argv), dict(environ))
    except OSError as error:
        number = error.errno or ECHILD
    except BaseException:
        number = ECHILD
    finally:
        os.write(tell, str(number).encode())
        os._exit(127)
