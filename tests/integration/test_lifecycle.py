"""The lifecycle, with a service that is not our server: what every service gets from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from resource import RLIMIT_CORE, setrlimit
from socket import create_server, socket

import pytest

from conftest import Daemon, NotifySocket, Start, clean_environ
from openclaw_gateway.client.answer import LIVE
from openclaw_gateway.host import signals

SLEEPER = """
import asyncio, os, sys
from openclaw_gateway import lifecycle
from openclaw_gateway.claim import claim
from openclaw_gateway.settings import load as settings

class Sleeper:
    async def start(self, claim):
        assert claim.sockets
    async def problem(self, *, timeout_s):
        return os.environ.get("PROBLEM")
    def ready(self):
        print("let in", file=sys.stderr)
    def status(self):
        return "asleep"
    async def lost(self):
        await asyncio.Event().wait()
    def use(self, settings):
        print("used", file=sys.stderr)
    async def stop(self, *, hurry, back_in_s):
        print("woken", file=sys.stderr)

def load():
    return settings.load({}, os.environ)

def load_again():
    # Takes as long as the test likes.
    word = sys.stdin.readline().strip()
    if word == "good":
        return load()
    raise eval(word)

with lifecycle.begun(os.environ) as life:
    loaded = life.settings(load)
    with claim.acquire(
        loaded, life.supervisor, life.journal, passed=life.passed, pause=life.pause
    ) as held:
        life.serve(Sleeper(), held, loaded, load=load_again)
sys.exit(life.exit_code)
"""


class Sleeper(Daemon):
    """A process that has a whole life and serves nothing."""

    def __init__(self, **variables: str) -> None:
        super().__init__(
            words=[sys.executable, "-c", SLEEPER],
            environ=clean_environ(PYTHONUNBUFFERED="1", **variables),
            stdin=subprocess.PIPE,
        )

    def tell(self, word: str) -> None:
        """Say what the reload that is being read, or the next one, comes to."""
        assert self.process.stdin
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()


@pytest.fixture
def variables(port: int, state_dir: Path, notify: NotifySocket) -> dict[str, str]:
    return {
        "OPENCLAW_GATEWAY_PORT": str(port),
        "OPENCLAW_STATE_DIR": str(state_dir),
        "NOTIFY_SOCKET": notify.path,
    }


@pytest.fixture
def sleeper(variables: dict[str, str], notify: NotifySocket) -> Iterator[Sleeper]:
    made = Sleeper(WATCHDOG_USEC="600000", **variables)
    notify.wait_for("READY=1")
    yield made
    if made.process.poll() is None:
        made.kill()
    assert made.process.stdin
    made.process.stdin.close()


def test_any_service_is_ready_watched_and_stopped(sleeper: Sleeper, notify: NotifySocket) -> None:
    notify.wait_for("WATCHDOG=1")
    assert sleeper.stop() == 0
    (ready,) = [heard for heard in notify.heard if heard.startswith("READY=1")]
    assert "STATUS=asleep" in ready.splitlines()
    assert any("STOPPING=1" in heard for heard in notify.drain())
    assert "let in" in sleeper.log
    assert sleeper.log[-2:] == ["woken", "openclaw-gateway: stopped"]


def test_service_that_is_not_well_is_never_ready(
    variables: dict[str, str], notify: NotifySocket
) -> None:
    sleeper = Sleeper(PROBLEM="no pulse", **variables)
    assert sleeper.finish() == 1
    assert "openclaw-gateway: crit: not ready: no pulse" in sleeper.log
    assert "woken" in sleeper.log
    assert not any("READY=1" in heard for heard in notify.drain())


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        ("OSError(107, 'Transport endpoint is not connected', '/mnt/x')", "/mnt/x: Transport"),
        ("OSError(19, 'No such device')", "No such device"),
        ("ModuleNotFoundError('json5')", "ModuleNotFoundError: json5"),
        ("ValueError('embedded null byte')", "ValueError: embedded null byte"),
        ("RecursionError('too deep')", "RecursionError: too deep"),
        ("StopIteration('odd')", "StopIteration: odd"),
        ("SystemExit('no')", "SystemExit: no"),
        ("MemoryError()", "MemoryError"),
    ],
)
def test_ready_follows_reloading_whatever_a_reader_raises(
    sleeper: Sleeper, notify: NotifySocket, raised: str, reason: str
) -> None:
    sleeper.signal(signal.SIGHUP)
    notify.wait_for("RELOADING=1")
    sleeper.tell(raised)
    notify.wait_for("READY=1")
    assert reason in sleeper.wait_for("reload refused, the old settings stay")
    assert sleeper.stop() == 0
    assert "used" not in sleeper.log


def test_reason_shows_nothing_of_what_could_not_be_encoded(
    sleeper: Sleeper, notify: NotifySocket
) -> None:
    sleeper.signal(signal.SIGHUP)
    sleeper.tell("UnicodeEncodeError('utf-8', 'the-secret', 0, 1, 'surrogates not allowed')")
    line = sleeper.wait_for("reload refused")
    assert "surrogates not allowed" in line
    assert "the-secret" not in line


def test_slow_reload_stops_nobody_and_the_next_one_is_remembered(
    sleeper: Sleeper, notify: NotifySocket
) -> None:
    sleeper.signal(signal.SIGHUP)
    notify.wait_for("RELOADING=1")
    notify.wait_for("WATCHDOG=1")
    sleeper.signal(signal.SIGHUP)
    notify.wait_for("WATCHDOG=1")
    sleeper.tell("good")
    notify.wait_for("READY=1")
    notify.wait_for("RELOADING=1")
    sleeper.tell("good")
    notify.wait_for("READY=1")
    assert sleeper.stop() == 0
    assert sleeper.log.count("used") == 2


def test_stop_does_not_wait_for_a_reload(sleeper: Sleeper, notify: NotifySocket) -> None:
    sleeper.signal(signal.SIGHUP)
    notify.wait_for("RELOADING=1")
    assert sleeper.stop() == 0
    assert "used" not in sleeper.log


def default_ends(number: int) -> bool:
    """Whether a signal ends a process that does nothing about it; asked of the kernel."""
    child = os.fork()
    if child == 0:
        # Set before, a limit of no core keeps the kernel from writing one.
        setrlimit(RLIMIT_CORE, (0, 0))
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), number)
        os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


FAULTS = {
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP, signal.SIGABRT,
}  # fmt: skip
UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}


def test_every_signal_that_would_end_us_and_is_no_fault_of_ours_gets_a_goodbye() -> None:
    """The kernel's own list of what ends a process, against ours."""
    catchable = signal.valid_signals() - UNCATCHABLE
    ends = {int(number) for number in catchable if default_ends(number)}
    # Python ignores the pipe and the file size, and a hang-up reads the settings again.
    handled = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP}
    assert ends - FAULTS - handled == set(map(int, signals.ENDINGS))


@pytest.mark.parametrize("number", signals.ENDINGS, ids=signals.name)
def test_signal_that_ends_us_gets_a_goodbye(sleeper: Sleeper, number: int) -> None:
    asked = number in signals.STOPS
    sleeper.signal(number)
    assert sleeper.finish() == (0 if asked else 128 + number)
    assert f"openclaw-gateway: stopping on {signals.name(number)}" in sleeper.log
    assert sleeper.log[-1] == "openclaw-gateway: stopped"


def test_process_carries_a_name_that_openclaw_does_not_end(start: Start) -> None:
    gateway = start().ready()
    # What ps -L and lsof show. proc_pid_task(5).
    tasks = Path(f"/proc/{gateway.pid}/task").glob("*/comm")
    assert {task.read_text().strip() for task in tasks} == {"claw-gateway"}


def test_only_a_gateway_carries_that_name() -> None:
    code = "import sys; from openclaw_gateway.cli import main\ntry: main(['config'])\nexcept SystemExit: print(open('/proc/self/comm').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "claw-gateway" not in done.stdout.split()


def answering(listener: socket) -> None:
    """Answer as a healthy gateway does until the listener is shut down."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LIVE)
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            client.recv(4096)
            client.sendall(head + LIVE)


def test_gateway_that_came_later_to_another_address_is_told_of_once(
    start: Start, port: int, notify: NotifySocket
) -> None:
    ours = start(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="600000").ready()
    with closing(create_server(("127.0.0.2", port))) as listener:
        threading.Thread(target=answering, args=(listener,), daemon=True).start()
        line = ours.wait_for("another gateway came to our port number")
        assert f"on ws://127.0.0.2:{port}: pid " in line
        notify.wait_for(f"STATUS=ready on ws://127.0.0.1:{port}, 0 clients; another gateway on")
        for _ in range(3):
            notify.wait_for("WATCHDOG=1")
        listener.shutdown(2)
    while not notify.wait_for("STATUS=ready").endswith(" clients"):
        pass
    assert ours.stop() == 0
    assert sum("another gateway" in line for line in ours.log) == 1


def test_program_that_is_no_gateway_beside_us_is_no_news(
    start: Start, port: int, notify: NotifySocket
) -> None:
    ours = start(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="600000").ready()
    with closing(create_server(("127.0.0.2", port))) as listener:
        asked, _ = listener.accept()
        asked.sendall(b"SSH-2.0-x\r\n")
        asked.close()
        for _ in range(3):
            notify.wait_for("WATCHDOG=1")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # and it is not asked again
            listener.accept()
    assert ours.stop() == 0
    assert not any("another" in line for line in ours.log)
