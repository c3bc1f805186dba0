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
from openclaw_gateway.claim.lockfile import (
    STATE_LOCK_NAME,
    DirectoryLock,
    LockFile,
    lock_directory_parts,
)
from openclaw_gateway.claim.record import LockRecord, Phase, parse
from openclaw_gateway.host import process

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


def unshared(
    state_dir: Path, *namespaces: str, options: tuple[str, ...] = (), **variables: str
) -> subprocess.Popen[str]:
    """Start a gateway on another port in namespaces of its own; the words are those of unshare(1)."""
    defaults = {
        "OPENCLAW_STATE_DIR": str(state_dir),
        "OPENCLAW_GATEWAY_PORT": str(free_port()),
    }
    words = ["unshare", *namespaces, "--fork", "--kill-child"]
    return subprocess.Popen(
        [*words, sys.executable, "-m", "openclaw_gateway", *options],
        env=clean_environ(**(defaults | variables)),
        stderr=subprocess.PIPE,
        text=True,
    )


def test_unreadable_record_of_a_held_lock_leaves_the_kernels_word_and_is_not_78(
    start: Start, state_dir: Path
) -> None:
    """Nothing says where the owner listens: it can't be proved healthy. Who it is the lock table says."""
    owner = start().ready()
    lock_path(state_dir).write_bytes(b"\0garbage")
    port = str(free_port())
    second = start(
        "--health-timeout", "1", NOTIFY_SOCKET="/nonexistent", OPENCLAW_GATEWAY_PORT=port
    )
    assert second.finish() == 75
    said = "\n".join(second.log)
    assert f"gateway already running (pid {owner.pid})" in said
    assert f"on port {port} is nothing listening" in said
    assert owner.process.poll() is None


@root_only
def test_unreadable_record_of_an_invisible_owner_is_an_unknown_owner_and_not_78(
    start: Start, state_dir: Path
) -> None:
    """From another PID namespace the kernel names no holder either."""
    owner = start().ready()
    lock_path(state_dir).write_bytes(b"\0garbage")
    namespaces, patience = ("--pid", "--mount-proc"), ("--health-timeout", "1")
    with unshared(state_dir, *namespaces, options=patience, NOTIFY_SOCKET="/nonexistent") as second:
        _, said = second.communicate(timeout=CAP_S)
    assert second.returncode == 75, said
    assert "gateway already running (pid unknown)" in said
    assert "held by a process that we may not see" in said
    assert owner.process.poll() is None


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
    with unshared(state_dir, "--net", options=("--lock-timeout", "0")) as second:
        _, said = second.communicate(timeout=CAP_S)
    assert second.returncode == 1
    assert "gateway" in said and "Traceback" not in said


@root_only
def test_owner_in_another_pid_namespace_is_respected_and_not_named_wrongly(
    start: Start, state_dir: Path
) -> None:
    """There the starter is a low pid itself, and the owner's pid means nothing."""
    owner = start().ready()
    namespaces = ("--pid", "--mount-proc")
    with unshared(state_dir, *namespaces, options=("--lock-timeout", "0")) as second:
        _, said = second.communicate(timeout=CAP_S)
    assert second.returncode == 1, said
    assert "already" in said and "Traceback" not in said
    assert owner.process.poll() is None


TIME_NAMESPACE = ("--time", "--boottime", "100000")
"""Start ticks are shifted by the namespace's offset; the kernel's lock does not care. time_namespaces(7)."""


@root_only
def test_owner_in_a_time_namespace_is_recognized(start: Start, state_dir: Path) -> None:
    with unshared(state_dir, *TIME_NAMESPACE) as launcher:
        try:
            assert launcher.stderr
            assert any("ready on" in line for line in launcher.stderr)
            record = parse(lock_path(state_dir).read_bytes())
            seen = record and process.facts(record.pid)
            assert record and seen and record.start_ticks, "no owner, or none with start ticks"
            assert record.start_ticks > seen.start_ticks, "its clock is ours"
            second = start("--lock-timeout", "0")
            assert second.finish() == 1
            said = "\n".join(second.log)
            assert f"held by pid {record.pid} " in said and "Traceback" not in said
            assert process.facts(record.pid) == seen
        finally:
            launcher.kill()


@root_only
def test_starter_in_a_time_namespace_recognizes_the_owner(start: Start, state_dir: Path) -> None:
    owner = start().ready()
    with unshared(state_dir, *TIME_NAMESPACE, options=("--lock-timeout", "0")) as second:
        _, said = second.communicate(timeout=CAP_S)
    assert second.returncode == 1, said
    assert f"held by pid {owner.pid} " in said and "Traceback" not in said


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


def process_with(pid: int) -> subprocess.Popen[bytes]:
    """Start processes that do nothing until one is given that pid, by way of ``ns_last_pid``; pid_namespaces(7)."""
    for _ in range(1000):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        made = subprocess.Popen(["sleep", "600"])
        if made.pid == pid:
            return made
        made.kill()  # another one on this machine was faster
        made.wait()
    raise AssertionError(f"pid {pid} is never given again")


@root_only
def test_reused_pid_does_not_hold_up_a_start(start: Start, state_dir: Path) -> None:
    """The dead owner's pid is given to another process."""
    owner = start().ready()
    owner.kill()
    stranger = process_with(owner.pid)
    try:
        left = parse(lock_path(state_dir).read_bytes())
        assert left and left.pid == stranger.pid
        daemon = start().ready()
        assert "waiting" not in "\n".join(daemon.log)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
