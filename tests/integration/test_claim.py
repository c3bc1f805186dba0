"""Two starts, one port: who wins, what the other says, and what it leaves behind."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CAP_S, NotifySocket, Start, clean_environ, free_port
from openclaw_gateway.claim.listener import listen
from openclaw_gateway.claim.lockfile import config_lock_name, read_record
from openclaw_gateway.claim.record import LockRecord, Phase
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import probe
from openclaw_gateway.errors import BindError


def lock_directory(state_dir: Path) -> Path:
    return state_dir / "tmp" / f"openclaw-{os.getuid()}"


def lock_path(state_dir: Path) -> Path:
    return lock_directory(state_dir) / config_lock_name(str(state_dir / "openclaw.json"))


def leftovers(state_dir: Path) -> list[Path]:
    """Every lock file below a state directory."""
    return [path for path in (state_dir / "tmp").rglob("*") if not path.is_dir()]


def listening_text(port: int) -> str:
    return f"another gateway instance is already listening on ws://127.0.0.1:{port}"


def forge(path: Path, content: bytes | dict[str, object]) -> None:
    """Put a lock record in the place of ours before anyone starts."""
    path.parent.mkdir(mode=0o700, parents=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def start_ticks(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])


def test_second_start_of_the_same_state_is_refused_with_the_pages_text(
    start: Start, port: int
) -> None:
    owner = start().ready()
    second = start()
    assert second.finish() == 1
    assert listening_text(port) in "\n".join(second.log)
    assert f"pid {owner.pid}" in "\n".join(second.log)
    assert probe("127.0.0.1", port) is Health.HEALTHY


def test_second_start_with_a_state_of_its_own_is_refused_on_the_same_port(
    start: Start, port: int, tmp_path: Path
) -> None:
    owner = start().ready()
    second = start("--state-dir", str(tmp_path / "other"))
    assert second.finish() == 1
    assert listening_text(port) in "\n".join(second.log)
    assert f"pid {owner.pid}" in "\n".join(second.log)
    assert leftovers(tmp_path / "other") == []


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_base_port_excludes_other_addresses(
    start: Start, port: int, tmp_path: Path, host: str
) -> None:
    start("--host", host).ready()
    second = start("--state-dir", str(tmp_path / "other"))
    assert second.finish() == 1
    assert "already listening on" in "\n".join(second.log)


def test_same_state_directory_on_another_port_is_refused(start: Start, port: int) -> None:
    start().ready()
    second = start("--port", str(free_port()))
    assert second.finish() == 1
    assert listening_text(port) in "\n".join(second.log)


def test_two_states_on_two_ports_run_side_by_side(start: Start, tmp_path: Path) -> None:
    start().ready()
    start("--port", str(free_port()), "--state-dir", str(tmp_path / "other")).ready()


def test_fifty_racing_starters_have_one_winner(start: Start, port: int) -> None:
    starters = [start("--lock-timeout", "60") for _ in range(50)]
    codes = []
    while len(codes) < len(starters) - 1:
        pid, status = os.waitpid(-1, 0)
        (ended,) = (one for one in starters if one.pid == pid)
        ended.process.returncode = os.waitstatus_to_exitcode(status)
        codes.append(ended.finish())
        starters.remove(ended)
        starters.append(ended)
    assert codes == [1] * 49
    winner = starters[0].ready()
    assert probe("127.0.0.1", port) is Health.HEALTHY
    assert winner.stop() == 0


def test_after_sigkill_the_next_start_works_at_first_attempt(
    start: Start, state_dir: Path, port: int
) -> None:
    owner = start().ready()
    owner.kill()
    assert lock_path(state_dir).exists()
    successor = start("--lock-timeout", "0").ready()
    record = read_record(str(state_dir))
    assert record is not None and record.pid == successor.pid


def test_stop_leaves_no_lock_file_and_exit_code_0(start: Start, state_dir: Path) -> None:
    owner = start().ready()
    assert len(leftovers(state_dir)) == 2
    assert owner.stop() == 0
    assert leftovers(state_dir) == []


def test_stopped_owner_is_neither_replaced_nor_signalled(start: Start, port: int) -> None:
    owner = start().ready()
    owner.signal(signal.SIGSTOP)
    second = start("--lock-timeout", "1")
    assert second.finish() == 1
    log = "\n".join(second.log)
    assert f"gateway already running (pid {owner.pid}); lock timeout after 1000ms" in log
    assert Health.MUTE in log or Health.STARTING in log
    owner.signal(signal.SIGCONT)
    assert owner.stop() == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"pid": 81',
        b"\0" * 4096,
        b"\xff" * 10,
        b"{" * 100000,
        b'{"pid": -1}',
        b'{"pid": 0, "bootId": "x"}',
    ],
    ids=["empty", "cut short", "NUL", "not UTF-8", "long", "pid -1", "pid 0"],
)
def test_malformed_record_does_not_hold_us_up(
    start: Start, state_dir: Path, content: bytes
) -> None:
    forge(lock_path(state_dir), content)
    start("--lock-timeout", "0").ready()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A live process of ours that has nothing to do with gateways."""
    with subprocess.Popen(["sleep", "infinity"]) as process:
        yield process
        process.kill()


def test_record_of_a_live_stranger_that_would_hold_the_lock_does_not(
    start: Start, state_dir: Path, port: int, stranger: subprocess.Popen[bytes]
) -> None:
    # The very pid and start time, but of a gateway that takes locks: so it must be gone.
    forge(
        lock_path(state_dir),
        {
            "pid": stranger.pid,
            "startTime": start_ticks(stranger.pid),
            "port": port,
            "bootId": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        },
    )
    start("--lock-timeout", "0").ready()
    assert stranger.poll() is None


@pytest.mark.parametrize("pid", [1, None], ids=["pid 1", "recycled pid"])
def test_record_without_flock_of_the_wrong_process_does_not_hold_us_up(
    start: Start, state_dir: Path, port: int, stranger: subprocess.Popen[bytes], pid: int | None
) -> None:
    claimed = pid or stranger.pid
    ticks = start_ticks(claimed) + (0 if pid else 1)
    forge(lock_path(state_dir), {"pid": claimed, "startTime": ticks, "port": port})
    start("--lock-timeout", "0").ready()


def test_record_of_a_gateway_without_flock_is_respected_until_its_port_was_free_long_enough(
    start: Start, state_dir: Path, port: int, stranger: subprocess.Popen[bytes]
) -> None:
    ticks = start_ticks(stranger.pid)
    forge(lock_path(state_dir), {"pid": stranger.pid, "startTime": ticks, "port": port})
    daemon = start("--lock-timeout", "0.5")
    assert f"pid {stranger.pid}" in daemon.wait_for("waiting")
    assert f"reclaiming the lock of pid {stranger.pid}" in daemon.wait_for("reclaiming")
    daemon.ready()


def test_gateway_without_flock_that_leaves_takes_its_file_with_it_and_not_our_lock(
    start: Start, state_dir: Path, port: int, stranger: subprocess.Popen[bytes]
) -> None:
    ticks = start_ticks(stranger.pid)
    forge(lock_path(state_dir), {"pid": stranger.pid, "startTime": ticks, "port": port})
    daemon = start("--lock-timeout", "60")
    daemon.wait_for("waiting")
    lock_path(state_dir).unlink()
    stranger.kill()
    stranger.wait()
    daemon.ready()
    record = read_record(str(state_dir), lock_path(state_dir).name)
    assert record is not None and record.pid == daemon.pid


def test_record_of_a_gateway_without_flock_that_answers_is_a_duplicate(
    start: Start, state_dir: Path, tmp_path: Path, port: int
) -> None:
    # The other gateway runs elsewhere, on another port; only the record connects it with this state.
    elsewhere = free_port()
    other = start("--port", str(elsewhere), "--state-dir", str(tmp_path / "other")).ready()
    ticks = start_ticks(other.pid)
    forge(lock_path(state_dir), {"pid": other.pid, "startTime": ticks, "port": elsewhere})
    second = start()
    assert second.finish() == 1
    assert listening_text(elsewhere) in "\n".join(second.log)


@pytest.fixture
def listener(port: int) -> Iterator[socket.socket]:
    """Something that listens on the port and accepts nothing by itself."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
        made.listen(8)
        yield made


def test_mute_listener_is_a_lock_error_after_the_lock_timeout(
    start: Start, port: int, listener: socket.socket
) -> None:
    daemon = start("--lock-timeout", "0.1")
    assert daemon.finish() == 1
    log = "\n".join(daemon.log)
    assert listening_text(port) in log
    assert Health.MUTE in log
    assert f"pid {os.getpid()}" in log


@pytest.mark.parametrize(
    ("code", "health"),
    [
        ("import http.server as s; s.test(port={port}, bind='127.0.0.1')", Health.FOREIGN),
        (
            "import socket, time\n"
            "l = socket.create_server(('127.0.0.1', {port}))\n"
            "while c := l.accept()[0]:\n"
            "    try:\n"
            "        for b in b'HTTP/1.1 200 OK' * 99: c.send(bytes([b])); time.sleep(0.05)\n"
            "    except OSError: pass",
            Health.FOREIGN,
        ),
        (
            "import socket\n"
            "l = socket.create_server(('127.0.0.1', {port}))\n"
            'b = b\'{{"ok":true,"status":"live","x":1}}\'\n'
            "while c := l.accept()[0]:\n"
            "    c.recv(999); c.send(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(b) + b)",
            Health.FOREIGN,
        ),
    ],
    ids=["web server", "trickle", "nearly healthy"],
)
def test_program_that_is_no_gateway_is_named_and_left_alone(
    start: Start, port: int, code: str, health: Health
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", code.format(port=port)], stderr=subprocess.DEVNULL
    ) as program:
        try:
            wait_until_listening(port)
            daemon = start("--lock-timeout", "0.1")
            assert daemon.finish() == 1
            log = "\n".join(daemon.log)
            assert listening_text(port) in log
            assert health in log and f"pid {program.pid}" in log
            assert program.poll() is None
        finally:
            program.kill()


def wait_until_listening(port: int) -> None:
    """Connect until someone accepts; a refused connect returns at once, so yield between tries."""
    for _ in range(int(CAP_S * 1000)):
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                return
        signal.sigtimedwait([], 0.001)
    raise AssertionError(f"nobody listens on {port}")


def test_neighbour_on_ipv6_loopback_is_reported_and_left_alone(start: Start, port: int) -> None:
    with socket.socket(socket.AF_INET6) as neighbour:
        neighbour.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        neighbour.bind(("::1", port))
        neighbour.listen()
        daemon = start()
        assert f"ws://[::1]:{port}" in daemon.wait_for("another program listens")
        daemon.ready()


def test_starting_gateway_on_another_address_is_waited_for_and_then_recognized(
    start: Start, port: int
) -> None:
    answers = [b"503 Service Unavailable"] * 3  # then 200
    body = b'{"ok":true,"status":"live"}'
    with socket.create_server(("::1", port), family=socket.AF_INET6) as neighbour:
        daemon = start()
        neighbour.settimeout(CAP_S / 6)
        for _ in range(4):
            client, _ = neighbour.accept()
            with client:
                client.recv(65536)
                status = answers.pop() if answers else b"200 OK"
                content = body if status == b"200 OK" else b'{"ok":false,"status":"starting"}'
                head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(content))
                client.sendall(head + content)
        assert daemon.finish() == 1
        assert f"already listening on ws://[::1]:{port}" in "\n".join(daemon.log)


def test_rival_that_is_bound_but_does_not_listen_counts_as_busy(start: Start, port: int) -> None:
    with socket.socket() as rival:
        rival.bind(("127.0.0.1", port))
        daemon = start("--lock-timeout", "0.1")
        assert daemon.finish() == 1
        assert listening_text(port) in "\n".join(daemon.log)


def test_ipv6_loopback_is_served_too(start: Start, port: int) -> None:
    start().ready()
    assert probe("::1", port) is Health.HEALTHY


def test_address_of_no_interface_is_a_bind_error(start: Start, port: int) -> None:
    daemon = start("--host", "192.0.2.1")
    assert daemon.finish() == 1
    expected = f"failed to bind gateway socket on ws://192.0.2.1:{port}: Cannot assign"
    assert expected in "\n".join(daemon.log)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "hard link"])
def test_what_stands_in_a_lock_files_place_is_refused_and_left_as_it_was(
    start: Start, state_dir: Path, tmp_path: Path, kind: str
) -> None:
    path = lock_path(state_dir)
    path.parent.mkdir(mode=0o700, parents=True)
    target = tmp_path / "target"
    target.write_text("precious")
    match kind:
        case "symlink":
            path.symlink_to(target)
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "hard link":
            path.hardlink_to(target)
    daemon = start()
    assert daemon.finish() == 73
    assert str(path) in "\n".join(daemon.log)
    assert target.read_text() == "precious"
    assert path.is_symlink() or path.exists()


def test_symlink_in_the_lock_directorys_place_is_refused(
    start: Start, state_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (state_dir / "tmp").mkdir(mode=0o700, parents=True)
    lock_directory(state_dir).symlink_to(tmp_path / "elsewhere")
    assert start().finish() == 73
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(("mode", "code"), [(0o777, 73), (0o770, 73), (0o755, 0)])
def test_lock_directory_that_others_may_write_to_is_refused_and_not_mended(
    start: Start, state_dir: Path, mode: int, code: int
) -> None:
    lock_directory(state_dir).mkdir(parents=True)
    lock_directory(state_dir).chmod(mode)
    daemon = start()
    if code == 0:
        assert daemon.ready().stop() == 0
    else:
        assert daemon.finish() == code
        assert f"chmod go-w {lock_directory(state_dir)}" in "\n".join(daemon.log)
    assert lock_directory(state_dir).stat().st_mode & 0o777 == mode


def test_state_directory_of_someone_else_is_refused(start: Start, state_dir: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to make a directory of another user's")
    state_dir.mkdir()
    os.chown(state_dir, 65534, 65534)
    daemon = start()
    assert daemon.finish() == 73
    assert "owned by uid 65534" in "\n".join(daemon.log)


def test_one_configuration_by_two_paths_is_one_lock(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    names = {
        config_lock_name(str(tmp_path / way))
        for way in ("a/openclaw.json", "link/openclaw.json", "a/../a/openclaw.json")
    }
    assert len(names) == 1


def test_bystander_that_only_looks_at_the_lock_does_not_stop_a_start(
    start: Start, state_dir: Path
) -> None:
    state_dir.mkdir()
    looking = os.open(state_dir, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_EX)
    daemon = start()
    daemon.wait_for("waiting")
    os.close(looking)
    daemon.ready()


def test_removed_lock_file_is_made_anew_and_a_second_start_refused_meanwhile(
    start: Start, state_dir: Path, notify: NotifySocket
) -> None:
    owner = start(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="1500000")
    notify.wait_for("READY=1")
    lock_path(state_dir).unlink()
    assert start().finish() == 1
    owner.wait_for(f"lock file {lock_path(state_dir)} had been removed")
    notify.wait_for("WATCHDOG=1")
    record = read_record(str(state_dir), lock_path(state_dir).name)
    assert record is not None and (record.pid, record.phase) == (owner.pid, Phase.READY)
    assert start().finish() == 1


def test_state_directory_moved_away_stops_the_daemon_but_not_with_78(
    start: Start, state_dir: Path, tmp_path: Path, notify: NotifySocket
) -> None:
    owner = start(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="1500000")
    notify.wait_for("READY=1")
    state_dir.rename(tmp_path / "moved")
    assert owner.finish() == 1
    assert f"lost the claim on {state_dir}" in "\n".join(owner.log)


def test_record_tells_a_reader_everything_about_the_owner(
    start: Start, state_dir: Path, port: int
) -> None:
    owner = start().ready()
    record = read_record(str(state_dir))
    assert isinstance(record, LockRecord)
    assert record.pid == owner.pid
    assert record.start_ticks == start_ticks(owner.pid)
    assert (record.port, record.host, record.phase) == (port, "127.0.0.1", Phase.READY)
    assert record.state_dir == str(state_dir)
    assert record.config_path == str(state_dir / "openclaw.json")
    assert lock_path(state_dir).stat().st_mode & 0o777 == 0o600


def test_allow_multi_gateway_skips_the_configuration_lock_only(
    start: Start, state_dir: Path
) -> None:
    start(OPENCLAW_ALLOW_MULTI_GATEWAY="1").ready()
    assert [path.name for path in leftovers(state_dir)] == ["gateway.state.lock"]
    assert start(OPENCLAW_ALLOW_MULTI_GATEWAY="1").finish() == 1


def test_port_in_time_wait_is_taken_at_once(start: Start, port: int) -> None:
    owner = start().ready()
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert owner.stop() == 0
        start("--lock-timeout", "0").ready()
        client.close()


def test_sigterm_while_waiting_ends_the_start_with_0_and_no_litter(
    start: Start, tmp_path: Path, port: int, listener: socket.socket
) -> None:
    daemon = start("--lock-timeout", "60", "--state-dir", str(tmp_path / "other"))
    daemon.wait_for("waiting")
    assert daemon.stop() == 0
    assert leftovers(tmp_path / "other") == []


def test_full_disk_is_a_clear_error_that_leaves_nothing(tmp_path: Path, port: int) -> None:
    log, code, left = in_tmpfs(tmp_path, port, "size=4k")
    assert code == 73
    assert "No space left on device" in log and "free some space" in log
    assert left == ""


def test_read_only_file_system_is_a_clear_error(tmp_path: Path, port: int) -> None:
    log, code, _ = in_tmpfs(tmp_path, port, "ro")
    assert code == 73
    assert "Read-only file system" in log


def in_tmpfs(tmp_path: Path, port: int, options: str) -> tuple[str, int, str]:
    """Run a gateway in a mount namespace whose state directory is a tmpfs; return log, code, litter."""
    if os.getuid() != 0:
        pytest.skip("needs root to mount")
    mount_point = tmp_path / "mnt"
    mount_point.mkdir()
    script = (
        f"mount -t tmpfs -o mode=0700,{options} none {mount_point} && "
        # Directories fit, their lock files' contents do not.
        f"(head -c 1M /dev/zero > {mount_point}/fill; true) 2>/dev/null; "
        f"{sys.executable} -m openclaw_gateway --port {port} --state-dir {mount_point}; code=$?; "
        f"find {mount_point} -name '*.lock'; exit $code"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env=clean_environ(),  # systemd-nspawn has a notify socket for whomever it runs
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )
    return done.stderr, done.returncode, done.stdout


def test_duplicate_ends_before_anything_heavy_is_loaded(start: Start, port: int) -> None:
    start().ready()
    assert "h11" not in modules_loaded(start)


def modules_loaded(start: Start) -> set[str]:
    """Run one more gateway to its end and return what it imported."""
    second = start(PYTHONPROFILEIMPORTTIME="1")
    second.finish()
    return {
        line.rpartition("|")[2].strip() for line in second.log if line.startswith("import time")
    }


def test_claim_on_a_free_port_loads_no_client_and_no_event_loop(state_dir: Path, port: int) -> None:
    script = (
        "import os, sys\n"
        "from openclaw_gateway import cli, gateway\n"
        "from openclaw_gateway.claim import claim\n"
        "from openclaw_gateway.settings import load as settings\n"
        "from openclaw_gateway.supervisor.journal import open_journal\n"
        "from openclaw_gateway.supervisor.notify import Supervisor\n"
        "flags = {'--port': sys.argv[1], '--state-dir': sys.argv[2]}\n"
        "loaded = settings.load(flags, os.environ)\n"
        "with claim.acquire(loaded, Supervisor(os.environ), open_journal(os.environ),\n"
        "                   pause=print):\n"
        "    print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(port), str(state_dir)],
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=True,
    )
    forbidden = {
        "h11",
        "websockets",
        "asyncio",
        "requests",
        "urllib3",
        "http.client",
        "ssl",
        "email",
    }
    forbidden |= {"dataclasses", "inspect", "systemd", "logging"}
    assert forbidden & set(done.stdout.split()) == set()


def test_hint_names_what_the_address_is_from() -> None:
    with pytest.raises(BindError) as refused:  # RFC 5737: nobody's address
        listen("192.0.2.1", 18789, named_by="/etc/o.json gateway.customBindHost")
    assert "no interface of this machine (/etc/o.json gateway.customBindHost)" in refused.value.hint
