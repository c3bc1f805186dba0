"""Beside gateways that lock otherwise than ours, and beside those who only say that they are one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from conftest import CAP_S, NotifySocket, Start, clean_environ, free_port
from node_like import NodeLike
from openclaw_gateway.admin.look import locks
from openclaw_gateway.claim import node as peer
from openclaw_gateway.claim.decision import Obstacle, Verdict
from openclaw_gateway.claim.lockfile import Contended
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.claim.waiting import Leave
from openclaw_gateway.settings import load as settings
from openclaw_gateway.supervisor.events import Priority
from openclaw_gateway.supervisor.journal import PlainJournal
from openclaw_gateway.supervisor.notify import Supervisor

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def node(state_dir: Path) -> Iterator[Callable[[int], NodeLike]]:
    """Make processes that lock the test's state as OpenClaw's own gateway does; they end with the test."""
    made: list[NodeLike] = []

    def begin(port: int) -> NodeLike:
        made.append(NodeLike(state_dir, state_dir / "openclaw.json", port))
        return made[-1]

    yield begin
    for each in made:
        each.close()


Node = Callable[[int], NodeLike]


def test_refused_starts_leave_a_living_gateways_records_alone(
    start: Start, node: Node, port: int
) -> None:
    """The third start used to run beside it: each refused one removed a record that it had not won."""
    elsewhere = free_port()
    other = node(elsewhere).does("lock", "record", "listen")
    before = other.said()
    for _ in range(3):
        refused = start()
        assert refused.finish() == 1
        assert f"already listening on ws://127.0.0.1:{elsewhere}" in "\n".join(refused.log)
        assert f"pid {other.pid}" in "\n".join(refused.log)
        assert other.said() == before


@pytest.mark.parametrize("locks", [("lock",), ("lock", "record")], ids=["no record yet", "record"])
def test_gateway_that_holds_its_locks_and_does_not_listen_yet_is_never_reclaimed(
    start: Start, node: Node, port: int, locks: tuple[str, ...]
) -> None:
    other = node(port).does(*locks)
    before = other.said()
    for _ in range(3):
        refused = start("--lock-timeout", "0.5")
        assert refused.finish() == 1
        log = "\n".join(refused.log)
        assert f"gateway already running (pid {other.pid}); lock timeout after 500ms" in log
        assert "reclaiming" not in log
        assert other.said() == before


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_of_its_locks_alone_is_enough(start: Start, node: Node, port: int, which: int) -> None:
    other = node(port)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sqlite3, sys\n"
            "os.makedirs(os.path.dirname(sys.argv[1]), mode=0o700, exist_ok=True)\n"
            "held = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "held.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()",
            other.locks[which],
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        refused = start("--lock-timeout", "0.1")
        assert refused.finish() == 1
        assert f"pid {holder.pid}" in "\n".join(refused.log)
    finally:
        holder.communicate()
    start().ready()


def test_gateway_that_is_starting_is_75_under_systemd_and_never_78(
    start: Start, node: Node, port: int, notify: NotifySocket
) -> None:
    node(port).does("lock", "record")
    refused = start("--health-timeout", "0.5", NOTIFY_SOCKET=notify.path)
    assert refused.finish() == 75


def test_gateway_that_gets_healthy_while_waited_for_is_78(
    start: Start, node: Node, port: int, notify: NotifySocket
) -> None:
    other = node(port).does("lock", "record")
    waiting = start(NOTIFY_SOCKET=notify.path)
    waiting.wait_for("waiting up to 30 s")
    other.does("listen")
    assert waiting.finish() == 78


def test_we_start_once_it_is_gone(start: Start, node: Node, port: int) -> None:
    other = node(port).does("lock", "record")
    waiting = start("--lock-timeout", "60")
    waiting.wait_for("waiting")
    other.close()
    waiting.ready()


def test_none_of_its_lock_files_is_made_or_removed_by_us(
    start: Start, node: Node, port: int
) -> None:
    other = node(port)
    assert start().ready().stop() == 0
    assert [path for path in other.locks if os.path.exists(path)] == []
    other.does("lock", "unlock")
    assert start().ready().stop() == 0
    assert [path for path in other.locks if not os.path.exists(path)] == []


@contextmanager
def locked_by(path: Path, kind: str, *, uid: int) -> Iterator[None]:
    """Hold an fcntl lock on a file as another account."""
    code = (
        "import fcntl, os, sys\n"
        f"held = open(sys.argv[1], {'rb' if kind == 'LOCK_SH' else 'r+b'!r})\n"
        f"os.setuid({uid})\n"
        f"fcntl.lockf(held, fcntl.{kind}, 512, 0x40000000)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        yield
        holder.communicate()


STRANGER = 65534


@as_root
@pytest.mark.parametrize(
    "what", ["read lock", "file", "link to a locked file", "fifo", "directory"]
)
def test_stranger_can_neither_hang_us_nor_pass_for_openclaws_gateway(
    start: Start, node: Node, port: int, tmp_path: Path, what: str
) -> None:
    """Only a write lock counts, on a plain file of this account's; the directory in /tmp is anybody's to make."""
    place = node(port).shared_lock
    place.parent.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as ends:
        ends.callback(lambda: place.rmdir() if what == "directory" else place.unlink())
        match what:
            case "read lock":
                place.touch(0o644)
                ends.enter_context(locked_by(place, "LOCK_SH", uid=STRANGER))
            case "file":
                place.touch(0o666)
                os.chown(place, STRANGER, STRANGER)
                ends.enter_context(locked_by(place, "LOCK_EX", uid=STRANGER))
            case "link to a locked file":
                (tmp_path / "locked").touch()
                place.symlink_to(tmp_path / "locked")
                ends.enter_context(locked_by(tmp_path / "locked", "LOCK_EX", uid=0))
            case "fifo":
                os.mkfifo(place)
                os.chown(place, STRANGER, STRANGER)
            case "directory":
                place.mkdir()
        ours = start("--lock-timeout", "0", "--health-timeout", "0").ready()
        assert ours.stop() == 0
        assert os.path.lexists(place), "it is not ours to remove"


@as_root
@pytest.mark.parametrize("what", ["file", "directory", "fifo"])
def test_stranger_in_the_place_of_openclaws_locks_is_named(
    start: Start, node: Node, port: int, state_dir: Path, what: str
) -> None:
    start().ready().stop()
    place = node(port).shared_lock
    place.parent.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as ends:
        ends.callback(lambda: place.rmdir() if what == "directory" else place.unlink())
        {"file": place.touch, "directory": place.mkdir, "fifo": lambda: os.mkfifo(place)}[what]()
        if what == "file":
            os.chown(place, STRANGER, STRANGER)
        (found,) = locks.survey(str(state_dir)).strange
        assert found.path == str(place)
        assert found.problem in (f"belongs to uid {STRANGER}, not to uid 0", "is no plain file")
    assert locks.survey(str(state_dir)).strange == ()


def test_directory_of_a_stranger_is_asked_for_nothing(tmp_path: Path) -> None:
    """What it holds locked there is not looked at, whatever it calls its files."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = tmp_path / "locks" / "gateway.lock.sqlite"
    path.parent.mkdir()
    path.touch(0o600)
    for each in (path, path.parent):
        os.chown(each, STRANGER, STRANGER)
    with locked_by(path, "LOCK_EX", uid=STRANGER):
        assert peer.held([str(path)], uid=0) is None
        assert peer.held([str(path)], uid=STRANGER) is not None
    (found,) = peer.strange([str(path)], uid=0)
    assert found.path == str(path.parent)


def test_owner_whose_record_openclaws_gateway_replaced_stops_and_leaves_it(
    start: Start, node: Node, notify: NotifySocket, port: int, state_dir: Path
) -> None:
    """Somebody removed our records, so that it saw nobody: our next look finds its, and we are in its way."""
    ours = start(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="1500000")
    notify.wait_for("READY=1")
    ours.signal(signal.SIGSTOP)
    other = node(free_port())
    for record in other.records:
        record.unlink()
    before = other.does("lock", "record", "listen").said()
    ours.signal(signal.SIGCONT)
    assert ours.finish() == 1
    log = "\n".join(ours.log)
    assert f"lost the claim on {other.records[0].parent}" in log and f"pid {other.pid}" in log
    assert other.said() == before
    refused = start()
    assert refused.finish() == 1
    assert other.said() == before


class Clock:
    """Seconds that pass only when told to."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_lock_that_comes_back_starts_the_wait_for_a_record_anew(
    state_dir: Path, port: int
) -> None:
    """OpenClaw's gateway lets go of its locks for 0.2 s when it restarts within its process."""
    clock = Clock()
    loaded = settings.load(
        {"--state-dir": str(state_dir), "--port": str(port), "--health-timeout": "60"},
        {"HOME": str(state_dir)},
    )
    policy = Leave(
        loaded,
        Supervisor({"NOTIFY_SOCKET": str(state_dir / "none")}),
        PlainJournal(Priority.CRIT),
        pause=lambda seconds: None,
        clock=clock,
        jitter=lambda: 0.0,
    )
    record = Contended(Obstacle.RECORD, record=LockRecord(pid=os.getpid(), port=port))
    verdicts = []
    for now_s, contended in (
        (0.0, record),
        (4.9, Contended(Obstacle.NODE_LOCK)),
        (5.1, record),
        (10.0, record),
        (10.1, record),
    ):
        clock.now_s = now_s
        verdicts.append(policy.settle(contended))
    assert verdicts == [Verdict.WAIT] * 4 + [Verdict.RECLAIM]


FORGER = """
import json, os, socket, sys
os.setuid(int(sys.argv[1]))
name = socket.socket(socket.AF_UNIX)
name.bind(f"\\0openclaw-gateway.port.{sys.argv[2]}")
name.listen(64)
print("bound", flush=True)
said = json.dumps({"pid": os.getpid(), "port": int(sys.argv[3]), "phase": "ready"}).encode()
while True:
    asker, _ = name.accept()
    with asker:
        asker.sendall(said)
"""


@as_root
@pytest.mark.parametrize("uid", [0, 65534])
def test_what_the_holder_of_a_ports_name_says_moves_no_decision(
    start: Start, port: int, tmp_path: Path, notify: NotifySocket, uid: int
) -> None:
    """Any local account can take the name, and point at a healthy gateway on another port."""
    elsewhere = free_port()
    start("--port", str(elsewhere), "--state-dir", str(tmp_path / "other")).ready()
    with subprocess.Popen(
        [sys.executable, "-c", FORGER, str(uid), str(port), str(elsewhere)],
        stdout=subprocess.PIPE,
        text=True,
    ) as forger:
        try:
            assert forger.stdout and forger.stdout.readline() == "bound\n"
            ours = start("--health-timeout", "0.5", NOTIFY_SOCKET=notify.path)
            assert ours.finish() == 75
        finally:
            forger.kill()
    log = "\n".join(ours.log)
    user = "root" if uid == 0 else "nobody"
    assert f"the base port is held by pid {forger.pid} (python3, user {user}" in log
    assert f"on port {port} is nothing listening" in log


def namespaced(*namespaces: str, prepare: str, environ: dict[str, str]) -> subprocess.Popen[str]:
    """Run a gateway in namespaces of its own, after a preparation in there."""
    script = f"{prepare} && exec {sys.executable} -m openclaw_gateway"
    return subprocess.Popen(
        ["unshare", *namespaces, "sh", "-c", script],
        env=clean_environ(**environ),
        stderr=subprocess.PIPE,
        text=True,
    )


def inside(process: subprocess.Popen[str], namespace: str, *command: str) -> None:
    subprocess.run(
        ["nsenter", f"--target={process.pid}", namespace, *command], check=True, timeout=CAP_S
    )


@as_root
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip, to add an address")
def test_address_that_comes_later_is_waited_for_under_systemd(
    state_dir: Path, port: int, notify: NotifySocket
) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "openclaw.json").write_text(
        '{"gateway": {"bind": "custom", "customBindHost": "192.0.2.1"}}'
    )
    environ = {"OPENCLAW_STATE_DIR": str(state_dir), "OPENCLAW_GATEWAY_PORT": str(port)}
    gateway = namespaced(
        "--net",
        prepare="ip link set lo up",
        environ=environ | {"NOTIFY_SOCKET": notify.path},
    )
    try:
        assert "Cannot assign requested address" in notify.wait_for("STATUS=waiting for")
        notify.wait_for("EXTEND_TIMEOUT_USEC=")
        inside(gateway, "--net", "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
        notify.wait_for("READY=1")
    finally:
        gateway.terminate()
        gateway.communicate(timeout=CAP_S)
    assert gateway.returncode == 0


@as_root
def test_disk_that_is_full_for_a_while_is_waited_for_under_systemd(
    tmp_path: Path, port: int, notify: NotifySocket
) -> None:
    mount_point = tmp_path / "mnt"
    mount_point.mkdir()
    state = mount_point / "state"
    gateway = namespaced(
        "--mount",
        prepare=f"mount -t tmpfs -o mode=0700,size=64k none {mount_point} && mkdir -m 0700 {state}"
        f" && (cat /dev/zero > {mount_point}/fill; true) 2>/dev/null",
        environ={
            "OPENCLAW_STATE_DIR": str(state),
            "OPENCLAW_GATEWAY_PORT": str(port),
            "NOTIFY_SOCKET": notify.path,
        },
    )
    try:
        assert "No space left on device" in notify.wait_for("STATUS=waiting for")
        inside(gateway, "--mount", "rm", f"{mount_point}/fill")
        notify.wait_for("READY=1")
    finally:
        gateway.terminate()
        gateway.communicate(timeout=CAP_S)
    assert gateway.returncode == 0


@pytest.mark.parametrize("mode", [0o775, 0o2775])
def test_tmp_that_our_own_group_may_write_to_is_fine(
    start: Start, state_dir: Path, mode: int
) -> None:
    """So umask 0002 and OpenClaw leave it in a home."""
    state_dir.mkdir(mode=0o700)
    (state_dir / "tmp").mkdir()
    (state_dir / "tmp").chmod(mode)
    start().ready()
    assert (state_dir / "tmp").stat().st_mode & 0o7777 == mode


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every account can reach."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@as_root
def test_state_directory_of_root_that_our_group_may_write_to_is_fine(
    open_directory: Path, port: int
) -> None:
    """As a container's volume comes: root's, with the set-group-ID bit."""
    state = open_directory / "state"
    state.mkdir()
    os.chown(state, 0, 65534)
    state.chmod(0o2775)
    gateway = subprocess.Popen(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *(sys.executable, "-m", "openclaw_gateway"),
        ],
        env=clean_environ(
            OPENCLAW_STATE_DIR=str(state), OPENCLAW_GATEWAY_PORT=str(port), HOME=str(state)
        ),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert gateway.stderr
        lines = []
        for line in gateway.stderr:
            lines.append(line)
            if "ready on" in line:
                break
        else:
            pytest.fail("".join(lines))
    finally:
        gateway.terminate()
        gateway.communicate(timeout=CAP_S)
