"""Signals: which of them end us and how, and all of them as something to wait for beside other things."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager

STOPS: tuple[int, ...] = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    # RestartKillSignal=SIGUSR1 stands in published drop-ins: who sends these wants a stop for a restart.
    signal.SIGUSR1,
    signal.SIGUSR2,
    # What a host sends to what runs first in a container that it wants down: LXC, and images made for systemd.
    signal.SIGPWR,
    signal.SIGRTMIN + 3,
)
"""Somebody asks for a stop. Its exit status is 0."""

_LEFT_ALONE = {
    signal.SIGHUP,  # reads the settings again
    # Nobody's to catch.
    signal.SIGKILL,
    signal.SIGSTOP,
    # A fault of the program's own: to go on behind it would mean to run on what is broken.
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSYS,
    signal.SIGTRAP,
    signal.SIGABRT,  # systemd's watchdog sends it to see the stacks
    # The kernel does nothing for these, or stops and continues the process.
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGURG,
    signal.SIGWINCH,
    # Python ignores them: the call that they are about fails, and that is handled.
    signal.SIGPIPE,
    signal.SIGXFSZ,
}

STRAYS: tuple[int, ...] = tuple(sorted(set(signal.valid_signals()) - set(STOPS) - _LEFT_ALONE))
"""
Every other signal whose default is to end the process: SIGALRM, SIGVTALRM, SIGPROF (a timer that was set
before our exec runs on; alarm(2)), SIGXCPU (``LimitCPU=`` is used up), SIGIO, SIGSTKFLT, real-time signals.

They end us as well, with a goodbye, and with the status that a shell gives to their default: a supervisor
that restarts what failed restarts us. signal(7), "Standard signals".
"""

ENDINGS = (*STOPS, *STRAYS)
"""All that end us; a second one, whichever, hurries."""


def status(number: int) -> int:
    """Return what to exit with after a goodbye for this signal. POSIX, "Exit Status for Commands"."""
    return 0 if number in STOPS else 128 + number


def name(number: int) -> str:
    """Return a signal's name, ``SIGKILL`` or ``SIGRTMIN+3``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


@contextmanager
def through_descriptor(numbers: Collection[int]) -> Iterator[int]:
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


def arrived(woken: int) -> list[int]:
    """Return which signals have come through a descriptor since the last call; never waits."""
    try:
        return list(os.read(woken, 64))
    except BlockingIOError:
        return []
