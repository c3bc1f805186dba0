"""Measure the gateway beside its floors, in one run and in turns; write JSON, a plot and the README's table.

    run.py [--rounds N]

Nothing is asserted: figures of one machine at one moment. Each measurement is taken once a round, so
that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from machine import Machine

from bench.calls import SECONDS, TOKEN, latencies
from bench.machines import FLOOR, booted, restart_ms
from bench.plot import draw
from conftest import CAP_S, clean_environ, free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONTROLS = ROOT / ".venv/controls/bin/python"
_FEW = 5
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


class Process:
    """A process that says ``READY=1``, and how long that took it."""

    def __init__(self, *words: str | Path, **variables: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        path = f"{self._directory.name}/notify"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(path)
        self._notify.settimeout(CAP_S)
        environ = clean_environ(NOTIFY_SOCKET=path, PYTHONDONTWRITEBYTECODE="", **variables)
        began_s = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, *words],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while b"READY=1" not in self._notify.recv(65536):
            pass
        self.ready_ms = (time.perf_counter() - began_s) * 1000

    @property
    def resident_mib(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)
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
    process = Process(HERE / "bare.py", what, *words)
    try:
        yield process
    finally:
        process.end()


def start_of_gateway() -> float:
    with gateway() as (process, _, _):
        return process.ready_ms


def start_of(modules: str) -> Callable[[], float]:
    def measure() -> float:
        with bare(modules) as process:
            return process.ready_ms

    return measure


def start_of_route() -> float:
    with bare("serve", str(free_port())) as process:
        return process.ready_ms


def restart_of_gateway() -> float:
    """From SIGKILL to the next one's READY, the supervisor's own delay left out."""
    with tempfile.TemporaryDirectory(prefix="bench-") as state_dir:
        variables = {"OPENCLAW_STATE_DIR": state_dir, "OPENCLAW_GATEWAY_PORT": str(free_port())}
        first = Process("-m", "openclaw_gateway", **variables)
        began_s = time.perf_counter()
        first.end(signal.SIGKILL)
        second = Process("-m", "openclaw_gateway", **variables)
        passed_ms = (time.perf_counter() - began_s) * 1000
        second.end()
        return passed_ms


def restart_of_route() -> float:
    port = str(free_port())
    first = Process(HERE / "bare.py", "serve", port)
    began_s = time.perf_counter()
    first.end(signal.SIGKILL)
    second = Process(HERE / "bare.py", "serve", port)
    passed_ms = (time.perf_counter() - began_s) * 1000
    second.end()
    return passed_ms


def exit_of_duplicate() -> float:
    with gateway() as (_, _, variables):
        environ = clean_environ(
            NOTIFY_SOCKET="/nonexistent", PYTHONDONTWRITEBYTECODE="", **variables
        )
        return run_ms(["-m", "openclaw_gateway"], environ, expected=78)


def run_of(statement: str) -> Callable[[], float]:
    environ = clean_environ(PYTHONDONTWRITEBYTECODE="")
    return lambda: run_ms(["-c", statement], environ, expected=0)


def run_ms(words: list[str], environ: dict[str, str], *, expected: int) -> float:
    began_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], env=environ, stderr=subprocess.DEVNULL, timeout=CAP_S, check=False
    )
    passed_ms = (time.perf_counter() - began_s) * 1000
    assert done.returncode == expected, done.returncode
    return passed_ms


def memory_of_gateway() -> float:
    with gateway() as (process, _, _):
        return process.resident_mib


def memory_of(modules: str) -> Callable[[], float]:
    def measure() -> float:
        with bare(modules) as process:
            return process.resident_mib

    return measure


def requests_of_gateway() -> float:
    with gateway() as (_, port, _):
        return requests_per_second(port)


def requests_of_route() -> float:
    port = free_port()
    with bare("serve", str(port)):
        return requests_per_second(port)


def requests_per_second(port: int) -> float:
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


def calls_of_gateway(
    connections: int, figure: Callable[[list[float]], float]
) -> Callable[[], float]:
    def measure() -> float:
        with gateway(requestsPerSecond=1_000_000) as (_, port, _):
            return figure(latencies(port, connections=connections, is_gateway=True))

    return measure


def calls_of_echo(connections: int, figure: Callable[[list[float]], float]) -> Callable[[], float]:
    def measure() -> float:
        with bare("serve", str(port := free_port())):
            return figure(latencies(port, connections=connections, is_gateway=False))

    return measure


def per_second(taken_s: list[float]) -> float:
    return len(taken_s) / SECONDS


def percentile_ms(percent: int) -> Callable[[list[float]], float]:
    return lambda taken_s: taken_s[len(taken_s) * percent // 100] * 1000


def locks_of(name: str, python: Path) -> Callable[[], float]:
    def measure() -> float:
        words = [str(python), str(HERE / "locks.py"), name, "0.5", "1"]
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=CAP_S, env=clean_environ()
        )
        return float(done.stdout)

    return measure


class Measurement(NamedTuple):
    """One line of a chart."""

    name: str
    take: Callable[[], float]
    is_ours: bool = False


class Chart(NamedTuple):
    """What is measured side by side."""

    title: str
    unit: str
    better: str
    lines: tuple[Measurement, ...]


OURS = Path(sys.executable)
CHARTS = (
    Chart("From exec to READY", "ms", "less", (
        Measurement("openclaw-gateway", start_of_gateway, is_ours=True),
        Measurement("a bare aiohttp route", start_of_route),
        Measurement("import aiohttp.web", start_of("aiohttp.web")),
        Measurement("python3", start_of("")),
    )),
    Chart("From kill -9 to the next READY", "ms", "less", (
        Measurement("openclaw-gateway", restart_of_gateway, is_ours=True),
        Measurement("a bare aiohttp route", restart_of_route),
    )),
    Chart("A duplicate, from exec to exit", "ms", "less", (
        Measurement("openclaw-gateway", exit_of_duplicate, is_ours=True),
        Measurement("import requests", run_of("import requests")),
        Measurement("python3", run_of("pass")),
    )),
    Chart("Resident memory", "MiB", "less", (
        Measurement("openclaw-gateway", memory_of_gateway, is_ours=True),
        Measurement("import aiohttp.web", memory_of("aiohttp.web")),
        Measurement("import aiohttp", memory_of("aiohttp")),
        Measurement("python3", memory_of("")),
    )),
    Chart("GET /healthz", "per second", "more", (
        Measurement("openclaw-gateway", requests_of_gateway, is_ours=True),
        Measurement("a bare aiohttp route", requests_of_route),
    )),
    Chart("Calls of health over 100 WebSockets", "per second", "more", (
        Measurement("openclaw-gateway", calls_of_gateway(100, per_second), is_ours=True),
        Measurement("a bare aiohttp echo", calls_of_echo(100, per_second)),
    )),
    Chart("One call of health", "ms", "less", (
        Measurement("openclaw-gateway, half are quicker", calls_of_gateway(1, percentile_ms(50)), is_ours=True),
        Measurement("openclaw-gateway, 99 of 100 are quicker", calls_of_gateway(1, percentile_ms(99)), is_ours=True),
        Measurement("a bare aiohttp echo, half are quicker", calls_of_echo(1, percentile_ms(50))),
        Measurement("a bare aiohttp echo, 99 of 100 are quicker", calls_of_echo(1, percentile_ms(99))),
    )),
    Chart("Lock taken and given back", "per second", "more", (
        Measurement("openclaw-gateway, directory and file with record", locks_of("gateway", OURS), is_ours=True),
        Measurement("filelock", locks_of("filelock", CONTROLS)),
        Measurement("portalocker", locks_of("portalocker", CONTROLS)),
        Measurement("fasteners", locks_of("fasteners", CONTROLS)),
        Measurement("bare flock(2) on a file", locks_of("flock", OURS)),
    )),
)  # fmt: skip


def under_systemd(machines: dict[str, Machine]) -> Chart:
    """Return the chart of restarts by systemd itself, the units' delay of 100 ms included."""
    lines = []
    for release, machine in machines.items():
        take, floor = partial(restart_ms, machine), partial(restart_ms, machine, FLOOR)
        lines.append(Measurement(f"openclaw-gateway, {release}", take, is_ours=True))
        lines.append(Measurement(f"import aiohttp.web, {release}", floor))
    return Chart("Under systemd, from kill -9 to READY", "ms", "less", tuple(lines))


def measured(charts: Sequence[Chart], rounds: int) -> list[dict[str, Any]]:
    """Take every measurement once a round; return the charts with minimum, median and maximum."""
    taken: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for chart in charts:
            for line in chart.lines:
                value = line.take()
                if number:  # the first round warms caches
                    taken.setdefault((chart.title, line.name), []).append(value)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return [
        {
            "title": chart.title,
            "unit": chart.unit,
            "better": chart.better,
            "lines": [
                {
                    "name": line.name,
                    "ours": line.is_ours,
                    "min": rounded(min(values)),
                    "median": rounded(statistics.median(values)),
                    "max": rounded(max(values)),
                }
                for line in chart.lines
                for values in [taken[chart.title, line.name]]
            ],
        }
        for chart in charts
    ]


def rounded(value: float) -> float:
    """Keep about three digits."""
    return round(value, 1 if value >= 10 else 3)


def table(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = ["| | min | median | max |", "|---|---|---|---|"]
    for chart in result["charts"]:
        lines.append(f"| **{chart['title']}, {chart['unit']}** | | | |")
        for line in chart["lines"]:
            lines.append(
                f"| {line['name']} | {line['min']:,} | {line['median']:,} | {line['max']:,} |"
            )
    return "\n".join([*lines, "", f"{result['machine']}, {result['rounds']} rounds."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=15, help="5 at least, or README stays as it is"
    )
    rounds = parser.parse_args().rounds
    with booted() as machines:
        charts = [*CHARTS, *([under_systemd(machines)] if machines else [])]
        figures = measured(charts, rounds)
    result: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, aiohttp {aiohttp.__version__}",
        "rounds": rounds,
        "charts": figures,
    }
    if rounds < _FEW:
        print(table(result))
        return
    (HERE / "figures.json").write_text(json.dumps(result, indent=1) + "\n")
    (HERE / "figures.svg").write_text(draw(result["charts"]))
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{table(result)}\n{END}{after}")


if __name__ == "__main__":
    main()
