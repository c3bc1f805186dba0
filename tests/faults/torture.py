"""Start, kill, stop, continue and rob gateways at random for a while, and report what the witnesses saw.

    python tests/faults/torture.py --seconds 3600 --seed 7
    python tests/faults/torture.py --seconds 3600 --standby

Every starter is a forked process that runs the whole daemon, with a witness inside; the owner is
whoever got through the claim. With --standby there are two, each the other's standby, started anew at
once when they end and killed when they hang, as their units would. Prints one line of JSON. Exit code 1 if there were two owners at once, something was left over, the
last start failed or a daemon said a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import seen
from faults.life import Home
from faults.witnesses import Referee
from openclaw_gateway.claim.lockfile import lock_directory_parts

_WATCHDOG_S = 0.6
_LIVING = 6


class Torture:
    """One run: starters, their tormentor, and the referee."""

    def __init__(self, home: Home, *, seed: int, hostile: bool, standby: bool = False) -> None:
        self._random = random.Random(seed)
        self._home = home
        self._locks = home.state.joinpath(*lock_directory_parts())
        self._referee = Referee(home.path)
        self._living: set[int] = set()
        self._stopped: set[int] = set()
        self._units = 2 if standby else 0
        self._flags = {"--health-timeout": "1", "--lock-timeout": "1"}
        self._flags |= {"--standby": "yes"} if standby else {}
        self.done: Counter[str] = Counter()
        self.codes: Counter[int] = Counter()
        acts: list[tuple[Callable[[], None], int]] = [
            (self._kill, 10),
            (self._terminate, 10),
            (self._stop, 5),
            *([(self._watch, 8)] if standby else [(self._start, 40), (self._continue, 8)]),
        ]
        if hostile:
            acts += [
                (self._remove, 5),
                (self._move_aside, 4),
                (self._move_back, 4),
                (self._move_locks, 1),
                (self._move_state, 1),
            ]
        self._acts, self._weights = zip(*acts, strict=True)

    def run(self, seconds: float) -> dict[str, object]:
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            while len(self._living) < self._units:
                self._start()
            (act,) = self._random.choices(self._acts, self._weights)
            act()
            pause_ends_s = time.monotonic() + self._random.expovariate(1 / 0.02)
            while True:
                self._referee.look()
                self._reap()
                self._home.is_ready()  # keeps the notify socket from filling up
                if time.monotonic() >= pause_ends_s:
                    break
                time.sleep(0.001)  # the referee looks at what lasts longer than this
            self._referee.ask_kernel(self._home.port)
        return self._report(seconds)

    def _report(self, seconds: float) -> dict[str, object]:
        for pid in self._living:
            os.kill(pid, signal.SIGKILL)
        self._reap(wait=True)
        self._referee.look()
        self._home.is_ready()
        last = self._home.whole_life()
        self._referee.look()
        self._referee.close()
        return {
            "seconds": seconds,
            "acts": dict(sorted(self.done.items())),
            "exit codes": dict(sorted(self.codes.items())),
            "ownerships": self._referee.ownerships,
            "overlaps": self._referee.overlaps,
            "longest time without an owner, s": round(self._referee.longest_gap_s, 2),
            "litter": self._home.litter(),
            "last start": last,
            "tracebacks": self._home.log().split("Traceback")[1:4],
        }

    def _reap(self, *, wait: bool = False) -> None:
        for pid in list(self._living):
            found, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
            if found:
                self.codes[os.waitstatus_to_exitcode(status)] += 1
                self._living.discard(pid)
                self._stopped.discard(pid)

    def _start(self) -> None:
        if len(self._living) >= _LIVING:
            return
        self.done["start"] += 1
        with_child = self._random.random() < 0.3
        pid = os.fork()
        if pid:
            self._living.add(pid)
            return
        code = 70
        try:
            code = self._home.live(
                watchdog_s=_WATCHDOG_S,
                flags=self._flags,
                run=partial(
                    seen.run,
                    home=self._home.path,
                    on_claim=_leave_a_child if with_child else lambda: None,
                ),
            )
        finally:
            os._exit(code)

    def _victim(self) -> int | None:
        """Return a process, the owner more often than its share."""
        owners = [pid for pid in self._referee.owners.values() if pid in self._living]
        pool = owners if owners and self._random.random() < 0.6 else sorted(self._living)
        return self._random.choice(pool) if pool else None

    def _signal(self, number: signal.Signals) -> int | None:
        victim = self._victim()
        if victim is not None:
            self.done[number.name] += 1
            os.kill(victim, number)
        return victim

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def _stop(self) -> None:
        victim = self._signal(signal.SIGSTOP)
        if victim is not None:
            self._stopped.add(victim)

    def _continue(self) -> None:
        for pid in self._stopped:
            self.done["SIGCONT"] += 1
            os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    def _watch(self) -> None:
        """Kill what hangs, as the watchdog of its unit does."""
        for pid in self._stopped:
            self.done["watchdog"] += 1
            os.kill(pid, signal.SIGKILL)
        self._stopped.clear()

    def _files(self) -> list[Path]:
        return sorted(self._locks.glob("*.lock"))

    def _rob(self, what: str, act: Callable[[], object]) -> None:
        """Interfere, unless what was to be taken has gone by itself."""
        try:
            act()
        except (FileNotFoundError, FileExistsError):
            return
        self.done[what] += 1

    def _remove(self) -> None:
        for file in self._files():
            self._rob("rm", file.unlink)

    def _move_aside(self) -> None:
        for file in self._files():
            self._rob("mv aside", lambda file=file: file.rename(self._home.path / file.name))  # type: ignore[misc]

    def _move_back(self) -> None:
        for file in sorted(self._home.path.glob("*.lock")):
            self._rob("mv back", lambda file=file: file.rename(self._locks / file.name))  # type: ignore[misc]

    def _move_locks(self) -> None:
        self._rob("mv lock directory", lambda: self._locks.rename(self._attic()))

    def _move_state(self) -> None:
        self._rob("mv state directory", lambda: self._home.state.rename(self._attic()))

    def _attic(self) -> Path:
        return self._home.path / f"attic-{self.done.total()}"


def _leave_a_child() -> None:
    """Have a child that must not keep the lock when we die: it inherits whatever isn't close-on-exec."""
    subprocess.Popen(["sleep", "0.5"], close_fds=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument(
        "--standby", action="store_true", help="two units, each the other's standby"
    )
    parser.add_argument("--gentle", action="store_true", help="signals only; files are left alone")
    arguments = parser.parse_args()
    path = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        torture = Torture(
            Home(path),
            seed=arguments.seed,
            hostile=not arguments.gentle and not arguments.standby,
            standby=arguments.standby,
        )
        report = {"seed": arguments.seed} | torture.run(arguments.seconds)
    finally:
        shutil.rmtree(path)
    print(json.dumps(report))
    wrong = ("overlaps", "litter", "last start", "tracebacks")
    return int(any(report[name] for name in wrong))


if __name__ == "__main__":
    sys.exit(main())
