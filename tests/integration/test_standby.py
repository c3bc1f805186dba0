"""A standby: behind whom it waits, when it is ready, and that it takes over once its owner is gone."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

import program
from conftest import TOKEN, Daemon, NotifySocket, Start, clean_environ, free_port
from node_like import NodeLike
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import probe
from openclaw_gateway.host.ports import listening
from openclaw_gateway.host.process import socket_owner


def standby(start: Start, notify: NotifySocket, *arguments: str, **variables: str) -> Daemon:
    """Start one, and wait until it is ready behind its owner."""
    made = start("--standby", *arguments, NOTIFY_SOCKET=notify.path, **variables)
    assert "STATUS=standby behind" in notify.wait_for("READY=1")
    return made


def serves(port: int) -> set[int | None]:
    """Return the pids that listen on a port."""
    return {socket_owner(found.inode) for found in listening(port)}


def test_ready_behind_a_healthy_owner_and_ready_again_once_it_took_over(
    start: Start, port: int, notify: NotifySocket
) -> None:
    owner = start().ready()
    second = standby(start, notify)
    (ready,) = [message for message in notify.drain() if "READY=1" in message]
    assert f"STATUS=standby behind pid {owner.pid} (claw-gateway" in ready
    assert "takes over when it ends" in ready
    assert serves(port) == {owner.pid}
    owner.kill()
    assert f"STATUS=ready on ws://127.0.0.1:{port}" in notify.wait_for("READY=1")
    assert serves(port) == {second.pid}
    assert probe("127.0.0.1", port) is Health.HEALTHY
    assert f"taking over: pid {owner.pid}" in second.wait_for("taking over")
    assert second.stop() == 0


def test_owner_that_stops_in_peace_is_followed_too(
    start: Start, port: int, notify: NotifySocket
) -> None:
    owner = start().ready()
    second = standby(start, notify)
    assert owner.stop() == 0
    notify.wait_for("STATUS=ready on")
    assert serves(port) == {second.pid}


def test_without_an_owner_it_is_a_gateway_like_any_other(
    start: Start, port: int, notify: NotifySocket
) -> None:
    first = start("--standby", NOTIFY_SOCKET=notify.path)
    assert f"STATUS=ready on ws://127.0.0.1:{port}" in notify.wait_for("READY=1")
    assert first.stop() == 0
    assert not any("behind" in line for line in first.log)


def test_it_holds_nothing_while_it_waits(
    start: Start, port: int, state_dir: Path, notify: NotifySocket, tmp_path: Path
) -> None:
    start().ready()
    second = standby(start, notify, "--state-dir", str(tmp_path / "other"))
    held = {
        os.readlink(f"/proc/{second.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{second.pid}/fd")
    }
    assert not [path for path in held if str(state_dir) in path or str(tmp_path / "other") in path]
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    third = start("--state-dir", str(tmp_path / "other"), "--port", str(free_port())).ready()
    assert third.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stop_ends_it_with_0_and_leaves_the_owner_alone(
    start: Start, port: int, notify: NotifySocket, number: int
) -> None:
    owner = start().ready()
    second = standby(start, notify)
    second.signal(number)
    assert second.finish() == 0
    assert any("stopping on SIG" in line for line in second.log)
    assert serves(port) == {owner.pid}


def test_of_several_one_takes_over_and_the_others_stand_behind_it(
    start: Start, port: int, tmp_path: Path
) -> None:
    owner = start().ready()
    sockets = [NotifySocket(tmp_path / f"notify-{number}") for number in range(3)]
    waiting = {made.path: made for made in sockets}
    pids = {made.path: standby(start, made).pid for made in sockets}
    owner.kill()
    while serves(port) & set(pids.values()) == set():
        assert owner.process.poll() is not None
        time.sleep(0.01)
    (winner,) = serves(port)
    for path, pid in pids.items():
        if pid != winner:
            waiting[path].wait_for(f"STATUS=standby behind pid {winner} ")
        waiting[path].close()
    assert serves(port) == {winner}


def test_hung_owner_is_left_alone_until_somebody_ends_it(
    start: Start, port: int, notify: NotifySocket
) -> None:
    owner = start().ready()
    second = standby(start, notify, WATCHDOG_USEC="600000")
    owner.signal(signal.SIGSTOP)
    assert "which is not healthy" in notify.wait_for(f"STATUS=standby behind pid {owner.pid}")
    assert owner.process.poll() is None and serves(port) == {owner.pid}
    owner.kill()
    notify.wait_for("STATUS=ready on")
    assert serves(port) == {second.pid}


def test_owner_that_is_not_healthy_yet_makes_no_standby_ready(
    start: Start, notify: NotifySocket
) -> None:
    owner = start().ready()
    owner.signal(signal.SIGSTOP)
    start("--standby", NOTIFY_SOCKET=notify.path)
    message = notify.wait_for("STATUS=standby behind")
    assert "which is not healthy" in message
    notify.wait_for("EXTEND_TIMEOUT_USEC=")
    assert not any("READY=1" in heard for heard in notify.drain())
    owner.signal(signal.SIGCONT)
    assert f"STATUS=standby behind pid {owner.pid}" in notify.wait_for("READY=1")


def test_watchdog_is_fed_while_it_waits(start: Start, notify: NotifySocket) -> None:
    start().ready()
    standby(start, notify, WATCHDOG_USEC="300000")
    for _ in range(3):
        notify.wait_for("WATCHDOG=1")


def test_reload_changes_what_it_will_take_over_with(
    start: Start, port: int, state_dir: Path, notify: NotifySocket
) -> None:
    owner = start().ready()
    second = standby(start, notify)
    config = state_dir / "openclaw.json"
    config.write_text('{"gateway": {"port": "none"}, "logging": {"level": 7}}')
    second.signal(signal.SIGHUP)
    notify.wait_for("RELOADING=1")
    assert "STATUS=standby behind" in notify.wait_for("READY=1")
    second.wait_for("reload refused, the old settings stay")
    config.write_text('{"gateway": {"auth": {"mode": "none"}}}')
    second.signal(signal.SIGHUP)
    notify.wait_for("RELOADING=1")
    notify.wait_for("READY=1")
    second.wait_for("settings reloaded from")
    owner.kill()
    notify.wait_for("STATUS=ready on")


def test_setting_in_our_own_file_does_the_same(
    start: Start, state_dir: Path, notify: NotifySocket
) -> None:
    owner = start().ready()
    (state_dir / "openclaw-gateway.json").write_text('{"standby": true}')
    start(NOTIFY_SOCKET=notify.path)
    assert f"STATUS=standby behind pid {owner.pid}" in notify.wait_for("READY=1")


def test_configuration_that_no_restart_mends_is_no_reason_to_wait(start: Start) -> None:
    start().ready()
    assert start("--standby", "--host", "nonsense").finish() == 78


def test_gateway_of_openclaws_own_is_stood_behind(
    start: Start, port: int, state_dir: Path, notify: NotifySocket
) -> None:
    state_dir.mkdir(mode=0o700)
    node = NodeLike(state_dir, state_dir / "openclaw.json", port)
    try:
        node.does("lock", "record", "listen")
        second = start("--standby", NOTIFY_SOCKET=notify.path)
        assert f"STATUS=standby behind pid {node.pid}" in notify.wait_for("READY=1")
    finally:
        node.close()
    notify.wait_for("STATUS=ready on")
    assert serves(port) == {second.pid}


def test_guard_stands_by_and_starts_its_child_only_then(
    start: Start, port: int, tmp_path: Path, notify: NotifySocket
) -> None:
    owner = start().ready()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = [sys.executable, program.__file__, str(port), str(fifo)]
    guard = start("guard", "--standby", "--", *child, NOTIFY_SOCKET=notify.path)
    assert f"STATUS=standby behind pid {owner.pid}" in notify.wait_for("READY=1")
    owner.kill()
    assert "guarding pid" in notify.wait_for("STATUS=ready on")
    assert not any("started pid" in line for line in guard.log)
    guard.wait_for("taking over")
    guard.wait_for("started pid")
    assert guard.stop() == 0


def test_guard_is_stood_behind(
    start: Start, port: int, tmp_path: Path, notify: NotifySocket
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    guard = start("guard", "--", sys.executable, program.__file__, str(port), str(fifo))
    guard.wait_for("is ready on")
    second = start("--standby", NOTIFY_SOCKET=notify.path)
    assert f"STATUS=standby behind pid {guard.pid}" in notify.wait_for("READY=1")
    guard.kill()
    notify.wait_for("STATUS=ready on")
    assert serves(port) == {second.pid}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a pid namespace")
def test_owner_out_of_our_sight_is_looked_at_until_it_is_gone(
    start: Start, port: int, state_dir: Path, notify: NotifySocket
) -> None:
    owner = start().ready()
    own = [sys.executable, "-m", "openclaw_gateway", "--standby"]
    second = Daemon(
        *own,
        words=["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"],
        environ=clean_environ(
            OPENCLAW_GATEWAY_PORT=str(port),
            OPENCLAW_STATE_DIR=str(state_dir),
            OPENCLAW_GATEWAY_TOKEN=TOKEN,
            NOTIFY_SOCKET=notify.path,
        ),
    )
    try:
        message = notify.wait_for("READY=1")
        assert "STATUS=standby behind a process that we may not see" in message
        owner.kill()
        notify.wait_for("STATUS=ready on")
    finally:
        second.kill()
