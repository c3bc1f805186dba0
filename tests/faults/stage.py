"""Guards of one cluster, on which a test's faults fall; and the oracle that sees whether two of them ever served."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import etcd
from cluster_host import BRIEF, Guarding, Tick, overlaps, ticks
from conftest import CAP_S
from faults.links import Network, Proxy

PATIENT = {"leaseMs": 6000, "renewDeadlineMs": 4200, "retryMs": 1000}
"""Times that outlast the choice of another leader, which takes up to 3.2 s."""

Property = Callable[[str, object], None]


class Stage:
    """Guards of one cluster, and all that stands between them and etcd."""

    def __init__(self, nodes: etcd.Nodes, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.hosts: list[Guarding] = []
        self._undo = ExitStack()

    def host(
        self, name: str, *child: str, prefix: tuple[str, ...] = (), **cluster: object
    ) -> Guarding:
        settings = {"endpoints": self.nodes.urls, "name": self.folder.name} | BRIEF | cluster
        made = Guarding(self.folder, name, settings, child=child, prefix=prefix)
        self.hosts.append(made)
        self._undo.callback(made.end_with_test)
        return made

    def proxied(self, name: str, *child: str, **cluster: object) -> tuple[Guarding, Proxy]:
        """Return a host whose only way to etcd can be cut."""
        proxy = Proxy(self.nodes.members[0].port)
        self._undo.callback(proxy.close)
        return self.host(name, *child, endpoints=[proxy.url], **cluster), proxy

    def network(self) -> Network:
        made = Network()
        self._undo.callback(made.remove)
        return made

    def begin(self) -> None:
        """Start all hosts; the first is active, the others stand by and know it."""
        first, *others = self.hosts
        first.start().is_active()
        for each in others:
            each.start()
        for each in others:
            each.says("is active (token")

    def end(self) -> list[Tick]:
        """Stop whoever runs, and return every moment in which somebody served."""
        for each in self.hosts:
            if each.runs:
                each.stop()
        return ticks(self.hosts)

    def close(self) -> None:
        self._undo.close()


@contextmanager
def staged(nodes: etcd.Nodes, folder: Path) -> Iterator[Stage]:
    """Return a stage for a ``with`` block; whoever still runs at its end is ended."""
    made = Stage(nodes, folder)
    try:
        yield made
    finally:
        made.close()


def served(host: Guarding, *, after: int = 0) -> int:
    """Wait until a host serves once more than it has, and return when that was."""
    deadline_s = time.monotonic() + CAP_S
    while time.monotonic() < deadline_s:
        for tick in ticks([host]):
            if tick.ns > after:
                return tick.ns
        time.sleep(0.02)
    raise AssertionError(
        f"{host.name} does not serve:\n" + "\n".join(host.daemon.log if host.daemon else [])
    )


def verify(found: list[Tick], *, tenures: int) -> None:
    bad = overlaps(found)
    assert not bad, f"{len(bad)} overlaps, the first {bad[0]}"
    assert len({tick.token for tick in found}) == tenures


def silence_s(found: list[Tick]) -> float:
    """Return for how long nobody served between the first tenure and the second."""
    first = found[0].token
    return (
        min(t.ns for t in found if t.token != first) - max(t.ns for t in found if t.token == first)
    ) / 1e9


def taken_over(stage: Stage, record_property: Property) -> None:
    """Wait until the second host serves after the first, and see that they never did together."""
    b = stage.hosts[1]
    served(b)
    found = stage.end()
    verify(found, tenures=2)
    record_property("figures", f"{silence_s(found):.1f} s without anybody, lease {b.lease_s:g} s")
