"""Ways to etcd that a test can cut: as a proxy that stops passing things on, or as a network of the kernel's."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

from conftest import free_port

_numbers = itertools.count()


class Passes(Enum):
    """What a proxy passes on."""

    ALL = "all"
    NOTHING = "nothing"
    REQUESTS = "requests"
    """Requests arrive and are answered, and no answer comes back."""
    DRIPS = "drips"
    """Answers come a byte at a time, each in time, and all of them never."""


class Proxy:
    """A TCP proxy in front of one endpoint. What it does not pass on is lost; connections stay open."""

    def __init__(self, port: int) -> None:
        self.passes = Passes.ALL
        self._target = port
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                with suppress(OSError):
                    far = socket.create_connection(("127.0.0.1", self._target))
                    for source, sink, asks in ((near, far, True), (far, near, False)):
                        arguments = (source, sink, asks)
                        threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(65536):
                match self.passes:
                    case Passes.ALL:
                        sink.sendall(data)
                    case Passes.REQUESTS if asks:
                        sink.sendall(data)
                    case Passes.DRIPS if asks:
                        sink.sendall(data)
                    case Passes.DRIPS:
                        for byte in data:
                            sink.sendall(bytes([byte]))
                            if threading.Event().wait(0.1):
                                return

    def close(self) -> None:
        self._listener.close()


class Network:
    """
    A network namespace of a test's own, with one link to ours.

    Attributes:
        name: For ip-netns(8).
        here: Our address on the link, where a host in there finds us.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        self.name = f"oc{os.getpid()}-{number}"
        self._near = f"oc{os.getpid() % 100000}n{number}"
        far = f"oc{os.getpid() % 100000}f{number}"
        net = f"10.{180 + worker}.{number % 250}"
        self.here, self._there = f"{net}.1", f"{net}.2"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", far, "netns", self.name)
        _ip("address", "add", f"{self.here}/30", "dev", self._near)
        _ip("link", "set", self._near, "up")
        _ip("-n", self.name, "address", "add", f"{self._there}/30", "dev", far)
        _ip("-n", self.name, "link", "set", far, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words that start a program in there; its pid is the program's."""
        return ("ip", "netns", "exec", self.name)

    def down(self) -> None:
        _ip("link", "set", self._near, "down")

    def up(self) -> None:
        _ip("link", "set", self._near, "up")

    def mute(self) -> None:
        """Let nothing of ours get there any more; what comes from there arrives."""
        _ip("route", "add", "blackhole", f"{self._there}/32")

    def remove(self) -> None:
        for words in (
            ("route", "del", "blackhole", f"{self._there}/32"),
            ("link", "del", self._near),
        ):
            subprocess.run(["ip", *words], check=False, stderr=subprocess.DEVNULL)
        _ip("netns", "del", self.name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Freeze one process by a cgroup of its own, version 1 or 2, for a ``with`` block. Raises ``OSError`` if none can be made."""
    old = Path("/sys/fs/cgroup/freezer")
    base = old if old.is_dir() else Path("/sys/fs/cgroup")
    before = _cgroup(pid, "freezer" if old.is_dir() else "")
    group = base / f"openclaw-test-{pid}"
    group.mkdir()
    state, freeze, thaw = (
        ("freezer.state", "FROZEN", "THAWED") if old.is_dir() else ("cgroup.freeze", "1", "0")
    )
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / state).write_text(freeze)
        yield
    finally:
        (group / state).write_text(thaw)
        with suppress(OSError):  # it has ended
            (base / before / "cgroup.procs").write_text(str(pid))
        for _ in range(200):
            try:
                group.rmdir()
            except OSError:  # it is about to end
                threading.Event().wait(0.02)
            else:
                break


def _cgroup(pid: int, controller: str) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == controller:
            return path.lstrip("/")
    return ""
