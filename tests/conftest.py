"""What every test of a running gateway needs: a port, a state directory, daemons that end with the test."""

from __future__ import annotations

import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from given import CAP_S, TOKEN

if TYPE_CHECKING:
    from webdriver import Browser, Driver, Open

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("brief", settings.get_profile("untimed"), max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "untimed"))


class Daemon:
    """A gateway process of its own, whose log can be waited on line by line."""

    def __init__(
        self,
        *arguments: str,
        environ: dict[str, str],
        words: Sequence[str] = (sys.executable, "-m", "openclaw_gateway"),
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [*words, *arguments],
            env=environ,
            pass_fds=pass_fds,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, text: str, *, cap_s: float = CAP_S) -> str:
        """Return the next log line that contains ``text``; fail if the process ends before."""
        while True:
            line = self._lines.get(timeout=cap_s)
            assert line is not None, f"ended before saying {text!r}:\n" + "\n".join(self.log)
            self.log.append(line)
            if text in line:
                return line

    def ready(self) -> Daemon:
        self.wait_for("ready on")
        return self

    def refused(self, *, cap_s: float = CAP_S) -> int:
        """Wait for the end of a start that must fail, and return its exit code."""
        while (line := self._lines.get(timeout=cap_s)) is not None:
            self.log.append(line)
            assert "ready on" not in line, "\n".join(self.log)
        self._lines.put(None)
        return self.finish()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def finish(self, *, cap_s: float = CAP_S) -> int:
        """Wait for the end and return the exit code; ``log`` is complete then."""
        code = self.process.wait(cap_s)
        while (line := self._lines.get(timeout=CAP_S)) is not None:
            self.log.append(line)
        self._reader.join(CAP_S)
        assert self.process.stderr
        self.process.stderr.close()
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.finish()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.finish()


Start = Callable[..., Daemon]

without_systemd = pytest.mark.skipif(
    Path("/run/systemd/system").is_dir(),
    reason="systemd runs here; tests/system has what it says then",
)


def clean_environ(**variables: str) -> dict[str, str]:
    """Return our environment without anything that a gateway would take for its own, plus ``variables``."""
    ours = ("OPENCLAW_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "JOURNAL_STREAM", "SYSTEMD_EXEC")
    ours += ("INVOCATION_ID", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY", "CREDENTIALS_DIRECTORY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | variables


def free_port() -> int:
    """
    Return a port that nobody has on any address, outside the range that clients are given.

    Workers of pytest-xdist have ranges of their own: two can't be given the same.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
    while True:
        port = random.randrange(20000 + worker * 1000, 21000 + worker * 1000)
        with socket.socket(socket.AF_INET) as any_address:
            try:
                any_address.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def start(port: int, state_dir: Path) -> Iterator[Start]:
    """Start gateways, by default on the test's port and state directory; all of them end with the test."""
    started: list[Daemon] = []

    def begin(*arguments: str, **variables: str) -> Daemon:
        defaults = {
            "OPENCLAW_GATEWAY_PORT": str(port),
            "OPENCLAW_STATE_DIR": str(state_dir),
            "OPENCLAW_GATEWAY_TOKEN": TOKEN,
            "PYTHONUNBUFFERED": "1",
        }
        daemon = Daemon(*arguments, environ=clean_environ(**(defaults | variables)))
        started.append(daemon)
        return daemon

    yield begin
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.signal(signal.SIGCONT)
            daemon.kill()


class NotifySocket:
    """
    A real notify socket that keeps what it is told, and given.

    Attributes:
        heard: Every message.
        kept: Descriptors with their names, as systemd would hand them over at the next start.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.heard: list[str] = []
        self.kept: list[tuple[str, int]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(CAP_S)

    def wait_for(self, assignment: str) -> str:
        """Return the next message that has a line starting with ``assignment``."""
        deadline_s = time.monotonic() + CAP_S
        while time.monotonic() < deadline_s:
            message = self._receive()
            if any(line.startswith(assignment) for line in message.splitlines()):
                return message
        raise AssertionError(f"never heard {assignment}, only {self.heard}")

    def drain(self) -> list[str]:
        """Take what has arrived, and return everything ever heard."""
        self._socket.setblocking(False)
        try:
            while True:
                self._receive()
        except BlockingIOError:
            return self.heard
        finally:
            self._socket.settimeout(CAP_S)

    @contextmanager
    def crowded(self) -> Iterator[None]:
        """
        Have its queue full meanwhile; whatever fills it is taken in the end.

        Only that is taken: what was turned away comes in as soon as there is room, and is to be heard.
        """
        filler = "X=1"
        with ExitStack() as stack:
            count = 0
            # One sender's share has a bound of its own. The queue is full when another's first
            # message doesn't go in.
            while share := self._fill(stack, filler):
                count += share
            yield
            assert {self._receive() for _ in range(count)} == {filler}

    def _fill(self, stack: ExitStack, message: str) -> int:
        """Send a message from a new socket until no more goes in; how many did."""
        sender = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        sender.connect(self.path)
        sender.setblocking(False)
        count = 0
        with suppress(BlockingIOError):
            while sender.send(message.encode()):
                count += 1
        return count

    def _receive(self) -> str:
        """Take one message and what comes with it, and do with that as systemd does. sd_notify(3)."""
        data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 16)
        message = data.decode()
        self.heard.append(message)
        said = dict(line.split("=", 1) for line in message.splitlines())
        name = said.get("FDNAME", "stored")
        if "FDSTOREREMOVE" in said:
            for _, fd in (gone := [each for each in self.kept if each[0] == name]):
                os.close(fd)
            self.kept = [each for each in self.kept if each not in gone]
        known = [os.fstat(fd) for _, fd in self.kept]
        for fd in descriptors:
            if "FDSTORE" in said and not any(os.path.samestat(os.fstat(fd), one) for one in known):
                self.kept.append((name, fd))
            else:
                os.close(fd)
        return message

    def forget(self) -> None:
        """Close what it keeps, as systemd does when a unit ends for good."""
        for _, fd in self.kept:
            os.close(fd)
        self.kept.clear()

    def close(self) -> None:
        """Close it, and what it keeps."""
        self._socket.close()
        self.forget()


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    from webdriver import Driver, leave_out_without_chromium

    leave_out_without_chromium()
    made = Driver()
    yield made
    made.close()


@pytest.fixture
def browse(driver: Driver, tmp_path: Path) -> Iterator[Open]:
    """Open browsers that end with the test."""
    from webdriver import Browser

    opened: list[Browser] = []

    def begin(url: str, **options: Any) -> Browser:
        browser = Browser(driver, tmp_path / f"profile-{len(opened)}", **options)
        opened.append(browser)
        browser.open(url)
        return browser

    yield begin
    for browser in opened:
        browser.close()


_AS_SYSTEMD_STARTS_IT = """
import os, sys
sources = [int(word) for word in sys.argv[1].split(",")]
# Out of each other's way first: a source may have the number of another one's place.
spare = [os.dup(source) for source in sources]
aside = [os.dup2(fd, 200 + at) for at, fd in enumerate(spare)]
for at, fd in enumerate(aside):
    os.dup2(fd, 3 + at)
    os.close(fd)
os.closerange(3 + len(sources), 200)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "openclaw_gateway", *sys.argv[2:]])
"""

Resume = Callable[..., Daemon]
"""Starts a gateway as systemd does; see ``resume``."""


@pytest.fixture
def resume(port: int, state_dir: Path, notify: NotifySocket) -> Iterator[Resume]:
    """Start a gateway as systemd would: with these descriptors, or with what it keeps for us."""
    started: list[Daemon] = []

    def begin(
        *arguments: str, handed: list[tuple[str, int]] | None = None, **variables: str
    ) -> Daemon:
        handed = notify.kept if handed is None else handed
        defaults = {
            "OPENCLAW_GATEWAY_PORT": str(port),
            "OPENCLAW_STATE_DIR": str(state_dir),
            "OPENCLAW_GATEWAY_TOKEN": TOKEN,
            "NOTIFY_SOCKET": notify.path,
        }
        words = [sys.executable, "-m", "openclaw_gateway"]
        fds = [fd for _, fd in handed]
        if handed:
            words = [sys.executable, "-c", _AS_SYSTEMD_STARTS_IT, ",".join(map(str, fds))]
            defaults["LISTEN_FDS"] = str(len(handed))
            defaults["LISTEN_FDNAMES"] = ":".join(name for name, _ in handed)
        environ = clean_environ(**(defaults | variables))
        daemon = Daemon(*arguments, environ=environ, words=words, pass_fds=fds)
        started.append(daemon)
        return daemon

    yield begin
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.kill()
