"""
Keeps a tenure from an event loop: requests are begun by the loop, and made by a thread each.

The loop begins them, and no thread does by itself: a loop that hangs serves nobody, and must not look alive to the
other hosts. A thread that hangs, in a name's resolution or anywhere else, is left to itself after a while.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial

from openclaw_gateway.cluster.rule import Answer, Phase
from openclaw_gateway.cluster.tenure import Ask, Keeper, ask, boottime_s, unanswered
from openclaw_gateway.errors import EtcdError
from openclaw_gateway.host import thread

_PATIENCE = 2.0
"""Times ``retry_s`` that a thread has; the client in it takes about one, if the kernel lets it."""

_WATCH_S = 60.0
"""Seconds of silence after which a watch is begun anew: what a firewall forgot never says anything."""
_WATCH_PAUSE_S = 0.25
"""Seconds between the beginnings of two watches at least."""


async def keep(keeper: Keeper) -> None:
    """Do what is due until the record is lost, or cancelled. A request under way then is left to itself."""
    watch = _Watch(keeper)
    while keeper.phase is not Phase.LOST:
        keeper.look()
        asked = keeper.next()
        if asked is None:
            await watch.wait(max(keeper.due_s - time.monotonic(), 0.0))
        else:
            keeper.take(*await _answer(keeper, asked))


async def announce(keeper: Keeper, stop: asyncio.Event) -> None:
    """
    Say that we stand by for as long as we do, or until ``stop``; then take it back.

    From one thread at a time, beside those that keep the tenure. That we are active is noticed when the
    next word would be due: nobody is misled, as the record says it.
    """
    announcement = keeper.announcement
    while keeper.stands_by and not stop.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(max(announcement.due_s - time.monotonic(), 0.0)):
                await stop.wait()
        if keeper.stands_by and not stop.is_set():
            await thread.result(announcement.say, name="etcd")
    await thread.result(announcement.unsay, name="etcd")


async def release(keeper: Keeper) -> None:
    """Give the record back: nobody is served any more. Waits for etcd no longer than a few ``retry_s``."""
    while (asked := keeper.parting()) is not None:
        if keeper.part(*await _answer(keeper, asked)):
            return


async def urge(keeper: Keeper, hurry: asyncio.Event) -> None:
    """Set ``hurry`` when goodbyes must come to an end, as the kernel will soon end the process."""
    while (left_s := keeper.hurry_in_s) > 0:
        await asyncio.sleep(min(left_s, keeper.terms.retry_s))
    hurry.set()


class _Watch:
    """What wakes a standby before it is time to read: etcd's word that the record has changed, from a thread."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._changed = asyncio.Event()
        self._running = False
        self._began_s = float("-inf")

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until the record has changed; then a read is due."""
        keeper = self._keeper
        if keeper.phase is Phase.STANDBY and keeper.unreachable_since_s is None:
            self._begin()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
            keeper.wake()
        self._changed.clear()

    def _begin(self) -> None:
        """Start a thread, if none is there; one that ended at once is not followed by another at once."""
        now_s = time.monotonic()
        if self._running or now_s < self._began_s + _WATCH_PAUSE_S:
            return
        self._running, self._began_s = True, now_s
        loop, etcd = asyncio.get_running_loop(), self._keeper.etcd.again()
        revision = self._keeper.revision

        def ended(*, changed: bool) -> None:
            self._running = False
            if changed:
                self._changed.set()

        def run() -> None:
            changed = False
            try:
                etcd.watch(after=revision, timeout_s=_WATCH_S)
                changed = True
            except EtcdError:  # whoever reads finds out what is wrong
                pass
            finally:
                etcd.close()
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(partial(ended, changed=changed))

        thread.start(run, name="etcd-watch")


async def _answer(keeper: Keeper, asked: Ask) -> tuple[Answer, str]:
    """Ask in a thread; notice meanwhile when the deadline passes."""
    etcd, sent_s = keeper.etcd, boottime_s()
    due_s = time.monotonic() + keeper.terms.retry_s * _PATIENCE

    done = thread.result(partial(ask, etcd, asked), name="etcd")
    try:
        while (left_s := due_s - time.monotonic()) > 0:
            await asyncio.wait({done}, timeout=min(left_s, keeper.fades_in_s))
            if done.done():
                return done.result()
            keeper.look()
    except asyncio.CancelledError:
        # It may be written all the same: what gives the record back must reckon with that.
        keeper.leave_open(unanswered(sent_s))
        raise
    finally:
        done.cancel()
    keeper.etcd = etcd.anew()
    problem = f"a request to etcd has hung for {keeper.terms.retry_s * _PATIENCE:g} s"
    return unanswered(sent_s), problem
