"""The guarded process: how it is started, what it inherits, and that it does not outlive its guard."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from conftest import CAP_S

PREAMBLE = """
import json, os, select, signal, sys
from openclaw_gateway.guard.child import Child, descendants, environment
from openclaw_gateway.host.process import socket_inodes
"""


def guard(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a script in a process of its own, as a guard has: a child is started from the only thread there is."""
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(script: str, *arguments: str) -> str:
    running = guard(script, *arguments)
    said, errors = running.communicate(timeout=CAP_S)
    assert running.returncode == 0, errors
    return said


def gone(pid: int) -> None:
    """Wait for the end of a process that is not ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with open(fd, "rb"):
        assert select.select([fd], [], [], CAP_S)[0], f"pid {pid} lives on"


@pytest.mark.parametrize(
    ("program", "end"),
    [
        ("exit 0", [0, None]),
        ("exit 78", [78, None]),
        ("kill -KILL $$", [None, 9]),
        ("kill -TERM $$", [None, 15]),
    ],
)
def test_the_end_is_told(program: str, end: list[int | None]) -> None:
    said = output(
        """
        child = Child(["sh", "-c", sys.argv[1]], os.environ)
        select.select([child.pidfd], [], [])
        print(json.dumps(child.reap()))
        """,
        program,
    )
    assert json.loads(said) == end


def test_what_cannot_be_executed_is_named(tmp_path: Path) -> None:
    plain = tmp_path / "program"
    plain.write_text("not executable")
    for name, why in ((str(plain), "Permission denied"), ("no-such-program", "No such file")):
        said = output(
            """
            from openclaw_gateway.errors import ConfigurationError
            try:
                Child([sys.argv[1]], os.environ)
            except ConfigurationError as error:
                print(error, int(error.exit_code))
            """,
            name,
        )
        assert f"{name}: cannot be executed: {why}" in said
        assert said.rstrip().endswith("78")


def test_the_child_has_a_clean_start() -> None:
    """No signal blocked or ignored, nothing on standard input, a group of its own, no descriptor of ours."""
    probe = (
        "import os, signal, json;"
        "ignored = [n for n in range(1, 32) if signal.getsignal(n) is signal.SIG_IGN];"
        "status = open('/proc/self/status').read();"
        "masks = {l.split(':')[0]: int(l.split(':')[1], 16) for l in status.splitlines() if l[:3] == 'Sig' and 'Q' not in l};"
        "print(json.dumps({'blocked': masks['SigBlk'], 'input': os.read(0, 1).decode(),"
        " 'leads': os.getpgid(0) == os.getpid(), 'ignored': masks['SigIgn'],"
        " 'fds': sorted(os.listdir('/proc/self/fd'))}), flush=True)"
    )
    said = output(
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        kept = os.open("/", os.O_RDONLY)
        child = Child(["/usr/bin/python3", "-c", sys.argv[1]], os.environ)
        select.select([child.pidfd], [], [])
        """,
        probe,
    )
    found = json.loads(said)
    python_itself = (1 << signal.SIGPIPE - 1) | (1 << signal.SIGXFSZ - 1)
    assert found["blocked"] == 0
    # Those that glibc keeps for itself can't be set, by anyone: signal(7), "Real-time signals".
    ours = sum(1 << number - 1 for number in signal.valid_signals())
    assert found["ignored"] & ours & ~python_itself == 0
    assert (found["input"], found["leads"]) == ("", True)
    assert len(found["fds"]) == 4  # the three, and the one that lists them


@pytest.mark.parametrize("stopped", [False, True])
def test_a_killed_guard_takes_its_child_along(stopped: bool) -> None:
    running = guard(
        """
        child = Child(["sleep", "600"], os.environ)
        print(child.pid, flush=True)
        select.select([child.pidfd], [], [])
        """
    )
    assert running.stdout
    pid = int(running.stdout.readline())
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    running.kill()
    running.communicate(timeout=CAP_S)
    gone(pid)


def test_orphans_of_the_child_stay_in_view_and_are_reaped() -> None:
    said = output(
        """
        child = Child(["sh", "-c", "sleep 600 & echo $!; sleep 600 & echo $!"], os.environ)
        select.select([child.pidfd], [], [])
        end = child.reap()
        orphans = set(child.family())
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        while set(child.family()):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            child.reap()
        print(json.dumps([end, len(orphans)]))
        """
    )
    assert json.loads(said.splitlines()[-1]) == [[0, None], 2]


LISTENER = """
import os, signal, socket
if os.fork():
    os.waitpid(-1, 0)
else:
    bound = socket.create_server(("127.0.0.1", 0))
    print(os.fstat(bound.fileno()).st_ino, flush=True)
    signal.pause()
"""


def test_the_family_and_its_sockets_are_seen_down_to_grandchildren() -> None:
    said = output(
        """
        told, tell = os.pipe()
        own = os.dup(1)
        os.dup2(tell, 1)
        child = Child(["/usr/bin/python3", "-c", sys.argv[1]], os.environ)
        os.dup2(own, 1)
        inode = int(os.read(told, 100))
        family = set(child.family())
        print(json.dumps([inode in socket_inodes(family), len(family)]))
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        """,
        LISTENER,
    )
    assert json.loads(said) == [True, 2]


def test_environment_keeps_what_is_ours_from_the_child() -> None:
    from openclaw_gateway.guard.child import environment

    ours = {
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "NODE_COMPILE_CACHE": "/c",
        "OPENCLAW_SERVICE_MARKER": "openclaw",
        "OPENCLAW_SERVICE_KIND": "gateway",
    }
    kept = {"PATH": "/bin", "INVOCATION_ID": "abc", "OPENCLAW_GATEWAY_TOKEN": "t"}
    places = {"port": 18790, "state_dir": "/s", "config_path": "/c/openclaw.json"}
    made = environment(ours | kept, **places, unit="openclaw-guard@ada.service")  # type: ignore[arg-type]
    assert made == kept | {
        "OPENCLAW_GATEWAY_PORT": "18790",
        "OPENCLAW_STATE_DIR": "/s",
        "OPENCLAW_CONFIG_PATH": "/c/openclaw.json",
        "OPENCLAW_SYSTEMD_UNIT": "openclaw-guard@ada.service",
    }
    assert "OPENCLAW_SYSTEMD_UNIT" not in environment(kept, **places, unit=None)  # type: ignore[arg-type]
