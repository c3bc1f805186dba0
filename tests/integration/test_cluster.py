"""Gateways of one cluster with a real etcd: one serves, and another one soon after it ends, whatever ends it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import etcd
import scrape
from cluster_host import BRIEF, TOKEN_FIELD, Guarding, Host, overlaps, ticks
from openclaw_gateway.cluster.tenure import Keeper, ask, unanswered
from openclaw_gateway.settings.model import Cluster
from openclaw_gateway.supervisor.events import Priority
from openclaw_gateway.supervisor.journal import PlainJournal


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Nodes]:
    with etcd.running(tmp_path_factory.mktemp("etcd"), 3) as running:
        yield running


Make = Callable[..., Host]


@pytest.fixture
def host(nodes: etcd.Nodes, tmp_path: Path) -> Iterator[Make]:
    made: list[Host] = []

    def make(name: str, **cluster: object) -> Host:
        settings = {"endpoints": nodes.urls, "name": tmp_path.name} | BRIEF | cluster
        made.append(Host(tmp_path, name, settings))
        return made[-1]

    yield make
    for each in made:
        each.end_with_test()


@pytest.fixture
def guard(nodes: etcd.Nodes, tmp_path: Path) -> Iterator[Callable[..., Guarding]]:
    made: list[Guarding] = []

    def make(name: str, *child: str, **cluster: object) -> Guarding:
        settings = {"endpoints": nodes.urls, "name": tmp_path.name} | BRIEF | cluster
        made.append(Guarding(tmp_path, name, settings, child=child))
        return made[-1]

    yield make
    for each in made:
        each.end_with_test()


def pair(host: Make) -> tuple[Host, Host]:
    """Return an active gateway and a standby that knows it."""
    a, b = host("a"), host("b")
    a.start().is_active().is_ready()
    b.start().is_ready().says("is active (token")
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


def test_metrics_and_status_tell_who_is_active_and_how_the_record_is_kept(
    host: Make, tmp_path: Path
) -> None:
    a, b = pair(host)
    token = int(a.get("/primary").headers[TOKEN_FIELD])
    ours, theirs = a.metrics(), b.metrics()
    cluster = tmp_path.name
    prefix = "openclaw_gateway_"
    assert ours[f"{prefix}active{{{cluster}}}"] == 1 and theirs[f"{prefix}active{{{cluster}}}"] == 0
    assert ours[f"{prefix}phase{{ready}}"] == theirs[f"{prefix}phase{{standby}}"] == 1
    assert ours[f"{prefix}cluster_fencing_token"] == token
    assert theirs[f"{prefix}cluster_fencing_token"] == token
    assert 0 < ours[f"{prefix}cluster_lease_expiry_seconds"] <= BRIEF["leaseMs"] / 1000
    assert f"{prefix}cluster_lease_expiry_seconds" not in theirs
    assert ours[f"{prefix}cluster_renewals_total{{written}}"] >= 1
    # A standby only reads.
    assert theirs[f"{prefix}cluster_renewals_total{{written}}"] == 0


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
    a.start().is_ready().says("is active (token")


def test_a_start_on_the_same_host_takes_its_own_record_at_once(host: Make) -> None:
    a = host("a", leaseMs=3_600_000)
    a.start().is_active().kill()
    a.start().is_active()


def test_a_standby_on_the_same_host_takes_over_port_and_record_at_once(host: Make) -> None:
    """Of two units on host a one stands by for the port; a takeover there costs no lease, and host b stays a standby."""
    a, b = host("a", leaseMs=3_600_000), host("b", leaseMs=3_600_000)
    a.start().is_active().is_ready()
    b.start().is_ready().says("is active (token")
    token = int(a.get("/primary").headers[TOKEN_FIELD])
    beside = a.beside()
    beside.start("--standby").says("standby behind")
    a.kill()
    beside.is_active().is_ready()
    assert int(beside.get("/primary").headers[TOKEN_FIELD]) > token
    assert b.get("/primary").status_code == 503
    assert beside.stop() == 0
    b.is_active()


def test_without_etcd_a_gateway_starts_as_a_standby_and_says_so(host: Make) -> None:
    a = host("a", endpoints=["http://127.0.0.1:1"])
    a.start().is_ready().says(
        "can't be reached: Connection refused; standing by until it can be reached"
    )
    assert a.get("/primary").status_code == 503
    assert a.get("/healthz").status_code == 200
    assert a.stop() == 0


def test_an_owner_that_loses_etcd_says_goodbye_and_ends_with_75(host: Make, tmp_path: Path) -> None:
    with etcd.running(tmp_path / "own") as nodes:
        a = host("a", endpoints=nodes.urls)
        a.start().is_active()
        nodes.stop()
        assert a.end() == 75
        a.says("crit: no longer the active gateway of the cluster")


def test_a_stop_gives_back_what_was_taken_without_an_answer(
    nodes: etcd.Nodes, tmp_path: Path
) -> None:
    """
    Steps of a start that is stopped in the middle of its takeover.

    1. It asks for the record, and etcd writes it. 2. The answer is lost. 3. A stop comes before the next look.
    """
    times = (BRIEF["leaseMs"] / 1000, BRIEF["renewDeadlineMs"] / 1000, BRIEF["retryMs"] / 1000)
    cluster = Cluster((nodes.urls[0],), tmp_path.name, "", *times, *(None,) * 5)
    keeper = Keeper(
        cluster,
        state_dir=str(tmp_path),
        journal=PlainJournal(Priority.CRIT),
        show=lambda role: None,
    )
    keeper.advance()  # reads, and finds nobody
    asked = keeper.next()
    assert asked is not None
    answer, _ = ask(keeper.etcd, asked)
    assert answer.outcome == "written"
    keeper.take(unanswered(answer.sent_s), "the answer was lost")
    keeper.fade()
    keeper.release()
    seen = keeper.etcd.read()
    assert seen is not None
    assert seen.record is not None
    assert seen.record.holder == ""


def test_etcd_that_speaks_tls_and_wants_a_certificate(host: Make, tmp_path: Path) -> None:
    paths = etcd.certificates(tmp_path)
    with etcd.running(tmp_path / "tls", **etcd.speaking_tls(paths)) as nodes:
        known = {"endpoints": nodes.urls, "caPath": paths["ca"]}
        stranger = host("stranger", **known)
        stranger.start().is_ready().says("standing by until it can be reached")
        a = host("a", **known, certPath=paths["client"], keyPath=paths["client-key"])
        a.start().is_active()
        assert stranger.get("/primary").status_code == 503


def test_wrong_password_stands_by_and_says_so(host: Make, tmp_path: Path) -> None:
    with etcd.running(tmp_path / "own") as nodes:
        etcd.authenticate(nodes.members[0])
        # A password takes etcd a while, by design.
        patient = {"leaseMs": 9000, "renewDeadlineMs": 6000, "retryMs": 3000}
        secret = {"endpoints": nodes.urls, "user": "gateway", **patient}
        for name, password in (("right", "of-gateway"), ("wrong", "x")):
            (tmp_path / name).write_text(password)
            (tmp_path / name).chmod(0o600)
        wrong = host("wrong-host", **secret, passwordPath=str(tmp_path / "wrong"))
        wrong.start().is_ready().says("invalid user ID or password; standing by")
        right = host("right-host", **secret, passwordPath=str(tmp_path / "right"))
        right.start().is_active()
        assert wrong.stop() == 0


class TestGuard:
    def pair(self, guard: Callable[..., Guarding], *child: str) -> tuple[Guarding, Guarding]:
        a, b = guard("a", *child), guard("b")
        a.start().is_active()
        b.start().says("is active (token")
        return a, b

    def test_without_its_turn_there_is_no_child(self, guard: Callable[..., Guarding]) -> None:
        a, b = self.pair(guard)
        assert b.trace.read_text() == ""
        assert b.stop() == 0
        assert a.stop() == 0
        assert {tick.token for tick in ticks([a, b])} == {ticks([a])[0].token}

    def test_its_metrics_tell_who_is_active(
        self, guard: Callable[..., Guarding], tmp_path: Path
    ) -> None:
        a, b = guard("a"), guard("b")
        files = [host.folder / "metrics.prom" for host in (a, b)]
        a.start(f"--metrics={files[0]}").is_active()
        b.start(f"--metrics={files[1]}").says("is active (token")
        ours, theirs = (scrape.samples(file.read_text()) for file in files)
        prefix, cluster = "openclaw_guard_", tmp_path.name
        assert ours[f"{prefix}active{{{cluster}}}"] == ours[f"{prefix}phase{{ready}}"] == 1
        assert theirs[f"{prefix}active{{{cluster}}}"] == theirs[f"{prefix}ready"] == 0
        assert theirs[f"{prefix}phase{{standby}}"] == 1
        assert f"{prefix}child_start_time_seconds" not in theirs
        assert ours[f"{prefix}cluster_renewals_total{{written}}"] >= 1
        assert 0 < ours[f"{prefix}cluster_lease_expiry_seconds"] <= BRIEF["leaseMs"] / 1000

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_another_guard_starts_its_child_once_this_one_has_ended(
        self, guard: Callable[..., Guarding], number: signal.Signals
    ) -> None:
        a, b = self.pair(guard)
        a.signal(number)
        assert a.end() == (0 if number == signal.SIGTERM else -number)
        b.is_active()
        assert b.stop() == 0
        found = ticks([a, b])
        assert len({tick.token for tick in found}) == 2
        assert overlaps(found) == []

    def test_a_deaf_child_ends_with_its_stopped_guard(self, guard: Callable[..., Guarding]) -> None:
        a, b = self.pair(guard, "deaf")
        a.signal(signal.SIGSTOP)
        assert a.end() == -signal.SIGKILL
        b.is_active()
        assert b.stop() == 0
        assert overlaps(ticks([a, b])) == []

    @pytest.mark.parametrize("child", [(), ("deaf",)], ids=["polite", "deaf"])
    def test_child_is_ended_when_the_tenure_fades(
        self, guard: Callable[..., Guarding], tmp_path: Path, child: tuple[str, ...]
    ) -> None:
        with etcd.running(tmp_path / "own") as nodes:
            a = guard("a", *child, endpoints=nodes.urls)
            a.start().is_active()
            nodes.stop()
            assert a.end() == 75
            a.says("crit: no longer the active gateway of the cluster")
