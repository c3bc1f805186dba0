"""SIGKILL at every system call of start and shutdown in turn: the next start works at first attempt."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conftest import CAP_S
from faults.extent import extent
from faults.life import Home
from faults.stepper import Stepped
from node_like import NodeLike
from openclaw_gateway.claim.listener import listen

STRIDE = extent("CRASH_STRIDE", 4, 1)
"""1 kills at every call; 4 at every fourth, beginning with a random one of the first four."""

EXEC_STRIDE = extent("CRASH_EXEC_STRIDE", 800, 80)
"""The same for a process started with exec, whose imports are thousands of calls."""

_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with closing(Home(tmp_path)) as made:
        yield made


def live_until(home: Home, process: Stepped, last: int) -> bool:
    """Let a gateway start and stop, but kill it at the door of its ``last`` system call; whether it got that far."""
    told = False
    for _ in range(last - 1):
        if process.call() is None or process.result() is None:
            return False
        if not told and home.is_ready():
            os.kill(process.pid, signal.SIGTERM)
            told = True
    reached = process.call() is not None
    process.kill()
    return reached


def assert_next_start_is_undisturbed(home: Home, last: int) -> None:
    home.is_ready()  # what the dead one said counts no more
    home.log()
    code, log = home.whole_life(), home.log()
    assert code == 0, f"after a kill at call {last}: exit code {code}\n{log}"
    assert "waiting" not in log and "reclaim" not in log, f"after a kill at call {last}:\n{log}"
    assert home.litter() == [], f"after a kill at call {last}"


def test_a_kill_at_any_system_call_leaves_nothing_in_the_way(home: Home) -> None:
    last = random.randint(1, STRIDE)
    while live_until(home, Stepped(home.live), last):
        assert_next_start_is_undisturbed(home, last)
        last += STRIDE
    assert last > 250, f"a life has only {last} system calls?"


def test_a_kill_at_any_system_call_leaves_who_waits_to_the_next_start(home: Home) -> None:
    """
    systemd has copies of the listening sockets; here it is the test that has them.

    Whoever was let in before the kill is cut off, whoever was not goes on waiting, and nobody is refused.
    """
    stride = 2 * STRIDE
    last = random.randint(1, stride)
    with listen("127.0.0.1", home.port) as four, listen("::1", home.port) as six:
        handed = [four, six]
        while live_until(home, Stepped(lambda: home.live(handed=handed)), last):
            home.is_ready()
            home.log()
            with socket.create_connection(("127.0.0.1", home.port)) as client:
                client.sendall(_REQUEST)
                code, log = home.whole_life(handed=handed), home.log()
                client.settimeout(CAP_S)
                answer = client.recv(100)
            assert code == 0, f"after a kill at call {last}: exit code {code}\n{log}"
            assert "waiting" not in log and "reclaim" not in log, f"at call {last}:\n{log}"
            assert answer.startswith(b"HTTP/1.1 200 "), f"after a kill at call {last}: {answer!r}"
            last += stride
    assert last > 250, f"a life has only {last} system calls?"


def test_a_kill_of_an_executed_gateway_leaves_nothing_in_the_way(home: Home) -> None:
    last = random.randint(1, EXEC_STRIDE)
    while live_until(home, Stepped(home.execute), last):
        assert_next_start_is_undisturbed(home, last)
        last += EXEC_STRIDE
    assert last > 1000, f"a life has only {last} system calls?"


def test_a_kill_of_a_start_that_meets_openclaws_gateway_leaves_its_records(home: Home) -> None:
    """It holds its locks and does not listen yet."""
    with closing(NodeLike(home.state, home.state / "openclaw.json", home.port)) as node:
        before = node.does("lock", "record").said()
        last = random.randint(1, STRIDE)
        while live_until(home, Stepped(lambda: home.live(flags={"--health-timeout": "0"})), last):
            assert node.said() == before, f"after a kill at call {last}"
            last += STRIDE
        assert not home.is_ready()
        assert node.said() == before
    assert last > 50, f"a start has only {last} system calls?"
    home.log()
    assert home.whole_life() == 0
