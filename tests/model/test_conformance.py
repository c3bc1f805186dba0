"""The real claim, driven along the model's own paths: the same system calls with the same outcomes.

Real processes run the product's code under ptrace, one noticeable system call at a time, in the
orders that the model says are possible. Where code and model part, one of them is wrong. OpenClaw's own
gateway is a process that locks and writes as it does, and says what it finds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import closing
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
    RESTART,
    RETRY,
    START,
    STOP,
    TOO_OLD,
    YOUNG,
    Action,
    Claim,
    Hostile,
    Step,
    World,
    begin,
)
from model.explorer import explore, walks
from node_like import NodeLike
from openclaw_gateway.claim import claim
from openclaw_gateway.claim.decision import Obstacle, Verdict
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
NODE_WALKS = extent("MODEL_NODE_WALKS", 50, 1_500)
"""The same beside OpenClaw's own gateway; 1,383 take every edge."""

BEYOND = 3
"""Steps that a walk goes on for after its last one that no earlier walk made."""

Walk = list[tuple[Action, World]]

_AF_UNIX = 1
_NODE_LOCK = ".lock.sqlite"
_DECISIONS = {RETRY: b"r", GIVE_UP: b"g", LOOK: b"l", STOP: b"s"}
_KINDS = {
    Step.COMPARE: "compare",
    Step.CHECK_FILE: "compare",
    Step.FOLLOW: "compare",
    Step.CONFIRM: "compare",
    Step.LEAVE_COMPARE: "compare",
    Step.CLOSE_NAMELESS: "close file",
    Step.CLOSE_FILE: "close file",
    Step.CLOSE_NEW: "close file",
    Step.ASK_FIRST: "ask for Node's locks",
    Step.ASK_BEFORE: "ask for Node's locks",
    Step.ASK_AFTER: "ask for Node's locks",
    Step.ASK_AGAIN: "ask for Node's locks",
    Step.READ_BEFORE: "read the record",
    Step.READ_AGAIN: "read the record",
}
"""Steps that are the same system calls at different places of the claim."""
_NODE_WORDS = {
    Step.NODE_MAKE: "make",
    Step.NODE_LOCK: "lock",
    Step.NODE_GAP: "lock",
    Step.NODE_LOOK: "look",
    Step.NODE_COMPARE: "compare",
    Step.NODE_REMOVE: "remove",
    Step.NODE_CREATE: "create",
    Step.NODE_WRITE: "write",
    Step.NODE_LEAVE: "look",
    Step.NODE_UNLINK: "remove",
    Step.NODE_UNLOCK: "unlock",
    RESTART: "unlock",
    YOUNG: "look",
    TOO_OLD: "look",
}
"""What OpenClaw's gateway is told to do; everything else it decides without doing anything."""


class _GaveUp(Exception):
    """The driven process was told to give up."""


class _Scripted:
    """The policy of a driven process: what it would decide by clock and probe is read from a pipe."""

    def __init__(self, decisions: int, *, reclaims: bool) -> None:
        self._decisions, self._reclaims = decisions, reclaims

    def settle(self, contended: Contended, *, health: Health | None = None) -> Verdict:
        if os.read(self._decisions, 1) == _DECISIONS[GIVE_UP]:
            raise _GaveUp
        is_locked = contended.obstacle is Obstacle.NODE_LOCK
        return Verdict.RECLAIM if is_locked and self._reclaims else Verdict.WAIT


def _be_gateway(settings: Settings, decisions: int, *, reclaims: bool) -> int:
    """
    Claim and hold as the daemon does, by the decisions that are read from a pipe.

    Args:
        settings: Where.
        decisions: The pipe.
        reclaims: Whether to be a broken one, which takes what the kernel says is locked instead of waiting.
    """
    supervisor, journal = Supervisor({}), PlainJournal(Priority.CRIT)
    try:
        with claim.acquire(
            settings,
            supervisor,
            journal,
            pause=lambda seconds: None,
            policy=_Scripted(decisions, reclaims=reclaims),
        ) as held:
            while os.read(decisions, 1) == _DECISIONS[LOOK]:
                held.verify()
    except (_GaveUp, ClaimLostError):
        return 0
    except GatewayError:
        return 1
    return 0


class Scene:
    """
    A state directory, a base port, and the processes and the hostile hand that act on them.

    Attributes:
        beside_node: Whether one of the processes is OpenClaw's own gateway: only then does the model see
            how ours take care of it.
        reclaims: Whether ours are broken; see ``_be_gateway``.
    """

    def __init__(self, home: Path, *, beside_node: bool = False, reclaims: bool = False) -> None:
        self.home, self.beside_node, self.reclaims = home, beside_node, reclaims
        self.port = free_port()
        self.state = str(home / "state")
        self.file_from_state = os.path.join(*lock_directory_parts(), STATE_LOCK_NAME)
        self.processes: dict[int, Driven] = {}
        self.nodes: dict[int, NodeLike] = {}
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
        if after.processes[number].is_node:
            self._act_of_node(number, action, after)
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

    def _act_of_node(self, number: int, action: Action, after: World) -> None:
        if action.does == START:
            # Its port is another one: it would listen there, which decides nothing.
            config = Path(self._settings.config_path)
            self.nodes[number] = NodeLike(Path(self.state), config, free_port())
            return
        node = self.nodes[number]
        if action.does in _NODE_WORDS:
            found = node.says_of(_NODE_WORDS[action.does])
            match action.does:
                case Step.NODE_LEAVE:
                    assert (found == "its own") == (action.outcome == "its own"), found
                case _ if action.does in (YOUNG, TOO_OLD):
                    assert found == "empty"
                case _:
                    assert found == action.outcome
        if action.does == KILLED or after.processes[number].step is Step.GONE:
            self.nodes.pop(number).close()

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

    def close(self) -> None:
        """End everything, and leave nothing."""
        for process in self.processes.values():
            process.kill()
        self.processes.clear()
        for node in self.nodes.values():
            node.close()
        self.nodes.clear()
        for entry in self.home.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name == "aside":
                entry.unlink()


def _outcome(step: Step, result: int) -> str:
    choosing = Step.OPEN_FILE, Step.CHECK_STATE, Step.READ_BEFORE, Step.READ_AGAIN
    if _KINDS.get(step) == "compare" or step in choosing:
        return "either"  # which of two it was shows in the step that follows
    if _KINDS.get(step) == _KINDS[Step.ASK_FIRST]:
        return "held" if result < 0 else "free"
    if result >= 0:
        return "done"
    return {"EEXIST": "exists"}.get(name := errno.errorcode[-result], name)


class Driven:
    """One real gateway process that makes the model's steps."""

    def __init__(self, settings: Settings, scene: Scene) -> None:
        self._scene = scene
        read_end, self._decisions = os.pipe()
        self._process = Stepped(lambda: _be_gateway(settings, read_end, reclaims=scene.reclaims))
        self._asking_for = read_end
        os.close(read_end)
        self._ahead: Call | None = None
        """The call at whose door it stands already."""
        self._holds: dict[int, str] = {}
        """Descriptors whose closing others can notice."""
        self._looking = False

    def decide(self, decision: str) -> None:
        self._looking = decision == LOOK
        os.write(self._decisions, _DECISIONS[decision])

    def step(self) -> tuple[str, int] | None:
        """Make the next noticeable system call; return its kind of step and its result, ``None`` at the end."""
        call, self._ahead = self._ahead, None
        call = call or self._process.run_to(lambda call: self._kind(call) is not None)
        if call is None:
            return None
        kind = self._kind(call)
        assert kind is not None
        result = self._process.result()
        assert result is not None
        if (kind, result) == (Step.OPEN_FILE, -errno.EEXIST):
            # What it could not make it opens, or makes after all: for the model that is one step.
            again = self._process.run_to(lambda call: self._kind(call) == kind)
            result = self._process.result()
            assert again and result is not None
        if kind == _KINDS[Step.ASK_FIRST]:
            return kind, self._ask_on(result)
        if kind == _KINDS[Step.READ_BEFORE]:
            # Whether the writer is alive is asked next, and is part of the step.
            ahead = self._process.run_to(
                lambda call: self._kind(call) is not None or self._is_asking(call)
            )
            self._ahead = None if ahead is None or self._is_asking(ahead) else ahead
        self._remember(kind, call, result)
        return kind, result

    def _ask_on(self, opened: int) -> int:
        """
        Have it ask for the rest of the locks, which are taken and left all at once: for the model it is one step.

        Args:
            opened: What opening the first file gave.

        Returns:
            0, or -EBUSY if one of them is held.
        """
        for left in (True, True, False):
            if opened >= 0:
                asking = self._process.run_to(
                    lambda call: call.name == "fcntl" and call.arguments[1] == fcntl.F_GETLK
                )
                assert asking and self._process.result() == 0
                if self._process.short(asking.arguments[2]) != fcntl.F_UNLCK:
                    return -errno.EBUSY
            if left:
                opening = self._process.run_to(self._opens_node_lock)
                assert opening
                opened = self._process.result() or 0
        return 0

    def _is_asking(self, call: Call) -> bool:
        """Whether it is about to read a decision."""
        return call.name == "read" and call.arguments[0] == self._asking_for

    def _opens_node_lock(self, call: Call) -> bool:
        return call.name == "openat" and self._process.text(call.arguments[1]).endswith(_NODE_LOCK)

    def finish(self) -> int:
        """Run to the end, which must come without another noticeable call, and return the exit code."""
        assert self._ahead is None
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
                if self._scene.beside_node and self._opens_node_lock(call):
                    return _KINDS[Step.ASK_FIRST]
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
            case "pread64" | "pwrite64" if self._scene.beside_node and first in self._holds:
                return Step.WRITE if call.name == "pwrite64" else _KINDS[Step.READ_BEFORE]
            case "unlinkat":
                return Step.UNLINK
            case "close":
                return self._holds.get(first)
        return None


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with closing(Scene(tmp_path)) as made:
        yield made


def follow(scene: Scene, walk: Walk) -> None:
    done: list[Action] = []
    for action, after in walk:
        try:
            scene.act(action, after)
        except AssertionError as error:
            way = "\n".join(map(str, [*done, action]))
            raise AssertionError(f"{error}; the model's way:\n{way}") from error
        done.append(action)
    scene.close()


def walks_of(**size: int) -> Iterator[Walk]:
    """Yield walks that together take every step of the model in a world of this size."""
    start = begin(**size)
    edges = explore(start, Claim().successors, lambda world: None).edges
    for walk in walks(start, edges):
        # A step may lead to where another one led before, and the walk ends there. What is one state
        # of the model may be two of the code: so whoever made that step goes on for a while.
        for _ in range(BEYOND):
            last, world = walk[-1]
            own = [edge for edge in edges[world] if edge[0].process == last.process]
            if not own or own[0][0].does == KILLED:
                break
            walk.append(own[0])
        yield walk


def test_the_code_makes_every_step_of_two_processes_that_the_model_makes(scene: Scene) -> None:
    for walk in walks_of(processes=2, starts=1, hostile=0):
        follow(scene, walk)


def test_the_code_makes_the_models_steps_while_someone_interferes(scene: Scene) -> None:
    for walk in islice(walks_of(processes=2, starts=1, hostile=1), HOSTILE_WALKS):
        follow(scene, walk)


def beside_node() -> Iterator[Walk]:
    """Walks of one of ours and OpenClaw's own gateway, with every crash of either."""
    return walks_of(processes=1, starts=1, nodes=1, hostile=0)


@pytest.mark.timeout(1800)
def test_the_code_makes_the_models_steps_beside_openclaws_gateway(tmp_path: Path) -> None:
    with closing(Scene(tmp_path, beside_node=True)) as scene:
        for walk in islice(beside_node(), NODE_WALKS):
            follow(scene, walk)


def test_code_that_reclaims_what_the_kernel_says_is_locked_leaves_the_models_way(
    tmp_path: Path,
) -> None:
    refused = Action(0, Step.ASK_BEFORE, "held")
    walk = next(walk for walk in beside_node() if any(action == refused for action, _ in walk))
    told = re.escape(f"{refused}\n{Action(0, RETRY)}")
    with (
        closing(Scene(tmp_path, beside_node=True, reclaims=True)) as scene,
        pytest.raises(AssertionError, match=told),
    ):
        follow(scene, walk)
