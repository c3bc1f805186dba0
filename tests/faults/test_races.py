"""Each race that the claim closes, run on purpose; and the same race with its fix taken out, which must be lost.

A gateway is stopped at the very system call where the race can strike, the rival does its part, and
the gateway goes on.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import free_port
from faults.life import Home
from faults.stepper import Call, Stepped
from faults.variants import LOCKFILE, without
from node_like import NodeLike
from openclaw_gateway.claim.lockfile import STATE_LOCK_NAME, lock_directory_parts

LONGEST_START_CALLS = 20_000


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with closing(Home(tmp_path)) as made:
        yield made


class Gateway:
    """A gateway that is stepped through its start until let go."""

    def __init__(self, home: Home, build: str, *arguments: str, **variables: str) -> None:
        self._home = home
        self.process = Stepped(lambda: home.execute(*arguments, path=build, **variables))

    def stop_before(self, wanted: Callable[[Call], bool]) -> Call:
        """Go on up to the door of a system call, and return that."""
        call = self.process.run_to(wanted)
        assert call, f"never got there:\n{self._home.log()}"
        return call

    def go_on(self) -> int | None:
        """Run freely; the exit code, or ``None`` once it is ready."""
        self.process.let_go()
        return self._home.outcome(self.process.pid)

    def becomes_ready(self) -> bool:
        """Step on until it is ready, its end, or more steps than a start can need."""
        for _ in range(LONGEST_START_CALLS):
            if self.process.call() is None or self.process.result() is None:
                return False
            if self._home.is_ready():
                return True
        return False

    def opens(self, name: str) -> Callable[[Call], bool]:
        return lambda call: call.name == "openat" and self._text(call, 1) == name

    def locks(self, *, directory: bool) -> Callable[[Call], bool]:
        return lambda call: call.name == "flock" and self._is_directory(call) == directory

    def listens_on_tcp(self) -> Callable[[Call], bool]:
        bound: set[int] = set()

        def wanted(call: Call) -> bool:
            if call.name == "bind" and self._family(call) == socket.AF_INET:
                bound.add(call.arguments[0])
            return call.name == "listen" and call.arguments[0] in bound

        return wanted

    def binds(self, family: int) -> Callable[[Call], bool]:
        return lambda call: call.name == "bind" and self._family(call) == family

    def writes_the_last_record(self) -> Callable[[Call], bool]:
        written: list[Call] = []

        def wanted(call: Call) -> bool:
            if call.name == "pwrite64":
                written.append(call)
            return len(written) == 2

        return wanted

    def asks_again(self) -> Callable[[Call], bool]:
        """The first look at the locks of OpenClaw's gateway once both records are written, or what follows it."""
        written: list[Call] = []

        def wanted(call: Call) -> bool:
            if call.name == "pwrite64":
                written.append(call)
            asks = call.name == "openat" and self._text(call, 1).endswith(".lock.sqlite")
            goes_on = call.name == "bind" and self._family(call) == socket.AF_UNIX
            return len(written) == 2 and (asks or goes_on)

        return wanted

    def asks_or_reads(self) -> Callable[[Call], bool]:
        """Between asking for the locks of OpenClaw's gateway and reading the record, whichever comes first."""
        done: set[str] = set()

        def wanted(call: Call) -> bool:
            if call.name == "openat" and self._text(call, 1).endswith(".lock.sqlite"):
                done.add("asked")
            elif self._reads_the_record(call):
                done.add("read")
            return len(done) == 2

        return wanted

    def asks_anew_or_writes(self, *, has_asked: bool) -> Callable[[Call], bool]:
        """What follows once it has both asked and read: asking all over, or writing a record of its own."""

        def wanted(call: Call) -> bool:
            asks = call.name == "openat" and self._text(call, 1).endswith(".lock.sqlite")
            return call.name == "pwrite64" or (has_asked and asks)

        return wanted

    def _reads_the_record(self, call: Call) -> bool:
        if call.name != "pread64":
            return False
        return os.readlink(f"/proc/{self.process.pid}/fd/{call.arguments[0]}").endswith(
            STATE_LOCK_NAME
        )

    def unlinks(self) -> Callable[[Call], bool]:
        return lambda call: call.name == "unlinkat"

    def _text(self, call: Call, argument: int) -> str:
        return self.process.text(call.arguments[argument])

    def _family(self, call: Call) -> int:
        return self.process.short(call.arguments[1])

    def _is_directory(self, call: Call) -> bool:
        return stat.S_ISDIR(os.stat(f"/proc/{self.process.pid}/fd/{call.arguments[0]}").st_mode)

    def end(self) -> None:
        """Kill it, if it has not been waited for yet."""
        with suppress(ChildProcessError):
            if os.waitpid(self.process.pid, os.WNOHANG) == (0, 0):
                os.kill(self.process.pid, signal.SIGKILL)
                os.waitpid(self.process.pid, 0)


def lock_file(home: Home) -> Path:
    return home.state.joinpath(*lock_directory_parts(), STATE_LOCK_NAME)


def is_locked(path: Path) -> bool:
    """Whether someone else holds a lock on a file; there must be one."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def file_removed_between_open_and_lock(home: Home, build: str) -> bool:
    """What a start goes on with must be the file that others find."""
    gateway = Gateway(home, build)
    try:
        gateway.stop_before(gateway.locks(directory=False))
        lock_file(home).unlink()
        gateway.stop_before(gateway.binds(socket.AF_UNIX))
        return lock_file(home).exists() and is_locked(lock_file(home))
    finally:
        gateway.end()


def lock_directory_moved_before_the_file_is_opened(home: Home, build: str) -> bool:
    """A start must not look for its file's name in a directory that has moved away."""
    gateway = Gateway(home, build)
    try:
        gateway.stop_before(gateway.opens(STATE_LOCK_NAME))
        lock_file(home).parent.rename(home.path / "moved")
        return gateway.becomes_ready()
    finally:
        gateway.end()


def state_directory_replaced_before_its_lock_is_tried_twice(home: Home, build: str) -> bool:
    """Another directory in the state directory's place says nothing about what locks are worth there."""
    gateway = Gateway(home, build)
    try:
        gateway.stop_before(gateway.locks(directory=True))
        home.state.rename(home.path / "moved")
        home.state.mkdir(0o700)
        gateway.go_on()
        return "grants the same lock twice" not in home.log()
    finally:
        gateway.end()


def file_replaced_before_the_owner_unlinks_it(home: Home, build: str) -> bool:
    """An owner that stops must not remove what is somebody else's."""
    gateway = Gateway(home, build)
    try:
        assert gateway.becomes_ready()
        os.kill(gateway.process.pid, signal.SIGTERM)
        gateway.stop_before(gateway.unlinks())  # the configuration's lock; then comes the state's
        lock_file(home).unlink()
        lock_file(home).write_text("somebody else's")
        assert gateway.go_on() == 0
        return lock_file(home).exists()
    finally:
        gateway.end()


def lock_tried_while_the_owner_unlinks(home: Home, build: str) -> bool:
    """Until its name is gone, the file stays locked."""
    gateway = Gateway(home, build)
    try:
        assert gateway.becomes_ready()
        os.kill(gateway.process.pid, signal.SIGTERM)
        gateway.stop_before(gateway.unlinks())
        return all(is_locked(file) for file in lock_file(home).parent.glob("*.lock"))
    finally:
        gateway.end()


def stop_signal_between_lock_and_record(home: Home, build: str) -> bool:
    """A signal must not end a start halfway and leave its files behind."""
    gateway = Gateway(home, build)
    try:
        gateway.stop_before(gateway.locks(directory=False))
        os.kill(gateway.process.pid, signal.SIGTERM)
        gateway.process.let_go()
        code = os.waitstatus_to_exitcode(os.waitpid(gateway.process.pid, 0)[1])
        return code == 0 and home.litter() == []
    finally:
        gateway.end()


def rival_listens_between_bind_and_listen(home: Home, build: str) -> bool:
    """With SO_REUSEADDR two may bind and one may listen: to lose there is to find the port taken."""
    rival = socket.socket()
    rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    rival.bind(("127.0.0.1", home.port))
    gateway = Gateway(home, build, "--health-timeout", "0")
    try:
        gateway.stop_before(gateway.listens_on_tcp())
        rival.listen()
        gateway.go_on()
        return "another gateway instance is already listening" in home.log()
    finally:
        gateway.end()
        rival.close()


def second_gateway_between_looking_and_binding(home: Home, build: str) -> bool:
    """Two gateways on one port at two addresses: who has not bound yet is not seen by looking for listeners."""
    first = Gateway(home, build)
    second = None
    try:
        first.stop_before(first.binds(socket.AF_INET))
        options = ("--host", "127.0.0.2", "--health-timeout", "0")
        other = {"OPENCLAW_STATE_DIR": str(home.path / "other")}
        second = Gateway(home, build, *options, **other)
        return second.go_on() is not None
    finally:
        first.end()
        if second:
            second.end()


def lock_files_removed_before_a_second_start(home: Home, build: str) -> bool:
    """The locked directory refuses a second gateway when the owner's files are gone."""
    first = Gateway(home, build)
    second = None
    try:
        assert first.go_on() is None
        os.kill(first.process.pid, signal.SIGSTOP)  # or it would make them anew
        for file in lock_file(home).parent.glob("*.lock"):
            file.unlink()
        other_port = {"OPENCLAW_GATEWAY_PORT": str(free_port())}
        second = Gateway(home, build, "--health-timeout", "0", **other_port)
        return second.go_on() is not None
    finally:
        first.end()
        if second:
            second.end()


def node_locks_and_writes_between_the_first_look_and_the_file(home: Home, build: str) -> bool:
    """A record beside held locks is a living gateway's, whatever its port says."""
    gateway = Gateway(home, build, "--health-timeout", "0.5", "--lock-timeout", "0")
    with closing(node_beside(home)) as node:
        try:
            gateway.stop_before(gateway.opens(STATE_LOCK_NAME))
            before = node.does("lock", "record").said()
            return gateway.go_on() is not None and node.said() == before
        finally:
            gateway.end()


def node_replaces_the_record_between_our_look_at_it_and_our_write(home: Home, build: str) -> bool:
    """What it had read was a dead one's; we write into a file without a name, and must not go on."""
    gateway = Gateway(home, build, "--health-timeout", "0.5")
    with closing(node_beside(home)) as node:
        try:
            gateway.stop_before(gateway.writes_the_last_record())
            before = node.does("lock", "remove", "record").said()
            return gateway.go_on() is not None and node.said() == before
        finally:
            gateway.end()


def node_locks_between_our_write_and_the_second_look(home: Home, build: str) -> bool:
    gateway = Gateway(home, build, "--health-timeout", "0.5")
    with closing(node_beside(home)) as node:
        try:
            gateway.stop_before(gateway.asks_again())
            node.does("lock")
            return gateway.go_on() is not None
        finally:
            gateway.end()


def node_removes_our_record_and_dies_before_the_second_look(home: Home, build: str) -> bool:
    """Its locks are free then, and our record is nowhere: the next of its kind would see nobody."""
    gateway = Gateway(home, build)
    try:
        gateway.stop_before(gateway.asks_again())
        with closing(node_beside(home)) as node:
            node.does("lock", "remove", "record")
        gateway.stop_before(gateway.binds(socket.AF_UNIX))
        return is_locked(lock_file(home))
    finally:
        gateway.end()


def node_locks_writes_and_unlocks_between_our_asking_and_our_reading(
    home: Home, build: str
) -> bool:
    """It lets go of its locks for a moment as it restarts within its process: then its record speaks for it."""
    gateway = Gateway(home, build, "--health-timeout", "0.5", "--lock-timeout", "3")
    with closing(node_beside(home)) as node:
        try:
            gateway.stop_before(gateway.locks(directory=False))
            second = gateway.stop_before(gateway.asks_or_reads())
            before = node.does("lock", "record", "unlock").said()
            has_asked = second.name == "pread64"
            gateway.stop_before(gateway.asks_anew_or_writes(has_asked=has_asked))
            node.does("lock")
            return gateway.go_on() is not None and node.said() == before
        finally:
            gateway.end()


def node_beside(home: Home) -> NodeLike:
    return NodeLike(home.state, home.state / "openclaw.json", free_port())


class Race(NamedTuple):
    """A race, and what takes its fix out."""

    run: Callable[[Home, str], bool]
    fixes: tuple[tuple[str, str, str], ...]
    """Module, text and replacement, as for ``without``."""


CLAIM = "claim/claim.py"
NO_SECOND_LOOK = (CLAIM, "    configuration,\n    no_node,\n", "    configuration,\n")
NO_SECOND_COMPARISON = (
    CLAIM,
    "        elif not any(_retake(start, hold) for hold in start.claim.of(Record)):\n",
    "        else:\n",
)

RACES = [
    Race(
        file_removed_between_open_and_lock,
        (
            (LOCKFILE, "            if not self._is_named(fd):\n", "            if False:\n"),
            NO_SECOND_COMPARISON,
        ),
    ),
    Race(
        lock_directory_moved_before_the_file_is_opened,
        (
            (
                LOCKFILE,
                "            directory = _open_lock_directory(self._state)\n",
                "            if not hasattr(self, '_kept'):\n"
                "                self._kept = _open_lock_directory(self._state)\n"
                "            directory = os.dup(self._kept)\n",
            ),
        ),
    ),
    Race(
        state_directory_replaced_before_its_lock_is_tried_twice,
        (
            (
                LOCKFILE,
                'os.open(".", _DIRECTORY_FLAGS, dir_fd=self.fd)',
                "os.open(self.path, _DIRECTORY_FLAGS)",
            ),
        ),
    ),
    Race(
        file_replaced_before_the_owner_unlinks_it,
        (
            (
                LOCKFILE,
                "            if self._is_named(self._fd):\n                os.unlink",
                "            if True:\n                os.unlink",
            ),
        ),
    ),
    Race(
        lock_tried_while_the_owner_unlinks,
        (
            (
                LOCKFILE,
                "        # A directory that became read-only or",
                "        fcntl.flock(self._fd, fcntl.LOCK_UN)\n        # A directory that became read-only or",
            ),
        ),
    ),
    Race(
        stop_signal_between_lock_and_record,
        (
            (
                "lifecycle.py",
                "    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)\n    life = ",
                "    life = ",
            ),
        ),
    ),
    Race(
        rival_listens_between_bind_and_listen,
        (("claim/listener.py", "if error.errno == errno.EADDRINUSE:", "if False:"),),
    ),
    Race(
        second_gateway_between_looking_and_binding,
        (("claim/baseport.py", "{_PREFIX}{port}", "{_PREFIX}{port}.{os.getpid()}"),),
    ),
    Race(
        lock_files_removed_before_a_second_start,
        (
            (
                LOCKFILE,
                "            if not _try_flock(self.fd, self.path):\n",
                "            if False:\n",
            ),
            (LOCKFILE, "            if _try_flock(rival, self.path):\n", "            if False:\n"),
        ),
    ),
    Race(
        node_locks_and_writes_between_the_first_look_and_the_file,
        ((CLAIM, "node_lock(start) or file.writer()", "file.writer()"),),
    ),
    Race(
        node_locks_writes_and_unlocks_between_our_asking_and_our_reading,
        ((CLAIM, "node_lock(start) or file.writer()", "file.writer() or node_lock(start)"),),
    ),
    Race(
        node_replaces_the_record_between_our_look_at_it_and_our_write,
        (NO_SECOND_LOOK,),
    ),
    Race(node_locks_between_our_write_and_the_second_look, (NO_SECOND_LOOK,)),
    Race(node_removes_our_record_and_dies_before_the_second_look, (NO_SECOND_COMPARISON,)),
]
NAMES = [race.run.__name__ for race in RACES]


@pytest.mark.parametrize("race", RACES, ids=NAMES)
def test_race_is_won(home: Home, race: Race) -> None:
    assert race.run(home, "")


@pytest.mark.parametrize("race", RACES, ids=NAMES)
def test_race_is_lost_without_its_fix(home: Home, race: Race) -> None:
    build = without(home.path / "build", *race.fixes)
    assert not race.run(home, build)
