"""
How the gateway is, by four readers: ``status`` in a terminal, ``status --json``, the method, the metrics.

One gateway is driven through its states, and none of them ever says anything else than the others. It runs in this
process, on a claim of its own, so that the states are ours to say. The page shows what the method says.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import requests

import scrape
from conftest import CAP_S, TOKEN, clean_environ, without_systemd
from openclaw_gateway.claim import claim as claims
from openclaw_gateway.claim.claim import Claim
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.protocol.role import Role
from openclaw_gateway.server.http import Server
from openclaw_gateway.settings.load import load
from openclaw_gateway.supervisor.events import Priority
from openclaw_gateway.supervisor.journal import PlainJournal
from openclaw_gateway.supervisor.notify import Supervisor
from wire import Wire, admitted, run

ROLE = Role("home", True, "gw-a", "http://gw-a:18789", 42, 1_700_000_000_000, "active (token 42)")
PREFIX = "openclaw_gateway_"


class Gateway(NamedTuple):
    """A server on a claim, and what fails there."""

    server: Server
    held: Claim
    failing: list[str]
    port: int
    home: Path

    def enter(self, phase: Phase) -> None:
        """Come to a phase, as the lifecycle does."""
        self.server.phase = phase
        self.held.publish(phase)


@asynccontextmanager
async def gateway(port: int, state_dir: Path) -> AsyncIterator[Gateway]:
    environ = {"OPENCLAW_STATE_DIR": str(state_dir), "OPENCLAW_GATEWAY_TOKEN": TOKEN}
    settings = load({"--port": str(port)}, environ)
    supervisor, journal = Supervisor({}), PlainJournal(Priority.CRIT)
    failing: list[str] = []
    with claims.acquire(settings, supervisor, journal, pause=lambda _: None) as held:
        server = Server(
            settings,
            held.record,
            journal,
            failing=lambda: list(failing),
            vitals=supervisor.vitals,
            lock_paths=held.lock_paths,
        )
        loop = asyncio.get_running_loop()
        loop.add_reader(held.base_port, held.answer)
        await server.start(held.sockets, close=held.close_listeners)
        try:
            yield Gateway(server, held, failing, port, state_dir.parent)
        finally:
            await server.stop(hurry=asyncio.Event())
            loop.remove_reader(held.base_port)


class Said(NamedTuple):
    """What the four say."""

    terminal: str
    document: dict[str, Any]
    method: dict[str, Any]
    metrics: dict[str, float]


async def ask(made: Gateway, wire: Wire) -> Said:
    def status(*options: str) -> str:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "openclaw_gateway",
                "status",
                "--port",
                str(made.port),
                *options,
            ],
            env=clean_environ(HOME=str(made.home)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CAP_S,
            check=False,
        ).stdout

    def metrics() -> dict[str, float]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"http://127.0.0.1:{made.port}/metrics"
        return scrape.numbers(requests.get(url, headers=headers, timeout=CAP_S))

    terminal = await asyncio.to_thread(status)
    document = json.loads(await asyncio.to_thread(status, "--json"))
    method = (await wire.call("status"))["payload"]
    return Said(terminal, document, method, await asyncio.to_thread(metrics))


def word(metrics: dict[str, float]) -> str:
    """Return the one word that follows from the metrics."""
    (phase,) = (phase for phase in Phase if metrics[f"{PREFIX}phase{{{phase}}}"])
    words = {Phase.STARTING: "starting", Phase.STANDBY: "standby", Phase.DRAINING: "stopping"}
    if metrics[f"{PREFIX}degraded"]:
        assert phase is Phase.READY
        return "degraded"
    # Whether a unit runs it no metric says: Prometheus knows it by its address.
    return words.get(phase, "unmanaged")


def ageless(text: str) -> str:
    """Two readers never look at the same moment."""
    return re.sub(r"\b\d+ s\b", "a while", text)


def agree(said: Said, state: str) -> None:
    """See that all four say the same, and that it is this."""
    terminal, document, method, metrics = said
    assert [document["state"], method["state"], word(metrics)] == [state] * 3
    heading = terminal.partition("\n")[0]
    reason = ageless(document["reason"])
    assert f"  {state.upper()}: {reason}  (exit {document['exit_code']})" in ageless(heading)
    if state == "starting":  # for how long
        assert reason == f"{method['reason']} for a while"
    elif state == "unmanaged":  # and names it
        assert document["reason"].startswith(f"{method['reason']}: pid {os.getpid()} ")
    else:
        assert document["reason"] == method["reason"]

    failing = method["failing"]
    assert [name for name in failing if not metrics[f"{PREFIX}failing{{{name}}}"]] == []
    assert sum(v for name, v in metrics.items() if name.startswith(f"{PREFIX}failing")) == len(
        failing
    )
    assert document["health"]["ready"] is method["ready"] is bool(metrics[f"{PREFIX}ready"])
    assert f"/readyz {200 if method['ready'] else 503}" in terminal

    record = document["lock"]["record"]
    assert record["phase"] == method["phase"]
    assert f"phase {method['phase']} " in terminal
    claim = method["claim"]
    assert (record["state_dir"], record["config_path"]) == (claim["stateDir"], claim["configPath"])
    assert (record["created_at"], record["owner_id"]) == (claim["since"], claim["ownerId"])
    assert document["owner"]["pid"] == method["pid"] == os.getpid()
    assert document["versions"]["running"] == method["runtimeVersion"]
    (build,) = (name for name in metrics if name.startswith(f"{PREFIX}build_info"))
    assert f"{{{method['runtimeVersion']}}}" in build

    assert metrics[f"{PREFIX}clients"] == method["clients"]["connected"] == 1
    cluster = method["cluster"]
    role = document["health"]["role"]
    if cluster is None:
        assert role is None and metrics[f"{PREFIX}active"] == 1
    else:
        assert bool(metrics[f"{PREFIX}active{{{cluster['name']}}}"]) is cluster["active"]
        assert metrics[f"{PREFIX}cluster_fencing_token"] == cluster["token"]
        assert (role["active"], role["token"]) == (cluster["active"], cluster["token"])


@without_systemd
def test_four_readers_never_disagree(port: int, state_dir: Path) -> None:
    async def visit() -> None:
        async with gateway(port, state_dir) as made:
            made.enter(Phase.READY)
            async with admitted(port) as wire:
                agree(await ask(made, wire), "unmanaged")
                made.failing.append("state-directory")
                # It is looked at no more often than once a second.
                await wire.event("health")
                agree(await ask(made, wire), "degraded")
                made.failing.clear()
                await wire.event("health")
                agree(await ask(made, wire), "unmanaged")
                made.enter(Phase.STARTING)
                agree(await ask(made, wire), "starting")
                made.enter(Phase.READY)
                made.server.show_role(ROLE)
                agree(await ask(made, wire), "unmanaged")
                made.server.show_role(
                    ROLE._replace(active=False, reason="gw-a is active (token 42)")
                )
                made.held.publish(Phase.STANDBY)
                agree(await ask(made, wire), "standby")
                made.enter(Phase.DRAINING)
                agree(await ask(made, wire), "stopping")

    run(visit())
