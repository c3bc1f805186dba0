"""What is called pure loads nothing that waits."""

from __future__ import annotations

import subprocess
import sys

import pytest

PURE = [
    "protocol.session", "protocol.frames", "protocol.schema", "protocol.calls", "protocol.scopes",
    "server.message", "server.proxies", "server.access", "server.snapshot", "server.presence",
    "server.redaction",
]  # fmt: skip

_SCRIPT = """
import sys
before = set(sys.modules)
import openclaw_gateway.{module}
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("module", PURE)
def test_pure_module_loads_nothing_that_waits(module: str) -> None:
    # Without site: what an editable install brings along is not the module's doing.
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    waiting = {"asyncio", "ssl", "socket", "selectors", "subprocess", "threading", "http", "h11"}
    assert not loaded & (waiting | {"websockets", "logging", "requests"})
    ours = {name.split(".")[1] for name in loaded if name.startswith("openclaw_gateway.")}
    assert ours <= {module.split(".", maxsplit=1)[0], "host"}, ours
