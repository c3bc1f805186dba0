"""Standard descriptors that are closed, or whose reader has gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import CAP_S, NotifySocket, clean_environ


def shell(script: str, *, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of bash's in which ``$PYTHON -m openclaw_gateway`` is the command."""
    environ = clean_environ(HOME=str(home), PYTHON=sys.executable, **variables)
    return subprocess.run(
        ["bash", "-c", script],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
        timeout=CAP_S,
    )


def test_daemon_without_standard_descriptors_serves_and_has_nothing_else_in_their_place(
    port: int, state_dir: Path, notify: NotifySocket
) -> None:
    environ = clean_environ(
        OPENCLAW_GATEWAY_PORT=str(port),
        OPENCLAW_STATE_DIR=str(state_dir),
        NOTIFY_SOCKET=notify.path,
    )
    command = 'exec "$0" -m openclaw_gateway run <&- >&- 2>&-'
    daemon = subprocess.Popen(["bash", "-c", command, sys.executable], env=environ)
    try:
        notify.wait_for("READY=1")
        places = [os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in range(3)]
        assert places == ["/dev/null"] * 3
    finally:
        daemon.terminate()
        assert daemon.wait(CAP_S) == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_status_needs_no_standard_descriptor(tmp_path: Path, port: int, closed: str) -> None:
    done = shell(f"$PYTHON -m openclaw_gateway status --port {port} {closed}", home=tmp_path)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize(
    "verb", ["status", "status --json", "doctor", "probe", "config", "--help", "status --help"]
)
def test_reader_that_leaves_ends_it_quietly(tmp_path: Path, verb: str) -> None:
    # The pipe's reader is gone before anything is written.
    script = f"exec 3> >(exec true); wait $!; $PYTHON -m openclaw_gateway {verb} >&3"
    done = shell(script, home=tmp_path)
    assert (done.returncode, done.stderr) == (141, "")
