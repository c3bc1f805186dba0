"""Three witnesses of "two owners", none of which trusts a lock or another witness.

1. A marker made with ``O_EXCL`` that says who is in.
2. A counter that every owner reads, adds one to and writes: who writes what another wrote has lost an update.
3. A referee to whom every owner holds a connection, which the kernel closes with the process; it asks
   the kernel, not the owners, who is alive and who listens.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

BEAT_S = 0.02
"""How often an owner adds to the counter."""

_PF_EXITING = 0x4  # include/linux/sched.h; set before the kernel closes a dying process's files


def alive(pid: int) -> bool:
    """Whether a process can still hold anything: it exists, and has not begun to die. proc_pid_stat(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = stat[stat.rfind(b")") + 2 :].split()
    return fields[0] not in (b"Z", b"X") and not int(fields[6]) & _PF_EXITING


class Presence:
    """What an owner does to be seen: from ``enter`` to ``leave`` it must be the only one."""

    def __init__(self, home: Path) -> None:
        self._marker, self._counter = home / "occupied", home / "counter"
        self._referee = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._address = str(home / "referee")

    def enter(self) -> None:
        self._referee.connect(self._address)
        while True:
            try:
                fd = os.open(self._marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileExistsError:
                self._evict()
                continue
            os.write(fd, str(os.getpid()).encode())
            os.close(fd)
            break
        self.beat()

    def _evict(self) -> None:
        """Take away a dead owner's marker, and tell of a living one's."""
        try:
            text = self._marker.read_text()
            if text and int(text) != os.getpid() and alive(int(text)):
                self._tell(kind="occupied", by=int(text))
            self._marker.unlink()
        except FileNotFoundError:
            pass

    def beat(self) -> None:
        """Add one to the counter, slowly enough for a second owner to get in between."""
        try:
            count = int(self._counter.read_text() or "0")
        except FileNotFoundError:
            count = 0
        time.sleep(0.002)
        with open(self._counter, "r+" if self._counter.exists() else "w") as file:
            file.write(str(count + 1))
        self._tell(kind="wrote", count=count + 1)

    def leave(self) -> None:
        """Be gone, as far as the witnesses are concerned; only now may the lock be released."""
        self._marker.unlink(missing_ok=True)
        self._referee.close()

    def _tell(self, **what: object) -> None:
        self._referee.send(json.dumps(what).encode())


@contextmanager
def witnessed(home: Path) -> Iterator[None]:
    """Be seen as the owner for the ``with`` block, which a thread of its own beats for."""
    presence, ended = Presence(home), threading.Event()
    presence.enter()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            presence.beat()

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        presence.leave()


class Overlap(NamedTuple):
    """One finding of two owners."""

    witness: str
    at_s: float
    detail: str


class Referee:
    """Keeps the connections of owners, and what was seen."""

    def __init__(self, home: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(home / "referee"))
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._began_s = time.monotonic()
        self.owners: dict[socket.socket, int] = {}
        self.ownerships = 0
        self.overlaps: list[Overlap] = []
        self.longest_gap_s = 0.0
        self._free_since_s: float | None = None
        self._counts: set[int] = set()

    def close(self) -> None:
        for connection in (*self.owners, self._listener):
            connection.close()

    def look(self) -> None:
        """Take note of everything that happened since the last look."""
        while True:
            # First who went, then who came: who came after another went is no overlap.
            for connection in list(self.owners):
                self._hear(connection)
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            for other in list(self.owners):
                self._hear(other)
            self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid = struct.unpack("3i", raw)[0]
        for other in self.owners.values():
            if alive(other) and alive(pid):
                self._found("referee", f"pid {pid} came while pid {other} is in")
        connection.setblocking(False)
        self.owners[connection] = pid
        self.ownerships += 1
        if self._free_since_s is not None:
            self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - self._free_since_s)
            self._free_since_s = None

    def _hear(self, connection: socket.socket) -> None:
        pid = self.owners[connection]
        while True:
            try:
                data = connection.recv(4096)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                break
            said = json.loads(data)
            if said["kind"] == "occupied":
                self._found("marker", f"pid {pid} found pid {said['by']} in")
            elif said["count"] in self._counts:
                self._found("counter", f"pid {pid} wrote {said['count']}, as another did before")
            else:
                self._counts.add(said["count"])
        connection.close()
        del self.owners[connection]
        if not self.owners:
            self._free_since_s = time.monotonic()

    def ask_kernel(self, port: int) -> None:
        """Look who listens on a port: at most one process may."""
        listening = {pid for pid in self.owners.values() if alive(pid) and _listens(pid, port)}
        if len(listening) > 1:
            self._found("kernel", f"pids {sorted(listening)} listen on port {port}")

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look all the time during the ``with`` block, and once more at its end; then close."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.002):
                self.look()

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield
        finally:
            ended.set()
            looking.join()
            self.look()
            self.close()

    def _found(self, witness: str, detail: str) -> None:
        self.overlaps.append(Overlap(witness, time.monotonic() - self._began_s, detail))


def _listens(pid: int, port: int) -> bool:
    try:
        links = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    except (FileNotFoundError, ProcessLookupError):
        return False
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    inodes = [
        line[9] for line in lines if line[3] == "0A" and int(line[1].rpartition(":")[2], 16) == port
    ]
    return any(f"socket:[{inode}]" in links for inode in inodes)
