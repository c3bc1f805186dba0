"""``logs.tail`` where the log goes to a journal: a real journald, alone in a mount namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import CAP_S, TOKEN, clean_environ

JOURNALD = Path("/lib/systemd/systemd-journald")

# As systemd starts a service: standard error is a stream to the journal, named in JOURNAL_STREAM.
AS_A_SERVICE = """
import os, socket, sys
stream = socket.socket(socket.AF_UNIX)
stream.connect("/run/systemd/journal/stdout")
stream.sendall(b"openclaw-gateway\\n\\n6\\n0\\n0\\n0\\n0\\n")
os.dup2(stream.fileno(), 2)
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
os.execv(sys.executable, [sys.executable, "-m", "openclaw_gateway", "run"])
"""

IN_THE_NAMESPACE = """
mount -t tmpfs tmpfs /run || exit 1
mkdir -p /run/systemd/journal /run/log/journal
"$JOURNALD" >/dev/null 2>&1 & journald=$!
until [ -S /run/systemd/journal/stdout ]; do sleep 0.05; done
"$PYTHON" -c "$AS_A_SERVICE" & gateway=$!
until "$PYTHON" -m openclaw_gateway call health >/dev/null 2>&1; do kill -0 $gateway || break; done
"$PYTHON" -m openclaw_gateway call logs.tail
kill $gateway; wait $gateway
kill $journald; wait $journald
"""


def test_entries_of_this_gateway_are_read_from_the_journal(port: int, state_dir: Path) -> None:
    if os.geteuid() != 0 or not JOURNALD.exists() or shutil.which("unshare") is None:
        pytest.skip("needs root, unshare and systemd-journald")
    environ = clean_environ(
        OPENCLAW_GATEWAY_PORT=str(port),
        OPENCLAW_STATE_DIR=str(state_dir),
        OPENCLAW_GATEWAY_TOKEN=TOKEN,
        JOURNALD=str(JOURNALD),
        PYTHON=sys.executable,
        AS_A_SERVICE=AS_A_SERVICE,
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", IN_THE_NAMESPACE],
        env=environ,
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )
    if "permission denied" in done.stderr.lower():
        pytest.skip("may not mount in a namespace")
    answer = json.loads(done.stdout)
    assert answer["file"].startswith("journal:")
    (line,) = [line for line in answer["lines"] if "ready on" in line]
    assert json.loads(line)["level"] == "info" and answer["cursor"] > 1e15
