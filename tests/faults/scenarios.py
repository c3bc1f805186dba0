"""What may go wrong around a lock, as functions of any implementation: each says whether it held, or what happened instead.

The numbers are those of the project's list of faults. A scenario never judges by the lock it tests:
two owners are two processes that both say so and both live, or any that a witness saw.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from conftest import CAP_S, free_port
from faults.extent import extent
from faults.implementations import GATEWAY, TAKEN, UNUSABLE, Contender, Lab, refusal, settle
from faults.stepper import Call, Stepped

HOLDS = "holds"
TWO_OWNERS = "**two owners**"
STUCK = "cannot start"
OWNER_GONE = "owner stops"

RACERS = extent("MATRIX_RACERS", 8, 50)
GARBAGE = (b"", b"\0" * 512, b"\xff\xfe{", b"-1\n", b"0\n", b"[" * 100_000, b"9" * 10_000_000)


def exclusive(first: Contender, second: Contender) -> str:
    """Say whether the second was kept out, and the first lives on."""
    if not second.is_owner():
        return refused(second) if first.process.poll() is None else OWNER_GONE
    settle()
    both = first.process.poll() is None and second.process.poll() is None
    return TWO_OWNERS if both else OWNER_GONE


def refused(contender: Contender, *, as_being: str = TAKEN) -> str:
    """Say whether one that is no owner was told why, in the way that a user would see."""
    found = contender.refusal()
    return HOLDS if found == as_being else found


def startable(lab: Lab) -> str:
    """Say whether a start gets the lock that nobody has."""
    return HOLDS if lab.start().is_owner() else STUCK


def simultaneous_starts(lab: Lab) -> str:
    contenders = [lab.start() for _ in range(RACERS)]
    losers = [contender for contender in contenders if not contender.is_owner()]
    if len(losers) < RACERS - 1:
        return TWO_OWNERS
    if len(losers) == RACERS:
        return "nobody wins"
    verdicts = {refused(loser) for loser in losers}
    return ", ".join(sorted(verdicts - {HOLDS})) or HOLDS


def killed_owner(lab: Lab) -> str:
    lab.owner().kill()
    return startable(lab)


def killed_again_and_again(lab: Lab) -> str:
    for _ in range(extent("MATRIX_KILLS", 3, 100)):
        contender = lab.start()
        if not contender.is_owner():
            return STUCK
        contender.kill()
    return HOLDS


def removed_file(lab: Lab) -> str:
    first = lab.owner()
    with suppress(FileNotFoundError):
        lab.place.file.unlink()
    return exclusive(first, lab.start())


def moved_file(lab: Lab) -> str:
    first = lab.owner()
    lab.place.file.rename(lab.home / "aside")
    return exclusive(first, lab.start())


def replaced_file(lab: Lab) -> str:
    first = lab.owner()
    copy = lab.home / "copy"
    copy.write_bytes(lab.place.file.read_bytes())
    copy.chmod(0o600)
    copy.rename(lab.place.file)
    return exclusive(first, lab.start())


def moved_lock_directory(lab: Lab) -> str:
    first = lab.owner()
    lab.place.directory.rename(lab.home / "moved")
    lab.place.directory.mkdir(mode=0o700)
    return exclusive(first, lab.start())


def moved_state_directory(lab: Lab) -> str:
    """
    Nothing on the file system is left to compare; a gateway's port still is, if both have the same.

    An owner that looks just then stops before the other starts, and that is holding too.
    """
    lab.shared_port = free_port()
    first = lab.owner()
    lab.place.root.rename(lab.home / "moved")
    lab.place.root.mkdir(mode=0o700)
    found = exclusive(first, lab.start())
    return HOLDS if found == OWNER_GONE else found


def aged_file(lab: Lab) -> str:
    """A lock file of 1990 and, after it, one of 2050: clocks say nothing."""
    first = lab.owner()
    for year in (1990, 2050):
        when_s = (year - 1970) * 31_556_952
        os.utime(lab.place.file, (when_s, when_s))
    os.utime(lab.place.file, (0, 0))
    return exclusive(first, lab.start())


def temporary_files_cleaned(lab: Lab) -> str:
    """``systemd-tmpfiles --clean`` with everything past its age."""
    first = lab.owner()
    for path in (lab.place.file, lab.place.directory, lab.place.root):
        os.utime(path, (0, 0))
    rules = lab.home / "rules.conf"
    rules.write_text(f"d {lab.place.root} - - - 1s\n")
    time.sleep(1.1)  # the least age that tmpfiles.d(5) knows; the change time can't be set back
    subprocess.run(["systemd-tmpfiles", "--clean", str(rules)], check=True, timeout=CAP_S)
    return exclusive(first, lab.start())


def record_of(lab: Lab, pid: int) -> bytes:
    if lab.name == GATEWAY:
        return f'{{"pid": {pid}, "port": {free_port()}, "createdAt": "2026-01-01T00:00:00Z"}}\n'.encode()
    return f"{pid}\n".encode()


def forge(lab: Lab, record: bytes) -> None:
    lab.furnish()
    lab.place.file.write_bytes(record)
    lab.place.file.chmod(0o600)


def record_of_a_stranger(lab: Lab) -> str:
    with stranger() as pid:
        forge(lab, record_of(lab, pid))
        return startable(lab)


def record_of_pid_1(lab: Lab) -> str:
    forge(lab, record_of(lab, 1))
    return startable(lab)


def record_of_a_zombie(lab: Lab) -> str:
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    try:
        forge(lab, record_of(lab, zombie.pid))
        return startable(lab)
    finally:
        zombie.wait()


def record_of_the_starter(lab: Lab) -> str:
    lab.furnish()
    words, environ = lab.words()
    whole = record_of(lab, 0).decode().strip().replace("0", "$$", 1)
    quoted = whole.replace('"', '\\"')
    shell = f'umask 077; echo "{quoted}" > "$0"; exec "$@"'
    made = lab.run(["sh", "-c", shell, lab.place.file, *words], environ)
    return HOLDS if made.is_owner() else STUCK


def garbage_in_the_file(lab: Lab) -> str:
    for garbage in GARBAGE:
        lab.furnish()
        lab.place.file.write_bytes(garbage)
        lab.place.file.chmod(0o600)
        contender = lab.start()
        if not contender.is_owner():
            return f"{STUCK} ({len(garbage)} bytes)"
        contender.release()
    return HOLDS


def symlink_in_the_files_place(lab: Lab) -> str:
    lab.furnish()
    target = lab.home / "target"
    target.write_text("precious")
    lab.place.file.symlink_to(target)
    before = target.stat()
    contender = lab.start()
    owns = contender.is_owner()
    after = target.stat()
    if target.read_text() != "precious":
        return "writes through it"
    if (after.st_mode, after.st_mtime_ns) != (before.st_mode, before.st_mtime_ns):
        return "changes its target"
    return "locks its target" if owns else refused(contender, as_being=UNUSABLE)


def disk_full(lab: Lab) -> str:
    """No room for a byte: a clear refusal that leaves nothing, or doing without a record."""
    lab.place.root.mkdir(exist_ok=True, mode=0o700)
    with mounted(lab.place.root, "size=64k,mode=0700"):
        with suppress(OSError), open(lab.place.root / "fill", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        contender = lab.start()
        owns = contender.is_owner()
        left = list(lab.place.root.rglob("*.lock"))
        if owns:
            contender.release()
            return "runs without a record"
        return "leaves litter" if left else refused(contender, as_being=UNUSABLE)


def read_only(lab: Lab) -> str:
    lab.furnish()
    with mounted(lab.place.root, "mode=0700,ro"):
        contender = lab.start()
        owns = contender.is_owner()
        return "runs unlocked" if owns else refused(contender, as_being=UNUSABLE)


def stopped_owner(lab: Lab) -> str:
    first = lab.owner()
    first.stop()
    return exclusive(first, lab.start())


def forked_child_outlives_owner(lab: Lab) -> str:
    first = lab.owner()
    first.tell("fork")
    first.kill()
    return startable(lab)


def executed_child_outlives_owner(lab: Lab) -> str:
    first = lab.owner()
    first.tell("exec")
    first.kill()
    return startable(lab)


def onlooker_takes_the_lock_for_instants(lab: Lab) -> str:
    """Someone looks at the lock again and again, as a status command might."""
    lab.owner().kill()
    places = [path for path in (lab.place.root, lab.place.file) if path.exists()]
    if lab.name != GATEWAY:
        places = [path for path in places if path.is_file()]
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            for path in places:
                with suppress(OSError):
                    fd = os.open(path, os.O_RDONLY)
                    with suppress(BlockingIOError):
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.close(fd)

    onlooker = threading.Thread(target=look)
    onlooker.start()
    try:
        return startable(lab)
    finally:
        ended.set()
        onlooker.join()


def waiter_wakes_after_the_file_went(lab: Lab) -> str:
    """One waits at the lock while its owner leaves and a third one comes: the race of unlinked files."""
    first = lab.owner()
    said_end, say_end = os.pipe()
    log = lab.home / "log-of-waiter"
    words, environ = lab.words()

    def execute() -> int:
        os.dup2(say_end, 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600), 2)
        waiting, _ = os.pipe2(0)  # standard input that never ends while we live
        os.dup2(waiting, 0)
        os.execvpe(os.fspath(words[0]), [os.fspath(word) for word in words], environ)

    waiter = Stepped(execute)
    os.close(say_end)
    try:
        if waiter.run_to(lambda call: _locks_below(waiter, call, lab.place.root)) is None:
            return "takes no lock"
        first.release()
        third = lab.start()
        third_owns = third.is_owner()
        waiter.let_go()
        with open(said_end, "rb") as said:
            os.set_blocking(said.fileno(), True)
            waiter_owns = said.readline().startswith(b"owner")
        if waiter_owns and third_owns and third.process.poll() is None:
            return TWO_OWNERS
        if not waiter_owns:
            waiter.status = os.waitstatus_to_exitcode(os.waitpid(waiter.pid, 0)[1])
            found = refusal(lab.name, waiter.status, log.read_text())
            if found != TAKEN:
                return found
        return HOLDS if waiter_owns or third_owns else STUCK
    finally:
        with suppress(ProcessLookupError):
            os.kill(waiter.pid, signal.SIGKILL)
        if waiter.status is None:
            os.waitpid(waiter.pid, 0)


_F_SETLK, _F_SETLKW, _F_OFD_SETLK, _F_OFD_SETLKW = 6, 7, 37, 38


def _locks_below(process: Stepped, call: Call, root: Path) -> bool:
    locking = call.name == "flock" or (
        call.name == "fcntl"
        and call.arguments[1] in (_F_SETLK, _F_SETLKW, _F_OFD_SETLK, _F_OFD_SETLKW)
    )
    if not locking:
        return False
    return os.readlink(f"/proc/{process.pid}/fd/{call.arguments[0]}").startswith(str(root))


@contextmanager
def stranger() -> Iterator[int]:
    """A process of ours that has nothing to do with any lock."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """A tmpfs of its own at a path; needs root."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


class Scenario(NamedTuple):
    """One fault: its number in the list of faults, what a reader calls it, and how it is made."""

    number: int
    title: str
    run: Callable[[Lab], str]
    needs_root: bool = False


def verdict(run: Callable[[Lab], str], lab: Lab) -> str:
    """Play a scenario and say what came of it; the witnesses can only make that worse."""
    found = run(lab)
    return TWO_OWNERS if lab.overlaps() else found


SCENARIOS = (
    Scenario(1, f"{RACERS} starts at once", simultaneous_starts),
    Scenario(2, "owner killed, next start at once", killed_owner),
    Scenario(3, "killed and started again and again", killed_again_and_again),
    Scenario(5, "a waiter wakes on an unlinked file", waiter_wakes_after_the_file_went),
    Scenario(6, "lock file removed while held", removed_file),
    Scenario(6, "lock file moved aside while held", moved_file),
    Scenario(6, "lock file replaced while held", replaced_file),
    Scenario(7, "lock directory replaced while held", moved_lock_directory),
    Scenario(
        7,
        "state directory replaced while held (one port, which is the gateway's guard then)",
        moved_state_directory,
    ),
    Scenario(8, "systemd-tmpfiles cleans up", temporary_files_cleaned, needs_root=True),
    Scenario(9, "record names an unrelated process", record_of_a_stranger),
    Scenario(10, "record names the starter's own pid", record_of_the_starter),
    Scenario(11, "record names pid 1", record_of_pid_1),
    Scenario(12, "record names a zombie", record_of_a_zombie),
    Scenario(20, "garbage in the lock file", garbage_in_the_file),
    Scenario(24, "symbolic link in the lock file's place", symlink_in_the_files_place),
    Scenario(28, "disk full", disk_full, needs_root=True),
    Scenario(29, "read-only file system", read_only, needs_root=True),
    Scenario(33, "owner stopped with SIGSTOP", stopped_owner),
    Scenario(43, "owner killed, its forked child lives", forked_child_outlives_owner),
    Scenario(43, "owner killed, its executed child lives", executed_child_outlives_owner),
    Scenario(48, "lock file dated 1970", aged_file),
    Scenario(49, "someone looks at the lock all the time", onlooker_takes_the_lock_for_instants),
)
