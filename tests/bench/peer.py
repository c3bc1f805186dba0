"""OpenClaw's own gateway on Node, and a bare server of Node's: the same questions as to ours."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import node_gateway
import node_package
import npm
from bench.calls import TOKEN, latencies, per_second, percentile_ms
from bench.processes import (
    bare_node,
    healthy_after_ms,
    requests_per_second,
    resident_mib,
    run_ms,
)
from conftest import clean_environ, free_port

NAME = f"OpenClaw {node_package.VERSION} on Node"
BARE_NAME = "a bare server of Node's"
_DUPLICATE = 78


class Peer:
    """
    Figures of one gateway of theirs that is started for all of them together, as each start takes seconds.

    The figures are taken out one by one, in whatever order; asked for one again, it starts the next gateway.
    """

    def __init__(self, folder: Path) -> None:
        self._node = npm.node(folder)
        self._taken: dict[str, float] = {}

    def figure(self, name: str) -> Callable[[], float]:
        """Return what takes one figure: a key of what ``_measure`` returns."""

        def take() -> float:
            if name not in self._taken:
                self._taken = self._measure()
            return self._taken.pop(name)

        return take

    def _measure(self) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            state_dir, port = Path(directory) / "state", free_port()
            began_s = time.perf_counter()
            settings = {"auth": {"mode": "token", "token": TOKEN}}
            with node_gateway.node_gateway(state_dir, port, gateway=settings) as gateway:
                taken = {"start": healthy_after_ms(port, began_s, cap_s=node_package.START_CAP_S)}
                gateway.started()
                taken["memory"] = resident_mib(gateway.family())
                taken["requests"] = requests_per_second(port)
                taken["calls"] = per_second(latencies(port, connections=100, is_gateway=True))
                one = latencies(port, connections=1, is_gateway=True)
                taken |= {"median": percentile_ms(50)(one), "slow": percentile_ms(99)(one)}
                taken["duplicate"] = _exit_of_duplicate(state_dir, port)
                taken["guarded duplicate"] = _exit_of_guarded_duplicate(state_dir, port)
        return taken

    def start_of_bare(self) -> float:
        with bare_node(self._node) as (_, _, passed_ms):
            return passed_ms

    def memory_of_bare(self) -> float:
        with bare_node(self._node) as (process, _, _):
            return resident_mib([process.pid])

    def requests_of_bare(self) -> float:
        with bare_node(self._node) as (_, port, _):
            return requests_per_second(port)


def _exit_of_duplicate(state_dir: Path, port: int) -> float:
    began_s = time.perf_counter()
    # As systemd starts it, or it would end with another code.
    unit = {"NOTIFY_SOCKET": "/nonexistent", "INVOCATION_ID": "0" * 32}
    with node_gateway.node_gateway(state_dir, port, **unit) as duplicate:
        code = duplicate.refused()
        passed_ms = (time.perf_counter() - began_s) * 1000
        assert code == _DUPLICATE, "\n".join(duplicate.log)
    return passed_ms


def _exit_of_guarded_duplicate(state_dir: Path, port: int) -> float:
    """What a second start costs where it is guarded: the second gateway is never started."""
    environ = clean_environ(
        NOTIFY_SOCKET="/nonexistent",
        PYTHONDONTWRITEBYTECODE="",
        OPENCLAW_STATE_DIR=str(state_dir),
        OPENCLAW_GATEWAY_PORT=str(port),
    )
    words = ["-m", "openclaw_gateway", "guard", "--", *node_package.command(port)]
    return run_ms(words, environ, expected=_DUPLICATE)


def available() -> Peer | None:
    """Return it, installed if need be; ``None`` where npm can't bring it, which is said."""
    try:
        return Peer(node_package.installed())
    except npm.Unavailable as missing:
        print(f"WITHOUT OPENCLAW'S OWN GATEWAY: {missing}", file=sys.stderr)
        return None
