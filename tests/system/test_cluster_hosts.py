"""
Three booted hosts on a network of their own, each with our package and Debian's etcd, set up as openclaw-cluster(7) says.

Whatever happens to one of them, there is never a second active gateway, and soon a first one again. What is seen of each
gateway is asked for on its own host: one that is cut off could serve whoever is cut off with it.

``make test`` has a sample: Debian 13, whose etcd is the one that loses leases most, with each fault on the host that is
active, and a lease of 6 s. All of it runs with ``FAULTS_FULL=1``: both releases, each fault on each host, the default times.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from ipaddress import IPv4Interface
from pathlib import Path

import primary
import pytest
from machine import CAP_S, PORT, SERVICE, Machine, image
from primary import Seen

from faults.extent import extent
from manual import commands, displays
from openclaw_gateway.supervisor.events import Event
from testbed import roots
from testbed.network import Network
from testbed.sandbox import TestbedError

FULL = bool(extent("CLUSTER_HOSTS_FULL", 0, 1))
RECIPE = ("openclaw-cluster.7", "THREE HOSTS")
_, CLEAR, START, DIRECTORY, TOKEN, RESTART, STATUS = commands(*RECIPE)
ETCD, OWN = displays(*RECIPE)
EXAMPLES = "/usr/share/doc/openclaw-gateway/examples/cluster"
_ADDRESSES = {"gw-a": "192.0.2.11", "gw-b": "192.0.2.12", "gw-c": "192.0.2.13"}
_SHORTER = '"leaseMs": 6000, "renewDeadlineMs": 4200, "retryMs": 1000,'
LEASE_S = 15.0 if FULL else 6.0
_ENDPOINTS = ",".join(f"http://{address}:2379" for address in _ADDRESSES.values())
_IN_ROLE = r", active \(token|^standby: .* is active"

Note = Callable[[str, object], None]


@pytest.fixture(scope="module", params=roots.RELEASES if FULL else ("trixie",))
def release(request: pytest.FixtureRequest, host: None) -> str:
    return str(request.param)


class Host:
    """One machine of the cluster, which may be killed and booted again."""

    def __init__(
        self, name: str, release: str, above: Path, network: Network, folder: Path
    ) -> None:
        self.name, self.network = name, network
        self.trace = folder / f"{name}.trace"
        self._namespace = network.host(name, IPv4Interface(f"{_ADDRESSES[name]}/24"))
        self.machine = Machine(
            release, kind="clustered", above=[above], upper=folder / name, network=self._namespace
        )

    def boot(self) -> None:
        self.machine.__enter__()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Leave a trace of when it is active, for a ``with`` block; whatever happens to the machine."""
        program = [sys.executable, primary.__file__, str(PORT), str(self.trace)]
        self.trace.touch()
        watcher = subprocess.Popen([*self._namespace.prefix, *program])
        try:
            yield
        finally:
            watcher.kill()
            watcher.wait()

    def set_up(self) -> None:
        """Do what the manual says to do on each host, up to etcd's start."""
        machine = self.machine
        machine.write("/etc/hostname", f"{self.name}\n")
        machine.run(["hostname", self.name])
        machine.run(CLEAR)
        common = "ETCD_INITIAL_CLUSTER="
        lines = [
            line
            if line.startswith(common)
            else line.replace("gw-a", self.name).replace("192.0.2.11", _ADDRESSES[self.name])
            for line in ETCD.splitlines(keepends=True)
        ]
        machine.write("/etc/default/etcd", "".join(lines))
        own = OWN if FULL else OWN.replace('"name"', f'{_SHORTER} "name"')
        machine.write("/etc/openclaw-gateway/openclaw-gateway.json", own)
        machine.run(f"cp {EXAMPLES}/openclaw.json /etc/openclaw-gateway/openclaw.json")
        machine.run(f"cd /root; printf secret >token; {DIRECTORY}; {TOKEN}")

    def is_in_role(self) -> None:
        """Wait until it is the active one, or stands by and knows who is."""
        # Asked by HTTP first: systemd keeps the last words of a process that is dead, until it notices.
        ask = f"curl --fail --silent --max-time 2 --output /dev/null http://127.0.0.1:{PORT}"
        show = f"systemctl show --property=StatusText --value {SERVICE}"
        self.machine.until(
            f"{{ {ask}/primary || {ask}/replica; }} && {show} | grep -qE '{_IN_ROLE}'"
        )

    # What may happen to it, and ends with a "with" block.

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        self.network.unplug(self.name)
        try:
            yield
        finally:
            self.network.plug(self.name)

    def frozen(self) -> AbstractContextManager[None]:
        return self.machine.frozen()

    @contextmanager
    def killed(self) -> Iterator[None]:
        self.machine.kill()
        yield
        self.boot()

    @contextmanager
    def etcd_stopped(self) -> Iterator[None]:
        self.machine.systemctl("kill", f"--signal={signal.SIGSTOP.name}", "etcd.service")
        try:
            yield
        finally:
            self.machine.systemctl("kill", f"--signal={signal.SIGCONT.name}", "etcd.service")

    @contextmanager
    def etcd_killed(self) -> Iterator[None]:
        self.machine.systemctl("kill", f"--signal={signal.SIGKILL.name}", "etcd.service")
        yield


FAULTS = (Host.cut_off, Host.frozen, Host.killed)
ETCD_FAULTS = (Host.etcd_stopped, Host.etcd_killed)
Fault = Callable[[Host], AbstractContextManager[None]]


class Cluster:
    """Three hosts, and what is seen of them."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts

    def on_each(self, do: Callable[[Host], object]) -> None:
        """Do it on all hosts at once."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(do, self.hosts))

    def seen(self) -> list[Seen]:
        return primary.read((host.name, host.trace) for host in self.hosts)

    def active(self) -> Host:
        """Return the host that was seen active last."""
        name = max(self.seen(), key=lambda seen: seen.token).host
        return next(host for host in self.hosts if host.name == name)

    def served(self, after_ns: int, *, but_on: Host | None = None) -> None:
        """Wait until somebody is active after this time, but on a certain host."""
        deadline_s = time.monotonic() + CAP_S
        while time.monotonic() < deadline_s:
            for seen in self.seen():
                if seen.sent_ns > after_ns and (but_on is None or seen.host != but_on.name):
                    return
            threading.Event().wait(0.2)
        raise AssertionError(f"nobody is active, last seen: {self.seen()[-1:]}")

    def is_whole(self) -> None:
        """Wait until each gateway is in its role, one of them active, and each node of etcd is well."""
        self.on_each(
            lambda host: host.machine.until(f"etcdctl --endpoints={_ENDPOINTS} endpoint health")
        )
        self.on_each(Host.is_in_role)
        self.served(time.monotonic_ns())

    def survive(self, fault: Fault, struck: Host) -> float:
        """
        Have something happen to one host, for longer than a lease, and to no other.

        Returns:
            For how long nobody was active, in seconds.
        """
        self.is_whole()
        other = struck if fault in FAULTS else None
        began_ns = time.monotonic_ns()
        with fault(struck):
            self.served(began_ns + round(LEASE_S * 1e9), but_on=other)
        self.is_whole()
        return primary.silence_s(self.seen(), began_ns)


@pytest.fixture(scope="module")
def cluster(release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network())
        except TestbedError as error:
            if os.environ.get("SYSTEM_TESTS") == "required":
                raise
            pytest.skip(f"TESTS OF THREE BOOTED HOSTS LEFT OUT: {error}")
        folder = tmp_path_factory.mktemp("hosts")
        above = image(release, "clustered")
        made = Cluster([Host(name, release, above, network, folder) for name in _ADDRESSES])
        for each in made.hosts:
            stack.callback(lambda each=each: each.machine.kill())
        made.on_each(Host.boot)
        made.on_each(Host.set_up)
        made.on_each(lambda each: each.machine.run(START))
        for each in made.hosts:
            stack.enter_context(each.watched())
        made.on_each(lambda each: each.machine.run(RESTART))
        yield made


def seen(begin_s: int, end_s: int, token: int, host: str) -> Seen:
    return Seen(begin_s * 10**9, end_s * 10**9, token, host)


def test_watchers_tell_an_overlap_from_an_answer_that_took_long() -> None:
    newer, slow = seen(5, 6, token=2, host="gw-b"), seen(3, 9, token=1, host="gw-a")
    assert primary.overlaps([slow, newer]) == []
    late = seen(7, 8, token=1, host="gw-a")
    assert primary.overlaps([newer, late]) == [late]
    assert primary.silence_s([seen(1, 2, token=1, host="gw-a"), newer], 3 * 10**9) == 4


def test_hosts_are_told_apart(cluster: Cluster) -> None:
    """They were made from one image, which has no id of its own, as machine-id(5) wants it."""
    ids = {host.machine.read("/etc/machine-id") for host in cluster.hosts}
    assert len(ids) == len(cluster.hosts)


def test_each_host_knows_who_is_active_and_who_stands_by(cluster: Cluster) -> None:
    cluster.is_whole()
    active = cluster.active()
    for host in cluster.hosts:
        host.machine.until(f"{STATUS} | grep -c '^standby ' | grep -qx 2")
        told = json.loads(host.machine.run(f"{STATUS} --json").stdout)
        assert (told["state"], told["active"]["host"]) == ("active", active.name)
        here = [one["host"] for one in (told["active"], *told["standbys"]) if one["here"]]
        assert here == [host.name]
        said = host.machine.run("openclaw-gateway doctor --json", check=False).stdout
        (found,) = (one for one in json.loads(said)["checks"] if one["name"] == "cluster")
        assert [one["severity"] for one in found["findings"]].count("ok") == 3, found


def test_never_a_second_active_gateway_and_soon_a_first_one_again(
    cluster: Cluster, record_property: Note
) -> None:
    figures = []

    def survive(fault: Fault, struck: Host) -> None:
        role = "active" if struck is cluster.active() else "standby"
        silence_s = cluster.survive(fault, struck)
        figures.append(f"{fault.__name__} {role} {struck.name} {silence_s:.1f} s")

    for fault in FAULTS:
        survive(fault, cluster.active())
    if FULL:
        for fault in (*FAULTS, *ETCD_FAULTS):
            for struck in cluster.hosts:
                survive(fault, struck)
    record_property(f"nobody active, lease {LEASE_S:g} s", ", ".join(figures))
    found = cluster.seen()
    assert not primary.overlaps(found)
    # Each tenure has a token of its own, and one host.
    assert len({(seen.token, seen.host) for seen in found}) == len({seen.token for seen in found})
    for host in cluster.hosts:
        entries = host.machine.unit().events(Event.CLUSTER_ACTIVE)
        tokens = [int(entry["OPENCLAW_FENCING_TOKEN"]) for entry in entries]
        assert tokens == sorted(set(tokens))
        assert set(tokens) >= {seen.token for seen in found if seen.host == host.name}, host.name
