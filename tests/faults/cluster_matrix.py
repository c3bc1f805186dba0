"""All the other faults of a cluster: ``make faults`` runs them, see ``test_cluster_faults``."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

import etcd
from cluster_host import BRIEF, Host, ticks
from conftest import CAP_S
from faults.extent import extent
from faults.links import Passes, Proxy, frozen
from faults.stage import PATIENT, Property, Stage, served, silence_s, taken_over, verify

pytest_plugins = ("faults.staging",)

ROUNDS = extent("CLUSTER_LEADER_STOPS", 1, 30)

root_only = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("ip") is None, reason="needs root and ip(8)"
)


class TestOwner:
    """What may happen to the process of the active host, or to its machine."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_ends(self, stage: Stage, record_property: Property, number: signal.Signals) -> None:
        a, _ = stage.host("a"), stage.host("b")
        stage.begin()
        a.signal(number)
        taken_over(stage, record_property)

    def test_stopped_past_its_deadline_and_continued(
        self, stage: Stage, record_property: Property
    ) -> None:
        a, _ = stage.host("a", **PATIENT), stage.host("b", **PATIENT)
        stage.begin()
        a.signal(signal.SIGSTOP)
        threading.Event().wait(4.4)  # the deadline is at 4.2 s, the kernel's at 4.8
        a.signal(signal.SIGCONT)
        # By its own look at the clock, or by the kernel's timer, if this machine was too slow for that.
        assert a.end() in (75, -signal.SIGKILL)
        taken_over(stage, record_property)

    @root_only
    def test_frozen_by_its_cgroup(self, stage: Stage, record_property: Property) -> None:
        a, b = stage.host("a"), stage.host("b")
        stage.begin()
        child = ticks([a])[-1].pid
        assert a.daemon is not None
        with ExitStack() as thaw:
            try:
                for pid in (child, a.daemon.pid):
                    thaw.enter_context(frozen(pid))
            except OSError as error:
                pytest.skip(f"no cgroup of our own to freeze: {error}")
            served(b)
        assert a.end() == -signal.SIGKILL
        taken_over(stage, record_property)

    @root_only
    def test_standby_with_another_boot_time(self, stage: Stage, record_property: Property) -> None:
        """The standby's CLOCK_BOOTTIME and CLOCK_MONOTONIC are days ahead: only rates are compared, never readings."""
        prefix = ("unshare", "--time", "--boottime", "1000000", "--monotonic", "1000000")
        a = stage.host("a")
        b = stage.host("b", prefix=prefix)
        stage.begin()
        token = ticks([a])[0].token
        a.kill()
        b.is_active()
        b.stop()
        assert ticks([b])[0].token > token
        record_property("figures", "taken over")

    @pytest.mark.parametrize("leases", [(3000, 8000), (8000, 3000)])
    def test_hosts_with_different_leases(
        self, stage: Stage, record_property: Property, leases: tuple[int, int]
    ) -> None:
        a, b = (stage.host(name, leaseMs=ms) for name, ms in zip("ab", leases, strict=True))
        stage.begin()
        a.kill()
        served(b)
        found = stage.end()
        verify(found, tenures=2)
        record_property("figures", f"{silence_s(found):.1f} s without anybody, leases {leases}")

    def test_three_standbys(self, stage: Stage) -> None:
        hosts = [stage.host(name) for name in "abcd"]
        stage.begin()
        for _ in range(3):
            newest = max(ticks(hosts), key=lambda tick: tick.token)
            (owner,) = [h for h in hosts if any(t.token == newest.token for t in ticks([h]))]
            owner.kill()
            deadline_s = time.monotonic() + CAP_S
            while max(t.token for t in ticks(hosts)) == newest.token:
                assert time.monotonic() < deadline_s, "nobody took over"
                time.sleep(0.05)
        verify(stage.end(), tenures=4)


class TestHungLoop:
    # A handler has a thread of its own; this one keeps Python's lock, so that the event loop hangs as well.
    EXTENSION = """
import ctypes

def extend(registry):
    registry.route("GET", "/hang", hang, scope=None)

def hang(request):
    ctypes.PyDLL(None).sleep(1000)
"""

    def test_a_loop_that_hangs_does_not_renew(self, nodes: etcd.Nodes, tmp_path: Path) -> None:
        packages = tmp_path / "packages"
        info = packages / "hang-1.dist-info"
        info.mkdir(parents=True)
        (packages / "hang_extension.py").write_text(self.EXTENSION)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hang\nVersion: 1\n")
        entry = "[openclaw_gateway.extensions]\nhang = hang_extension:extend\n"
        (info / "entry_points.txt").write_text(entry)
        settings: dict[str, object] = {"endpoints": nodes.urls, "name": tmp_path.name, **BRIEF}
        a, b = Host(tmp_path, "a", settings), Host(tmp_path, "b", settings)
        try:
            a.start(PYTHONPATH=str(packages)).is_active().is_ready()
            b.start().is_ready().says("is active (token")
            with pytest.raises(requests.RequestException):
                requests.get(f"{a.url}/hang", timeout=CAP_S)
            assert a.end() == -signal.SIGKILL
            b.is_active()
        finally:
            a.end_with_test()
            b.end_with_test()

    def test_a_thread_that_hangs_is_left_to_itself(self, nodes: etcd.Nodes, tmp_path: Path) -> None:
        """An answer that drips keeps the request's thread; the next request goes to another endpoint."""
        proxy = Proxy(nodes.members[0].port)
        settings: dict[str, object] = {"name": tmp_path.name, **BRIEF}
        settings["endpoints"] = [proxy.url, nodes.members[1].url]
        a = Host(tmp_path, "a", settings)
        try:
            a.start().is_active().is_ready()
            proxy.passes = Passes.DRIPS
            a.says("has hung for")
            threading.Event().wait(BRIEF["leaseMs"] / 1000)
            assert a.get("/primary").status_code == 200
            assert a.stop() == 0
        finally:
            a.end_with_test()
            proxy.close()


class TestWay:
    """What may happen between a host and etcd."""

    def test_cut_for_a_deaf_child(self, stage: Stage, record_property: Property) -> None:
        a, proxy = stage.proxied("a", "deaf")
        stage.host("b")
        stage.begin()
        proxy.passes = Passes.NOTHING
        a.end()
        taken_over(stage, record_property)

    def test_dripping(self, stage: Stage, record_property: Property) -> None:
        """A guard has no thread to leave to itself: the kernel ends it, and it starts anew."""
        a, proxy = stage.proxied("a")
        stage.host("b")
        stage.begin()
        proxy.passes = Passes.DRIPS
        assert a.end() == -signal.SIGKILL
        taken_over(stage, record_property)

    def test_only_one_endpoint_can_be_reached(self, stage: Stage) -> None:
        dead = [Proxy(stage.nodes.members[0].port) for _ in range(2)]
        for proxy in dead:
            proxy.passes = Passes.NOTHING
        endpoints = [*(proxy.url for proxy in dead), stage.nodes.members[2].url]
        a, _ = stage.host("a", endpoints=endpoints, **PATIENT), stage.host("b", **PATIENT)
        stage.begin()
        served(a, after=time.monotonic_ns() + 6_500_000_000)
        verify(stage.end(), tenures=1)

    @root_only
    @pytest.mark.parametrize("way", ["down", "mute"])
    def test_link_of_the_kernels(self, stage: Stage, record_property: Property, way: str) -> None:
        """The network of host a ends, both ways or only towards it."""
        network = stage.network()
        endpoints = [f"http://{network.here}:{node.port}" for node in stage.nodes.members]
        a = stage.host("a", prefix=network.prefix, endpoints=endpoints)
        stage.host("b")
        stage.begin()
        getattr(network, way)()
        assert a.end() == 75
        taken_over(stage, record_property)


class TestEtcd:
    """What may happen to etcd. A minority that fails costs nobody the tenure."""

    @pytest.mark.timeout(1800)
    def test_leader_stopped_and_resumed(self, own_stage: Stage, record_property: Property) -> None:
        """
        The record is never lost by it; a lease that is renewed every 0.1 s all the while is, now and then.

        The lease is the negative control: what an elector that trusts in one would have stood on.
        """
        a, _ = own_stage.host("a", **PATIENT), own_stage.host("b", **PATIENT)
        own_stage.begin()
        nodes, revoked = own_stage.nodes, 0
        for _ in range(ROUNDS):
            leader = nodes.leader()
            others = [node for node in nodes.members if node is not leader]
            lease = Lease(others, ttl_s=5)
            leader.signal(signal.SIGSTOP)
            threading.Event().wait(8.5)
            leader.signal(signal.SIGCONT)
            threading.Event().wait(1.5)
            revoked += lease.end()
            nodes.settle()
            served(a, after=time.monotonic_ns())
        verify(own_stage.end(), tenures=1)
        record_property(
            "figures",
            f"etcd {etcd.version()}, {ROUNDS} rounds: 0 tenures lost; "
            f"an etcd lease in {revoked} of them",
        )

    def test_quorum_lost_and_back(self, own_stage: Stage) -> None:
        a, b = own_stage.host("a"), own_stage.host("b")
        own_stage.begin()
        first, second, _ = own_stage.nodes.members
        first.kill()
        second.kill()
        assert a.end() == 75
        assert ticks([b]) == []
        own_stage.nodes.restart(first)
        own_stage.nodes.restart(second)
        served(b)
        verify(own_stage.end(), tenures=2)

    def test_all_nodes_restarted(self, own_stage: Stage) -> None:
        a, b = own_stage.host("a"), own_stage.host("b")
        own_stage.begin()
        own_stage.nodes.stop()
        a.end()
        own_stage.nodes.start()
        served(b)
        verify(own_stage.end(), tenures=2)

    def test_compaction_and_defragmentation(self, own_stage: Stage) -> None:
        a, b = own_stage.host("a"), own_stage.host("b")
        own_stage.begin()
        node = own_stage.nodes.members[0]
        revision = node.status()["header"]["revision"]
        node.ask("/v3/kv/compaction", {"revision": revision, "physical": True})
        node.ask("/v3/maintenance/defragment", {})
        served(a, after=time.monotonic_ns() + 3_500_000_000)
        a.stop()
        served(b)
        verify(own_stage.end(), tenures=2)

    def test_full_database(self, tmp_path: Path) -> None:
        """Nothing can be written: the owner stops in time, and nobody takes over until there is room again."""
        options = ("--quota-backend-bytes", str(1 << 20))
        with etcd.running(tmp_path / "nodes", 3, options=options) as nodes:
            stage = Stage(nodes, tmp_path)
            a, b = stage.host("a"), stage.host("b")
            try:
                stage.begin()
                node, value = nodes.members[0], b64encode(os.urandom(100_000)).decode()
                for number in range(40):
                    key = b64encode(b"fill%d" % number).decode()
                    said = node.ask("/v3/kv/put", {"key": key, "value": value})
                    if "error" in said:
                        break
                assert a.end() == 75
                a.says("database space exceeded")
                assert ticks([b]) == []
                everything = {
                    "key": b64encode(b"fill").decode(),
                    "range_end": b64encode(b"film").decode(),
                }
                node.ask("/v3/kv/deleterange", everything)
                revision = node.ask("/v3/kv/range", everything)["header"]["revision"]
                node.ask("/v3/kv/compaction", {"revision": revision, "physical": True})
                for each in nodes.members:
                    each.ask("/v3/maintenance/defragment", {})
                alarms = node.ask("/v3/maintenance/alarm", {"action": "GET"}).get("alarms", [])
                for alarm in alarms:
                    node.ask("/v3/maintenance/alarm", {"action": "DEACTIVATE", **alarm})
                served(b)
                verify(stage.end(), tenures=2)
            finally:
                stage.close()

    def test_passwords_tokens_and_their_revision(self, own_stage: Stage) -> None:
        """Users come and go, and nodes forget their tokens as they restart: a token is renewed, and costs no tenure."""
        nodes = own_stage.nodes
        root = etcd.authenticate(nodes.members[0])
        secret = {"user": "gateway", "passwordPath": str(own_stage.folder / "secret"), **PATIENT}
        (own_stage.folder / "secret").write_text("of-gateway\n")
        (own_stage.folder / "secret").chmod(0o600)
        a, b = own_stage.host("a", **secret), own_stage.host("b", **secret)
        own_stage.begin()
        member = nodes.members[0]
        member.ask("/v3/auth/user/add", {"name": "someone", "password": "x"}, token=root)
        for node in nodes.members:
            node.kill()
            nodes.restart(node)
            etcd.until_leads(node)
        served(a, after=time.monotonic_ns() + 4_500_000_000)
        a.stop()
        served(b)
        verify(own_stage.end(), tenures=2)


class Lease:
    """An etcd lease that is renewed every 0.1 s, as an elector would that trusts in it."""

    def __init__(self, nodes: list[etcd.Node], *, ttl_s: int) -> None:
        self._nodes, self._ended, self._lost = nodes, threading.Event(), False
        self._id = nodes[0].ask("/v3/lease/grant", {"TTL": str(ttl_s)})["ID"]
        self._thread = threading.Thread(target=self._renew, args=(ttl_s,), daemon=True)
        self._thread.start()

    def _renew(self, ttl_s: int) -> None:
        renewed_s = time.monotonic()
        while not self._ended.wait(0.1):
            said: Any = None
            for node in self._nodes:
                try:
                    said = node.ask("/v3/lease/keepalive", {"ID": self._id}, timeout_s=1)
                    break
                except OSError:
                    continue
            if said is None or "result" not in said:
                continue
            now_s = time.monotonic()
            if "TTL" not in said["result"]:
                # Revoked, though by its holder's clock it had not been over.
                self._lost = now_s - renewed_s < ttl_s
                return
            renewed_s = now_s

    def end(self) -> bool:
        """Let go of it, and say whether it was revoked before its time."""
        self._ended.set()
        self._thread.join(CAP_S)
        return self._lost
