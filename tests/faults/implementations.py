"""The gateway and other people's locks, all to be started, asked and robbed in the same way."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from conftest import CAP_S, clean_environ, free_port
from openclaw_gateway.claim.lockfile import STATE_LOCK_NAME, lock_directory_parts

CONTROLS = Path(os.environ.get("CONTROLS_PYTHON", ".venv/controls/bin/python")).absolute()
"""The interpreter of the environment that has the other libraries."""

GATEWAY = "openclaw-gateway"
LIBRARIES = ("filelock", "portalocker", "pid", "zc.lockfile", "fasteners", "flock(1)")


class Contender:
    """One process that wants the lock."""

    def __init__(self, words: list[str | Path], environ: dict[str, str], log: Path) -> None:
        self._log = log
        with open(log, "ab") as errors:
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


class Place(NamedTuple):
    """Where one implementation keeps its lock."""

    root: Path
    """The directory that it is told of."""
    directory: Path
    """The one that the lock file stands in."""
    file: Path


class Lab:
    """One implementation's processes and files."""

    def __init__(self, name: str, home: Path) -> None:
        self.name, self.home = name, home
        self.port = free_port()
        self.log = home / "log"
        root = home / "state"
        if name == GATEWAY:
            directory = root.joinpath(*lock_directory_parts())
            self.place = Place(root, directory, directory / STATE_LOCK_NAME)
        else:
            root.mkdir(mode=0o700)
            # pid adds that ending to any other name.
            self.place = Place(root, root, root / ("test.pid" if name == "pid" else "test.lock"))
        self._started: list[Contender] = []

    def furnish(self) -> None:
        """Make the directories, as an earlier owner would have left them."""
        self.place.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (self.place.root, self.place.root / "tmp"):
            if directory.exists():
                directory.chmod(0o700)

    def words(self) -> tuple[list[str | Path], dict[str, str]]:
        """Return command and environment of one start."""
        environ = clean_environ(PYTHONDONTWRITEBYTECODE="")
        if self.name == GATEWAY:
            own = {
                "OPENCLAW_STATE_DIR": str(self.place.root),
                "OPENCLAW_GATEWAY_PORT": str(self.port),
            }
            script = Path(__file__).with_name("announced.py")
            return [sys.executable, script, "--lock-timeout", "1"], environ | own
        if self.name == "flock(1)":
            said = "echo owner; while read word; do sleep 600 & echo done; done"
            path = self.place.file
            return ["flock", "-n", "-F", "-E", "75", path, "sh", "-c", said], environ
        script = Path(__file__).with_name("contender.py")
        return [CONTROLS, script, self.name, self.place.file], environ

    def start(self) -> Contender:
        made = Contender(*self.words(), self.log)
        self._started.append(made)
        return made

    def owner(self) -> Contender:
        """Start one, which must get the lock."""
        made = self.start()
        assert made.is_owner(), f"{self.name}: {self.log.read_text()}"
        return made

    def close(self) -> None:
        for contender in self._started:
            contender.end()


def settle() -> None:
    """Let an instant pass in which a process that should do nothing could do something."""
    time.sleep(0.3)
