"""What systemd hears, through a real notify socket; and that nothing about that socket can hurt us."""

from __future__ import annotations

import errno
import os
import queue
import signal
import socket
import time
from pathlib import Path

import pytest

from conftest import CAP_S, NotifySocket, Start
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import probe
from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.supervisor.notify import Supervisor
from openclaw_gateway.supervisor.persistence import Persistence


def index_of(heard: list[str], assignment: str) -> int:
    (found,) = (i for i, message in enumerate(heard) if assignment in message.splitlines())
    return found


def test_ready_is_said_once_and_only_when_the_port_answers(
    start: Start, port: int, notify: NotifySocket
) -> None:
    start(NOTIFY_SOCKET=notify.path)
    message = notify.wait_for("READY=1")
    assert probe("127.0.0.1", port) is Health.HEALTHY
    assert f"STATUS=ready on ws://127.0.0.1:{port}" in message
    assert sum("READY=1" in heard for heard in notify.drain()) == 1


def test_healthy_duplicate_exits_78_without_server_code_and_without_a_trace(
    start: Start, port: int, notify: NotifySocket, tmp_path: Path
) -> None:
    owner = start().ready()
    other = tmp_path / "other"
    second = start(
        "--state-dir", str(other), NOTIFY_SOCKET=notify.path, PYTHONPROFILEIMPORTTIME="1"
    )
    assert second.finish() == 78
    loaded = {line.rpartition("|")[2].strip() for line in second.log}
    assert "openclaw_gateway.client.health" in loaded
    assert not {"h11", "websockets", "asyncio", "requests", "http.client", "ssl"} & loaded
    assert [path for path in other.rglob("*") if not path.is_dir()] == []
    (message,) = notify.drain()
    assert (
        f"STATUS=another gateway instance is already listening on ws://127.0.0.1:{port}" in message
    )
    assert f"ERRNO={errno.EADDRINUSE}" in message.splitlines()
    assert f"pid {owner.pid}" in "\n".join(second.log)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--port", "x"], 78, f"ERRNO={errno.EINVAL}"),
        (["--config", "/proc/self/mem"], 1, f"ERRNO={errno.EIO}"),
        # A link-local address without its interface: unlike one that is not there yet, never right.
        (["--host", "fe80::1"], 1, f"ERRNO={errno.EINVAL}"),
        (["--state-dir", "/dev/null"], 73, f"ERRNO={errno.ENOTDIR}"),
    ],
)
def test_failed_start_tells_systemd_the_errno_that_it_is_about(
    start: Start, notify: NotifySocket, arguments: list[str], code: int, word: str
) -> None:
    assert start(*arguments, NOTIFY_SOCKET=notify.path).finish() == code
    (message,) = notify.drain()
    assert word in message.splitlines()


def test_failed_start_without_an_errno_tells_systemd_none(
    start: Start, notify: NotifySocket, state_dir: Path
) -> None:
    state_dir.mkdir()
    state_dir.chmod(0o777)
    assert start(NOTIFY_SOCKET=notify.path).finish() == 73
    (message,) = notify.drain()
    assert "STATUS=cannot use" in message and "ERRNO=" not in message


def test_systemd_exec_pid_of_ourselves_means_supervised(start: Start) -> None:
    start().ready()
    # The shell becomes the gateway, so that the variable holds its pid.
    assert start(SYSTEMD_EXEC_PID="1").finish() == 1
    environ = {"SYSTEMD_EXEC_PID": str(os.getpid())}
    assert Supervisor(environ).present
    assert not Supervisor({"SYSTEMD_EXEC_PID": "1", "INVOCATION_ID": "ab"}).present


def test_hung_owner_under_systemd_is_waited_for_then_75_never_78(
    start: Start, notify: NotifySocket
) -> None:
    owner = start().ready()
    owner.signal(signal.SIGSTOP)
    second = start("--health-timeout", "3", NOTIFY_SOCKET=notify.path)
    assert second.finish() == 75
    heard = notify.drain()
    assert any("EXTEND_TIMEOUT_USEC=" in message for message in heard)
    waiting = f": the state directory is held by pid {owner.pid}"
    assert any("STATUS=waiting up to" in message and waiting in message for message in heard)
    assert "STATUS=gateway already running" in heard[-1]
    assert not any("READY=1" in message for message in heard)


def test_starting_owner_is_waited_for_and_then_recognized(
    start: Start, notify: NotifySocket
) -> None:
    owner = start().ready()
    owner.signal(signal.SIGSTOP)
    second = start("--health-timeout", "60", NOTIFY_SOCKET=notify.path)
    second.wait_for("waiting")
    owner.signal(signal.SIGCONT)
    assert second.finish() == 78


def test_gateway_of_our_own_invocation_is_not_our_duplicate(
    start: Start, notify: NotifySocket
) -> None:
    start(NOTIFY_SOCKET=notify.path, INVOCATION_ID="ab" * 16)
    notify.wait_for("READY=1")
    again = start("--health-timeout", "0.5", NOTIFY_SOCKET=notify.path, INVOCATION_ID="ab" * 16)
    assert again.finish() == 75
    other = start(NOTIFY_SOCKET=notify.path, INVOCATION_ID="cd" * 16)
    assert other.finish() == 78


def test_stop_says_stopping_and_exits_0(start: Start, notify: NotifySocket) -> None:
    daemon = start(NOTIFY_SOCKET=notify.path)
    notify.wait_for("READY=1")
    assert daemon.stop() == 0
    assert index_of(notify.drain(), "STOPPING=1") == len(notify.heard) - 1
    assert len(daemon.log) == 3  # started, stopping, stopped


def test_good_reload_takes_effect_and_says_what_waits_for_a_restart(
    start: Start, state_dir: Path, notify: NotifySocket
) -> None:
    state_dir.mkdir()
    config = state_dir / "openclaw.json"
    config.write_text("{}")
    daemon = start(NOTIFY_SOCKET=notify.path).ready()
    started = len(daemon.log)
    notify.wait_for("READY=1")
    config.write_text(
        '{logging: {level: "error"}, gateway: {customBindHost: "127.0.0.2", bind: "custom"}}'
    )
    daemon.signal(signal.SIGHUP)
    reloading = notify.wait_for("RELOADING=1")
    assert "MONOTONIC_USEC=" in reloading
    notify.wait_for("READY=1")
    daemon.stop()
    # From "error" on, neither the reload nor the stop is worth a line.
    assert daemon.log[started:] == []


def test_bad_reload_changes_nothing_and_says_why(
    start: Start, state_dir: Path, port: int, notify: NotifySocket
) -> None:
    daemon = start(NOTIFY_SOCKET=notify.path)
    notify.wait_for("READY=1")
    (state_dir / "openclaw.json").write_text('{"gateway": {"bind": "x"}}')
    daemon.signal(signal.SIGHUP)
    notify.wait_for("READY=1")
    line = daemon.wait_for("reload refused, the old settings stay")
    assert f"{state_dir}/openclaw.json:1:14 gateway.bind: must be" in line
    assert probe("127.0.0.1", port) is Health.HEALTHY


def test_watchdog_is_fed_while_all_is_well(start: Start, notify: NotifySocket) -> None:
    daemon = start(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="600000")
    notify.wait_for("READY=1")
    for _ in range(3):
        notify.wait_for("WATCHDOG=1")
    assert daemon.stop() == 0


def test_late_tick_shows_as_degraded_and_is_over_with_the_next_one(
    start: Start, notify: NotifySocket
) -> None:
    daemon = start(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="600000")
    notify.wait_for("WATCHDOG=1")
    daemon.signal(signal.SIGSTOP)
    time.sleep(0.5)  # what is tested is that time passes; half a watchdog interval and more
    daemon.signal(signal.SIGCONT)
    notify.wait_for("STATUS=degraded: the event loop was")
    notify.wait_for("WATCHDOG=1")
    notify.wait_for("STATUS=ready on")
    assert daemon.stop() == 0


def test_watchdog_of_another_process_is_not_fed(start: Start, notify: NotifySocket) -> None:
    assert Supervisor({"WATCHDOG_USEC": "600000", "WATCHDOG_PID": "1"}).watchdog_s is None
    assert (
        Supervisor({"WATCHDOG_USEC": "600000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 0.6
    )
    assert Supervisor({"WATCHDOG_USEC": "600000"}).watchdog_s == 0.6
    assert Supervisor({"WATCHDOG_USEC": "0"}).watchdog_s is None


def test_supervisor_takes_its_variables_out_of_the_environment(notify: NotifySocket) -> None:
    environ = {"NOTIFY_SOCKET": notify.path, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "X": "y"}
    Supervisor(environ)
    assert environ == {"X": "y"}


def speaking_to(address: str) -> Supervisor:
    return Supervisor({"NOTIFY_SOCKET": address})


def test_status_survives_any_alphabet_and_injects_no_fields(notify: NotifySocket) -> None:
    speaking_to(notify.path).status("läuft ✓\nREADY=1\n  ok")
    assert notify.wait_for("STATUS=") == "STATUS=läuft ✓ READY=1 ok"


def test_what_the_process_inherited_is_not_spoken_to(
    notify: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inherited:
        inherited.bind("")  # a name of the kernel's choice: unix(7), "autobind"
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + inherited.getsockname()[1:].decode())
        speaking_to(notify.path).status("x")
        assert notify.wait_for("STATUS=") == "STATUS=x"
        inherited.setblocking(False)
        with pytest.raises(BlockingIOError):
            inherited.recv(100)


def test_same_status_is_sent_once(notify: NotifySocket) -> None:
    supervisor = speaking_to(notify.path)
    for _ in range(3):
        supervisor.status("same")
    assert notify.drain() == ["STATUS=same"]


def test_full_socket_neither_blocks_nor_raises(notify: NotifySocket) -> None:
    supervisor = speaking_to(notify.path)
    for number in range(5000):
        supervisor.status(f"{number}")
    assert 0 < len(notify.drain()) < 5000


def test_what_matters_is_repeated_until_it_is_taken_and_in_order(notify: NotifySocket) -> None:
    supervisor = speaking_to(notify.path)
    with notify.crowded():
        supervisor.ready("one")
        supervisor.reloading()
        supervisor.status("lost")
        supervisor.ready("two")
    assert "STATUS=one" in notify.wait_for("READY=1")
    notify.wait_for("RELOADING=1")
    assert "STATUS=two" in notify.wait_for("READY=1")
    supervisor.status("heard")
    assert notify.wait_for("STATUS=") == "STATUS=heard"


def test_what_is_no_longer_true_is_not_repeated(notify: NotifySocket) -> None:
    supervisor = speaking_to(notify.path)
    with notify.crowded():
        supervisor.ready("one")
        supervisor.stopping("bye")
    notify.wait_for("STOPPING=1")
    assert not any("READY=1" in heard for heard in notify.heard)


def test_gateway_that_met_a_full_queue_becomes_ready(start: Start, notify: NotifySocket) -> None:
    with notify.crowded():
        daemon = start(NOTIFY_SOCKET=notify.path).ready()
    notify.wait_for("READY=1")
    assert daemon.stop() == 0


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_socket_that_is_made_anew_is_spoken_to(tmp_path: Path, kind: str) -> None:
    name = f"openclaw-gateway-test-{os.getpid()}"
    path = tmp_path / "notify"
    bound, address = (str(path), str(path)) if kind == "path" else (f"\0{name}", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(bound)
        supervisor = speaking_to(address)
    supervisor.ready("nobody there")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(bound)
        second.settimeout(CAP_S)
        assert second.recv(100).startswith(b"READY=1\n")
        supervisor.finish()


def test_loss_of_what_matters_is_logged(start: Start) -> None:
    daemon = start(NOTIFY_SOCKET="/nonexistent").ready()
    line = daemon.wait_for("systemd does not take READY=1: No such file or directory")
    assert line.startswith("openclaw-gateway: warning: ")
    assert daemon.stop() == 0
    assert any("systemd never took STOPPING=1" in line for line in daemon.log)


def test_repetition_has_an_end() -> None:
    said: queue.Queue[str] = queue.Queue()
    refusal = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    repeating = Persistence(lambda message: refusal, complain=said.put, patience_s=0.0)
    repeating.add("READY=1\nSTATUS=x")
    assert "does not take READY=1: Resource temporarily unavailable; given up" in said.get(
        timeout=CAP_S
    )
    repeating.finish(timeout_s=CAP_S)
    assert said.empty()


@pytest.mark.parametrize("address", ["/does/not/exist", "@openclaw-gateway-test-nobody", ""])
def test_missing_socket_neither_blocks_nor_raises(address: str) -> None:
    speaking_to(address).ready("x")


def test_abstract_socket_is_spoken_to() -> None:
    name = f"openclaw-gateway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(CAP_S)
        speaking_to(f"@{name}").ping()
        assert listening.recv(100) == b"WATCHDOG=1"


def test_invalid_configuration_exits_78_and_says_where(
    start: Start, state_dir: Path, notify: NotifySocket
) -> None:
    state_dir.mkdir()
    (state_dir / "openclaw.json").write_text('{"gateway": {"bind": "everywhere"}}')
    daemon = start(NOTIFY_SOCKET=notify.path)
    assert daemon.finish() == ConfigurationError.exit_code
    (message,) = notify.drain()
    assert f"STATUS={state_dir}/openclaw.json:1:14 gateway.bind: must be" in message
