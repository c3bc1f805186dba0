"""OpenClaw's own gateway, on Node: the real one, which ours meets on real machines."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import queue
import signal
import ssl
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from given import CAP_S, TOKEN
from node_package import START_CAP_S, cache, command

_LOCKED = struct.Struct("hhqqi4x")
_SQLITE_LOCK = (0x40000000, 512)
"""Where SQLite locks a file, https://sqlite.org/src/file/src/os.h (PENDING_BYTE), and over how many bytes."""
_STATE_LOCKS = Path(f"/tmp/openclaw-state-locks-{os.getuid()}")
"""OpenClaw's own place for locks on a state's database; no variable moves it."""


class NodeGateway:
    """
    A running gateway of OpenClaw's, in a session of its own, whose output can be waited on line by line.

    Attributes:
        state_dir: Its state; lock records and settings are in there.
        port: Where it is to listen.
        log: The lines that were waited through.
    """

    def __init__(
        self, state_dir: Path, port: int, *, gateway: dict[str, Any] | None = None, **variables: str
    ) -> None:
        """
        Start it, without waiting for anything.

        Args:
            state_dir: Made if it is not there. Its ``openclaw.json`` is written if it has none.
            port: Where to listen, on loopback.
            gateway: More for the settings' ``gateway``, say ``{"tls": {"enabled": True}}``.
            variables: More of its environment, which is otherwise next to empty.
        """
        self.state_dir, self.port, self.log = state_dir, port, list[str]()
        self._is_tls = bool((gateway or {}).get("tls"))
        configure(state_dir, port, gateway or {})
        self._mark = f"OPENCLAW_TESTS_FAMILY={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        self._process = subprocess.Popen(
            command(port),
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(state_dir.parent),
                "TMPDIR": cache(),
                "OPENCLAW_STATE_DIR": str(state_dir),
                name: value,
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    @property
    def pid(self) -> int:
        """Its main process, which is the one that listens."""
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """How it ended; ``None`` while it runs."""
        return self._process.poll()

    def wait_for(self, text: str) -> str:
        """Return the next line that contains ``text``; fail if it ends before."""
        while True:
            line = self._lines.get(timeout=START_CAP_S)
            assert line is not None, f"ended before saying {text!r}:\n" + "\n".join(self.log)
            self.log.append(line)
            if text in line:
                return line

    def locked(self) -> NodeGateway:
        """Wait until it has its locks; seconds pass from here until it listens."""
        self.wait_for("shutdown budget at startup")
        assert self.holds_its_locks
        return self

    def ready(self) -> NodeGateway:
        """Wait until it listens and is healthy."""
        self.wait_for("http server listening")
        deadline_s = time.monotonic() + START_CAP_S
        while not self.healthy:  # it says 503 for a moment
            assert time.monotonic() < deadline_s, self.log
        return self

    def started(self) -> NodeGateway:
        """Wait until it takes clients too; before that it sends them away with ``startup-sidecars``."""
        self.wait_for("[gateway] ready")
        return self

    @property
    def healthy(self) -> bool:
        """Whether it says so."""
        return healthy(self.port, tls=self._is_tls)

    @property
    def _directory(self) -> Path:
        return self.state_dir / f"tmp/openclaw-{os.getuid()}"

    def records(self) -> dict[str, tuple[int, bytes]]:
        """Return its lock records: inode and bytes by name. None without a gateway."""
        return {
            path.name: (path.stat().st_ino, path.read_bytes())
            for path in self._directory.glob("gateway.*.lock")
        }

    @property
    def holds_its_locks(self) -> bool:
        """Whether the kernel says that it has locked both its records' lock files."""
        paths = list(self._directory.glob("gateway.*.lock.sqlite"))
        return len(paths) == 2 and {holder_of(path) for path in paths} == {self.pid}

    def signal(self, number: int) -> None:
        """Signal the main process alone."""
        self._process.send_signal(number)

    def finish(self) -> int:
        """Wait for its end and return its exit code; ``log`` is complete then."""
        code = self._process.wait(START_CAP_S)
        while (line := self._lines.get(timeout=CAP_S)) is not None:
            self.log.append(line)
        return code

    def refused(self) -> int:
        """Wait for the end of a start that must fail, and return its exit code."""
        while (line := self._lines.get(timeout=START_CAP_S)) is not None:
            self.log.append(line)
            assert "http server listening" not in line, "\n".join(self.log)
        self._lines.put(None)
        return self.finish()

    def stop(self) -> int:
        """End it politely."""
        self.signal(signal.SIGTERM)
        return self.finish()

    def family(self) -> list[int]:
        """
        Return all of its processes, the main one first.

        Its spawn broker has a session of its own, and an orphan has another parent: what is never lost is the
        environment that they were given.
        """
        mark = self._mark.encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue  # gone, or not ours
        return sorted(found, key=lambda pid: (pid != self.pid, pid))

    def clean_up(self) -> None:
        """End every process that belongs to it, stopped ones too, and take away what it left outside its state."""
        if self.ended is None:
            self.signal(signal.SIGKILL)
        self._process.wait(CAP_S)
        for pid in self.family():
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            if pid in self.family():  # by now the number could be another's
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)
        self._reader.join(CAP_S)
        assert self._process.stdout
        self._process.stdout.close()
        database = str((self.state_dir / "state/openclaw.sqlite").resolve())
        name = hashlib.sha256(database.encode()).hexdigest()[:8]
        for path in _STATE_LOCKS.glob(f"*.{name}.lock.sqlite*"):
            path.unlink(missing_ok=True)


@contextmanager
def node_gateway(state_dir: Path, port: int, **options: Any) -> Iterator[NodeGateway]:
    """Start one, and leave nothing of it behind."""
    gateway = NodeGateway(state_dir, port, **options)
    try:
        yield gateway
    finally:
        gateway.clean_up()


def healthy(port: int, *, tls: bool = False) -> bool:
    """Whether a gateway, of whoever's, answers on loopback that it is live."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CAP_S)
    if tls:
        unchecked = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=CAP_S, context=unchecked
        )
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status == 200 and json.load(answer) == {"ok": True, "status": "live"}
    except ConnectionError:
        return False
    finally:
        connection.close()


def holder_of(path: Path) -> int | None:
    """
    Ask the kernel who has locked an SQLite file; ``None`` if nobody has.

    See Also:
        fcntl(2), "F_GETLK": takes nothing, and answers for locks of other processes only.
    """
    with open(path, "rb") as file:
        asked = _LOCKED.pack(fcntl.F_WRLCK, os.SEEK_SET, *_SQLITE_LOCK, 0)
        kind, _, _, _, pid = _LOCKED.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)


def configure(state_dir: Path, port: int, gateway: dict[str, Any]) -> None:
    """Make a state directory for one, if it is not there, and settings in it, if it has none."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = state_dir / "openclaw.json"
    if not settings.exists():
        settings.write_text(json.dumps(_settings(state_dir, port, gateway)))


def _settings(state_dir: Path, port: int, gateway: dict[str, Any]) -> dict[str, Any]:
    own = {"mode": "local", "bind": "loopback", "port": port}
    own["auth"] = {"mode": "token", "token": TOKEN}
    return {"gateway": own | gateway, "logging": {"file": str(state_dir / "node.log")}}
