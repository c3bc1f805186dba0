"""Messages that must arrive: repeated in a thread until they are taken, for a bounded time.

systemd that hears no READY ends a healthy gateway, one that hears none after RELOADING waits for ever,
and a socket's queue can be full at just that instant. Loaded only then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Condition

from openclaw_gateway.host import thread

_PATIENCE_S = 90.0
"""Seconds for which a message is repeated: ``TimeoutStartSec=`` of common units; after that we are ended."""

_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_QUIET_S = 1.0
"""Seconds for which a full queue is no news."""


class Persistence:
    """Sends messages one after the other, each until it is taken."""

    def __init__(
        self,
        send: Callable[[str], OSError | None],
        *,
        complain: Callable[[str], None],
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """
        Set up; a thread runs only while there is something to send.

        Args:
            send: Sends without blocking; returns ``None`` if the message was taken, else why not.
            complain: Told in a sentence when messages don't get through, and when one is given up.
            patience_s: Seconds for which a message is repeated.
        """
        self._send, self._complain, self._patience_s = send, complain, patience_s
        self._changed = Condition()
        self._waiting: deque[str] = deque()
        self._running = False

    def add(self, message: str) -> None:
        """Send ``message`` at once, or as soon as all before it are taken or given up."""
        with self._changed:
            if not self._waiting and self._send(message) is None:
                return
            self._waiting.append(message)
            if not self._running:
                self._running = True
                thread.start(self._run, name="notify")

    def forget(self) -> None:
        """Give up what was not taken so far: it is not true any more."""
        with self._changed:
            self._waiting.clear()

    def finish(self, *, timeout_s: float) -> None:
        """Wait until everything is taken, for at most ``timeout_s``, and say what was not."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._waiting, timeout_s):
                self._complain(f"systemd never took {_names(self._waiting)}")

    def _run(self) -> None:
        began_s, pause_s, complained = time.monotonic(), _PAUSE_S, False
        while True:
            with self._changed:
                failure = None
                while self._waiting:
                    failure = self._send(self._waiting[0])
                    if failure is not None:
                        break
                    self._waiting.popleft()
                    began_s, pause_s = time.monotonic(), _PAUSE_S
                self._changed.notify_all()
                if failure is None:
                    self._running = False
                    return
                waited_s = time.monotonic() - began_s
                sentence = f"systemd does not take {_names(self._waiting)}: {failure.strerror}"
                if waited_s > self._patience_s:
                    self._complain(f"{sentence}; given up after {waited_s:.0f} s")
                    self._waiting.clear()
                    continue
                if waited_s > _QUIET_S and not complained:
                    complained = True
                    self._complain(f"{sentence}; repeated for up to {self._patience_s:.0f} s")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _names(messages: deque[str]) -> str:
    return ", ".join(message.partition("\n")[0] for message in messages)
