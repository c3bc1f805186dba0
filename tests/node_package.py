"""OpenClaw and its Node from npm: the release that tests and benchmarks run, and how it is started."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

import npm
from faults.extent import extent

VERSION = "2026.9.6"
START_CAP_S = 600.0
"""
Six seconds on a quiet machine, two minutes on one with twenty times its load; reports tell of more.

On such a machine its own start may fail as well, for a heartbeat of its own that is not ready within 5 s,
and only the next one succeeds.
"""

in_full = pytest.mark.skipif(
    not extent("NODE_FULL", 0, 1), reason="a sample; all of it with FAULTS_FULL=1"
)
"""Marks what a sample does without, as each start takes so long."""

_SOURCE = Path(__file__).parent / "peer"


@functools.cache
def installed() -> Path:
    """Return the folder with OpenClaw and its Node. Raises ``npm.Unavailable``."""
    return npm.installed(_SOURCE, f"openclaw-{VERSION}")


def command(port: int) -> list[str]:
    """Return what starts its gateway. Raises ``npm.Unavailable``."""
    folder = installed()
    program = folder / "node_modules/openclaw/openclaw.mjs"
    return [str(npm.node(folder)), str(program), "gateway", "run", "--port", str(port)]


def cache() -> str:
    """Return a temporary directory for one: Node keeps what it compiles there, so the next start is quicker."""
    directory = installed() / "tmp"
    directory.mkdir(exist_ok=True)
    return str(directory)
