"""Gateways of one cluster with a real etcd: one serves, and another one soon after it ends, whatever ends it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

import etcd
from conftest import CAP_S, TOKEN, Daemon, clean_environ, free_port

TOKEN_FIELD = "OpenClaw-Fencing-Token"
LEASE_MS, DEADLINE_MS, RETRY_MS = 3000, 2000, 400


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Nodes]:
    with etcd.running(tmp_path_factory.mktemp("etcd"), 3) as running:
        yield running


class Host:
    """A gateway with a state directory and a configuration of its own, as on a machine of its own."""

    def __init__(self, folder: Path, name: str, cluster: dict[str, object]) -> None:
        self.port = free_port()
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.config = self.folder / "openclaw.json"
        self.config.write_text("{}")
        self.own = self.folder / "openclaw-gateway.json"
        self.own.write_text(json.dumps({"cluster": cluster}))
        self.daemon: Daemon | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Daemon:
        environ = clean_environ(
            OPENCLAW_GATEWAY_PORT=str(self.port),
            OPENCLAW_STATE_DIR=str(self.folder / "state"),
            OPENCLAW_CONFIG_PATH=str(self.config),
            OPENCLAW_GATEWAY_TOKEN=TOKEN,
            PYTHONUNBUFFERED="1",
        )
        self.daemon = Daemon("run", environ=environ)
        return self.daemon

    def says(self, text: str) -> str:
        """Wait until it has said this, in whatever order with other things."""
        assert self.daemon is not None
        found = next((line for line in self.daemon.log if text in line), None)
        return found or self.daemon.wait_for(text)

    def is_ready(self) -> Host:
        self.says("ready on")
        return self

    def is_active(self) -> Host:
        self.says("active (token")
        self.says("ready on")
        return self

    def stop(self) -> int:
        assert self.daemon is not None
        return self.daemon.stop()

    def end(self) -> int:
        assert self.daemon is not None
        return self.daemon.finish()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.end()

    def signal(self, number: int) -> None:
        assert self.daemon is not None
        self.daemon.signal(number)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=CAP_S)


Make = Callable[[str], Host]


@pytest.fixture
def host(nodes: etcd.Nodes, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Host] = []

    def make(name: str, **cluster: object) -> Host:
        settings: dict[str, object] = {
            "endpoints": nodes.urls,
            "name": tmp_path.name,
            "leaseMs": LEASE_MS,
            "renewDeadlineMs": DEADLINE_MS,
            "retryMs": RETRY_MS,
        }
        made.append(Host(tmp_path, name, settings | cluster))
        return made[-1]

    yield make
    for each in made:
        if each.daemon is not None and each.daemon.process.poll() is None:
            each.daemon.signal(signal.SIGCONT)
            each.daemon.kill()


def pair(host: Make) -> tuple[Host, Host]:
    """Return an active gateway and a standby that knows it."""
    a, b = host("a"), host("b")
    a.start()
    a.is_active()
    b.start()
    b.is_ready().says("is active (token")
    return a, b


def test_first_one_is_active_and_the_second_stands_by(host: Make) -> None:
    a, b = pair(host)
    assert [a.get("/primary").status_code, b.get("/primary").status_code] == [200, 503]
    assert [a.get("/replica").status_code, b.get("/replica").status_code] == [503, 200]
    assert b.get("/healthz").status_code == 200
    assert b.get("/readyz").status_code == 503
    refused = b.get("/anything")
    assert refused.status_code == 503
    assert refused.headers["OpenClaw-Active-Url"].endswith(f":{a.port}")


def test_a_stop_gives_the_record_back_at_once(host: Make) -> None:
    a, b = pair(host)
    token = int(a.get("/primary").headers[TOKEN_FIELD])
    assert a.stop() == 0
    b.says(": active (token")
    assert int(b.get("/primary").headers[TOKEN_FIELD]) > token


def test_a_crash_is_over_after_the_lease(host: Make) -> None:
    a, b = pair(host)
    a.kill()
    b.says(": active (token")


def test_a_stopped_owner_is_killed_by_the_kernel_and_starts_again_as_a_standby(host: Make) -> None:
    a, b = pair(host)
    a.signal(signal.SIGSTOP)
    assert a.end() == -signal.SIGKILL
    b.says(": active (token")
    a.start()
    a.is_ready().says("is active (token")


def test_a_start_on_the_same_host_takes_its_own_record_at_once(host: Make) -> None:
    a = host("a", leaseMs=3_600_000)
    a.start()
    a.is_active().kill()
    a.start()
    a.is_active()


def test_without_etcd_a_gateway_starts_as_a_standby_and_says_so(host: Make) -> None:
    a = host("a", endpoints=["http://127.0.0.1:1"])
    a.start()
    a.is_ready().says("can't be reached: Connection refused; standing by until it can be reached")
    assert a.get("/primary").status_code == 503
    assert a.get("/healthz").status_code == 200
    assert a.stop() == 0


def test_an_owner_that_loses_etcd_says_goodbye_and_ends_with_75(host: Make, tmp_path: Path) -> None:
    with etcd.running(tmp_path / "own") as nodes:
        a = host("a", endpoints=nodes.urls)
        a.start()
        a.is_active()
        nodes.stop()
        assert a.end() == 75
        a.says("crit: no longer the active gateway of the cluster")
