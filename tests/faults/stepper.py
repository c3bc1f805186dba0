"""Run a process one system call at a time, and end or change it between any two: ptrace(2) through ctypes.

A race is only as good as the place where one waits for it. A stepped process stands still before and
after each of its system calls, for as long as the test likes, so that a schedule of several processes
is followed to the letter and a crash comes exactly where it is meant to.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

_TRACEME, _POKEUSER, _DETACH, _SYSCALL = 0, 6, 17, 24
_SETOPTIONS, _GET_SYSCALL_INFO = 0x4200, 0x420E
# sys/user.h: where x86-64 keeps the number of a call and its result. A number of -1 is no call at all.
_ORIG_RAX, _RAX, _NO_CALL = 15 * 8, 10 * 8, -1
CAN_FAIL_CALLS = platform.machine() == "x86_64"
_OPTION_SYSGOOD, _OPTION_EXEC, _OPTION_EXITKILL = 1, 0x10, 0x100000
_WALL = 0x40000000
_STOPPED_IN_CALL = signal.SIGTRAP | 0x80
_ENTRY, _EXIT = 1, 2

# asm/unistd.h; the calls that tests ask for by name. Every other one is known by its number.
_NUMBERS = {
    "x86_64": {
        0: "read", 1: "write", 3: "close", 17: "pread64", 18: "pwrite64", 7: "poll", 41: "socket", 42: "connect", 44: "sendto", 45: "recvfrom", 49: "bind", 50: "listen",
        54: "setsockopt", 72: "fcntl", 73: "flock", 77: "ftruncate", 83: "mkdir", 257: "openat", 258: "mkdirat",
        56: "clone", 57: "fork", 58: "vfork", 435: "clone3", 262: "newfstatat", 263: "unlinkat", 291: "epoll_create1", 53: "socketpair",
    },
    "aarch64": {
        63: "read", 64: "write", 57: "close", 67: "pread64", 68: "pwrite64", 73: "ppoll", 198: "socket", 203: "connect", 206: "sendto", 207: "recvfrom", 200: "bind",
        201: "listen", 208: "setsockopt", 25: "fcntl", 32: "flock", 46: "ftruncate", 56: "openat", 34: "mkdirat",
        79: "newfstatat", 35: "unlinkat", 220: "clone", 435: "clone3", 20: "epoll_create1", 199: "socketpair",
    },
}  # fmt: skip
_NAMES = _NUMBERS.get(platform.machine(), {})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class _SyscallInfo(ctypes.Structure):
    """``struct ptrace_syscall_info``: of an entry, number and six arguments; of an exit, the result first."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("_", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("words", ctypes.c_int64 * 7),
    )


def _ptrace(request: int, pid: int, address: int = 0, data: object = 0) -> int:
    result: int = _libc.ptrace(request, pid, address, data)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Call(NamedTuple):
    """One system call about to be made."""

    name: str
    arguments: tuple[int, ...]


class Stepped:
    """
    A child of ours that moves only when told to.

    Attributes:
        pid: Its process.
        status: ``None`` while it lives; then its exit code, or minus the signal that ended it.
    """

    def __init__(self, body: Callable[[], int]) -> None:
        """
        Fork a child that runs ``body`` and exits with what it returns; it stands before its first system call.

        ``body`` may as well call ``os.exec``. The child shares our descriptors, and ends when we do.
        """
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                _ptrace(_TRACEME, 0)
                os.kill(os.getpid(), signal.SIGSTOP)
                code = body()
            finally:
                os._exit(code)
        os.waitpid(self.pid, _WALL)
        _ptrace(_SETOPTIONS, self.pid, data=_OPTION_SYSGOOD | _OPTION_EXEC | _OPTION_EXITKILL)

    def call(self) -> Call | None:
        """Run up to the door of the next system call; ``None`` if the process ends before."""
        info = self._stop(_ENTRY)
        if info is None:
            return None
        number, *arguments = info.words
        return Call(_NAMES.get(number, str(number)), tuple(arguments))

    def result(self) -> int | None:
        """Let the call be made, and return what it gave: minus the errno if it failed, ``None`` if it was the end."""
        info = self._stop(_EXIT)
        return None if info is None else info.words[0]

    def fail(self, number: int) -> None:
        """Have the call at whose door the process stands fail with an errno, unmade."""
        _ptrace(_POKEUSER, self.pid, _ORIG_RAX, _NO_CALL)
        if self._stop(_EXIT) is not None:
            _ptrace(_POKEUSER, self.pid, _RAX, -number)

    def run_to(self, wanted: Callable[[Call], bool]) -> Call | None:
        """Run up to the door of the first call that is ``wanted``; ``None`` if the process ends before."""
        while (call := self.call()) is not None:
            if wanted(call):
                return call
            if self.result() is None:
                return None
        return None

    def finish(self) -> int:
        """Let it run to its end, and return its status."""
        self.run_to(lambda call: False)
        assert self.status is not None
        return self.status

    def let_go(self) -> None:
        """Stop stepping: from here on it runs by itself and is a child like any other."""
        _ptrace(_DETACH, self.pid)

    def kill(self) -> None:
        """End it where it stands; returns when the kernel has freed what it held."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            while self.status is None:
                self._wait()

    def text(self, address: int) -> str:
        """Return the string at an address of the process, of 4 KiB at most."""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            page = memory.read(4096 - address % 4096)
            if b"\0" not in page:
                page += memory.read(4096)
        return os.fsdecode(page.partition(b"\0")[0])

    def short(self, address: int) -> int:
        """Return the 16-bit number at an address of the process."""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return int.from_bytes(memory.read(2), sys.byteorder)

    def _wait(self) -> int:
        """Wait for its next stop and return the signal number of it, 0 for its end."""
        _, status = os.waitpid(self.pid, _WALL)
        if os.WIFSTOPPED(status):
            return status >> 8
        self.status = os.waitstatus_to_exitcode(status)
        return 0

    def _stop(self, op: int) -> _SyscallInfo | None:
        passed_on = 0
        info = _SyscallInfo()
        while self.status is None:
            _ptrace(_SYSCALL, self.pid, data=passed_on)
            passed_on = 0
            stop = self._wait()
            if stop == _STOPPED_IN_CALL:
                _ptrace(_GET_SYSCALL_INFO, self.pid, ctypes.sizeof(info), ctypes.addressof(info))
                if info.op == op:
                    return info
            elif stop < 0x100:  # a signal, not an event such as exec
                passed_on = stop
        return None
