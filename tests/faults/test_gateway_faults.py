"""Faults that only a gateway can have, or that need more of the kernel than a lock file: namespaces, mounts, sockets."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conftest import CAP_S, Start, clean_environ, free_port
from faults.extent import extent
from faults.life import Home
from faults.stepper import Stepped
from openclaw_gateway.claim import process
from openclaw_gateway.claim.lockfile import (
    STATE_LOCK_NAME,
    DirectoryLock,
    LockFile,
    lock_directory_parts,
)
from openclaw_gateway.claim.ownership import LockRecord, Phase, parse

REWRITES = extent("RECORD_REWRITES", 5_000, 100_000)

root_only = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with closing(Home(tmp_path)) as made:
        yield made


def lock_path(state_dir: Path) -> Path:
    return state_dir.joinpath(*lock_directory_parts(), STATE_LOCK_NAME)


def test_owner_of_any_name_is_recognized(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 2"
    program.symlink_to("/bin/sleep")
    stranger = subprocess.Popen([program, "600"])
    try:
        facts = process.facts(stranger.pid)
        own = process.facts(os.getpid())
        assert facts and own and facts.start_ticks >= own.start_ticks
        assert "a) S 1 2" in str(process.describe(stranger.pid))
    finally:
        stranger.kill()
        stranger.wait()


def test_reader_never_sees_a_torn_record(state_dir: Path) -> None:
    state = DirectoryLock(str(state_dir))
    file = LockFile(state, STATE_LOCK_NAME)
    file.write(LockRecord(os.getpid(), port=1, phase=Phase.READY, boot_id="b"))
    torn, read = [], 0
    ended = threading.Event()

    def reader() -> None:
        nonlocal read
        while not ended.is_set():
            data = lock_path(state_dir).read_bytes()
            read += 1
            if parse(data) is None:
                torn.append(data)

    reading = threading.Thread(target=reader)
    reading.start()
    try:
        for number in range(REWRITES):
            name = "x" * (number % 700)
            file.write(LockRecord(os.getpid(), host=name, phase=Phase.READY, boot_id="b"))
    finally:
        ended.set()
        reading.join()
        file.release()
        state.release()
    assert read > REWRITES / 100
    assert torn == []


def test_unreadable_record_of_a_held_lock_is_an_unknown_owner_and_not_78(
    start: Start, state_dir: Path
) -> None:
    owner = start().ready()
    owner.signal(signal.SIGSTOP)
    lock_path(state_dir).write_bytes(b"\0garbage")
    supervised = {"NOTIFY_SOCKET": "/nonexistent"}
    second = start("--health-timeout", "1", **supervised)
    assert second.finish() == 75
    assert "Traceback" not in "\n".join(second.log)


@root_only
def test_state_reached_through_two_layers_of_an_overlay_is_guarded_by_the_port(
    home: Home, start: Start
) -> None:
    """The lock file is another inode in the upper layer than in the merged view: both can be locked."""
    upper = home.path / "upper"
    for name in ("lower", "upper", "work", "merged"):
        (home.path / name).mkdir(mode=0o700)
    options = f"lowerdir={home.path}/lower,upperdir={upper},workdir={home.path}/work"
    merged = home.path / "merged"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "none", merged], check=True)
    try:
        start("--state-dir", str(merged / "state")).ready()
        second = start("--state-dir", str(upper / "state"))
        assert second.finish() == 1
        assert "another gateway instance is already listening" in "\n".join(second.log)
    finally:
        subprocess.run(["umount", "--lazy", merged], check=True)


@root_only
def test_one_state_directory_in_two_network_namespaces_has_one_gateway(
    start: Start, state_dir: Path
) -> None:
    """Ports are per network namespace, files are not: the directory's lock is the guard."""
    start().ready()
    environ = clean_environ(
        OPENCLAW_STATE_DIR=str(state_dir), OPENCLAW_GATEWAY_PORT=str(free_port())
    )
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "openclaw_gateway", "--lock-timeout", "0"],
        env=environ, capture_output=True, text=True, timeout=CAP_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "gateway" in done.stderr and "Traceback" not in done.stderr


@root_only
def test_owner_in_another_pid_namespace_is_respected_and_not_named_wrongly(
    start: Start, state_dir: Path
) -> None:
    """There the starter is a low pid itself, and the owner's pid means nothing."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    owner = start().ready()
    environ = clean_environ(
        OPENCLAW_STATE_DIR=str(state_dir), OPENCLAW_GATEWAY_PORT=str(free_port())
    )
    done = subprocess.run(
        [*words, sys.executable, "-m", "openclaw_gateway", "--lock-timeout", "0"],
        env=environ, capture_output=True, text=True, timeout=CAP_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "already" in done.stderr and "Traceback" not in done.stderr
    assert owner.process.poll() is None


@root_only
def test_gateway_in_a_time_namespace_holds_and_is_recognized(start: Start, state_dir: Path) -> None:
    """Start ticks are shifted by the namespace's offset; the kernel's lock does not care."""
    words = ["unshare", "--time", "--boottime", "100000", "--fork", "--kill-child"]
    environ = clean_environ(
        OPENCLAW_STATE_DIR=str(state_dir), OPENCLAW_GATEWAY_PORT=str(free_port())
    )
    start().ready()
    done = subprocess.run(
        [*words, sys.executable, "-m", "openclaw_gateway", "--lock-timeout", "0"],
        env=environ, capture_output=True, text=True, timeout=CAP_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_rival_of_the_same_user_cannot_share_the_port(start: Start, port: int) -> None:
    with closing(socket.socket()) as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        rival.bind(("127.0.0.1", port))
        rival.listen()
        assert start("--lock-timeout", "0").finish() == 1
    start().ready()
    with closing(socket.socket()) as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError) as refusal:
            rival.bind(("127.0.0.1", port))
        assert refusal.value.errno == errno.EADDRINUSE


def test_gateway_makes_no_process_that_could_keep_its_locks(home: Home) -> None:
    """A forked child would share the locks; see flock(2)."""
    made = []
    life = Stepped(home.live)
    told = False
    while (call := life.call()) is not None:
        if call.name in ("fork", "vfork", "clone", "clone3"):
            made.append(call)
        if life.result() is None:
            break
        if not told and home.is_ready():
            os.kill(life.pid, signal.SIGTERM)
            told = True
    assert life.status == 0
    assert made == []


@root_only
def test_reused_pid_does_not_hold_up_a_start(start: Start, state_dir: Path) -> None:
    """The dead owner's pid is given to another process, by way of ``ns_last_pid``."""
    owner = start().ready()
    owner.kill()
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(owner.pid - 1))
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        daemon = start().ready()
        assert "waiting" not in "\n".join(daemon.log)
    finally:
        stranger.kill()
        stranger.wait()
