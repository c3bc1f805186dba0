"""The gateway and other people's locks, all to be started, asked and robbed in the same way."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from conftest import CAP_S, clean_environ, free_port
from faults.witnesses import Overlap, Referee
from openclaw_gateway.claim.lockfile import STATE_LOCK_NAME, lock_directory_parts

CONTROLS = Path(os.environ.get("CONTROLS_PYTHON", ".venv/controls/bin/python")).absolute()
"""The interpreter of the environment that has the other libraries."""

GATEWAY = "openclaw-gateway"
TAKEN, UNUSABLE = "taken", "unusable"
LIBRARIES = ("filelock", "portalocker", "pid", "zc.lockfile", "fasteners", "flock(1)")


CODES = {
    GATEWAY: {1: TAKEN, 73: UNUSABLE},
    "flock(1)": {75: TAKEN, 66: UNUSABLE, 73: UNUSABLE, 74: UNUSABLE},
}
"""What an exit code means; ``contender.py`` has others."""


class Contender:
    """One process that wants the lock."""

    def __init__(
        self, name: str, words: list[str | Path], environ: dict[str, str], log: Path
    ) -> None:
        self.name, self._log = name, log
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                words,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self._answer = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_owner(self) -> bool:
        """Wait until it says that it owns the lock, or is refused; ``False`` too if it does neither."""
        if not self._answer:
            assert self.process.stdout
            readable, _, _ = select.select([self.process.stdout], [], [], CAP_S)
            self._answer = self.process.stdout.readline().decode() if readable else "silent"
            self._answer = self._answer or "ended"
        return self._answer.startswith("owner")

    def refusal(self) -> str:
        """
        Wait for the end of one that is not the owner, and say how it ended.

        Returns:
            ``TAKEN`` if it said that somebody has the lock, ``UNUSABLE`` if it said that there can be
            none in that place, else what happened instead: a crash or silence is no refusal.
        """
        if self._answer == "silent":
            return "is silent"
        return refusal(self.name, self.process.wait(CAP_S), self._log.read_text())

    def tell(self, what: str) -> None:
        """Have it leave a child behind: ``fork`` or ``exec``."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{what}\n".encode())
        self.process.stdin.flush()
        self.process.stdout.readline()

    def release(self) -> None:
        """Have it stop in its proper way."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(CAP_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(CAP_S)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        """End it and whatever it left behind."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(CAP_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe and not pipe.closed:
                pipe.close()


def refusal(name: str, code: int, said: str) -> str:
    """Say what an exit code and what was said before it mean; see ``Contender.refusal``."""
    meaning = CODES.get(name, {75: TAKEN, 74: UNUSABLE}).get(code)
    if meaning is None or "Traceback" in said:
        return f"ends with {code}"
    if name == GATEWAY:
        words = {
            TAKEN: r"already running \(pid \d+\)|is held by|already listening",
            UNUSABLE: "cannot use ",
        }
        if not re.search(words[meaning], said):
            return f"ends with {code} and no reason"
    return meaning


class Place(NamedTuple):
    """Where one implementation keeps its lock."""

    root: Path
    """The directory that it is told of."""
    directory: Path
    """The one that the lock file stands in."""
    file: Path


class Lab:
    """
    One implementation's processes and files.

    Every start of a gateway has a port of its own, as ports would keep them apart without any
    lock on a file; ``shared_port`` takes that back for the one fault that only the port guards.
    """

    def __init__(self, name: str, home: Path, *, build: str = "") -> None:
        """Prepare; ``build`` leads to another build of the gateway, see ``variants``."""
        self.name, self.home, self.build = name, home, build
        self.shared_port: int | None = None
        root = home / "state"
        if name == GATEWAY:
            directory = root.joinpath(*lock_directory_parts())
            self.place = Place(root, directory, directory / STATE_LOCK_NAME)
        else:
            root.mkdir(mode=0o700)
            # pid adds that ending to any other name.
            self.place = Place(root, root, root / ("test.pid" if name == "pid" else "test.lock"))
        self._started: list[Contender] = []
        self._referee = Referee(home)
        self._watch = ExitStack()
        self._watch.enter_context(self._referee.looking())

    def furnish(self) -> None:
        """Make the directories, as an earlier owner would have left them."""
        self.place.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (self.place.root, self.place.root / "tmp"):
            if directory.exists():
                directory.chmod(0o700)

    def words(self) -> tuple[list[str | Path], dict[str, str]]:
        """Return command and environment of one start."""
        environ = clean_environ(PYTHONDONTWRITEBYTECODE="", WITNESSES=str(self.home))
        if self.name == GATEWAY:
            own = {
                "OPENCLAW_STATE_DIR": str(self.place.root),
                "OPENCLAW_GATEWAY_PORT": str(self.shared_port or free_port()),
                "PYTHONPATH": self.build,
            }
            script = Path(__file__).with_name("announced.py")
            return [sys.executable, script, "--lock-timeout", "1"], environ | own
        script = Path(__file__).with_name("contender.py")
        words = [CONTROLS, script, self.name, self.place.file]
        if self.name == "flock(1)":
            words = ["flock", "-n", "-F", "-E", "75", self.place.file, *words]
        return words, environ

    def start(self) -> Contender:
        return self.run(*self.words())

    def run(self, words: list[str | Path], environ: dict[str, str]) -> Contender:
        """Start one by a command that ends up as that of ``words``."""
        log = self.home / f"log-{len(self._started)}"
        made = Contender(self.name, words, environ, log)
        self._started.append(made)
        return made

    def log(self) -> str:
        """Return what all of them said on standard error."""
        return "".join(file.read_text() for file in sorted(self.home.glob("log-*")))

    def owner(self) -> Contender:
        """Start one, which must get the lock."""
        made = self.start()
        assert made.is_owner(), f"{self.name}: {self.log()}"
        return made

    def close(self) -> None:
        for contender in self._started:
            contender.end()
        self._watch.close()

    def overlaps(self) -> list[Overlap]:
        """Return where the witnesses saw two owners so far."""
        settle()
        return list(self._referee.overlaps)


def settle() -> None:
    """Let an instant pass in which a process that should do nothing could do something."""
    time.sleep(0.3)
