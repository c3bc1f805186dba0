"""Take and give back one lock, again and again; print how often per second, one number a round.

    locks.py <lock> <seconds a round> <rounds>

Runs in the environment that has the lock's library. ``flock`` is the floor: nothing but system calls.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Callable


def flock(directory: str) -> Callable[[], None]:
    path = os.path.join(directory, "lock")

    def once() -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
        os.close(fd)

    return once


def gateway(directory: str) -> Callable[[], None]:
    from openclaw_gateway.claim.lockfile import STATE_LOCK_NAME, DirectoryLock, LockFile
    from openclaw_gateway.claim.record import LockRecord

    record = LockRecord(os.getpid(), boot_id="b")

    def once() -> None:
        state = DirectoryLock(directory)
        file = LockFile(state, STATE_LOCK_NAME)
        file.write(record)
        file.release()
        state.release()

    return once


def filelock(directory: str) -> Callable[[], None]:
    from filelock import FileLock

    path = os.path.join(directory, "lock")

    def once() -> None:
        lock = FileLock(path)
        lock.acquire(timeout=0)
        lock.release()

    return once


def portalocker(directory: str) -> Callable[[], None]:
    from portalocker import Lock

    path = os.path.join(directory, "lock")

    def once() -> None:
        lock = Lock(path, "a", timeout=0, fail_when_locked=True)
        lock.acquire()
        lock.release()

    return once


def fasteners(directory: str) -> Callable[[], None]:
    from fasteners import InterProcessLock

    path = os.path.join(directory, "lock")

    def once() -> None:
        lock = InterProcessLock(path)
        lock.acquire(blocking=False)
        lock.release()

    return once


def main() -> None:
    name, seconds, rounds = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as directory:
        once = globals()[name](directory)
        once()
        for _ in range(rounds):
            count, began_s = 0, time.perf_counter()
            while (passed_s := time.perf_counter() - began_s) < seconds:
                once()
                count += 1
            print(count / passed_s)


if __name__ == "__main__":
    main()
