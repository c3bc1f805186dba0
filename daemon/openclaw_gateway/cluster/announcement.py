"""What a standby says of itself on etcd, for people: nobody decides anything by it."""

from __future__ import annotations

import time
from contextlib import suppress

from openclaw_gateway.cluster.etcd import Etcd
from openclaw_gateway.cluster.record import Record
from openclaw_gateway.errors import EtcdError
from openclaw_gateway.settings.model import Cluster

_TIMES_IN_A_LEASE = 3


class Announcement:
    """
    Says that we stand by, for as long as it is repeated.

    One thread's at a time; each method waits for etcd about ``retry_s`` at the most. That etcd can't be
    reached is told by whoever reads the record there.

    Attributes:
        due_s: When to say it again, on CLOCK_MONOTONIC.
    """

    def __init__(self, cluster: Cluster, record: Record) -> None:
        """Say nothing yet; ``record`` is who we are."""
        self._etcd = Etcd(cluster, timeout_s=cluster.retry_s)
        self._record, self._ttl_s = record, cluster.lease_s
        # Not at once: who finds the record free is no standby for longer than that.
        self.due_s = time.monotonic() + cluster.retry_s

    def say(self) -> None:
        """Say it, or say it again."""
        self.due_s = time.monotonic() + self._ttl_s / _TIMES_IN_A_LEASE
        with suppress(EtcdError):
            self._etcd.announce(self._record, ttl_s=self._ttl_s)

    def unsay(self) -> None:
        """Take it back, if that can be done: if not it is forgotten after a lease."""
        with suppress(EtcdError):
            self._etcd.withdraw()
        self._etcd.close()
