"""Signals as something to wait for beside other things: through a descriptor."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager


@contextmanager
def through_descriptor(numbers: Collection[signal.Signals]) -> Iterator[int]:
    """
    Have signals come through a descriptor; they must be blocked before, and are again afterwards.

    Args:
        numbers: Which.

    Yields:
        A non-blocking descriptor that becomes readable with the first of them; see ``arrived``.

    See Also:
        The Python Library, ``signal.set_wakeup_fd``.
    """
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    earlier = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield woken
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        signal.set_wakeup_fd(earlier)
        os.close(woken)
        os.close(wake)


def arrived(woken: int) -> list[signal.Signals]:
    """Return which signals have come through a descriptor since the last call; never waits."""
    try:
        return [signal.Signals(number) for number in os.read(woken, 64)]
    except BlockingIOError:
        return []
