"""Threads that a process can end without, and that take none of its signals."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


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


def result(run: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """
    Run a function as ``start`` does, and return the future of what it returns or raises.

    To be called from an event loop. Whoever waits no longer cancels the future: nothing can end the
    thread, which is left to itself, and what comes of it then is dropped.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(set_it: Callable[[], None]) -> None:
        if not done.done():  # else it came too late
            set_it()

    def work() -> None:
        try:
            outcome = partial(done.set_result, run())
        except BaseException as raised:
            outcome = partial(done.set_exception, raised)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    start(work, name=name)
    return done
