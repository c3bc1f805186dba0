"""The kernel's own watch over a tenure: a timer that kills this process, also one that is stopped or hangs."""

from __future__ import annotations

import ctypes
import os
import signal
import time

_TIMER_ABSTIME = 1
"""timer_settime(2)."""

_SIGEVENT_BYTES = 64


class _SigEvent(ctypes.Structure):
    """``struct sigevent`` of Linux: the kernel looks at these three fields for SIGEV_SIGNAL. sigevent(3type)."""

    _fields_ = (
        ("sigev_value", ctypes.c_void_p),
        ("sigev_signo", ctypes.c_int),
        ("sigev_notify", ctypes.c_int),
        ("_rest", ctypes.c_char * (_SIGEVENT_BYTES - ctypes.sizeof(ctypes.c_void_p) - 8)),
    )


class _TimeSpec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _ITimerSpec(ctypes.Structure):
    _fields_ = (("it_interval", _TimeSpec), ("it_value", _TimeSpec))


class KillTimer:
    """
    A timer on CLOCK_BOOTTIME whose expiry is SIGKILL for the whole process.

    No thread, handler or event loop of ours takes part in it. It goes on while the machine is suspended, and
    fires when that ends. A forked child has none; execve(2) would end it.

    See Also:
        timer_create(2).
    """

    def __init__(self) -> None:
        """
        Make it, not armed.

        Raises:
            OSError: The kernel refuses; without it nobody may become active.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        event = _SigEvent(sigev_signo=signal.SIGKILL, sigev_notify=0)  # SIGEV_SIGNAL
        self._id = ctypes.c_void_p()
        made = self._libc.timer_create(
            time.CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._id)
        )
        _check(made)

    def arm(self, at_s: float) -> None:
        """Have the process killed at ``at_s`` on CLOCK_BOOTTIME, at once if that is past; replaces any earlier time."""
        ns = max(int(at_s * 1_000_000_000), 1)  # zero would disarm it
        self._set(_TimeSpec(*divmod(ns, 1_000_000_000)))

    def disarm(self) -> None:
        """Let the process live on."""
        self._set(_TimeSpec(0, 0))

    def _set(self, value: _TimeSpec) -> None:
        spec = _ITimerSpec(_TimeSpec(0, 0), value)
        _check(self._libc.timer_settime(self._id, _TIMER_ABSTIME, ctypes.byref(spec), None))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
