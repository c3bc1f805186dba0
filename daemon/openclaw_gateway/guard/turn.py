"""
A guard's part in a cluster: without its turn there is no child, and after it the record is given back.

One poll(2) and no thread, as ever in a guard: what is asked of etcd is asked between two polls, and holds up
everything else for about ``retryMs`` at the most. That the child ends in time does not hang on it: the kernel's timer
kills the guard, and ``PR_SET_PDEATHSIG`` its child.
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openclaw_gateway import lifecycle
from openclaw_gateway.claim.claim import Claim
from openclaw_gateway.claim.record import Phase as RecordPhase
from openclaw_gateway.guard.textfile import Textfile
from openclaw_gateway.host import signals
from openclaw_gateway.settings.model import Cluster

if TYPE_CHECKING:
    from openclaw_gateway.cluster.tenure import Keeper

_SIGNALS = (*signals.ENDINGS, signal.SIGHUP)


@contextmanager
def taken(
    cluster: Cluster | None, held: Claim, life: lifecycle.Life, textfile: Textfile
) -> Iterator[Keeper | None]:
    """
    Stand by until this host is its cluster's active one, and give that back when the block is left.

    Args:
        cluster: The cluster; ``None`` for a guard that asks nobody.
        held: The claim.
        life: Told of the role.
        textfile: Shows it.

    Yields:
        What keeps the tenure; whoever serves has it ``advance`` whenever that is due.

    Raises:
        StopRequested: A stop was asked for while we stood by.
    """
    if cluster is None:
        yield None
        return
    from openclaw_gateway.cluster.tenure import Keeper

    keeper = Keeper(cluster, state_dir=held.state.path, journal=life.journal, show=textfile.shows)
    textfile.lease = keeper.lease
    textfile.shows(keeper.role)
    try:
        _stand_by(keeper, held, life, textfile)
        yield keeper
    finally:
        keeper.fade()
        keeper.release()


def _stand_by(keeper: Keeper, held: Claim, life: lifecycle.Life, textfile: Textfile) -> None:
    """Look at the record until it is ours. READY is said at once: the unit is in its role."""
    held.publish(RecordPhase.STANDBY)
    life.supervisor.ready(_status(keeper))
    watched_s = life.supervisor.watchdog_s
    pause_s = watched_s / 3 if watched_s else float("inf")
    ping_due_s = time.monotonic()
    with signals.through_descriptor(_SIGNALS) as woken:
        poll = select.poll()
        for fd in (woken, held.base_port.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            keeper.advance()
            if keeper.role.active:
                return
            now_s = time.monotonic()
            if now_s >= ping_due_s:
                ping_due_s = now_s + pause_s
                life.supervisor.ping()
            life.supervisor.status(_status(keeper))
            textfile.refresh()
            left_s = max(min(keeper.due_s, ping_due_s) - now_s, 0.0)
            for fd, _ in poll.poll(left_s * 1000 + 1):
                if fd == woken:
                    _take(woken, life)
                else:
                    held.answer()


def _take(woken: int, life: lifecycle.Life) -> None:
    """Take the signals that came. Raises ``StopRequested``."""
    for number in signals.arrived(woken):
        if number in signals.ENDINGS:
            life.stop_on(number)
            raise lifecycle.StopRequested


def _status(keeper: Keeper) -> str:
    return f"standby: {keeper.role.reason}"
