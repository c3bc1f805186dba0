"""The real claim, driven along the model's own paths: the same system calls with the same outcomes.

Real processes run the product's code under ptrace, one noticeable system call at a time, in the
orders that the model says are possible. Where code and model part, one of them is wrong.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from conftest import free_port
from faults.extent import extent
from faults.stepper import Call, Stepped
from model.claim_model import (
    GIVE_UP,
    KILLED,
    LOOK,
    RETRY,
    START,
    STOP,
    Action,
    Claim,
    Hostile,
    Step,
    World,
    begin,
)
from model.explorer import explore, walks
from openclaw_gateway.claim import claim
from openclaw_gateway.claim.decision import Verdict
from openclaw_gateway.claim.lockfile import STATE_LOCK_NAME, Contended, lock_directory_parts
from openclaw_gateway.client.answer import Health
from openclaw_gateway.errors import ClaimLostError, GatewayError
from openclaw_gateway.settings import load as settings
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.events import Priority
from openclaw_gateway.supervisor.journal import PlainJournal
from openclaw_gateway.supervisor.notify import Supervisor

HOSTILE_WALKS = extent("MODEL_WALKS", 100, 1_000)
"""How many walks with a hostile hand to take; each goes where no earlier one went."""

_AT_FDCWD = -100
_AF_UNIX = 1
_DECISIONS = {RETRY: b"r", GIVE_UP: b"g", LOOK: b"l", STOP: b"s"}
_KINDS = {
    Step.COMPARE: "compare",
    Step.CHECK_FILE: "compare",
    Step.FOLLOW: "compare",
    Step.CONFIRM: "compare",
    Step.LEAVE_COMPARE: "compare",
    Step.CLOSE_NAMELESS: "close file",
    Step.CLOSE_FILE: "close file",
}
"""Steps that are the same system call at different places of the claim."""


class _GaveUp(Exception):
    """The driven process was told to give up."""


class _Scripted:
    """The policy of a driven process: what it would decide by clock and probe is read from a pipe."""

    def __init__(self, decisions: int) -> None:
        self._decisions = decisions

    def settle(self, contended: Contended, *, health: Health | None = None) -> Verdict:
        if os.read(self._decisions, 1) == _DECISIONS[GIVE_UP]:
            raise _GaveUp
        return Verdict.WAIT


def _be_gateway(settings: Settings, decisions: int) -> int:
    """Claim and hold as the daemon does, by the decisions that are read from a pipe."""
    supervisor, journal = Supervisor({}), PlainJournal(Priority.CRIT)
    try:
        with claim.acquire(
            settings,
            supervisor,
            journal,
            pause=lambda seconds: None,
            policy=_Scripted(decisions),
        ) as held:
            while os.read(decisions, 1) == _DECISIONS[LOOK]:
                held.verify()
    except (_GaveUp, ClaimLostError):
        return 0
    except GatewayError:
        return 1
    return 0


class Scene:
    """A state directory, a base port, and the processes and the hostile hand that act on them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.state = str(home / "state")
        self.file_from_state = os.path.join(*lock_directory_parts(), STATE_LOCK_NAME)
        self.processes: dict[int, Driven] = {}
        environ = {
            "OPENCLAW_STATE_DIR": self.state,
            "OPENCLAW_CONFIG_PATH": str(home / "openclaw.json"),
            "OPENCLAW_GATEWAY_PORT": str(self.port),
            "OPENCLAW_ALLOW_MULTI_GATEWAY": "1",  # the model has one lock file
        }
        (home / "openclaw.json").write_text("{}")
        self._settings = settings.load({}, environ)

    def act(self, action: Action, after: World) -> None:
        """Do what the model does, and compare."""
        number = action.process
        if number is None:
            self._interfere(Hostile(action.does))
            return
        if action.does == START:
            self.processes[number] = Driven(self._settings, self)
            return
        process = self.processes[number]
        if action.does == KILLED:
            process.kill()
            del self.processes[number]
            return
        if action.does in _DECISIONS:
            process.decide(action.does)
        else:
            step = Step(action.does)
            made = process.step()
            # makedirs looks again at what mkdir said exists; when that is gone, it ends before open.
            if made is None and (step, action.outcome) == (Step.OPEN_STATE, "ENOENT"):
                made = step, -errno.ENOENT
            assert made is not None, "ended"
            kind, result = made
            assert kind == _KINDS.get(step, step)
            assert _outcome(step, result) in (action.outcome, "either")
        if after.processes[number].step is Step.GONE:
            assert process.finish() in (0, 1)
            del self.processes[number]

    def _interfere(self, act: Hostile) -> None:
        locks = os.path.join(self.state, *lock_directory_parts())
        file, aside = os.path.join(locks, STATE_LOCK_NAME), str(self.home / "aside")
        attic = str(self.home / f"attic-{len(os.listdir(self.home))}")
        match act:
            case Hostile.REMOVE_FILE:
                os.unlink(file)
            case Hostile.MOVE_FILE:
                os.rename(file, aside)
            case Hostile.RETURN_FILE:
                os.rename(aside, file)
            case Hostile.MOVE_LOCKS:
                os.rename(locks, attic)
            case Hostile.MOVE_STATE:
                os.rename(self.state, attic)

    def clear(self) -> None:
        """End everything and start from nothing."""
        for process in self.processes.values():
            process.kill()
        self.processes.clear()
        for entry in self.home.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name == "aside":
                entry.unlink()


def _outcome(step: Step, result: int) -> str:
    if _KINDS.get(step) == "compare" or step in (Step.OPEN_FILE, Step.CHECK_STATE):
        return "either"  # which of two it was shows in the step that follows
    if result >= 0:
        return "done"
    return {"EEXIST": "exists"}.get(name := errno.errorcode[-result], name)


class Driven:
    """One real gateway process that makes the model's steps."""

    def __init__(self, settings: Settings, scene: Scene) -> None:
        self._scene = scene
        read_end, self._decisions = os.pipe()
        self._process = Stepped(lambda: _be_gateway(settings, read_end))
        os.close(read_end)
        self._holds: dict[int, str] = {}
        """Descriptors whose closing others can notice."""
        self._looking = False

    def decide(self, decision: str) -> None:
        self._looking = decision == LOOK
        os.write(self._decisions, _DECISIONS[decision])

    def step(self) -> tuple[str, int] | None:
        """Make the next noticeable system call; return its kind of step and its result, ``None`` at the end."""
        call = self._process.run_to(lambda call: self._kind(call) is not None)
        if call is None:
            return None
        kind = self._kind(call)
        assert kind is not None
        result = self._process.result()
        assert result is not None
        self._remember(kind, call, result)
        return kind, result

    def finish(self) -> int:
        """Run to the end, which must come without another noticeable call, and return the exit code."""
        call = self._process.run_to(lambda call: self._kind(call) is not None)
        assert call is None, f"goes on with {self._kind(call)}"
        os.close(self._decisions)
        assert self._process.status is not None
        return self._process.status

    def kill(self) -> None:
        self._process.kill()
        os.close(self._decisions)

    def _remember(self, kind: str, call: Call, result: int) -> None:
        if kind.startswith("close"):
            del self._holds[call.arguments[0]]
        elif kind == Step.CHECK_STATE:
            self._looking = False
        elif result == 0:
            closing = {
                Step.LOCK_STATE: Step.CLOSE_STATE,
                Step.LOCK_FILE: "close file",
                Step.BIND_PORT: Step.LEAVE_PORT,
            }
            if kind in closing:
                self._holds[call.arguments[0]] = closing[Step(kind)]

    def _kind(self, call: Call) -> str | None:
        """Say what kind of step a system call is; ``None`` for one that no other process can notice."""
        first, second = call.arguments[:2]
        match call.name:
            case "mkdir":
                return Step.MAKE_STATE if self._process.text(first) == self._scene.state else None
            case "mkdirat":
                names = {
                    self._scene.state: Step.MAKE_STATE,
                    lock_directory_parts()[-1]: Step.MAKE_LOCKS,
                }
                return names.get(self._process.text(second))
            case "openat":
                names = {
                    self._scene.state: Step.OPEN_STATE,
                    lock_directory_parts()[-1]: Step.OPEN_LOCKS,
                    STATE_LOCK_NAME: Step.OPEN_FILE,
                }
                return names.get(self._process.text(second))
            case "flock":
                if not stat.S_ISDIR(os.stat(f"/proc/{self._process.pid}/fd/{first}").st_mode):
                    return Step.LOCK_FILE
                # The second look at a directory that is ours is refused, which nobody else notices.
                return None if Step.CLOSE_STATE in self._holds.values() else Step.LOCK_STATE
            case "bind":
                return Step.BIND_PORT if self._process.short(second) == _AF_UNIX else None
            case "newfstatat":
                path = self._process.text(second)
                if path == self._scene.file_from_state:
                    return "compare"
                return Step.CHECK_STATE if self._looking and path == self._scene.state else None
            case "unlinkat":
                return Step.UNLINK
            case "close":
                return self._holds.get(first)
        return None


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.clear()


def follow(scene: Scene, walk: list[tuple[Action, World]]) -> None:
    done: list[Action] = []
    for action, after in walk:
        try:
            scene.act(action, after)
        except AssertionError as error:
            way = "\n".join(map(str, [*done, action]))
            raise AssertionError(f"{error}; the model's way:\n{way}") from error
        done.append(action)
    scene.clear()


def test_the_code_makes_every_step_of_two_processes_that_the_model_makes(scene: Scene) -> None:
    start = begin(processes=2, starts=1, hostile=0)
    found = explore(start, Claim().successors, lambda world: None)
    for walk in walks(start, found.edges):
        follow(scene, walk)


def test_the_code_makes_the_models_steps_while_someone_interferes(scene: Scene) -> None:
    start = begin(processes=2, starts=1, hostile=1)
    found = explore(start, Claim().successors, lambda world: None)
    for walk in islice(walks(start, found.edges), HOSTILE_WALKS):
        follow(scene, walk)
