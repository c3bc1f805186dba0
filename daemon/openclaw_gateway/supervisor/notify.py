"""What systemd hears from us, and what it told us at the start: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping

_MICROSECONDS = 1_000_000
_MAX_STATUS_CHARACTERS = 512


class Supervisor:
    """
    The service manager that started us, or its absence, which makes every message a silent no-op.

    No message ever blocks or raises: a socket that is missing or full loses it.

    Attributes:
        present: Whether systemd supervises *this* process.
        invocation_id: The id of this start of the unit; ``None`` outside systemd. It is inherited by
            children, so it says nothing about whether we are supervised.
        watchdog_s: Seconds after which systemd ends us if it hears no ``WATCHDOG=1``; ``None`` if it does not watch.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """
        Read systemd's variables and take them out of ``environ``, so that no child speaks for us.

        See Also:
            systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager".
        """
        own_pid = str(os.getpid())
        listening = bool(environ.get("NOTIFY_SOCKET"))
        self.present = listening or environ.get("SYSTEMD_EXEC_PID") == own_pid
        self.invocation_id = environ.get("INVOCATION_ID") if self.present else None
        self.watchdog_s = _watchdog_s(environ, own_pid)
        self._notifier = None
        self._last_status = ""
        if listening:
            from sdnotify import SystemdNotifier

            self._notifier = SystemdNotifier()
            if self._notifier.socket is not None:
                self._notifier.socket.setblocking(False)
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            environ.pop(name, None)

    def _send(self, *assignments: str) -> None:
        if self._notifier is not None:
            # sdnotify encodes Latin-1: dressed up as Latin-1, UTF-8 passes through it unharmed.
            self._notifier.notify("\n".join(assignments).encode().decode("latin-1"))

    def ready(self, status: str) -> None:
        """Say that the start, or a reload, is complete."""
        self._last_status = status
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """Show one line in ``systemctl status``; said again, it is not sent again."""
        if status != self._last_status:
            self._last_status = status
            self._send(_status(status))

    def reloading(self) -> None:
        """Say that the configuration is being read anew; ``ready`` must follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Say that the shutdown has begun."""
        self._last_status = status
        self._send("STOPPING=1", _status(status))

    def extend_start(self, seconds: float) -> None:
        """Ask that a start still under way not be cut off for that many seconds from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def ping(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def failed(self, status: str, *, errno: int | None) -> None:
        """Leave word of why we are about to exit; both show in ``systemctl status``."""
        self._send(_status(status), *([] if errno is None else [f"ERRNO={errno}"]))


def _watchdog_s(environ: MutableMapping[str, str], own_pid: str) -> float | None:
    if environ.get("WATCHDOG_PID", own_pid) != own_pid:
        return None
    interval = environ.get("WATCHDOG_USEC", "")
    return int(interval) / _MICROSECONDS if interval.isdecimal() and int(interval) else None


def _status(text: str) -> str:
    """Make one assignment of any text: a newline in it would begin the next one."""
    return f"STATUS={' '.join(text.split())[:_MAX_STATUS_CHARACTERS]}"
