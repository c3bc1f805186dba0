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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from machine import Machine

from bench import guards, peer
from bench.calls import latencies, per_second, percentile_ms
from bench.machines import FLOOR, booted, restart_ms
from bench.plot import draw
from bench.processes import (
    HERE,
    LIBRARIES,
    Process,
    bare,
    gateway,
    healthy_after_ms,
    requests_per_second,
    run_ms,
)
from conftest import CAP_S, clean_environ, free_port

ROOT = HERE.parents[1]
CONTROLS = ROOT / ".venv/controls/bin/python"
OURS, BARE, IMPORTS = (
    "openclaw-gateway",
    "a bare server of h11 and websockets",
    "import asyncio, h11, websockets.server",
)
_FEW = 5
_WARM_UP_S = 0.5
"""What a standby does once it is ready, it does within this."""
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def start_of_gateway() -> float:
    with gateway() as (process, _, _):
        return process.ready_ms


def answer_of_gateway() -> float:
    with gateway() as (process, port, _):
        return healthy_after_ms(port, process.began_s)


def answer_of_route() -> float:
    port = free_port()
    with bare("serve", str(port)) as process:
        return healthy_after_ms(port, process.began_s)


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


def takeover_of_standby() -> float:
    """From SIGKILL of the owner to the READY of the one that stood behind it."""
    with gateway() as (owner, _, variables):
        second = Process("-m", "openclaw_gateway", "--standby", **variables)
        time.sleep(_WARM_UP_S)
        began_s = time.perf_counter()
        owner.kill()
        second.wait_for_ready()
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


def memory_of_gateway() -> float:
    with gateway() as (process, _, _):
        return process.resident_mib


def memory_of(modules: str) -> Callable[[], float]:
    def measure() -> float:
        with bare(modules) as process:
            return process.resident_mib

    return measure


def memory_of_route() -> float:
    with bare("serve", str(free_port())) as process:
        return process.resident_mib


def requests_of_gateway() -> float:
    with gateway() as (_, port, _):
        return requests_per_second(port)


def requests_of_route() -> float:
    port = free_port()
    with bare("serve", str(port)):
        return requests_per_second(port)


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


CHARTS = (
    Chart("From exec to READY", "ms", "less", (
        Measurement(OURS, start_of_gateway, is_ours=True),
        Measurement(BARE, start_of_route),
        Measurement(IMPORTS, start_of(LIBRARIES)),
        Measurement("python3", start_of("")),
    )),
    Chart("From exec to an answer of /healthz", "ms", "less", (
        Measurement(OURS, answer_of_gateway, is_ours=True),
        Measurement(BARE, answer_of_route),
    )),
    Chart("From kill -9 to the next READY", "ms", "less", (
        Measurement(OURS, restart_of_gateway, is_ours=True),
        Measurement(f"{OURS}, by its standby", takeover_of_standby, is_ours=True),
        Measurement(f"{guards.NAME}, itself killed", guards.restart_after_kill("guard"), is_ours=True),
        Measurement(f"{guards.NAME}, its program killed", guards.restart_after_kill("program"), is_ours=True),
        Measurement(BARE, restart_of_route),
    )),
    Chart("From a guard's exec to that of its program", "ms", "less", (
        Measurement(guards.NAME, guards.to_exec_of_program, is_ours=True),
        Measurement("python3", run_of("pass")),
        Measurement("the program, a shell, alone", guards.to_exec_of_shell),
    )),
    Chart("From exec to READY of a small program that is guarded", "ms", "less", (
        Measurement(guards.NAME, guards.to_ready, is_ours=True),
        Measurement(guards.PROGRAM, guards.answer_of_program),
    )),
    Chart("A duplicate, from exec to exit with 78", "ms", "less", (
        Measurement(OURS, exit_of_duplicate, is_ours=True),
        Measurement(guards.NAME, guards.exit_of_duplicate, is_ours=True),
        Measurement("import argparse, json, socket", run_of("import argparse, json, socket")),
        Measurement("python3", run_of("pass")),
    )),
    Chart("Resident memory of all processes", "MiB", "less", (
        Measurement(OURS, memory_of_gateway, is_ours=True),
        Measurement(f"{guards.NAME}, without its program", guards.memory, is_ours=True),
        Measurement(BARE, memory_of_route),
        Measurement(IMPORTS, memory_of(LIBRARIES)),
        Measurement("python3", memory_of("")),
    )),
    Chart("GET /healthz", "per second", "more", (
        Measurement(OURS, requests_of_gateway, is_ours=True),
        Measurement(BARE, requests_of_route),
    )),
    Chart("Calls of health over 100 WebSockets", "per second", "more", (
        Measurement(OURS, calls_of_gateway(100, per_second), is_ours=True),
        Measurement("a bare echo of websockets", calls_of_echo(100, per_second)),
    )),
    Chart("One call of health after the other", "ms", "less", (
        Measurement(f"{OURS}, half are quicker", calls_of_gateway(1, percentile_ms(50)), is_ours=True),
        Measurement(f"{OURS}, 99 of 100 are quicker", calls_of_gateway(1, percentile_ms(99)), is_ours=True),
        Measurement("a bare echo, half are quicker", calls_of_echo(1, percentile_ms(50))),
        Measurement("a bare echo, 99 of 100 are quicker", calls_of_echo(1, percentile_ms(99))),
    )),
    Chart("Lock taken and given back", "per second", "more", (
        Measurement(f"{OURS}, directory and file with record", locks_of("gateway", Path(sys.executable)), is_ours=True),
        Measurement("filelock", locks_of("filelock", CONTROLS)),
        Measurement("portalocker", locks_of("portalocker", CONTROLS)),
        Measurement("fasteners", locks_of("fasteners", CONTROLS)),
        Measurement("bare flock(2) on a file", locks_of("flock", Path(sys.executable))),
    )),
)  # fmt: skip


def beside(node: peer.Peer) -> dict[str, tuple[Measurement, ...]]:
    """Return what OpenClaw's own gateway, and Node itself, add to which chart."""
    theirs, bare_node = peer.NAME, peer.BARE_NAME
    return {
        "From exec to an answer of /healthz": (
            Measurement(bare_node, node.start_of_bare),
            Measurement(theirs, node.figure("start")),
        ),
        "A duplicate, from exec to exit with 78": (
            Measurement(theirs, node.figure("duplicate")),
            Measurement(
                f"{guards.NAME}, beside {theirs}", node.figure("guarded duplicate"), is_ours=True
            ),
        ),
        "Resident memory of all processes": (
            Measurement(bare_node, node.memory_of_bare),
            Measurement(theirs, node.figure("memory")),
        ),
        "GET /healthz": (
            Measurement(bare_node, node.requests_of_bare),
            Measurement(theirs, node.figure("requests")),
        ),
        "Calls of health over 100 WebSockets": (Measurement(theirs, node.figure("calls")),),
        "One call of health after the other": (
            Measurement(f"{theirs}, half are quicker", node.figure("median")),
            Measurement(f"{theirs}, 99 of 100 are quicker", node.figure("slow")),
        ),
    }


def under_systemd(machines: dict[str, Machine]) -> Chart:
    """Return the chart of restarts by systemd itself, the units' delay of 100 ms included."""
    lines = []
    for release, machine in machines.items():
        take, floor = partial(restart_ms, machine), partial(restart_ms, machine, FLOOR)
        lines.append(Measurement(f"{OURS}, {release}", take, is_ours=True))
        lines.append(Measurement(f"{IMPORTS}, {release}", floor))
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
    parser.add_argument("--only", default="", help="charts with this in their title; README stays")
    options = parser.parse_args()
    rounds: int = options.rounds
    node = peer.available()
    more = beside(node) if node else {}
    charts = [
        chart._replace(lines=chart.lines + more.get(chart.title, ()))
        for chart in CHARTS
        if options.only in chart.title
    ]
    if options.only:
        figures = measured(charts, rounds)
    else:
        with booted() as machines:
            charts += [under_systemd(machines)] if machines else []
            figures = measured(charts, rounds)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("h11", "websockets"))
    result: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {libraries}",
        "rounds": rounds,
        "charts": figures,
    }
    if rounds < _FEW or options.only:
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
