"""Take a lock with someone's library, say ``owner`` or ``refused``, hold it until told; the controls of the fault matrix.

    contender.py <library> <path of the lock file>

Needs nothing but that library; ``flock(1)`` has taken the lock before it runs this. While it has the
lock it is seen by the witnesses in the directory that ``WITNESSES`` names. Standard input: ``fork`` leaves a forked child behind, ``exec`` an
executed one; the end of it releases the lock. Tries for a second; exit code 75 if somebody has the
lock, 74 if there can be none in that place.
"""

import os
import sys
import time
from pathlib import Path

from witnesses import witnessed

TRY_S = 1.0
TAKEN = {
    "AlreadyLocked", "LockError", "LockException", "PidFileAlreadyLockedError", "PidFileAlreadyRunningError",
    "Timeout", "TimeoutError",
}  # fmt: skip
"""What the libraries raise where somebody has the lock."""


def filelock(path: str):
    from filelock import FileLock

    lock = FileLock(path)
    lock.acquire(timeout=TRY_S)
    return lock.release


def portalocker(path: str):
    from portalocker import Lock

    lock = Lock(path, "a", timeout=TRY_S)
    lock.acquire()
    return lock.release


def pid(path: str):
    from pid import PidFile, PidFileAlreadyLockedError, PidFileAlreadyRunningError

    lock = PidFile(
        os.path.basename(path), piddir=os.path.dirname(path), register_term_signal_handler=False
    )
    _persist(lock.create, PidFileAlreadyLockedError, PidFileAlreadyRunningError)
    return lock.close


def zc_lockfile(path: str):
    from zc.lockfile import LockError, LockFile

    return _persist(lambda: LockFile(path), LockError).close


def fasteners(path: str):
    from fasteners import InterProcessLock

    lock = InterProcessLock(path)
    if not lock.acquire(timeout=TRY_S):
        raise TimeoutError
    return lock.release


def flock(_path: str):
    return lambda: None  # the kernel does, when we end


def _persist(step, *refusals):
    """Try for as long as the libraries that wait by themselves do."""
    ends_s = time.monotonic() + TRY_S
    while True:
        try:
            return step()
        except refusals:
            if time.monotonic() >= ends_s:
                raise
            time.sleep(0.05)


def main() -> int:
    name, path = sys.argv[1:]
    take = {"zc.lockfile": zc_lockfile, "flock(1)": flock}.get(name) or globals()[name]
    try:
        release = take(path)
    except Exception as error:
        print("refused", type(error).__name__, flush=True)
        return 75 if type(error).__name__ in TAKEN else 74
    with witnessed(Path(os.environ["WITNESSES"])):
        print("owner", flush=True)
        for line in sys.stdin:
            if line == "fork\n" and os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            if line == "exec\n":
                os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
            print("done", flush=True)
    release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
