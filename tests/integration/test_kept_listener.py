"""Listening sockets that outlive us: kept by systemd for our next start, or a socket unit's."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import CAP_S, NotifySocket, Resume, Start, free_port
from openclaw_gateway.claim.listener import STORED, Passed, listen
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import probe
from openclaw_gateway.host.ports import listening

SOCKET_UNIT = "openclaw-gateway.socket"
"""What a socket unit's sockets are called by default: systemd.socket(5), ``FileDescriptorName=``."""


def kept_addresses(notify: NotifySocket) -> list[tuple[str, int]]:
    """Return where the sockets that systemd keeps listen; all of them must."""
    found = []
    for name, fd in notify.kept:
        assert name == STORED
        with socket.socket(fileno=os.dup(fd)) as each:
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            found.append(each.getsockname()[:2])
    return sorted(found)


def is_answered(client: socket.socket) -> bytes:
    """Ask for health over a connection that may have waited, and return the status line."""
    client.settimeout(CAP_S)
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return client.recv(100).partition(b"\r\n")[0]


def waits(client: socket.socket) -> bool:
    """Whether nobody has said anything to a client yet, nor hung up."""
    return not select.select([client], [], [], 0)[0]


def test_every_listener_and_nothing_else_is_kept_before_ready(
    resume: Resume, port: int, notify: NotifySocket
) -> None:
    daemon = resume()
    notify.wait_for("READY=1")
    assert kept_addresses(notify) == [("127.0.0.1", port), ("::1", port)]
    stores = [each for each in notify.heard if "FDSTORE=1" in each]
    assert stores == [f"FDSTORE=1\nFDNAME={STORED}"] * 2
    assert daemon.stop() == 0


def test_client_that_connects_while_nobody_runs_is_served_by_the_next_start(
    resume: Resume, port: int, notify: NotifySocket
) -> None:
    first = resume()
    notify.wait_for("READY=1")
    assert first.stop() == 0
    # Closed, and never shut down: that would have ended the listening in systemd's copy too.
    with (
        socket.create_connection(("127.0.0.1", port)) as four,
        socket.create_connection(("::1", port)) as six,
    ):
        second = resume()
        notify.wait_for("READY=1")
        assert (is_answered(four), is_answered(six)) == (b"HTTP/1.1 200 OK",) * 2
    assert second.stop() == 0
    assert not any("FDSTOREREMOVE" in each for each in notify.drain())


def test_client_that_waits_in_the_backlog_outlives_a_crash(
    resume: Resume, port: int, notify: NotifySocket
) -> None:
    first = resume()
    notify.wait_for("READY=1")
    first.signal(signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", port)) as client:
        first.kill()
        resume()
        notify.wait_for("READY=1")
        assert is_answered(client) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("change", ["port", "address"])
def test_changed_settings_take_effect_at_the_next_start(
    resume: Resume, port: int, notify: NotifySocket, change: str
) -> None:
    first = resume()
    notify.wait_for("READY=1")
    first.stop()
    other = free_port()
    arguments = {"port": ["--port", str(other)], "address": ["--host", "127.0.0.2"]}[change]
    with socket.create_connection(("::1", port)) as late:
        resume(*arguments)
        notify.wait_for("READY=1")
        assert late.recv(100).startswith(b"HTTP/1.1 503 ")
    wanted = {
        "port": [("127.0.0.1", other), ("::1", other)],
        "address": [("127.0.0.1", port), ("127.0.0.2", port)],
    }[change]
    assert kept_addresses(notify) == wanted
    assert sorted((each.host, each.port) for each in listening(wanted[0][1])) == wanted
    if change == "port":
        assert probe("127.0.0.1", port) is Health.REFUSED


def test_missing_listener_is_bound_beside_the_kept_ones(
    resume: Resume, port: int, notify: NotifySocket
) -> None:
    with listen("127.0.0.1", port) as kept:
        resume(handed=[(STORED, kept.fileno())])
        notify.wait_for("READY=1")
    assert kept_addresses(notify) == [("127.0.0.1", port), ("::1", port)]
    assert probe("::1", port) is Health.HEALTHY


@pytest.mark.parametrize("name", ["stored", "listener-of-another-release"])
def test_what_systemd_keeps_under_an_unknown_name_is_let_go(
    resume: Resume, port: int, notify: NotifySocket, name: str
) -> None:
    with (
        listen("127.0.0.1", other := free_port()) as strange,
        open(os.devnull) as no_socket,
    ):
        daemon = resume(handed=[(name, strange.fileno()), (name, no_socket.fileno())])
        notify.wait_for(f"FDSTOREREMOVE=1\nFDNAME={name}".partition("\n")[0])
        notify.wait_for("READY=1")
        links = {os.readlink(each) for each in Path(f"/proc/{daemon.pid}/fd").iterdir()}
        assert f"socket:[{os.fstat(strange.fileno()).st_ino}]" not in links
    assert f"FDSTOREREMOVE=1\nFDNAME={name}" in notify.heard
    assert probe("127.0.0.1", other) is Health.REFUSED
    assert probe("127.0.0.1", port) is Health.HEALTHY


def test_queue_that_was_full_gets_the_listeners_later(
    resume: Resume, port: int, notify: NotifySocket
) -> None:
    with notify.crowded():
        resume(WATCHDOG_USEC="300000").ready()
    notify.wait_for("FDSTORE=1")
    notify.wait_for("FDSTORE=1")
    assert kept_addresses(notify) == [("127.0.0.1", port), ("::1", port)]


@pytest.mark.parametrize(
    ("arguments", "gateway", "said"),
    [
        (["--port", "x"], "{}", "--port"),
        ([], "{bind: 'nowhere'}", "gateway.bind"),
        # Read once the port is ours.
        ([], "{tls: {enabled: true, certPath: 'DIR/pem', keyPath: 'DIR/pem'}}", "gateway.tls"),
    ],
)
def test_start_that_fails_for_good_turns_away_who_waits(
    resume: Resume, port: int, state_dir: Path, arguments: list[str], gateway: str, said: str
) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "pem").write_text("garbage")
    (state_dir / "openclaw.json").write_text(
        f"{{gateway: {gateway.replace('DIR', str(state_dir))}}}"
    )
    with (
        listen("127.0.0.1", port) as kept,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        daemon = resume(*arguments, handed=[(STORED, kept.fileno())])
        assert daemon.finish() == 78
        assert said in "\n".join(daemon.log)
        client.settimeout(CAP_S)
        assert client.recv(100).startswith(b"HTTP/1.1 503 ")


def test_start_that_is_followed_by_another_leaves_who_waits_to_it(
    resume: Resume, port: int, state_dir: Path, notify: NotifySocket
) -> None:
    state_dir.mkdir()
    state_dir.chmod(0o777)
    with (
        listen("127.0.0.1", port) as kept,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        daemon = resume(handed=[(STORED, kept.fileno())])
        assert daemon.finish() == 73
        assert waits(client)
        state_dir.chmod(0o700)
        resume(handed=[(STORED, kept.fileno())])
        notify.wait_for("READY=1")
        assert is_answered(client) == b"HTTP/1.1 200 OK"


def test_start_behind_a_hung_owner_is_not_misled_by_its_own_listener(
    resume: Resume, port: int, state_dir: Path, notify: NotifySocket
) -> None:
    """75, and who waits goes on waiting; no probe of ours waits on ourselves."""
    owner = resume("--port", str(free_port()), handed=[])
    notify.wait_for("READY=1")
    owner.signal(signal.SIGSTOP)
    with (
        listen("127.0.0.1", port) as kept,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        second = resume("--health-timeout", "3", handed=[(STORED, kept.fileno())])
        assert second.finish() == 75
        assert waits(client)
        kept.setblocking(False)
        kept.accept()[0].close()
        with pytest.raises(BlockingIOError):
            kept.accept()


def test_socket_unit_and_standby_exclude_each_other(resume: Resume, port: int) -> None:
    with listen("127.0.0.1", port) as handed:
        daemon = resume("--standby", handed=[(SOCKET_UNIT, handed.fileno())])
        assert daemon.finish() == 78
    said = "\n".join(daemon.log)
    assert f'systemctl disable --now {SOCKET_UNIT}, or "standby": false' in said


def test_gateway_with_a_standby_has_nothing_kept(
    resume: Resume, port: int, notify: NotifySocket
) -> None:
    """Or systemd would have the port when the standby comes for it."""
    first = resume()
    notify.wait_for("READY=1")
    assert len(notify.kept) == 2
    first.stop()
    second = resume("--standby")
    notify.wait_for("READY=1")
    assert notify.kept == []
    second.kill()
    assert probe("127.0.0.1", port) is Health.REFUSED


@pytest.mark.parametrize("same_state", [True, False], ids=["same state", "other state"])
def test_start_that_comes_between_gives_way_to_the_one_that_systemd_keeps_the_port_for(
    resume: Resume, start: Start, port: int, tmp_path: Path, notify: NotifySocket, same_state: bool
) -> None:
    """It has the locks and waits for the port, we have the port and wait for the locks: it began first."""
    with (
        listen("127.0.0.1", port) as kept,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        elsewhere = [] if same_state else ["--state-dir", str(tmp_path / "other")]
        between = start("--lock-timeout", "8", *elsewhere)
        between.wait_for("waiting")
        resume(handed=[(STORED, kept.fileno())]).wait_for("waiting")
        assert between.finish() == 1
        notify.wait_for("READY=1")
        assert is_answered(client) == b"HTTP/1.1 200 OK"


class _Live(BaseHTTPRequestHandler):
    """Answers as a healthy gateway does, whatever it is asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(_LIVE)))
        self.end_headers()
        self.wfile.write(_LIVE)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


_LIVE = b'{"ok":true,"status":"live"}'


@contextmanager
def gateway_without_locks(host: str, port: int) -> Iterator[None]:
    """A gateway that takes none of our locks: only its answer shows that there would be two."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, port), _Live) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.mark.parametrize("name", [STORED, SOCKET_UNIT])
def test_neighbour_on_another_address_is_seen_beside_handed_over_sockets(
    resume: Resume, port: int, name: str
) -> None:
    with (
        listen("127.0.0.1", port) as handed,
        gateway_without_locks("::1", port),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        duplicate = resume(handed=[(name, handed.fileno())])
        assert duplicate.finish() == 78
        assert f"already listening on ws://[::1]:{port}" in "\n".join(duplicate.log)
        client.settimeout(CAP_S)
        assert client.recv(100).startswith(b"HTTP/1.1 503 ")


def test_socket_units_sockets_are_served_and_not_kept(
    resume: Resume, port: int, notify: NotifySocket
) -> None:
    with listen("127.0.0.1", port) as four, listen("::1", port) as six:
        resume(handed=[(SOCKET_UNIT, four.fileno()), (SOCKET_UNIT, six.fileno())])
        notify.wait_for("READY=1")
        assert probe("127.0.0.1", port) is Health.HEALTHY
        assert probe("::1", port) is Health.HEALTHY
    assert not any("FDSTORE" in each for each in notify.drain())


def test_socket_units_dual_stack_socket_serves_both_wildcards(
    resume: Resume, port: int, notify: NotifySocket
) -> None:
    with socket.create_server(
        ("::", port), family=socket.AF_INET6, dualstack_ipv6=True
    ) as listening_on_both:
        resume("--host", "0.0.0.0", handed=[(SOCKET_UNIT, listening_on_both.fileno())])
        notify.wait_for("READY=1")
    assert probe("127.0.0.1", port) is Health.HEALTHY


@pytest.mark.parametrize(
    ("host", "change", "said"),
    [
        ("127.0.0.1", 1, "make ListenStream= and gateway.port agree"),
        ("0.0.0.0", 0, "make ListenStream= and gateway.bind agree"),
    ],
)
def test_socket_unit_that_contradicts_the_settings_is_refused(
    resume: Resume, port: int, host: str, change: int, said: str
) -> None:
    with (
        listen(host, port) as handed,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        daemon = resume("--port", str(port + change), handed=[(SOCKET_UNIT, handed.fileno())])
        assert daemon.finish() == 78
        assert said in "\n".join(daemon.log)
        client.settimeout(CAP_S)
        assert client.recv(100).startswith(b"HTTP/1.1 503 ")


def test_socket_units_datagram_socket_is_refused(resume: Resume, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handed:
        daemon = resume(handed=[(SOCKET_UNIT, handed.fileno())])
        assert daemon.finish() == 78
        assert "not a listening TCP socket" in "\n".join(daemon.log)


def test_activated_duplicate_turns_away_who_waits_so_that_it_is_not_activated_again(
    resume: Resume, notify: NotifySocket
) -> None:
    resume(handed=[])
    notify.wait_for("READY=1")
    with (
        listen("127.0.0.1", other := free_port()) as handed,
        socket.create_connection(("127.0.0.1", other)) as client,
    ):
        daemon = resume("--port", str(other), handed=[(SOCKET_UNIT, handed.fileno())])
        assert daemon.finish() == 78
        client.settimeout(CAP_S)
        assert client.recv(100).startswith(b"HTTP/1.1 503 ")
        with pytest.raises(BlockingIOError):
            handed.accept()


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    assert Passed(environ).handed == []
    assert environ == {}
