"""What is measured: our gateway, and what it can't be cheaper than, each in a process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.calls import TOKEN
from conftest import CAP_S, clean_environ, free_port
from node_gateway import healthy

HERE = Path(__file__).parent
LIBRARIES = "asyncio,h11,websockets.server"
"""What a server of HTTP and WebSocket has to load, whatever else it does."""

_LOOK_AGAIN_S = 0.002


class Process:
    """A process that says ``READY=1``, and how long that took it."""

    def __init__(self, *words: str | Path, **variables: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        path = f"{self._directory.name}/notify"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(path)
        self._notify.settimeout(CAP_S)
        environ = clean_environ(NOTIFY_SOCKET=path, PYTHONDONTWRITEBYTECODE="", **variables)
        self.began_s = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, *words],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait_for_ready()
        self.ready_ms = (time.perf_counter() - self.began_s) * 1000

    def wait_for_ready(self) -> None:
        while b"READY=1" not in self._notify.recv(65536):
            pass

    @property
    def resident_mib(self) -> float:
        return resident_mib([self._process.pid])

    def kill(self) -> None:
        self._process.kill()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)
        self.wait()

    def wait(self) -> None:
        """Wait for its end, and leave nothing of it behind."""
        self._process.wait(CAP_S)
        self._notify.close()
        self._directory.cleanup()


@contextmanager
def gateway(**limits: int) -> Iterator[tuple[Process, int, dict[str, str]]]:
    """A running gateway, its port and the variables that a second one of its kind needs."""
    with tempfile.TemporaryDirectory(prefix="bench-") as state_dir:
        port = free_port()
        variables = {"OPENCLAW_STATE_DIR": state_dir, "OPENCLAW_GATEWAY_PORT": str(port)}
        if limits:
            settings = {"gateway": {"limits": limits, "auth": {"token": TOKEN}}}
            Path(state_dir, "openclaw.json").write_text(json.dumps(settings))
        process = Process("-m", "openclaw_gateway", **variables)
        try:
            yield process, port, variables
        finally:
            process.end()


@contextmanager
def bare(what: str, *words: str) -> Iterator[Process]:
    """``bare.py`` at work."""
    process = Process(HERE / "bare.py", what, *words)
    try:
        yield process
    finally:
        process.end()


@contextmanager
def bare_node(node: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    """A bare server of Node's own: its process, its port, and how long until it answered, in milliseconds."""
    port = free_port()
    began_s = time.perf_counter()
    process = subprocess.Popen([node, HERE / "bare.mjs", str(port)])
    try:
        yield process, port, healthy_after_ms(port, began_s)
    finally:
        process.kill()
        process.wait(CAP_S)


def healthy_after_ms(port: int, began_s: float, *, cap_s: float = CAP_S) -> float:
    """Ask for /healthz until the answer is what it should be; return how long after ``began_s`` that was."""
    while not healthy(port):
        assert time.perf_counter() < began_s + cap_s, f"nothing healthy on port {port}"
        time.sleep(_LOOK_AGAIN_S)
    return (time.perf_counter() - began_s) * 1000


def resident_mib(pids: Sequence[int]) -> float:
    """
    Return how much memory a family of processes has resident.

    Args:
        pids: The main process first. What another one shares, with the main one for the most part, is not
            counted again: of it only what is private.
    """
    first, *others = pids
    kib = _rollup(first)["Rss"]
    for pid in others:
        rollup = _rollup(pid)
        kib += rollup["Private_Clean"] + rollup["Private_Dirty"]
    return kib / 1024


def _rollup(pid: int) -> dict[str, int]:
    """Read proc_pid_smaps(5), summed up; kibibytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.partition(":")[0]: int(line.split()[1]) for line in lines}


def run_ms(words: list[str], environ: dict[str, str], *, expected: int) -> float:
    """Return how long a run of Python takes, from exec to the exit code that is expected."""
    began_s = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env=environ, stderr=subprocess.DEVNULL)
    ended = os.pidfd_open(process.pid)
    # Not wait(timeout): it looks in steps that grow to 50 ms.
    select.select([ended], [], [], CAP_S)
    passed_ms = (time.perf_counter() - began_s) * 1000
    os.close(ended)
    code = process.wait(CAP_S)
    assert code == expected, code
    return passed_ms


def requests_per_second(port: int) -> float:
    """Have wrk ask for /healthz over 16 connections for two seconds."""
    done = subprocess.run(
        ["wrk", "-t1", "-c16", "-d2s", f"http://127.0.0.1:{port}/healthz"],
        capture_output=True,
        text=True,
        check=True,
        timeout=CAP_S,
    )
    assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("Requests/sec:"))
    return float(line.split()[1])
