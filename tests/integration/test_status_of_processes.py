"""``status`` and ``probe`` on real gateways, strangers and nobody, where systemd does not run."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import CAP_S, Start, clean_environ, free_port, without_systemd
from openclaw_gateway.admin.look.history import is_readable
from openclaw_gateway.admin.look.rivals import Home
from openclaw_gateway.admin.look.selection import select
from openclaw_gateway.admin.look.subject import held
from openclaw_gateway.admin.look.units import SYSTEM
from openclaw_gateway.admin.status import contenders, look, look_at_all
from openclaw_gateway.claim.baseport import Holder

NOBODY = 65534


def ask(*arguments: str, home: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one of our verbs from a home directory of its own."""
    return subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", *arguments],
        env=clean_environ(HOME=str(home)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
        **options,
    )


@pytest.fixture
def status(port: int, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return what ``status --json`` says of the test's port, with its exit code checked against the document's."""

    def look(*arguments: str) -> dict[str, Any]:
        said = ask("status", "--json", "--port", str(port), *arguments, home=tmp_path)
        document: dict[str, Any] = json.loads(said.stdout)
        assert said.stderr == ""
        assert said.returncode == document["exit_code"]
        return document

    return look


@pytest.fixture
def listener(port: int) -> Iterator[socket.socket]:
    """A socket of this process that listens on the test's port and says nothing by itself."""
    with socket.create_server(("127.0.0.1", port)) as made:
        yield made


@pytest.fixture
def web_server(port: int, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A web server that is no gateway."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout
    assert b"Serving" in server.stdout.readline()
    yield server
    server.kill()
    server.wait(CAP_S)
    server.stdout.close()


@without_systemd
def test_gateway_by_hand_is_unmanaged_and_healthy(
    start: Start, status: Callable[..., dict[str, Any]], state_dir: Path, port: int
) -> None:
    gateway = start().ready()
    said = status()
    assert said["state"] == "unmanaged"
    assert said["exit_code"] == 0
    assert said["lock"]["port_pid"] == said["lock"]["state_pid"] == gateway.pid
    assert said["lock"]["is_own_record"] is True
    assert said["lock"]["state_dir"] == str(state_dir)
    assert {found["pid"] for found in said["listeners"]} == {gateway.pid}
    assert said["health"]["health"] == "healthy"
    assert said["health"]["ready"] is True
    assert said["process"]["command"]
    assert said["unseen"] == ["unit: systemd does not run here"]


def test_gateway_that_starts_while_we_look_is_seen_whole(
    start: Start, port: int, tmp_path: Path
) -> None:
    gateway = start().ready()
    at_first: Iterator[dict[int, Holder]] = iter([{}])  # it took its port after our first glance
    selection = select({"HOME": str(tmp_path)}, flags={"--port": str(port)})
    seen = look(selection, holders=lambda: next(at_first, held()))
    assert seen.facts.owner is not None
    assert seen.facts.owner.pid == gateway.pid


def test_keys_of_the_document_are_stable(
    start: Start, status: Callable[..., dict[str, Any]]
) -> None:
    start().ready()
    said = status()
    assert said["schema"] == 1
    assert list(said) == [
        "schema", "state", "reason", "exit_code", "profile", "port", "configured_port", "versions",
        "unit_name", "unit", "process", "owner", "guarded", "lock", "listeners", "connections", "health",
        "parked_behind_pid", "last_exit", "rivals", "standbys", "disagreements", "next_start", "unseen", "next",
    ]  # fmt: skip
    assert set(said["process"]) == {
        "pid", "command", "user", "unit", "manager", "age_s", "is_stopped", "memory_bytes",
        "threads", "descriptors", "descriptor_limit", "oom_kills", "same_network",
    }  # fmt: skip
    assert set(said["health"]) == {
        "host", "port", "health", "took_s", "ready", "failing", "scheme", "role",
    }  # fmt: skip


def test_nobody_there_is_stopped(status: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    said = status()
    assert said["state"] == "stopped"
    assert said["exit_code"] == 3
    assert said["next"][0]["command"].startswith("openclaw-gateway run --port=")
    assert list(tmp_path.iterdir()) == [], "status writes nothing"


def test_stopped_process_does_not_serve(
    start: Start, status: Callable[..., dict[str, Any]]
) -> None:
    gateway = start().ready()
    gateway.signal(signal.SIGSTOP)
    said = status()
    assert said["state"] == "not-serving"
    assert said["exit_code"] == 1
    assert said["health"]["health"] == "mute"
    assert said["next"] == [
        {"command": f"kill -CONT {gateway.pid}", "why": "if nobody is debugging it"}
    ]
    gateway.signal(signal.SIGCONT)
    assert status("--wait", "30")["state"] == "unmanaged"


CLAIMANT = """
import os, select, sys
from openclaw_gateway.claim import claim
from openclaw_gateway.settings import load as settings
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.supervisor.journal import open_journal
from openclaw_gateway.supervisor.notify import Supervisor

environ = dict(os.environ)
loaded = settings.load({}, environ)
supervisor, journal = Supervisor(environ), open_journal(environ)
with claim.acquire(loaded, supervisor, journal, pause=None) as held:
    held.publish(Phase(sys.argv[1]))
    held.close_listeners()
    print("claimed", flush=True)
    while sys.stdin not in select.select([held.base_port, sys.stdin], [], [])[0]:
        held.answer()
"""
"""Holds everything that a gateway holds, and serves nothing."""


@pytest.mark.parametrize(
    ("phase", "state", "code"), [("starting", "starting", 2), ("draining", "stopping", 1)]
)
def test_phase_of_a_gateway_that_does_not_serve(
    status: Callable[..., dict[str, Any]],
    state_dir: Path,
    port: int,
    phase: str,
    state: str,
    code: int,
) -> None:
    claimant = subprocess.Popen(
        [sys.executable, "-c", CLAIMANT, phase],
        env=clean_environ(OPENCLAW_STATE_DIR=str(state_dir), OPENCLAW_GATEWAY_PORT=str(port)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with claimant:
        assert claimant.stdout
        assert claimant.stdout.readline() == "claimed\n"
        said = status()
        claimant.communicate(timeout=CAP_S)
    assert said["state"] == state
    assert said["exit_code"] == code
    assert said["owner"]["pid"] == claimant.pid


def test_web_server_is_a_foreign_port(
    web_server: subprocess.Popen[bytes], status: Callable[..., dict[str, Any]], port: int
) -> None:
    said = status()
    assert said["state"] == "foreign-port"
    assert said["exit_code"] == 3
    assert f"pid {web_server.pid}" in said["reason"]
    assert said["next"][0]["command"] == f"ps -fp {web_server.pid}"


def test_mute_listener_is_a_foreign_port(
    listener: socket.socket, status: Callable[..., dict[str, Any]]
) -> None:
    said = status()
    assert said["state"] == "foreign-port"
    assert "answers nothing" in said["reason"]


def test_gateway_that_waits_for_a_foreign_port_names_the_stranger(
    start: Start,
    web_server: subprocess.Popen[bytes],
    status: Callable[..., dict[str, Any]],
    state_dir: Path,
) -> None:
    gateway = start("--lock-timeout", "60")
    gateway.wait_for("waiting up to")
    said = status("--state-dir", str(state_dir))
    assert said["state"] == "foreign-port"
    assert said["owner"]["pid"] == gateway.pid
    assert said["lock"]["record"]["phase"] == "starting"


def test_stale_lock_files_do_not_make_a_gateway(
    start: Start, status: Callable[..., dict[str, Any]], state_dir: Path
) -> None:
    start().ready().kill()
    said = status("--state-dir", str(state_dir))
    assert said["state"] == "stopped"
    assert said["lock"]["state_pid"] is None
    assert list(state_dir.glob("tmp/*/gateway.*.lock")), "the crash left its files"


def test_wait_ends_when_the_gateway_is_there(start: Start, port: int, tmp_path: Path) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-m", "openclaw_gateway", "status", "--wait", "60", "--port", str(port)],
        env=clean_environ(HOME=str(tmp_path)),
        stdout=subprocess.DEVNULL,
    )
    start().ready()
    assert waiting.wait(CAP_S) == 0


def test_other_users_see_what_the_kernel_shows_them(
    start: Start, port: int, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    gateway = start().ready()
    said = ask(
        "status", "--json", "--port", str(port), home=tmp_path, user=NOBODY, group=NOBODY, cwd="/"
    )
    document = json.loads(said.stdout)
    assert document["state"] == "unmanaged"
    assert document["lock"]["port_pid"] == gateway.pid
    assert document["process"]["descriptors"] is None
    assert any(note.startswith("listener: whose it is") for note in document["unseen"])


def test_broken_configuration_hides_nothing_else(start: Start, port: int, tmp_path: Path) -> None:
    gateway = start().ready()
    config = tmp_path / "broken.json"
    config.write_text("{")
    said = ask("status", "--json", "--port", str(port), "--config", str(config), home=tmp_path)
    document = json.loads(said.stdout)
    assert document["state"] == "unmanaged"
    assert document["owner"]["pid"] == gateway.pid
    assert any(note.startswith(f"configuration: {config}") for note in document["unseen"])


def test_own_gateway_is_found_without_a_flag(start: Start, port: int, tmp_path: Path) -> None:
    gateway = start(OPENCLAW_STATE_DIR=str(tmp_path / ".openclaw")).ready()
    document = json.loads(ask("status", "--json", home=tmp_path).stdout)
    assert document["port"] == port
    assert document["owner"]["pid"] == gateway.pid


@pytest.mark.parametrize("named", ["--profile=b", "--state-dir=b", "--config=b/openclaw.json"])
def test_gateway_of_another_profile_on_its_port_does_not_count(
    start: Start, port: int, tmp_path: Path, named: str
) -> None:
    ours = tmp_path / "b" if named != "--profile=b" else tmp_path / ".openclaw-b"
    theirs = tmp_path / ".openclaw-a"
    for directory in (ours, theirs):
        directory.mkdir(mode=0o700)
        (directory / "openclaw.json").write_text(json.dumps({"gateway": {"port": port}}))
    gateway = start(
        "--profile", "a", OPENCLAW_STATE_DIR="", OPENCLAW_GATEWAY_PORT="", HOME=str(tmp_path)
    ).ready()
    document = json.loads(ask("status", "--json", named, home=tmp_path, cwd=tmp_path).stdout)
    assert (document["state"], document["exit_code"]) == ("stopped", 3)
    assert f"pid {gateway.pid}" in document["reason"]
    assert any(str(theirs) in text for text in document["disagreements"])
    assert document["process"] is None
    assert document["owner"]["pid"] == gateway.pid
    of_profile = json.loads(ask("status", "--json", "--profile=a", home=tmp_path).stdout)
    assert (of_profile["state"], of_profile["disagreements"]) == ("unmanaged", [])


def test_state_directory_behind_a_link_is_the_same(
    start: Start, status: Callable[..., dict[str, Any]], state_dir: Path, tmp_path: Path
) -> None:
    start().ready()
    (tmp_path / "link").symlink_to(state_dir)
    assert status("--state-dir", str(tmp_path / "link"))["state"] == "unmanaged"


def test_all_lists_profiles_and_whoever_else_holds_a_port(
    start: Start, port: int, tmp_path: Path
) -> None:
    start().ready()
    other_port = free_port()
    work = tmp_path / ".openclaw-work"
    start(OPENCLAW_STATE_DIR=str(work), OPENCLAW_GATEWAY_PORT=str(other_port)).ready()
    document = json.loads(ask("status", "--all", "--json", home=tmp_path).stdout)
    assert document["schema"] == 1
    states = {gateway["port"]: gateway["state"] for gateway in document["gateways"]}
    assert states[port] == states[other_port] == "unmanaged"
    assert "work" in {gateway["profile"] for gateway in document["gateways"]}


def test_profile_of_another_user_is_seen_in_its_home(
    start: Start, port: int, tmp_path: Path
) -> None:
    people = [tmp_path / "us", tmp_path / "alice"]
    for home, number in zip(people, (port, free_port()), strict=True):
        (home / ".openclaw-work").mkdir(parents=True, mode=0o700)
        settings = {"gateway": {"port": number}}
        (home / ".openclaw-work/openclaw.json").write_text(json.dumps(settings))
    accounts = [Home(home.name, 4000000, str(home)) for home in people]
    alice = start(
        "--profile", "work", OPENCLAW_STATE_DIR="", OPENCLAW_GATEWAY_PORT="", HOME=str(people[1])
    ).ready()
    rows = [
        status
        for status in look_at_all({"HOME": str(people[0])}, accounts=lambda: accounts)
        if status.facts.subject.profile == "work"
    ]
    assert [(row.facts.subject.place.port, row.facts.lock.state_dir) for row in rows] == [
        (port, str(people[0] / ".openclaw-work")),
        (number, str(people[1] / ".openclaw-work")),
    ]
    assert [row.verdict.state for row in rows] == ["stopped", "unmanaged"]
    assert rows[1].facts.owner is not None
    assert rows[1].facts.owner.pid == alice.pid
    assert list(contenders(rows)) == [(str(people[1] / ".openclaw-work"), number)]


_OTHER_GATEWAY = """
import http.server, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"ok":true,"status":"live"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("127.0.0.2", int(sys.argv[1])), Answer)
print("listening", flush=True)
server.serve_forever()
"""
"""Answers as OpenClaw's own gateway does, on another address than ours; and holds no lock of ours."""


def test_gateway_on_another_address_of_the_port_is_shown(
    start: Start, status: Callable[..., dict[str, Any]], port: int
) -> None:
    ours = start().ready()
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER_GATEWAY, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "listening\n"
        said = status()
        other.kill()
    assert (said["state"], said["owner"]["pid"]) == ("unmanaged", ours.pid)
    answers = {found["host"]: found["answers"] for found in said["listeners"]}
    assert (answers["127.0.0.1"], answers["127.0.0.2"]) == (None, "healthy")
    (sentence,) = (text for text in said["disagreements"] if f"pid {other.pid} " in text)
    assert (
        f"a healthy gateway, listens on ws://127.0.0.2:{port} too, beside pid {ours.pid}"
        in sentence
    )


def test_profile_that_was_removed_is_no_gateway_but_what_it_left(
    start: Start, port: int, tmp_path: Path
) -> None:
    for name in ("kept", "removed"):
        (tmp_path / f".openclaw-{name}").mkdir(mode=0o700)
    (tmp_path / ".openclaw-kept/openclaw.json").write_text(json.dumps({"gateway": {"port": port}}))
    document = json.loads(ask("status", "--all", "--json", home=tmp_path).stdout)
    profiles = {gateway["profile"] for gateway in document["gateways"]}
    assert "kept" in profiles
    assert "removed" not in profiles
    removed = {"profile": "removed", "state_dir": str(tmp_path / ".openclaw-removed")}
    assert removed in document["left_over"]
    shown = ask("status", "--all", home=tmp_path).stdout
    assert f"{removed['state_dir']}: left over by the profile removed" in shown


def test_profile_is_default_only_where_that_is_known(
    start: Start, port: int, tmp_path: Path
) -> None:
    start().ready()
    listed = ask("status", "--all", "--json", home=tmp_path).stdout
    names = {one["port"]: one["profile"] for one in json.loads(listed)["gateways"]}
    assert (names[18789], names[port]) == ("default", None)
    assert json.loads(ask("status", "--json", home=tmp_path).stdout)["profile"] == "default"
    rows = [line.split() for line in ask("status", "--all", home=tmp_path).stdout.splitlines()]
    shown = {row[1]: row[0] for row in rows}
    assert (shown["18789"], shown[str(port)]) == ("default", "-")


def test_status_loads_no_server_and_stays_small(start: Start, port: int, tmp_path: Path) -> None:
    start().ready()
    script = (
        "import sys\n"
        "from openclaw_gateway.cli import main\n"
        f"sys.argv = ['x', 'status', '--port', '{port}']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'h11', 'websockets', 'asyncio', 'requests', 'http.client', 'ssl', 'systemd.journal'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(*[line.split()[1] for line in lines if 'VmHWM' in line], file=sys.stderr)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environ(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=True,
    )
    assert int(said.stderr) < 40_000, "kilobytes"


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_is_for_terminals_that_want_it(
    port: int, tmp_path: Path, variables: dict[str, str], coloured: bool
) -> None:
    ours, theirs = pty.openpty()
    environ = clean_environ(HOME=str(tmp_path), TERM="xterm") | variables
    if "NO_COLOR" not in variables:
        environ.pop("NO_COLOR", None)
    said = subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", "status", "--port", str(port)],
        env=environ,
        stdout=theirs,
        timeout=CAP_S,
        check=False,
    )
    os.close(theirs)
    screen = b""
    try:
        while chunk := os.read(ours, 65536):
            screen += chunk
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    assert said.returncode == 3
    assert b"STOPPED" in screen
    assert (b"\x1b[" in screen) is coloured


@without_systemd
def test_screen_shows_each_fact(start: Start, port: int, tmp_path: Path, state_dir: Path) -> None:
    gateway = start().ready()
    said = ask("status", "--port", str(port), home=tmp_path)
    labels = [line[:10].strip() for line in said.stdout.splitlines()[1:] if line[:10].strip()]
    assert labels == ["Unit", "Process", "Lock", "Listener", "Health", "Not seen"]
    assert said.stdout.startswith("openclaw-gateway  UNMANAGED: healthy")
    assert f"port {port}: held by pid {gateway.pid} (kernel lock + start time agree)" in said.stdout
    assert f"state directory {state_dir}: held by pid {gateway.pid}" in said.stdout
    assert f"127.0.0.1:{port} pid {gateway.pid} (ours)" in said.stdout


def test_profile_that_is_no_name_is_refused(tmp_path: Path) -> None:
    said = ask("status", "--profile", "a/b", home=tmp_path)
    assert said.returncode != 0
    assert "--profile" in said.stderr


def test_probe_of_a_healthy_gateway(start: Start, port: int, tmp_path: Path) -> None:
    gateway = start().ready()
    said = ask("probe", "--url", f"ws://127.0.0.1:{port}", "--json", home=tmp_path)
    document = json.loads(said.stdout)
    assert said.returncode == document["exit_code"] == 0
    assert document["health"] == "healthy"
    assert document["ready"] is True
    assert document["owner"]["pid"] == gateway.pid
    line = ask("probe", "--port", str(port), home=tmp_path).stdout
    assert line.startswith(f"ws://127.0.0.1:{port}: a healthy gateway, ready, ")


def test_probe_of_nobody(port: int, tmp_path: Path) -> None:
    assert ask("probe", "--port", str(port), home=tmp_path).returncode == 3


def test_probe_of_a_web_server(
    web_server: subprocess.Popen[bytes], port: int, tmp_path: Path
) -> None:
    said = ask("probe", "--port", str(port), home=tmp_path)
    assert said.returncode == 1
    assert "a program that is not a gateway" in said.stdout


def test_probe_of_silence_ends(listener: socket.socket, port: int, tmp_path: Path) -> None:
    said = ask("probe", "--port", str(port), "--timeout", "0.2", home=tmp_path)
    assert said.returncode == 1
    assert "a listener that does not answer" in said.stdout


@pytest.mark.parametrize("auth", ["{token: '${NOT_SET}'}", "{mode: 'password'}"])
def test_probe_of_a_port_needs_no_secret(port: int, tmp_path: Path, auth: str) -> None:
    config = tmp_path / "openclaw.json"
    config.write_text(f"{{gateway: {{auth: {auth}}}}}")
    said = ask("probe", "--port", str(port), "--config", str(config), home=tmp_path)
    assert (said.returncode, said.stderr) == (3, "")


def test_probe_without_a_port_to_ask_can_not_tell(tmp_path: Path) -> None:
    config = tmp_path / "openclaw.json"
    config.write_text("{gateway: {port: '${NOT_SET}'}}")
    said = ask("probe", "--profile", "nobody-has-this", "--config", str(config), home=tmp_path)
    assert said.returncode == 4
    assert "NOT_SET" in said.stdout


def test_probe_by_name_knows_this_machine(start: Start, port: int, tmp_path: Path) -> None:
    gateway = start().ready()
    said = ask("probe", "--url", f"ws://localhost:{port}", "--json", home=tmp_path)
    assert json.loads(said.stdout)["owner"]["pid"] == gateway.pid


@pytest.mark.parametrize("flag", ["--port", "--host"])
def test_probe_of_a_flag_that_is_wrong(tmp_path: Path, flag: str) -> None:
    said = ask("probe", flag, "x", home=tmp_path)
    assert (said.returncode, f"flag {flag}: must be" in said.stderr) == (78, True)


@pytest.mark.parametrize("address", ["ftp://example.org", "ws://", "ws://u:secret@127.0.0.1:1"])
def test_probe_of_an_address_that_is_none(tmp_path: Path, address: str) -> None:
    said = ask("probe", "--url", address, home=tmp_path)
    assert said.returncode == 78
    assert "hint:" in said.stderr


@without_systemd
def test_logs_without_a_journal_says_so(tmp_path: Path) -> None:
    if any(map(os.path.isdir, ("/run/log/journal", "/var/log/journal"))):
        said = ask("logs", "--profile", "nobody-has-this", home=tmp_path)
        if is_readable(SYSTEM):
            assert "nothing in the journal" in said.stderr
        else:  # a user outside of its groups
            assert "\nhint: sudo openclaw-gateway logs --profile=nobody-has-this\n" in said.stderr
    else:
        said = ask("logs", home=tmp_path)
        assert "no journal is kept" in said.stderr
    assert said.returncode == 1
