"""What judges loads nothing that looks: no file, child, socket or user database is within its reach."""

from __future__ import annotations

import subprocess
import sys

_OURS = {
    "openclaw_gateway",
    "openclaw_gateway.admin",
    "openclaw_gateway.admin.judge",
    "openclaw_gateway.admin.judge.advice",
    "openclaw_gateway.admin.judge.checks",
    "openclaw_gateway.admin.judge.cluster_checks",
    "openclaw_gateway.admin.judge.disagreements",
    "openclaw_gateway.admin.judge.exits",
    "openclaw_gateway.admin.judge.finding",
    "openclaw_gateway.admin.judge.state",
    "openclaw_gateway.admin.judge.unit_checks",
    "openclaw_gateway.admin.judge.verdict",
    "openclaw_gateway.claim",
    "openclaw_gateway.claim.record",
    "openclaw_gateway.client",
    "openclaw_gateway.client.answer",
    "openclaw_gateway.errors",
    "openclaw_gateway.host",
    "openclaw_gateway.host.address",
    "openclaw_gateway.host.process",
    "openclaw_gateway.protocol",
    "openclaw_gateway.protocol.fields",
    "openclaw_gateway.protocol.role",
    "openclaw_gateway.supervisor",
    "openclaw_gateway.supervisor.events",
}
_THAT_LOOK = {"subprocess", "socket", "asyncio", "ssl", "pwd", "glob", "systemd", "sdnotify"}

_SCRIPT = """
import sys
from openclaw_gateway.admin.judge import advice, checks, disagreements, state, verdict
print(*sys.modules)
"""


def test_judging_loads_only_what_is_pure() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
    )
    loaded = set(said.stdout.split())
    assert {name for name in loaded if name.split(".")[0] == "openclaw_gateway"} <= _OURS
    assert loaded & _THAT_LOOK == set()
