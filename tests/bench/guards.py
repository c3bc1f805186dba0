"""A guard: what it adds to the program behind it. That is a small one of the tests, which costs next to nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import program
from bench.processes import Process, healthy_after_ms, run_ms
from conftest import CAP_S, clean_environ, free_port
from openclaw_gateway.claim.baseport import holder

NAME = "openclaw-gateway guard"
PROGRAM = "the program alone"


class _Place(NamedTuple):
    """Where a guard and its program are."""

    port: int
    words: list[str]
    """The program's command line."""
    variables: dict[str, str]

    def guard(self) -> Process:
        """Start a guard and wait for its READY."""
        return Process("-m", "openclaw_gateway", "guard", "--", *self.words, **self.variables)

    @property
    def child_pid(self) -> int:
        """The pid of the program behind the guard that runs."""
        found = holder(self.port)
        assert found is not None and found.record is not None and found.record.child_pid
        return found.record.child_pid


@contextmanager
def _place() -> Iterator[_Place]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        port, fifo = free_port(), f"{directory}/fifo"
        os.mkfifo(fifo)
        yield _Place(
            port,
            [sys.executable, program.__file__, str(port), fifo],
            {"OPENCLAW_STATE_DIR": f"{directory}/state", "OPENCLAW_GATEWAY_PORT": str(port)},
        )


def to_exec_of_program() -> float:
    """From a guard's exec to that of its program: a shell that says so and ends."""
    with _place() as place:
        began_s = time.perf_counter()
        return _said_ms(
            [sys.executable, "-m", "openclaw_gateway", "guard", "--"], began_s, place.variables
        )


def to_exec_of_shell() -> float:
    """The same shell without a guard."""
    return _said_ms([], time.perf_counter(), {})


def _said_ms(before: list[str], began_s: float, variables: dict[str, str]) -> float:
    heard, tell = os.pipe()
    process = subprocess.Popen(
        # Not >&N: dash takes one digit only.
        [*before, "/bin/sh", "-c", f"echo >/proc/self/fd/{tell}"],
        env=clean_environ(PYTHONDONTWRITEBYTECODE="", **variables),
        stderr=subprocess.DEVNULL,
        pass_fds=(tell,),
    )
    os.close(tell)
    assert os.read(heard, 1)
    passed_ms = (time.perf_counter() - began_s) * 1000
    os.close(heard)
    process.wait(CAP_S)
    return passed_ms


def to_ready() -> float:
    """From a guard's exec to its READY, its program's start included."""
    with _place() as place:
        guard = place.guard()
        guard.end()
        return guard.ready_ms


def answer_of_program() -> float:
    """From the program's exec to its answer, without a guard."""
    with _place() as place:
        began_s = time.perf_counter()
        process = subprocess.Popen(place.words)
        try:
            return healthy_after_ms(place.port, began_s)
        finally:
            process.kill()
            process.wait(CAP_S)


def exit_of_duplicate() -> float:
    """From a second guard's exec to its exit with 78."""
    with _place() as place:
        first = place.guard()
        environ = clean_environ(
            NOTIFY_SOCKET="/nonexistent", PYTHONDONTWRITEBYTECODE="", **place.variables
        )
        words = ["-m", "openclaw_gateway", "guard", "--", "false"]
        passed_ms = run_ms(words, environ, expected=78)
        first.end()
        return passed_ms


def memory() -> float:
    """What a guard itself has resident, its program left out."""
    with _place() as place:
        guard = place.guard()
        mib = guard.resident_mib
        guard.end()
        return mib


def restart_after_kill(whom: str) -> Callable[[], float]:
    """
    From SIGKILL to the next guard's READY, the supervisor's own delay left out.

    Args:
        whom: ``guard`` or ``program``.
    """

    def measure() -> float:
        with _place() as place:
            first = place.guard()
            child_pid = place.child_pid
            began_s = time.perf_counter()
            if whom == "guard":
                first.end(signal.SIGKILL)
            else:
                os.kill(child_pid, signal.SIGKILL)
                first.wait()
            second = place.guard()
            passed_ms = (time.perf_counter() - began_s) * 1000
            second.end()
            return passed_ms

    return measure
