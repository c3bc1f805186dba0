"""Threads that a process can end without, and that take none of its signals."""

from __future__ import annotations

import signal
from collections.abc import Callable
from threading import Thread


def start(run: Callable[[], None], *, name: str) -> Thread:
    """
    Run a function in a daemon thread of its own.

    Signals are the main thread's. One that the kernel gave to another thread after the main thread's
    handlers are gone, and before the last lock is released, would end the process there and then.

    Args:
        run: Must see to its own errors.
        name: For debuggers.
    """

    def quietly() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        run()

    thread = Thread(target=quietly, name=name, daemon=True)
    thread.start()
    return thread
