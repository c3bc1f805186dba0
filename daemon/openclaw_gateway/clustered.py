"""A server as one of a cluster's, of which one serves: the lifecycle's ``Service`` around another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from openclaw_gateway import lifecycle
from openclaw_gateway.claim.claim import Claim
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.cluster import tasks
from openclaw_gateway.cluster.tenure import Keeper
from openclaw_gateway.errors import GatewayError, StorageError
from openclaw_gateway.protocol.role import Lease, Role
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.settings.model import Cluster


class RoleAware(lifecycle.Service, Protocol):
    """A service that serves by the role which it is given."""

    def stand(self, role: Role, fence: Callable[[], bool], lease: Callable[[], Lease]) -> None:
        """Serve as this role has it, and nothing while ``fence`` says that it is over."""


class Clustered:
    """
    A service that serves while this host holds its cluster's record.

    It listens all the time, and says by its health routes whether it is the active one. READY means that it is in
    its role, which may be the standby's. The record is taken after everything else, and given back once the last
    client is gone. A tenure that can't be kept ends the process, which begins anew as a standby.
    """

    def __init__(
        self, own: RoleAware, cluster: Cluster, settings: Settings, life: lifecycle.Life
    ) -> None:
        """
        Set up as a standby that knows nothing yet, and ask nobody.

        Args:
            own: Serves, by the role that it is given.
            cluster: Where the record is.
            settings: Of this gateway.
            life: Told of the role.
        """
        self._own, self._supervisor = own, life.supervisor
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._keeper = Keeper(
            cluster, state_dir=settings.state_dir, journal=life.journal, show=self._show
        )
        self._claim: Claim | None = None
        self._is_ready = False
        self._keeping: asyncio.Task[None] | None = None
        self._announcing: asyncio.Task[None] | None = None

    async def start(self, claim: Claim) -> None:
        """Listen, and begin to look at the record."""
        self._claim = claim
        self._own.stand(self._keeper.role, self._keeper.is_over, self._keeper.lease)
        await self._own.start(claim)
        self._keeping = asyncio.create_task(tasks.keep(self._keeper))
        self._announcing = asyncio.create_task(tasks.announce(self._keeper, self._stopped))

    async def problem(self, *, timeout_s: float) -> str | None:
        """Ask for our own health, which a standby has too."""
        return await self._own.problem(timeout_s=timeout_s)

    def ready(self) -> None:
        """Let clients in, as soon as we are active."""
        self._own.ready()
        self._is_ready = True
        self._publish()

    def _publish(self) -> None:
        """Say in the lock files, as a courtesy to readers, which of the two we are."""
        if self._claim is not None and self._is_ready and not self._stopped.is_set():
            with suppress(StorageError):
                self._claim.publish(Phase.READY if self._keeper.role.active else Phase.STANDBY)

    def status(self) -> str:
        """Return where we listen, or what we stand by for."""
        role = self._keeper.role
        if role.active:
            return f"{self._own.status()}, {role.reason} in cluster {role.name}"
        return f"standby: {role.reason}"

    async def lost(self) -> GatewayError:
        """Wait until the tenure or a listener is lost, and return why."""
        waiting = [asyncio.create_task(lost) for lost in (self._own.lost(), self._tenure_lost())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return next(task.result() for task in waiting if task.done())
        finally:
            for task in waiting:
                task.cancel()

    async def _tenure_lost(self) -> GatewayError:
        assert self._keeping is not None
        while (error := self._keeper.error()) is None:
            change = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait({change, self._keeping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()
            self._changed.clear()
            if self._keeping.done() and self._keeper.error() is None:
                self._keeping.result()  # raises what nobody foresaw
                await asyncio.Future()  # a stop is under way
        return error

    def use(self, settings: Settings) -> None:
        """Work by these settings; those of the cluster wait for a restart."""
        self._own.use(settings)

    async def stop(self, *, hurry: asyncio.Event, back_in_s: float | None) -> None:
        """Let clients go while the record is still kept, in the time that the kernel leaves us; then give it back."""
        self._stopped.set()
        self._keeper.fade()
        urging = asyncio.create_task(tasks.urge(self._keeper, hurry))
        try:
            await self._own.stop(hurry=hurry, back_in_s=back_in_s)
        finally:
            urging.cancel()
            if self._keeping is not None:
                self._keeping.cancel()
                await asyncio.gather(self._keeping, return_exceptions=True)
        await tasks.release(self._keeper)
        if self._announcing is not None:
            await asyncio.wait({self._announcing}, timeout=self._keeper.terms.retry_s)
            self._announcing.cancel()

    def _show(self, role: Role) -> None:
        self._own.stand(role, self._keeper.is_over, self._keeper.lease)
        self._changed.set()
        self._publish()
        if not self._stopped.is_set():
            self._supervisor.status(self.status())
