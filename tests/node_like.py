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
import json, os, socket, sqlite3, sys, threading

locks, records, port = json.loads(sys.argv[1])
held = []


def lock():
    for path in locks:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        made = sqlite3.connect(path, isolation_level=None)
        made.execute("BEGIN EXCLUSIVE")
        held.append(made)


def record():
    ticks = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
    said = {"pid": os.getpid(), "ownerId": "6c1d", "port": port, "startTime": ticks}
    for path in records:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "w") as file:
            json.dump(said, file)


def answer(listener):
    body = b'{"ok":true,"status":"live"}'
    while True:
        client, _ = listener.accept()
        with client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


for line in sys.stdin:
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
        case ["listen"]:
            listener = socket.create_server(("127.0.0.1", port), backlog=16)
            threading.Thread(target=answer, args=(listener,), daemon=True).start()
    print("done", flush=True)
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
        assert self.process.stdin and self.process.stdout
        for word in words:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "done\n"
        return self

    def said(self) -> list[Any]:
        """What its records say, byte by byte; ``None`` for one that is gone."""
        return [path.read_bytes() if path.exists() else None for path in self.records]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.shared_lock.unlink(missing_ok=True)
