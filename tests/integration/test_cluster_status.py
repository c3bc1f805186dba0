"""``status`` and ``status --cluster`` beside a real etcd: who is active, who stands by, and what to exit with."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import etcd
from conftest import CAP_S, TOKEN, Daemon, clean_environ, free_port
from openclaw_gateway.cluster.announcement import Announcement
from openclaw_gateway.cluster.etcd import Etcd
from openclaw_gateway.cluster.record import Record
from openclaw_gateway.cluster.tenure import holder_id
from openclaw_gateway.settings.model import Cluster


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Nodes]:
    with etcd.running(tmp_path_factory.mktemp("etcd")) as running:
        yield running


class Home:
    """A home directory whose gateway is in a cluster of its own."""

    def __init__(self, path: Path, nodes: etcd.Nodes) -> None:
        self.path, self.nodes = path, nodes
        self.settings: dict[str, Any] = {
            "endpoints": nodes.urls, "name": path.name, "leaseMs": 3000, "renewDeadlineMs": 2000,
            "retryMs": 200,
        }  # fmt: skip
        self.state_dir = path / ".openclaw"
        self.state_dir.mkdir()
        self.port = free_port()

    @property
    def cluster(self) -> Cluster:
        urls = tuple(self.settings["endpoints"])
        user, password = self.settings.get("user"), self.settings.get("password")
        return Cluster(
            urls, self.path.name, "http://here:1", 3, 2, 0.2, user, password, None, None, None
        )  # fmt: skip

    def write(self) -> None:
        own = self.state_dir / "openclaw-gateway.json"
        own.write_text(json.dumps({"cluster": self.settings}))
        own.chmod(0o600)

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.write()
        return subprocess.run(
            [sys.executable, "-m", "openclaw_gateway", "status", *arguments],
            env=clean_environ(HOME=str(self.path)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CAP_S,
            check=False,
        )

    def told(self, *arguments: str) -> dict[str, Any]:
        said = self.ask("--cluster", "--json", *arguments)
        assert said.stderr == ""
        document: dict[str, Any] = json.loads(said.stdout)
        assert said.returncode == document["exit_code"]
        return document


@pytest.fixture
def home(tmp_path: Path, nodes: etcd.Nodes) -> Home:
    return Home(tmp_path, nodes)


def record(holder: str, host: str, **more: Any) -> Record:
    return Record(holder, f"owner-{holder}", f"http://{host}:18789", host, 3000, 1, **more)


@contextmanager
def renewed(cluster: Cluster, held: Record) -> Iterator[int]:
    """Hold the record, and renew it, for a ``with`` block that is given the token."""
    client = Etcd(cluster, timeout_s=5)
    over = threading.Event()
    taken = client.acquire(held, over=0)
    assert taken.succeeded

    def renew() -> None:
        revision, seq = taken.seen.revision, held.seq
        while not over.wait(0.2):
            seq += 1
            revision = client.renew(held._replace(seq=seq), over=revision).seen.revision

    keeper = threading.Thread(target=renew)
    keeper.start()
    try:
        yield taken.seen.token
    finally:
        over.set()
        keeper.join(CAP_S)


def test_who_is_active_and_who_stands_by(home: Home) -> None:
    here = holder_id(str(home.state_dir))
    standing_by = Announcement(
        home.cluster._replace(lease_s=60, retry_s=5),
        record(here, "gw-b", since_ms=1_700_000_001_000),
    )
    with renewed(home.cluster, record("a1", "gw-a", since_ms=1_700_000_000_000)) as token:
        assert home.told()["standbys"] == []
        standing_by.say()
        told = home.told()
        assert (told["state"], told["token"], told["exit_code"]) == ("active", token, 0)
        assert told["reason"] == f"gw-a is active (token {token})"
        assert told["active"]["host"] == "gw-a" and told["active"]["here"] is False
        assert told["active"]["since_ms"] == 1_700_000_000_000
        assert [(one["host"], one["here"]) for one in told["standbys"]] == [("gw-b", True)]
        shown = home.ask("--cluster").stdout
        head, title, active, standby = shown.splitlines()
        assert head == f"{home.path.name}  ACTIVE: gw-a is active (token {token})  (exit 0)"
        assert title.split() == ["ROLE", "HOST", "SINCE", "URL"]
        assert active.split()[:2] == ["active", "gw-a"]
        assert active.endswith("http://gw-a:18789")
        assert standby.split()[:3] == ["standby", "gw-b", "(here)"]
        standing_by.unsay()
        assert home.told()["standbys"] == []
        assert "nobody stands by" in home.ask("--cluster").stdout


def test_announcement_is_repeated_and_outlives_a_lost_lease(home: Home) -> None:
    client, own = Etcd(home.cluster, timeout_s=5), record("b1", "gw-b")
    client.announce(own, ttl_s=60)
    client.announce(own, ttl_s=60)
    assert client.standbys() == [own]
    node = home.nodes.members[0]
    for lease in node.ask("/v3/lease/leases", {})["leases"]:
        node.ask("/v3/lease/revoke", {"ID": lease["ID"]})
    assert client.standbys() == []
    client.announce(own, ttl_s=60)
    assert client.standbys() == [own]
    client.withdraw()
    assert client.standbys() == []
    client.withdraw()


def test_neighbour_whose_name_begins_alike_is_another_cluster(
    home: Home, nodes: etcd.Nodes
) -> None:
    other = home.cluster._replace(name=home.cluster.name + "0")
    Etcd(other, timeout_s=5).announce(record("b1", "gw-b"), ttl_s=60)
    assert Etcd(home.cluster, timeout_s=5).standbys() == []


def test_record_that_nobody_renews_is_silent(home: Home) -> None:
    Etcd(home.cluster, timeout_s=5).acquire(record("a1", "gw-a"), over=0)
    told = home.told()
    assert (told["state"], told["exit_code"]) == ("silent", 1)
    assert told["watched_s"] >= 3
    assert "Next      openclaw-gateway doctor" in home.ask("--cluster").stdout


def test_cluster_without_anybody_is_vacant(home: Home) -> None:
    told = home.told()
    assert (told["state"], told["active"], told["token"], told["exit_code"]) == (
        "vacant", None, None, 1,
    )  # fmt: skip


def test_etcd_that_can_not_be_reached_is_unknown(home: Home) -> None:
    home.settings["endpoints"] = ["http://127.0.0.1:1"]
    told = home.told()
    assert (told["state"], told["exit_code"]) == ("unknown", 4)
    assert told["problem"] == "etcd at http://127.0.0.1:1: can't be reached: Connection refused"


def test_gateway_that_is_in_no_cluster_is_told_where_one_is_made(home: Home) -> None:
    (home.state_dir / "openclaw-gateway.json").write_text("{}")
    said = subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", "status", "--cluster"],
        env=clean_environ(HOME=str(home.path)),
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )
    assert said.returncode == 2
    assert f"{home.state_dir}/openclaw-gateway.json names no cluster" in said.stderr
    assert "openclaw-cluster(7)" in said.stderr


def test_settings_that_are_wrong_are_told_as_they_are(home: Home) -> None:
    home.settings["name"] = "a/b"
    told = home.told()
    assert (told["state"], told["cluster"], told["exit_code"]) == ("unknown", None, 4)
    assert "cluster.name: must be letters" in told["reason"]


def _of_cluster(home: Home) -> list[tuple[str, str, str]]:
    """Return what ``doctor`` finds of the cluster: severity, evidence and command of each."""
    home.write()
    said = subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", "doctor", "--json"],
        env=clean_environ(HOME=str(home.path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )
    (found,) = (one for one in json.loads(said.stdout)["checks"] if one["name"] == "cluster")
    return [(one["severity"], one["evidence"], one["command"]) for one in found["findings"]]


def test_doctor_sees_each_node(home: Home) -> None:
    home.settings["endpoints"] = [*home.nodes.urls, "http://127.0.0.1:1"]
    found = _of_cluster(home)
    (url,) = home.nodes.urls
    fine = next(evidence for severity, evidence, _ in found if severity == "ok")
    assert fine.startswith(f"etcd {etcd.version()} at {url}, ")
    assert fine.endswith("MB of 2147 MB")  # which only /metrics tells
    assert (
        "warning",
        "etcd at http://127.0.0.1:1: can't be reached: Connection refused",
        "curl http://127.0.0.1:1/health",
    ) in found
    assert [severity for severity, _, _ in found] == ["warning", "note", "ok"]


def test_doctor_sees_a_history_that_nobody_drops(tmp_path: Path) -> None:
    with etcd.running(tmp_path / "etcd") as nodes:
        node = nodes.members[0]
        (tmp_path / "home").mkdir()
        home = Home(tmp_path / "home", nodes)
        (member,) = Etcd(home.cluster, timeout_s=5).status()
        assert (member.compacted, member.quota_bytes, member.has_leader) == (0, 2 << 30, True)
        node.ask("/v3/kv/put", {"key": _b64("x"), "value": ""})
        node.ask("/v3/kv/compaction", {"revision": "2", "physical": True})
        (member,) = Etcd(home.cluster, timeout_s=5).status()
        assert member.compacted == 2


def test_user_with_a_role_for_our_keys_may_do_all_of_it(tmp_path: Path) -> None:
    """With authentication on, and no more rights than the manual's recipe gives."""
    with etcd.running(tmp_path / "etcd") as nodes:
        node = nodes.members[0]
        prefix, end = (_b64(text) for text in ("openclaw/gateway/", "openclaw/gateway0"))
        for path, asked in (
            ("/v3/auth/user/add", {"name": "root", "password": "r"}),
            ("/v3/auth/user/grant", {"user": "root", "role": "root"}),
            ("/v3/auth/role/add", {"name": "openclaw"}),
            (
                "/v3/auth/role/grant",
                {
                    "name": "openclaw",
                    "perm": {"permType": "READWRITE", "key": prefix, "range_end": end},
                },
            ),
            ("/v3/auth/user/add", {"name": "openclaw", "password": "p"}),
            ("/v3/auth/user/grant", {"user": "openclaw", "role": "openclaw"}),
            ("/v3/auth/enable", {}),
        ):
            node.ask(path, asked)
        (tmp_path / "home").mkdir()
        home = Home(tmp_path / "home", nodes)
        home.settings |= {"user": "openclaw", "password": "p"}
        standing_by = Announcement(
            home.cluster._replace(lease_s=60, retry_s=5), record("b1", "gw-b")
        )
        with renewed(home.cluster, record("a1", "gw-a")):
            standing_by.say()
            standing_by.say()
            told = home.told()
            assert told["state"] == "active"
            assert [one["host"] for one in told["standbys"]] == ["gw-b"]
            standing_by.unsay()
            assert home.told()["standbys"] == []
            assert [severity for severity, _, _ in _of_cluster(home)] == ["note", "ok"]
        node.ask(
            "/v3/auth/role/revoke",
            {"role": "openclaw", "key": prefix, "range_end": end},
            token=node.ask("/v3/auth/authenticate", {"name": "root", "password": "r"})["token"],
        )
        severity, evidence, command = _of_cluster(home)[-1]
        assert (severity, "permission denied" in evidence) == ("error", True)
        assert "grant-permission openclaw --prefix=true readwrite openclaw/gateway/" in command
        home.settings["password"] = "wrong"
        told = home.told()
        assert (told["state"], told["exit_code"]) == ("unknown", 4)
        assert "wrong" not in json.dumps(told)


def _typed(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Type a command that was advised."""
    return subprocess.run(
        shlex.split(command),
        env=clean_environ(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )


def test_etcd_with_tls_certificates_and_passwords(tmp_path: Path) -> None:
    """All that the manual has etcd ask for, and no more rights than it gives; what doctor advises then works there."""
    paths = etcd.certificates(tmp_path)
    with etcd.running(tmp_path / "etcd", **etcd.speaking_tls(paths)) as nodes:
        node = nodes.members[0]
        root = etcd.authenticate(node)
        (tmp_path / "home").mkdir()
        home = Home(tmp_path / "home", nodes)
        secret = tmp_path / "secret"
        secret.write_text("of-gateway\n")
        secret.chmod(0o600)
        # A password takes etcd a while, by design.
        home.settings |= {"leaseMs": 9000, "renewDeadlineMs": 6000, "retryMs": 3000}
        home.settings |= {"user": "gateway", "passwordPath": str(secret), "caPath": paths["ca"]}

        told = home.told()
        assert (told["state"], told["exit_code"]) == ("unknown", 4)
        # Which of the two ends notices first differs, and with it the reason.
        assert told["problem"].startswith(f"etcd at {node.url}: "), told["problem"]

        home.settings |= {"certPath": paths["client"], "keyPath": paths["client-key"]}
        assert home.told()["state"] == "vacant"
        with gateway(home, "gw-a") as (_, daemon):
            daemon.wait_for("active (token")
            told = _told_when(home, lambda told: told["state"] == "active")
            assert told["active"]["url"] == "http://gw-a:18789"
        (note, fine) = _of_cluster(home)
        assert (note[0], fine[0]) == ("note", "ok")
        assert fine[1].startswith(f"etcd {etcd.version()} at {node.url}, ")

        node.signal(etcd.STOP)
        (_, command) = next(
            (severity, command) for severity, _, command in _of_cluster(home) if command
        )
        node.signal(etcd.CONTINUE)
        etcd.until_leads(node)
        if shutil.which("curl"):
            answered = _typed(command)
            assert '"health"' in answered.stdout, (command, answered.stderr)

        everything = {"role": "records", "key": _b64("openclaw/"), "range_end": _b64("openclaw0")}
        node.ask("/v3/auth/role/revoke", everything, token=root)
        (severity, evidence, command) = _of_cluster(home)[-1]
        assert (severity, "permission denied" in evidence) == ("error", True)
        if shutil.which("etcdctl"):
            # The manual names the role after the user; here it is another.
            typed = command.replace("grant-permission gateway", "grant-permission records")
            granted = _typed(typed, ETCDCTL_PASSWORD="of-root")
            assert granted.returncode == 0, (typed, granted.stderr)
            assert home.told()["exit_code"] != 4

        home.settings |= {"certPath": paths["named"], "keyPath": paths["named-key"]}
        assert home.told()["state"] == "unknown"
        assert any(
            severity == "error" and "has a common name (CN)" in evidence
            for severity, evidence, _ in _of_cluster(home)
        )
        secret.write_text("wrong\n")
        home.settings |= {"certPath": paths["client"], "keyPath": paths["client-key"]}
        told = home.told()
        assert told["state"] == "unknown"
        assert "invalid user ID or password" in told["problem"]


@contextmanager
def two(home: Home) -> Iterator[tuple[Home, Daemon, Home, Daemon]]:
    """Run two gateways of the home's cluster, of which the first one is active and the second one stands by."""
    with gateway(home, "gw-a") as (a, first):
        first.wait_for("active (token")
        with gateway(home, "gw-b") as (b, second):
            second.wait_for("is active (token")
            yield a, first, b, second


@contextmanager
def gateway(home: Home, name: str) -> Iterator[tuple[Home, Daemon]]:
    """Run a gateway of the home's cluster, as on another host, for a ``with`` block."""
    path = home.path / name
    path.mkdir()
    theirs = Home(path, home.nodes)
    theirs.settings = home.settings | {"url": f"http://{name}:18789"}
    theirs.write()
    daemon = Daemon(
        "run",
        environ=clean_environ(
            HOME=str(path),
            OPENCLAW_GATEWAY_PORT=str(theirs.port),
            OPENCLAW_GATEWAY_TOKEN=TOKEN,
        ),
    )
    try:
        yield theirs, daemon
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


def _told_when(home: Home, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return what ``status --cluster`` tells once it is so."""
    deadline_s = time.monotonic() + CAP_S
    while True:
        told = home.told()
        if true(told):
            return told
        assert time.monotonic() < deadline_s, told


def test_gateways_are_shown_as_they_are_by_each_of_them(home: Home) -> None:
    with two(home) as (a, _, b, second):
        told = _told_when(a, lambda told: bool(told["standbys"]))
        assert told["state"] == "active"
        assert (told["active"]["url"], told["active"]["here"]) == ("http://gw-a:18789", True)
        (standby,) = told["standbys"]
        assert (standby["url"], standby["here"]) == ("http://gw-b:18789", False)

        shown = a.ask(f"--port={a.port}")
        assert f"Cluster   {home.path.name}: active (token {told['token']}) since" in shown.stdout
        assert (shown.returncode, "UNMANAGED" in shown.stdout) == (0, True)
        shown = b.ask(f"--port={b.port}")
        assert (shown.returncode, "STANDBY" in shown.stdout) == (0, True)
        line = next(line for line in shown.stdout.splitlines() if line.startswith("Cluster"))
        assert line.endswith(f"is active (token {told['token']}), at http://gw-a:18789")
        theirs = json.loads(b.ask(f"--port={b.port}", "--json").stdout)
        role = theirs["health"]["role"]
        assert (role["active"], role["token"]) == (False, told["token"])
        assert theirs["lock"]["record"]["phase"] == "standby"
        own = json.loads(a.ask(f"--port={a.port}", "--json").stdout)
        assert own["lock"]["record"]["phase"] == "ready"

        second.stop()
        assert home.told()["standbys"] == []


def test_standby_that_took_over_is_none_any_more(home: Home) -> None:
    with two(home) as (_, first, b, second):
        _told_when(b, lambda told: bool(told["standbys"]))
        first.kill()
        second.wait_for(": active (token")
        # What it said before it was killed is forgotten after a lease.
        told = _told_when(b, lambda told: told["standbys"] == [])
        assert (told["state"], told["active"]["here"]) == ("active", True)
        own = json.loads(b.ask(f"--port={b.port}", "--json").stdout)
        assert own["lock"]["record"]["phase"] == "ready"


def _b64(text: str) -> str:
    from base64 import b64encode

    return b64encode(text.encode()).decode()
