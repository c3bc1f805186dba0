"""What systemd hears from us, and what it told us at the start: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING

from openclaw_gateway.supervisor.vitals import Vitals

if TYPE_CHECKING:
    from socket import socket as Socket

    from sdnotify import SystemdNotifier

    from openclaw_gateway.supervisor.persistence import Persistence

_MICROSECONDS = 1_000_000
_MAX_STATUS_CHARACTERS = 512
_UNCONNECTED = (errno.ECONNREFUSED, errno.ENOTCONN)
_PARTING_S = 0.5


class Supervisor:
    """
    The service manager that started us, or its absence, which makes every message a silent no-op.

    No message ever blocks or raises. READY, RELOADING and STOPPING, which systemd acts on, are
    repeated in the background until they are taken, or for a minute; all others can be lost.

    Attributes:
        present: Whether systemd supervises *this* process.
        invocation_id: The id of this start of the unit; ``None`` outside systemd. It is inherited by
            children, so it says nothing about whether we are supervised.
        watchdog_s: Seconds after which systemd ends us if it hears no ``WATCHDOG=1``; ``None`` if it does not watch.
        vitals: How the process is, for whoever asks.
        complain: Told in a sentence, maybe by another thread, when systemd does not hear what it must.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """
        Read systemd's variables and take them out of ``environ``, so that no child speaks for us.

        See Also:
            systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager".
        """
        own_pid = str(os.getpid())
        address = environ.get("NOTIFY_SOCKET", "")
        self.present = bool(address) or environ.get("SYSTEMD_EXEC_PID") == own_pid
        self.invocation_id = environ.get("INVOCATION_ID") if self.present else None
        self.watchdog_s = _watchdog_s(environ, own_pid)
        self.vitals = Vitals(watchdog_s=self.watchdog_s)
        self.complain: Callable[[str], None] = lambda sentence: None
        self._last_status = ""
        self._line = _Line(address) if address else None
        self._persistence: Persistence | None = None
        self._kept: set[int] = set()
        self._unwanted: set[str] = set()
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"):
            environ.pop(name, None)

    def ready(self, status: str) -> None:
        """Say that the start, or a reload, is complete."""
        self._last_status = status
        self._insist("READY=1", _status(status))

    def status(self, status: str) -> None:
        """Show one line in ``systemctl status``; what was taken is not sent again."""
        if status != self._last_status and self._try(_status(status)):
            self._last_status = status

    def reloading(self) -> None:
        """Say that the configuration is being read anew; ``ready`` must follow."""
        self._insist("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Say that the shutdown has begun."""
        self._last_status = status
        if self._persistence is not None:
            self._persistence.forget()  # nobody need hear any more that we were ready
        self._insist("STOPPING=1", _status(status))

    def extend_start(self, seconds: float) -> None:
        """Ask that a start still under way not be cut off for that many seconds from now."""
        self._try(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def ping(self) -> None:
        """Feed the watchdog."""
        if self._try("WATCHDOG=1"):
            self.vitals.pinged_at_s = time.time()

    def keep(self, name: str, sockets: Iterable[Socket]) -> None:
        """
        Have systemd keep a copy of each socket for our next start; what it took is not sent again.

        What a full queue did not take is sent when this is called once more. Never to be used for a
        lock: a copy in systemd's hands would go on holding it when we have crashed.

        Args:
            name: Under which they are handed over then.
            sockets: They stay open for as long as we live.

        See Also:
            sd_notify(3), "FDSTORE=1"; systemd.service(5), "FileDescriptorStoreMax=". Where that is 0,
            its default, systemd closes them and says so in the journal.
        """
        # A removal goes by the name: one that came late would take what is sent below with it.
        if self._line is None or not self._remove_unwanted():
            return
        for each in sockets:
            message = f"FDSTORE=1\nFDNAME={name}"
            if each.fileno() not in self._kept and self._line.send(message, each.fileno()) is None:
                self._kept.add(each.fileno())

    def discard(self, name: str) -> None:
        """Have systemd close everything that it keeps under a name. sd_notify(3), "FDSTOREREMOVE=1"."""
        self._unwanted.add(name)
        self._kept.clear()
        self._remove_unwanted()

    def failed(self, status: str, *, errno: int | None) -> None:
        """Leave word of why we are about to exit; both show in ``systemctl status``."""
        self._try(_status(status), *([] if errno is None else [f"ERRNO={errno}"]))

    def finish(self) -> None:
        """Wait a moment, as the process ends, for what systemd must hear and hasn't taken."""
        if self._persistence is not None:
            self._persistence.finish(timeout_s=_PARTING_S)

    def _remove_unwanted(self) -> bool:
        """Say once more what systemd need not keep; whether it has taken all of that."""
        self._unwanted = {
            name for name in self._unwanted if not self._try("FDSTOREREMOVE=1", f"FDNAME={name}")
        }
        return not self._unwanted

    def _try(self, *assignments: str) -> bool:
        """Send once; say whether it was taken."""
        return self._line is not None and self._line.send("\n".join(assignments)) is None

    def _insist(self, *assignments: str) -> None:
        """Send, and repeat in the background what is not taken, in the order in which it was said."""
        if self._line is None:
            return
        message = "\n".join(assignments)
        if self._persistence is None:
            if self._line.send(message) is None:
                return
            from openclaw_gateway.supervisor.persistence import Persistence

            self._persistence = Persistence(self._line.send, complain=self.complain)
        self._persistence.add(message)


class _Line:
    """The way to systemd's socket: sdnotify's, with its errors for us to handle."""

    def __init__(self, address: str) -> None:
        import socket

        from sdnotify import SystemdNotifier

        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._notifier: SystemdNotifier = SystemdNotifier()
        self._notifier.debug = True  # "raise any exceptions generated to the caller"
        # Its own socket goes where the process's environment says, and is None if nobody is there.
        if self._notifier.socket is not None:
            self._notifier.socket.close()
        self._notifier.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifier.socket.setblocking(False)

    def send(self, message: str, *descriptors: int) -> OSError | None:
        """
        Send without blocking.

        Args:
            message: Assignments, a line each.
            *descriptors: Go with it. unix(7), "SCM_RIGHTS".

        Returns:
            ``None`` if systemd's queue took it, else why not.
        """
        try:
            try:
                self._send(message, descriptors)
            except OSError as error:
                if error.errno not in _UNCONNECTED:
                    raise
                # The first message; or whoever made the socket anew, as a container's supervisor may, listens again.
                self._notifier.socket.connect(self._address)
                self._send(message, descriptors)
        except OSError as error:
            return error
        return None

    def _send(self, message: str, descriptors: Sequence[int]) -> None:
        if descriptors:
            # sdnotify knows nothing of descriptors.
            from socket import send_fds

            send_fds(self._notifier.socket, [message.encode()], list(descriptors))
            return
        # sdnotify encodes Latin-1: dressed up as Latin-1, UTF-8 passes through it unharmed.
        self._notifier.notify(message.encode().decode("latin-1"))


def _watchdog_s(environ: MutableMapping[str, str], own_pid: str) -> float | None:
    if environ.get("WATCHDOG_PID", own_pid) != own_pid:
        return None
    interval = environ.get("WATCHDOG_USEC", "")
    return int(interval) / _MICROSECONDS if interval.isdecimal() and int(interval) else None


def _status(text: str) -> str:
    """Make one assignment of any text: a newline in it would begin the next one."""
    return f"STATUS={' '.join(text.split())[:_MAX_STATUS_CHARACTERS]}"
