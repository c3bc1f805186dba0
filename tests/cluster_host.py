"""Hosts of a cluster for tests: gateways and guards with a state directory, port and configuration of their own."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import NamedTuple

import requests

import scrape
import ticking
from conftest import CAP_S, TOKEN, Daemon, clean_environ, free_port

TOKEN_FIELD = "OpenClaw-Fencing-Token"

BRIEF = {"leaseMs": 3000, "renewDeadlineMs": 2000, "retryMs": 400}
"""Times of a cluster that is to be watched through many takeovers."""


class Host:
    """One gateway, as on a machine of its own."""

    def __init__(
        self,
        folder: Path,
        name: str,
        cluster: dict[str, object],
        *,
        prefix: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.name, self.folder = name, folder / name
        self.folder.mkdir(parents=True)
        self._prefix = prefix
        self.lease_s = float(str(cluster["leaseMs"])) / 1000
        self.config = self.folder / "openclaw.json"
        self.config.write_text("{}")
        (self.folder / "openclaw-gateway.json").write_text(json.dumps({"cluster": cluster}))
        self.daemon: Daemon | None = None

    def words(self, *options: str) -> list[str]:
        return ["run", *options]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def beside(self) -> Host:
        """Return another gateway on the same machine, with the same port and state."""
        other = copy(self)
        other.daemon = None
        return other

    def start(self, *options: str, **variables: str) -> Host:
        environ = clean_environ(
            OPENCLAW_GATEWAY_PORT=str(self.port),
            OPENCLAW_STATE_DIR=str(self.folder / "state"),
            OPENCLAW_CONFIG_PATH=str(self.config),
            OPENCLAW_GATEWAY_TOKEN=TOKEN,
            PYTHONUNBUFFERED="1",
            **variables,
        )
        words = (*self._prefix, sys.executable, "-m", "openclaw_gateway")
        self.daemon = Daemon(*self.words(*options), environ=environ, words=words)
        return self

    def says(self, text: str) -> str:
        """Wait until it has said this, in whatever order with other things."""
        assert self.daemon is not None
        found = next((line for line in self.daemon.log if text in line), None)
        return found or self.daemon.wait_for(text)

    def is_ready(self) -> Host:
        self.says("ready on")
        return self

    def is_active(self) -> Host:
        self.says(": active (token")
        return self

    def stop(self) -> int:
        assert self.daemon is not None
        return self.daemon.stop()

    def end(self) -> int:
        assert self.daemon is not None
        return self.daemon.finish()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.end()

    def signal(self, number: int) -> None:
        assert self.daemon is not None
        self.daemon.signal(number)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=CAP_S)

    def metrics(self) -> dict[str, float]:
        """Return every sample, its name followed by its labels' values in braces."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        scraped = requests.get(f"{self.url}/metrics", headers=headers, timeout=CAP_S)
        return scrape.numbers(scraped)

    @property
    def runs(self) -> bool:
        return self.daemon is not None and self.daemon.process.poll() is None

    def end_with_test(self) -> None:
        if self.runs:
            self.signal(signal.SIGCONT)
            self.kill()


class Guarding(Host):
    """A guard, whose child leaves a trace while it serves."""

    def __init__(self, *arguments: object, child: Sequence[str] = (), **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self.trace = self.folder / "trace"
        self.trace.touch()
        self._child = child

    def words(self, *options: str) -> list[str]:
        program = [sys.executable, ticking.__file__, str(self.port), str(self.trace)]
        return ["guard", *options, "--", *program, *self._child]

    def is_active(self) -> Guarding:
        self.says("is ready on")
        return self


class Tick(NamedTuple):
    """One moment in which somebody served."""

    ns: int
    token: int
    pid: int


def ticks(hosts: Sequence[Guarding]) -> list[Tick]:
    """Return every moment in which a child of these guards served, in order, on the one clock that all share."""
    found = []
    for host in hosts:
        for line in host.trace.read_text().splitlines():
            found.append(Tick(*map(int, line.split())))
    return sorted(found)


def overlaps(found: Sequence[Tick]) -> list[tuple[Tick, Tick]]:
    """Return each moment that came after one of a later tenure: a resource that knows the token would refuse it."""
    bad, newest = [], None
    for tick in found:
        if newest is not None and tick.token < newest.token:
            bad.append((newest, tick))
        elif newest is None or tick.token > newest.token:
            newest = tick
    return bad


Make = Callable[..., Host]
