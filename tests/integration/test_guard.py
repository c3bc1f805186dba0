"""A guard and its child: ready when that is, ended as that ends, alone on the port whoever else comes."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import program
import promtool
import scrape
from conftest import CAP_S, Daemon, NotifySocket, Start, clean_environ, free_port
from manual import displays
from node_like import NodeLike
from openclaw_gateway.claim.baseport import holder
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import probe
from openclaw_gateway.host import signals
from openclaw_gateway.host.ports import listening


class Guarded:
    """A guard, and the small program that it guards."""

    def __init__(self, start: Start, port: int, fifo: Path, *words: str, **variables: str) -> None:
        self.port, self._fifo = port, fifo
        options = [word for word in words if word.startswith("--")]
        words = tuple(word for word in words if not word.startswith("--"))
        child = [sys.executable, program.__file__, str(port), str(fifo), *words]
        self.guard: Daemon = start("guard", *options, "--", *child, **variables)

    @property
    def child_pid(self) -> int:
        if not hasattr(self, "_child_pid"):
            self._child_pid = int(self.guard.wait_for("started pid").split("pid ")[1].split()[0])
        return self._child_pid

    def ready(self) -> Guarded:
        assert self.child_pid
        self.guard.wait_for("is ready on")
        return self

    def tell(self, line: str) -> None:
        self._fifo.write_text(f"{line}\n")


Guard = Callable[..., Guarded]


@pytest.fixture
def guard(start: Start, port: int, tmp_path: Path) -> Iterator[Guard]:
    made = []

    def begin(*words: str, **variables: str) -> Guarded:
        fifo = tmp_path / f"fifo-{len(made)}"
        os.mkfifo(fifo)
        made.append(Guarded(start, port, fifo, *words, **variables))
        return made[-1]

    yield begin


def gone(pid: int) -> None:
    """Wait for the end of a process that is not ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], CAP_S)[0], f"pid {pid} lives on"
    finally:
        os.close(fd)


def test_ready_only_when_the_child_is(guard: Guard, notify: NotifySocket) -> None:
    guarded = guard("deaf", "starting", NOTIFY_SOCKET=notify.path)
    assert "does not listen on port" in notify.wait_for("STATUS=starting")
    guarded.tell("listen")
    while "is starting" not in notify.wait_for("STATUS=starting"):
        pass
    assert not any("READY=1" in message for message in notify.heard)
    guarded.tell("started")
    assert "ready on ws://127.0.0.1" in notify.wait_for("READY=1")


def test_time_for_the_start_is_asked_for_as_long_as_it_lives(
    guard: Guard, notify: NotifySocket
) -> None:
    guard("deaf", NOTIFY_SOCKET=notify.path)
    for _ in range(3):
        notify.wait_for("EXTEND_TIMEOUT_USEC=")


def test_child_that_never_gets_ready_is_stopped_and_fails(guard: Guard) -> None:
    guarded = guard("deaf", "--ready-timeout=0.5")
    pid = guarded.child_pid
    assert guarded.guard.finish() == 1
    log = "\n".join(guarded.guard.log)
    assert f"does not listen on port {guarded.port}" in log
    gone(pid)


def test_child_that_listens_elsewhere_has_both_ports_named(
    guard: Guard, notify: NotifySocket
) -> None:
    elsewhere = free_port()
    guarded = guard("elsewhere", str(elsewhere), NOTIFY_SOCKET=notify.path)
    wanted = f"listens on port {elsewhere}, and not on {guarded.port}"
    while wanted not in notify.wait_for("STATUS=starting"):
        pass


@pytest.mark.parametrize(
    ("line", "code"), [("exit 0", 0), ("exit 1", 1), ("exit 3", 3), ("exit 78", 78)]
)
def test_guard_ends_as_its_child_does(guard: Guard, line: str, code: int) -> None:
    guarded = guard().ready()
    guarded.tell(line)
    assert guarded.guard.finish() == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGHUP])
def test_child_that_a_signal_ends(guard: Guard, number: signal.Signals) -> None:
    guarded = guard().ready()
    os.kill(guarded.child_pid, number)
    assert guarded.guard.finish() == 128 + number


def test_exit_with_0_before_it_is_ready_is_a_failure(guard: Guard) -> None:
    guarded = guard("deaf")
    guarded.tell("exit 0")
    assert guarded.guard.finish() == 1


@pytest.mark.parametrize(
    "number", [*signals.STOPS, signal.SIGALRM, signal.SIGXCPU, signal.SIGRTMIN], ids=signals.name
)
def test_signals_stop_the_child_and_end_the_guard(
    guard: Guard, notify: NotifySocket, number: int
) -> None:
    guarded = guard(NOTIFY_SOCKET=notify.path).ready()
    guarded.guard.signal(number)
    notify.wait_for("STOPPING=1")
    assert guarded.guard.finish() == (0 if number in signals.STOPS else 128 + number)
    gone(guarded.child_pid)


def test_stop_before_it_is_ready(guard: Guard) -> None:
    guarded = guard("deaf")
    pid = guarded.child_pid
    assert guarded.guard.stop() == 0
    gone(pid)


def test_hangup_is_kept_from_the_child(guard: Guard) -> None:
    guarded = guard().ready()
    guarded.guard.signal(signal.SIGHUP)
    guarded.guard.wait_for("SIGHUP")
    assert probe("127.0.0.1", guarded.port) is Health.HEALTHY


def test_child_that_ignores_the_stop_is_waited_for(guard: Guard) -> None:
    """How long is systemd's affair: the guard has no timer of its own, and does not kill."""
    guarded = guard("stubborn").ready()
    guarded.guard.signal(signal.SIGTERM)
    guarded.guard.wait_for("stopping on SIGTERM")
    guarded.guard.signal(signal.SIGTERM)
    assert probe("127.0.0.1", guarded.port) is Health.HEALTHY
    guarded.tell("exit 0")
    assert guarded.guard.finish() == 0


def test_killed_guard_takes_its_child_along(guard: Guard) -> None:
    guarded = guard().ready()
    guarded.guard.kill()
    gone(guarded.child_pid)


def test_watchdog_is_fed_only_after_an_answer(guard: Guard, notify: NotifySocket) -> None:
    guarded = guard(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="1500000").ready()
    notify.wait_for("WATCHDOG=1")
    os.kill(guarded.child_pid, signal.SIGSTOP)
    assert "a listener that does not answer" in notify.wait_for("STATUS=degraded")
    notify.drain().clear()
    os.kill(guarded.child_pid, signal.SIGCONT)
    notify.wait_for("WATCHDOG=1")


def test_listener_that_vanishes_while_the_child_lives_is_degraded(
    guard: Guard, notify: NotifySocket
) -> None:
    guarded = guard(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="1500000").ready()
    notify.wait_for("WATCHDOG=1")
    guarded.tell("unlisten")
    assert "does not listen on port" in notify.wait_for("STATUS=degraded")


def test_listener_of_somebody_else_is_no_sign_of_life(
    guard: Guard, port: int, notify: NotifySocket
) -> None:
    guarded = guard("deaf", NOTIFY_SOCKET=notify.path)
    assert guarded.child_pid
    usurper = program.Program(guarded.port)
    usurper.listen()
    try:
        assert probe("127.0.0.1", guarded.port) is Health.HEALTHY
        while f", which pid {os.getpid()} (" not in notify.wait_for("STATUS=starting"):
            pass
        assert not any("READY=1" in message for message in notify.drain())
    finally:
        usurper.unlisten()
    guarded.guard.wait_for(f"another program listens on our port number, on ws://127.0.0.1:{port}")


def test_neighbour_on_another_address_is_told_of_once_and_shown_while_it_is_there(
    guard: Guard, notify: NotifySocket
) -> None:
    guarded = guard(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="600000").ready()
    neighbour = program.Program(guarded.port, host="127.0.0.2")
    neighbour.listen()
    beside = f"another program on ws://127.0.0.2:{guarded.port}"
    try:
        while beside not in notify.wait_for("STATUS=ready"):
            pass
        for _ in range(2):  # two more looks, of which nothing new comes
            notify.wait_for("WATCHDOG=1")
    finally:
        neighbour.unlisten()
    while beside in notify.wait_for("STATUS=ready"):
        pass
    assert guarded.guard.stop() == 0
    (told,) = [line for line in guarded.guard.log if "another program" in line]
    assert f"on ws://127.0.0.2:{guarded.port}: pid {os.getpid()} (" in told


@pytest.mark.parametrize("program", ["no-such-program", "env no-such-program"])
def test_what_can_not_be_executed_is_a_configuration_that_no_restart_mends(
    start: Start, program: str
) -> None:
    daemon = start("guard", "--", *program.split())
    assert daemon.finish() == 78
    assert "can" in daemon.log[-2] and "be executed" in daemon.log[-2]
    assert "PATH" in daemon.log[-1]


def test_launcher_in_between_is_seen_through(guard: Guard) -> None:
    guarded = guard("launch").ready()
    guarded.tell("exit 7")
    assert guarded.guard.finish() == 7


def test_child_that_forks_itself_away_is_no_child(guard: Guard) -> None:
    guarded = guard("fork")
    assert guarded.guard.process.wait(CAP_S) == 1
    guarded.tell("exit 0")  # else the log never ends: the runaway has it open
    guarded.guard.finish()
    assert "exited with 0 before it was ready" in "\n".join(guarded.guard.log)


def test_second_guard_is_a_duplicate(guard: Guard, start: Start, notify: NotifySocket) -> None:
    first = guard().ready()
    assert guard().guard.finish() == 1
    assert guard(NOTIFY_SOCKET=notify.path).guard.finish() == 78
    assert start(NOTIFY_SOCKET=notify.path).finish() == 78
    assert probe("127.0.0.1", first.port) is Health.HEALTHY


def test_guard_beside_our_own_gateway_is_a_duplicate(
    guard: Guard, start: Start, notify: NotifySocket
) -> None:
    start().ready()
    assert guard(NOTIFY_SOCKET=notify.path).guard.finish() == 78


def test_guard_beside_a_raw_gateway_on_its_port_is_a_duplicate(
    guard: Guard, port: int, notify: NotifySocket
) -> None:
    raw = program.Program(port)
    raw.listen()
    try:
        refused = guard(NOTIFY_SOCKET=notify.path)
        assert refused.guard.finish() == 78
        assert not any("started pid" in line for line in refused.guard.log)
    finally:
        raw.unlisten()


def test_guard_beside_a_raw_gateway_with_its_state_waits_then_gives_up(
    guard: Guard, state_dir: Path, port: int, notify: NotifySocket
) -> None:
    raw = NodeLike(state_dir, state_dir / "openclaw.json", port)
    try:
        raw.does("lock", "record")
        before = raw.said()
        refused = guard("--health-timeout=0.5", NOTIFY_SOCKET=notify.path)
        assert refused.guard.finish() == 75
        assert raw.said() == before
    finally:
        raw.close()


def test_78_of_a_child_beside_a_healthy_rival_is_78_and_names_it(
    guard: Guard, port: int, notify: NotifySocket
) -> None:
    guarded = guard("deaf", NOTIFY_SOCKET=notify.path)
    assert guarded.child_pid
    rival = program.Program(port)
    rival.listen()
    try:
        guarded.tell("exit 78")
        assert guarded.guard.finish() == 78
        assert f"already listening on ws://127.0.0.1:{port}" in "\n".join(guarded.guard.log)
    finally:
        rival.unlisten()


def test_78_of_a_child_beside_a_mute_rival_is_75(
    guard: Guard, port: int, notify: NotifySocket
) -> None:
    guarded = guard("deaf", "--health-timeout=0.5", NOTIFY_SOCKET=notify.path)
    assert guarded.child_pid
    with socket.create_server(("127.0.0.1", port)):
        guarded.tell("exit 78")
        assert guarded.guard.finish() == 75


def test_signal_from_elsewhere_names_who_took_the_port(guard: Guard) -> None:
    guarded = guard("deaf")
    assert guarded.child_pid
    usurper = program.Program(guarded.port)
    usurper.listen()
    try:
        os.kill(guarded.child_pid, signal.SIGKILL)
        assert guarded.guard.finish() == 137
    finally:
        usurper.unlisten()
    log = "\n".join(guarded.guard.log)
    assert f"port {guarded.port} is now held by pid {os.getpid()}" in log


def test_nothing_of_the_childs_is_written(guard: Guard, state_dir: Path) -> None:
    guarded = guard().ready()
    assert list(state_dir.rglob("gateway.*")) == []
    assert guarded.guard.stop() == 0
    assert list(state_dir.rglob("gateway.*")) == []


def test_whoever_asks_for_the_ports_holder_is_told_of_the_child(guard: Guard) -> None:
    guarded = guard().ready()
    found = holder(guarded.port)
    assert found is not None and found.record is not None
    assert (found.pid, found.record.child_pid) == (guarded.guard.pid, guarded.child_pid)
    assert found.record.phase == "ready"


def status(guarded: Guarded, state_dir: Path) -> dict[str, Any]:
    words = ["status", "--json", f"--port={guarded.port}"]
    done = subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", *words],
        env=clean_environ(OPENCLAW_STATE_DIR=str(state_dir)),
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )
    assert not done.stderr, done.stderr
    found = json.loads(done.stdout)
    assert found["owner"]["pid"] == guarded.guard.pid
    assert isinstance(found, dict)
    return found


def test_status_tells_whose_child_serves_and_calls_it_no_stranger(
    guard: Guard, state_dir: Path
) -> None:
    guarded = guard().ready()
    found = status(guarded, state_dir)
    assert found["exit_code"] == 0
    assert found["guarded"]["pid"] == guarded.child_pid
    assert found["disagreements"] == []


def test_status_sees_through_a_launcher(guard: Guard, state_dir: Path) -> None:
    guarded = guard("launch").ready()
    found = status(guarded, state_dir)
    (listener,) = found["listeners"]
    assert found["guarded"]["pid"] == listener["pid"] != guarded.child_pid
    assert (found["state"], found["disagreements"]) == ("unmanaged", [])
    guarded.tell("exit 0")  # a killed guard would leave it behind
    assert guarded.guard.finish() == 0


def test_status_says_how_far_a_child_is(guard: Guard, state_dir: Path) -> None:
    guarded = guard("deaf")
    assert guarded.child_pid
    found = status(guarded, state_dir)
    assert (found["state"], found["exit_code"]) == ("starting", 2)
    assert found["guarded"]["pid"] == guarded.child_pid


def test_status_names_a_gateway_that_took_the_port_from_under_a_child(
    guard: Guard, state_dir: Path
) -> None:
    guarded = guard().ready()
    guarded.tell("unlisten")
    while listening(guarded.port):
        time.sleep(0.01)  # it has been told, and there is no event for it
    usurper = program.Program(guarded.port)
    usurper.listen()
    try:
        found = status(guarded, state_dir)
    finally:
        usurper.unlisten()
    assert found["health"]["health"] == "healthy"
    assert (found["state"], found["exit_code"]) == ("not-serving", 1)
    assert f"pid {os.getpid()} (" in found["reason"]
    assert f"in the place of the guarded pid {guarded.child_pid} (" in found["reason"]


def test_manuals_example_of_another_program_works_as_it_stands_there(
    start: Start, port: int, tmp_path: Path
) -> None:
    (example,) = displays("openclaw-guard.8", "ANY OTHER PROGRAM")
    program, *words = shlex.split(example.replace("\\\n", "").replace("8000", str(port)))
    assert program == "openclaw-gateway"
    places = {"OPENCLAW_STATE_DIR": "", "OPENCLAW_GATEWAY_PORT": "", "HOME": str(tmp_path)}
    start(**places | {"OPENCLAW_GATEWAY_PORT": str(free_port())}).ready()
    daemon = start(*words, **places)  # beside a gateway of the same account
    daemon.wait_for("is ready on")
    assert daemon.stop() == 0
    assert "Traceback" not in "\n".join(daemon.log)


def test_answer_without_the_text_that_was_asked_for_is_not_enough(
    start: Start, port: int, tmp_path: Path, notify: NotifySocket
) -> None:
    page = tmp_path / "index.html"
    page.write_text("on my way")
    serves = [
        *("guard", "--health-path=/", "--health-body=all is well", "--startup-path=none"),
        *("--stop-signal=INT", "--", sys.executable, "-m", "http.server", str(port)),
        *("--bind", "127.0.0.1", "--directory", str(tmp_path)),
    ]
    daemon = start(*serves, NOTIFY_SOCKET=notify.path)
    while f"listens on port {port}, and there is" not in notify.wait_for("STATUS=starting"):
        pass
    page.write_text("all is well")
    daemon.wait_for("is ready on")
    assert daemon.stop() == 0


@pytest.mark.parametrize("address", ["127.0.0.3", "0.0.0.0"])
def test_program_is_asked_where_it_listens(start: Start, port: int, address: str) -> None:
    server = [sys.executable, "-m", "http.server", str(port), "--bind", address]
    options = ["--health-path=/", "--startup-path=none", "--stop-signal=INT"]
    daemon = start("guard", *options, "--", *server)
    daemon.wait_for("is ready on")
    assert daemon.stop() == 0


def test_what_a_guard_loads_is_little(start: Start, port: int) -> None:
    daemon = start("guard", "--", "true", PYTHONPROFILEIMPORTTIME="1")
    daemon.finish()
    loaded = {line.rpartition("|")[2].strip() for line in daemon.log if "import time" in line}
    assert not loaded & {"asyncio", "requests", "ssl", "http.client", "subprocess", "h11"}


class TestMetrics:
    """The file for node_exporter is true whenever the guard tells of something."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "metrics.prom"

    def read(self, file: Path) -> dict[str, float]:
        """Return the samples by what their names have behind the prefix."""
        found = scrape.samples(file.read_text())
        return {name.removeprefix("openclaw_guard_"): value for name, value in found.items()}

    def test_promtool_accepts_it_and_it_says_what_systemd_hears(
        self, guard: Guard, notify: NotifySocket, file: Path
    ) -> None:
        guarded = guard(
            "starting", f"--metrics={file}", NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="1500000"
        )
        while "starting" not in notify.wait_for("STATUS=starting"):
            pass
        started = self.read(file)
        assert (started["phase{starting}"], started["ready"]) == (1, 0)
        guarded.tell("started")
        notify.wait_for("READY=1")
        ready = self.read(file)
        assert (ready["phase{ready}"], ready["ready"], ready["degraded"]) == (1, 1, 0)
        assert ready["looks_total{healthy}"] >= 1
        assert ready["watchdog_interval_seconds"] == 1.5
        assert promtool.run("check", "metrics", stdin=file.read_text()) == ""
        notify.wait_for("WATCHDOG=1")
        os.kill(guarded.child_pid, signal.SIGSTOP)
        notify.wait_for("STATUS=degraded")
        mute = self.read(file)
        assert (mute["phase{ready}"], mute["ready"], mute["degraded"]) == (1, 0, 1)
        assert mute["looks_total{mute}"] >= 1
        assert mute["child_start_time_seconds"] == ready["child_start_time_seconds"]
        os.kill(guarded.child_pid, signal.SIGCONT)
        notify.wait_for("STATUS=ready")
        well = self.read(file)
        assert well["ready"] == 1
        pinged_s = well["watchdog_last_ping_timestamp_seconds"]
        assert pinged_s > ready["written_timestamp_seconds"]

    def test_stop_that_was_asked_for_removes_it(self, guard: Guard, file: Path) -> None:
        guarded = guard(f"--metrics={file}").ready()
        assert file.exists()
        assert guarded.guard.stop() == 0
        assert list(file.parent.glob("metrics*")) == []

    @pytest.mark.parametrize("line", ["exit 0", "exit 3", "exit 78"])
    def test_any_other_end_stands_in_it(self, guard: Guard, file: Path, line: str) -> None:
        guarded = guard(f"--metrics={file}").ready()
        guarded.tell(line)
        guarded.guard.finish()
        ended = self.read(file)
        assert (ended["phase{ended}"], ended["ready"]) == (1, 0)
        guard(f"--metrics={file}").ready()
        assert self.read(file)["ready"] == 1

    def test_file_that_cannot_be_written_is_said_once_and_guards_on(
        self, guard: Guard, notify: NotifySocket, tmp_path: Path
    ) -> None:
        nowhere = tmp_path / "nowhere/metrics.prom"
        guarded = guard(
            f"--metrics={nowhere}", NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="1500000"
        ).ready()
        for _ in range(2):
            notify.wait_for("WATCHDOG=1")
        assert guarded.guard.stop() == 0
        said = [line for line in guarded.guard.log if "no metrics" in line]
        assert said == [
            f"openclaw-gateway: warning: no metrics: {nowhere}: No such file or directory"
        ]

    def test_file_of_another_kind_is_refused_by_name(self, start: Start, tmp_path: Path) -> None:
        daemon = start("guard", "--metrics", str(tmp_path / "metrics.txt"), "--", "true")
        assert daemon.finish() == 2
        assert "must end with .prom, or node_exporter does not read it" in "\n".join(daemon.log)

    def test_file_of_somebody_else_stays_when_nothing_was_written(
        self, guard: Guard, start: Start, file: Path
    ) -> None:
        """A second guard on the port ends before it has anything to tell."""
        guard(f"--metrics={file}").ready()
        before = file.read_text()
        second = start("guard", f"--metrics={file}", "--", "true")
        assert second.finish() != 0
        assert file.read_text().splitlines()[:3] == before.splitlines()[:3]
        assert self.read(file)["ready"] == 1
