"""A process that locks as OpenClaw's own gateway does: SQLite's locks, a record without flock, perhaps a listener."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from openclaw_gateway.claim.lockfile import STATE_LOCK_NAME, config_lock_name, lock_directory_parts
from openclaw_gateway.claim.node import lock_paths

_PROGRAM = r"""
import errno, json, os, socket, sqlite3, sys, threading

locks, records, port = json.loads(sys.argv[1])
held = []
seen = made = None


def lock():
    for path in locks:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        made = sqlite3.connect(path, isolation_level=None)
        made.execute("BEGIN EXCLUSIVE")
        held.append(made)


def record():
    for path in records:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "w") as file:
            json.dump(own(), file)


def own():
    ticks = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
    return {"pid": os.getpid(), "ownerId": "6c1d", "port": port, "startTime": ticks}


def there():
    # It stays open while it is of interest: its inode must not be used anew.
    try:
        file = open(records[0])
    except FileNotFoundError:
        return None
    return file, os.fstat(file.fileno()).st_ino, file.read()


def look():
    global seen
    seen = there()
    if seen is None:
        return "nothing there"
    if not seen[2]:
        return "empty"
    pid = json.loads(seen[2])["pid"]
    if pid == os.getpid():
        return "its own"
    return "lives" if os.path.exists(f"/proc/{pid}") else "dead"


def compare():
    now = there()
    return "same" if (now and now[1:]) == (seen and seen[1:]) else "differs"


def create():
    global made
    try:
        made = open(records[0], "x")
    except OSError as error:
        return errno.errorcode[error.errno]


def write():
    with made:
        json.dump(own(), made)


def answer(listener):
    body = b'{"ok":true,"status":"live"}'
    while True:
        client, _ = listener.accept()
        with client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


for line in sys.stdin:
    said = None
    match line.split():
        case ["lock"]:
            lock()
        case ["unlock"]:
            while held:
                held.pop().close()
        case ["remove"]:
            for path in records:
                if os.path.exists(path):
                    os.unlink(path)
        case ["record"]:
            record()
        case ["make"]:
            os.makedirs(os.path.dirname(records[0]), mode=0o700, exist_ok=True)
        case ["look"]:
            said = look()
        case ["compare"]:
            said = compare()
        case ["create"]:
            said = create()
        case ["write"]:
            write()
        case ["listen"]:
            listener = socket.create_server(("127.0.0.1", port), backlog=16)
            threading.Thread(target=answer, args=(listener,), daemon=True).start()
    print(said or "done", flush=True)
"""


class NodeLike:
    """One such process; what it does it is told, a word at a time."""

    def __init__(self, state_dir: Path, config: Path, port: int) -> None:
        names = STATE_LOCK_NAME, config_lock_name(str(config))
        self.records = [state_dir.joinpath(*lock_directory_parts(), name) for name in names]
        self.locks = lock_paths(
            os.path.realpath(state_dir), map(str, self.records), uid=os.geteuid()
        )
        self.shared_lock = Path(self.locks[-1])
        told = [self.locks, [str(path) for path in self.records], port]
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def does(self, *words: str) -> NodeLike:
        """Have it do these things, and wait until it has."""
        for word in words:
            assert self.says_of(word) == "done"
        return self

    def says_of(self, word: str) -> str:
        """Have it do one thing, and return how that went: ``done``, or what it found."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def said(self) -> list[Any]:
        """What its records say, byte by byte; ``None`` for one that is gone."""
        return [path.read_bytes() if path.exists() else None for path in self.records]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.shared_lock.unlink(missing_ok=True)
