"""Ours and OpenClaw's own gateway on one machine: one of them serves, and neither harms the other."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import npm
from conftest import TOKEN, Daemon, NotifySocket, Start, clean_environ, free_port
from faults.extent import extent
from node_gateway import NodeGateway, configure, healthy, node_gateway
from node_package import START_CAP_S, cache, command, in_full, installed
from openclaw_gateway.host.ports import listening

pytestmark = pytest.mark.timeout(
    900
)  # the first one may have to install it, and each start takes long

_HEALTHY_DUPLICATE = 78
_NEVER_HEALTHY = 75

_PATIENT = ("--health-timeout", str(START_CAP_S))
"""For ours that meets a Node gateway which is starting, however slow the machine is."""

_INSTALLED_UNIT = {
    "OPENCLAW_SERVICE_MARKER": "openclaw",
    "OPENCLAW_SERVICE_KIND": "gateway",
    "OPENCLAW_SYSTEMD_UNIT": "openclaw-gateway.service",
    "INVOCATION_ID": "0" * 32,
}
"""What a unit that ``openclaw gateway install`` wrote, and systemd, have in the environment."""

StartNode = Callable[..., NodeGateway]
Begin = Callable[..., Daemon]


@pytest.fixture(scope="module", autouse=True)
def openclaw() -> None:
    """OpenClaw itself; without it everything here is left out."""
    try:
        installed()
    except npm.Unavailable as missing:
        npm.leave_out(missing, "OPENCLAW'S OWN GATEWAY")


@pytest.fixture(scope="module")
def node(openclaw: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeGateway]:
    """A healthy Node gateway that many tests share: each leaves it as it was."""
    with node_gateway(tmp_path_factory.mktemp("node") / "state", free_port()) as gateway:
        yield gateway.ready()


@pytest.fixture
def start_node() -> Iterator[StartNode]:
    """Start Node gateways; all of their processes end with the test."""
    with ExitStack() as ends:

        def begin(state_dir: Path, port: int, **options: Any) -> NodeGateway:
            return ends.enter_context(node_gateway(state_dir, port, **options))

        yield begin


@pytest.fixture
def begin(start: Start, notify: NotifySocket) -> Begin:
    """Start one of ours under a supervisor, on a state directory and a port."""

    def begin(state_dir: Path, port: int, *arguments: str, **variables: str) -> Daemon:
        place = {"OPENCLAW_STATE_DIR": str(state_dir), "OPENCLAW_GATEWAY_PORT": str(port)}
        return start(*arguments, **place, **({"NOTIFY_SOCKET": notify.path} | variables))

    return begin


_STARTS_NOTHING = ("--", "false")
"""What a guard that is refused would have run. It never does: else it would end with 1, as that does."""

_EITHER = pytest.mark.parametrize("verb", ["run", "guard"])


def _words(verb: str, *options: str) -> tuple[str, ...]:
    """Return the command line of our own gateway, or of a guard in its place."""
    return (verb, *options, *(_STARTS_NOTHING if verb == "guard" else ()))


class Untouched:
    """What one of ours must leave as it found it: a Node gateway, its records and its locks."""

    def __init__(self, node: NodeGateway) -> None:
        self._node, self._records = node, node.records()
        assert len(self._records) == 2, list(self._records)

    def check(self) -> None:
        assert self._node.ended is None
        assert self._node.records() == self._records
        assert self._node.holds_its_locks


@_EITHER
@pytest.mark.parametrize("same_port", [True, False], ids=["its port", "another port"])
def test_healthy_node_gateway_keeps_its_state_however_often_ours_is_started(
    node: NodeGateway, begin: Begin, port: int, same_port: bool, verb: str
) -> None:
    untouched = Untouched(node)
    # Three times: a refused start that takes something away is what lets the next but one in.
    for _ in range(3):
        duplicate = begin(node.state_dir, node.port if same_port else port, *_words(verb))
        assert duplicate.refused() == _HEALTHY_DUPLICATE, duplicate.log
        assert f"pid {node.pid}" in "\n".join(duplicate.log)
        untouched.check()
    assert node.healthy


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
def test_healthy_node_gateway_keeps_its_port_from_ours_with_another_state(
    node: NodeGateway, begin: Begin, state_dir: Path, host: str
) -> None:
    duplicate = begin(state_dir, node.port, "--bind", "custom", "--host", host)
    assert duplicate.refused() == _HEALTHY_DUPLICATE, duplicate.log
    assert node.healthy


def test_healthy_node_gateway_keeps_its_port_from_a_guard_with_another_state(
    node: NodeGateway, begin: Begin, state_dir: Path
) -> None:
    duplicate = begin(state_dir, node.port, *_words("guard"))
    assert duplicate.refused() == _HEALTHY_DUPLICATE, duplicate.log
    assert node.healthy


@_EITHER
def test_without_a_supervisor_a_duplicate_of_a_node_gateway_ends_with_1(
    node: NodeGateway, begin: Begin, verb: str
) -> None:
    untouched = Untouched(node)
    variables = {"NOTIFY_SOCKET": ""}
    assert begin(node.state_dir, node.port, *_words(verb), **variables).refused() == 1
    untouched.check()


@_EITHER
def test_stopped_node_gateway_is_waited_for_and_keeps_everything(
    node: NodeGateway, begin: Begin, state_dir: Path, port: int, verb: str
) -> None:
    untouched = Untouched(node)
    node.signal(signal.SIGSTOP)
    try:
        words = _words(verb, "--lock-timeout", "0.5", "--health-timeout", "3")
        starts = [
            begin(node.state_dir, node.port, *words),
            begin(node.state_dir, port, *words),
            begin(state_dir, node.port, *words),
        ]
        codes = [start.refused() for start in starts]
        untouched.check()
    finally:
        node.signal(signal.SIGCONT)
    assert codes == [_NEVER_HEALTHY] * 3, [start.log for start in starts]
    assert node.healthy


def test_node_gateway_that_restarts_in_its_process_finds_its_place_again(
    node: NodeGateway, begin: Begin, port: int
) -> None:
    node.signal(signal.SIGUSR2)
    # From here it listens no more, gives its locks back, and takes them again a moment later.
    node.wait_for("received SIGUSR2; restarting")
    starts = [
        begin(node.state_dir, own_port, *_words(verb, *_PATIENT))
        for own_port in (node.port, port)
        for verb in ("run", "guard")
    ]
    node.ready()
    assert [start.refused() for start in starts] == [_HEALTHY_DUPLICATE] * 4, [
        start.log for start in starts
    ]
    Untouched(node).check()


def test_node_gateway_that_is_starting_is_contended_not_gone(
    start_node: StartNode, begin: Begin, tmp_path: Path, port: int
) -> None:
    node = start_node(tmp_path / "node", free_port()).locked()
    # As if on a very slow machine: its locks are held, and nothing listens.
    node.signal(signal.SIGSTOP)
    assert not listening(node.port)
    untouched = Untouched(node)
    patience = ("--lock-timeout", "0.5", "--health-timeout", "3")
    both = [(own_port, verb) for own_port in (node.port, port) for verb in ("run", "guard")]
    for own_port, verb in both:
        starter = begin(node.state_dir, own_port, *_words(verb, *patience))
        assert starter.refused() == _NEVER_HEALTHY, starter.log
        untouched.check()
    node.signal(signal.SIGCONT)
    patient = [begin(node.state_dir, own_port, *_words(verb, *_PATIENT)) for own_port, verb in both]
    node.ready()
    codes = [starter.refused() for starter in patient]
    assert codes == [_HEALTHY_DUPLICATE] * 4, [starter.log for starter in patient]
    untouched.check()


@in_full
def test_duplicate_of_a_node_gateway_that_speaks_tls_knows_it_for_healthy(
    start_node: StartNode, begin: Begin, tmp_path: Path, state_dir: Path, port: int
) -> None:
    node = start_node(tmp_path / "node", free_port(), gateway={"tls": {"enabled": True}}).ready()
    untouched = Untouched(node)
    for own_state, own_port in [(state_dir, node.port), (node.state_dir, port)]:
        for verb in ("run", "guard"):
            duplicate = begin(own_state, own_port, *_words(verb))
            assert duplicate.refused() == _HEALTHY_DUPLICATE, duplicate.log
            untouched.check()
    assert node.healthy


def test_ours_stays_whatever_node_gateways_are_started(
    start_node: StartNode, start: Start, tmp_path: Path, state_dir: Path, port: int
) -> None:
    ours = start().ready()
    records = _records(state_dir)
    theirs = {
        "its state and port": start_node(state_dir, port),
        "its state": start_node(state_dir, free_port()),
        "its port": start_node(tmp_path / "other", port),
    }
    codes = {how: node.refused() for how, node in theirs.items()}
    assert codes == {"its state and port": 78, "its state": 78, "its port": 1}
    assert _records(state_dir) == records
    assert healthy(port)

    ours.signal(signal.SIGSTOP)
    code = start_node(state_dir, free_port()).refused()
    ours.signal(signal.SIGCONT)
    assert code == 78
    assert _records(state_dir) == records
    assert healthy(port)
    assert ours.stop() == 0, ours.log


def test_node_gateway_finds_our_port_taken_though_ours_is_told_another_address(
    start_node: StartNode, start: Start, tmp_path: Path, port: int
) -> None:
    """It listens on 127.0.0.1, which the kernel would let it beside our 127.0.0.2: so ours listens there as well."""
    ours = start("--host", "127.0.0.2").ready()
    node = start_node(tmp_path / "node", port)
    assert node.refused() == 1
    assert any(f"127.0.0.1:{port}" in line and "EADDRINUSE" in line for line in node.log)
    assert healthy(port)
    assert ours.stop() == 0, ours.log


def test_node_gateway_of_an_installed_unit_does_not_take_ours_for_one_of_its_own(
    start_node: StartNode, tmp_path: Path, state_dir: Path, port: int
) -> None:
    if shutil.which("lsof") is None:  # by which it finds whom to end
        npm.leave_out(npm.Unavailable("lsof is not installed"), "OPENCLAW'S OWN GATEWAY IN A UNIT")
    # By the script's name, as on a machine that has the package: the kernel names the process after it, and
    # such a Node gateway sends SIGTERM to every listener on its port whose name has "openclaw" in it.
    script = Path(sys.executable).with_name("openclaw-gateway")
    place = {"OPENCLAW_STATE_DIR": str(state_dir), "OPENCLAW_GATEWAY_PORT": str(port)}
    environ = clean_environ(**place, OPENCLAW_GATEWAY_TOKEN=TOKEN, PYTHONUNBUFFERED="1")
    ours = Daemon("run", environ=environ, words=[str(script)])
    try:
        ours.ready()
        assert start_node(tmp_path / "unit", port, **_INSTALLED_UNIT).refused() == 78
        assert ours.process.poll() is None
        assert healthy(port)
        assert ours.stop() == 0, ours.log
    finally:
        if ours.process.poll() is None:
            ours.kill()


class GuardedNode:
    """A guard with OpenClaw's own gateway for a child, as a systemd unit would start it."""

    def __init__(self, begin: Begin, state_dir: Path, port: int) -> None:
        configure(state_dir, port, {})
        variables = {"HOME": str(state_dir.parent), "TMPDIR": cache()}
        self.guard = begin(state_dir, port, "guard", *_PATIENT, "--", *command(port), **variables)

    def ready(self) -> GuardedNode:
        self.guard.wait_for("is ready on", cap_s=START_CAP_S)
        return self

    def stop(self) -> None:
        self.guard.signal(signal.SIGTERM)
        assert self.guard.finish(cap_s=START_CAP_S) == 0, self.guard.log


def test_guarded_node_gateway_stays_whatever_else_is_started(
    start_node: StartNode, begin: Begin, tmp_path: Path, state_dir: Path, port: int
) -> None:
    guarded = GuardedNode(begin, state_dir, port).ready()
    try:
        for verb in ("run", "guard"):
            for own_state, own_port in [(state_dir, free_port()), (tmp_path / "third", port)]:
                duplicate = begin(own_state, own_port, *_words(verb))
                assert duplicate.refused() == _HEALTHY_DUPLICATE, duplicate.log
        records = _records(state_dir)
        theirs = {"its state and port": start_node(state_dir, port)}
        if extent("NODE_FULL", 0, 1):
            theirs["its state"] = start_node(state_dir, free_port())
            theirs["its port"] = start_node(tmp_path / "other", port)
        codes = {how: node.refused() for how, node in theirs.items()}
        expected = {"its state and port": 78, "its state": 78, "its port": 1}
        assert codes == {how: expected[how] for how in theirs}
        assert _records(state_dir) == records
        assert healthy(port)
        assert guarded.guard.process.poll() is None
    finally:
        guarded.stop()


@in_full
def test_node_gateway_of_an_installed_unit_ends_a_guards_child_and_is_left_alone_by_the_next_guard(
    start_node: StartNode, begin: Begin, tmp_path: Path, state_dir: Path, port: int
) -> None:
    if shutil.which("lsof") is None:  # by which it finds whom to end
        npm.leave_out(npm.Unavailable("lsof is not installed"), "OPENCLAW'S OWN GATEWAY IN A UNIT")
    guarded = GuardedNode(begin, state_dir, port).ready()
    rival = start_node(tmp_path / "unit", port, **_INSTALLED_UNIT)
    # It ends well on the rival's SIGTERM, which a guard can't tell from a restart that was asked for; if that
    # takes it too long, the rival kills it.
    assert guarded.guard.finish(cap_s=START_CAP_S) in (0, 137), guarded.guard.log
    assert "the guarded program" in "\n".join(guarded.guard.log)
    rival.ready()
    following = begin(state_dir, port, *_words("guard"))
    assert following.refused() == _HEALTHY_DUPLICATE, following.log
    assert f"pid {rival.pid}" in "\n".join(following.log)
    assert rival.healthy


@pytest.mark.parametrize("moment", [pytest.param("", marks=in_full), "locked"])
def test_of_a_guard_and_a_node_gateway_that_start_in_the_same_second_exactly_one_serves(
    start_node: StartNode, begin: Begin, state_dir: Path, port: int, moment: str
) -> None:
    node = start_node(state_dir, port)
    if moment:
        node.locked()
    guarded = GuardedNode(begin, state_dir, port)
    if _first_to_end(guarded.guard.pid, node.pid) == node.pid:
        assert node.refused() != 0
        guarded.ready()
        assert healthy(port)
        guarded.stop()
    else:
        assert guarded.guard.refused(cap_s=START_CAP_S) == _HEALTHY_DUPLICATE, guarded.guard.log
        node.ready()
        Untouched(node).check()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("", id="exec", marks=in_full),
        pytest.param("resolving authentication", id="configuration read", marks=in_full),
        pytest.param("starting...", id="about to lock"),
        pytest.param("shutdown budget at startup", id="locked"),
    ],
)
def test_of_two_that_start_in_the_same_second_exactly_one_serves(
    start_node: StartNode, begin: Begin, state_dir: Path, port: int, moment: str
) -> None:
    node = start_node(state_dir, port)
    if moment:
        node.wait_for(moment)
    ours = begin(state_dir, port, *_PATIENT)
    if _first_to_end(ours.pid, node.pid) == node.pid:
        assert node.refused() != 0
        ours.ready()
        assert len(_records(state_dir)) == 2
        assert healthy(port)
        assert ours.stop() == 0
    else:
        assert ours.refused() == _HEALTHY_DUPLICATE, ours.log
        node.ready()
        Untouched(node).check()


def _records(state_dir: Path) -> dict[str, tuple[int, bytes]]:
    """Return a state's lock records, inode and bytes by name."""
    paths = (state_dir / f"tmp/openclaw-{os.getuid()}").glob("gateway.*.lock")
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in paths}


def _first_to_end(*pids: int) -> int:
    """Wait until one of these processes ends, and return its pid; the others may still be starting."""
    with ExitStack() as stack:
        pid_of = {os.pidfd_open(pid): pid for pid in pids}
        ended = select.poll()
        for fd in pid_of:
            stack.callback(os.close, fd)
            ended.register(fd, select.POLLIN)
        found = ended.poll(START_CAP_S * 1000)
        assert found, "neither of them gave way"
        return pid_of[found[0][0]]


def test_ours_stands_by_behind_a_node_gateway_and_takes_over_when_that_is_killed(
    start_node: StartNode, begin: Begin, state_dir: Path, port: int, notify: NotifySocket
) -> None:
    node = start_node(state_dir, port).ready()
    untouched = Untouched(node)
    ours = begin(state_dir, port, "run", "--standby")
    assert f"STATUS=standby behind pid {node.pid}" in notify.wait_for("READY=1")
    untouched.check()
    node.signal(signal.SIGKILL)
    assert f"STATUS=ready on ws://127.0.0.1:{port}" in notify.wait_for("READY=1")
    assert healthy(port)
    assert ours.stop() == 0
