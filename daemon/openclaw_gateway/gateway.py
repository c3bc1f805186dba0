"""Our own gateway: the straight line with our own server in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING

from openclaw_gateway import lifecycle, standby
from openclaw_gateway.claim import claim
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.host.address import reachable, url
from openclaw_gateway.settings.load import Settings

if TYPE_CHECKING:
    import asyncio

    from openclaw_gateway.protocol.role import Lease, Role
    from openclaw_gateway.server.certificate import Certificate
    from openclaw_gateway.settings.model import Cluster, Tls
    from openclaw_gateway.supervisor.journal import Journal
    from openclaw_gateway.supervisor.vitals import Vitals


def run(load: Callable[[], Settings], environ: MutableMapping[str, str]) -> int:
    """
    Be the gateway until told to stop.

    Args:
        load: Reads the settings; called again on each reload.
        environ: The process's environment; systemd's variables are taken out of it.

    Returns:
        What to exit with. Whatever happened is logged.
    """
    with (
        lifecycle.begun(environ) as life,
        standby.claimed(life, load, warm_up=_warm_up) as (settings, held),
    ):
        gateway = OwnServer(settings, held, life.journal, life.supervisor.vitals)
        service: lifecycle.Service = gateway
        if settings.cluster is not None:
            service = Clustered(gateway, settings.cluster, settings, life)
        life.serve(service, held, settings, load=lambda: gateway.complete(load()))
    return life.exit_code


def _warm_up() -> None:
    """Load what serving needs, in advance: a standby that has it takes over in a third of the time."""
    import asyncio

    from openclaw_gateway.client import health, neighbours
    from openclaw_gateway.server import auth, http
    from openclaw_gateway.supervisor import watchdog

    del asyncio, health, neighbours, auth, http, watchdog


class OwnServer:
    """Our own server, as the lifecycle's ``Service``."""

    def __init__(
        self, settings: Settings, held: claim.Claim, journal: Journal, vitals: Vitals
    ) -> None:
        """
        Set everything up, and open nothing; loads the event loop and all that the server needs.

        Raises:
            ConfigurationError: A token or a certificate is needed, and its file can't be used.
            StorageError: One of them is needed, and can't be made.
        """
        from openclaw_gateway.server.http import Server

        self._host, self._port = reachable(settings.host), settings.port
        self._state_dir, self._journal = settings.state_dir, journal
        self._tls, self._certificate = settings.tls, _certificate(settings.tls)
        self._server = Server(
            self.complete(settings),
            held.record,
            journal,
            failing=lambda: _failing(settings.state_dir),
            tls=self._certificate and self._certificate.context,
            vitals=vitals,
            lock_paths=held.lock_paths,
        )

    def complete(self, settings: Settings) -> Settings:
        """Add to settings the token that is kept in the state directory, if one is needed; reads files."""
        from openclaw_gateway.server.auth import resolve_token

        return resolve_token(settings, self._state_dir, self._journal)

    async def start(self, claim: claim.Claim) -> None:
        """Accept connections on the claim's listeners; until ``ready``, health is all they can ask for."""
        await self._server.start(claim.sockets, close=claim.close_listeners)

    async def problem(self, *, timeout_s: float) -> str | None:
        """Ask our own listener for its health through a connection of its own, as any client would."""
        from openclaw_gateway.client.answer import Health
        from openclaw_gateway.client.health import probe_on_loop

        self._renew()
        health = await probe_on_loop(
            self._host,
            self._port,
            timeout_s=timeout_s,
            certificate=self._certificate and self._certificate.der,
        )
        if health is Health.HEALTHY:
            return None
        return f"own /healthz did not answer within {timeout_s:.1f} s"

    def ready(self) -> None:
        """Let clients in."""
        self._server.phase = Phase.READY

    def stand(self, role: Role, fence: Callable[[], bool], lease: Callable[[], Lease]) -> None:
        """Serve as this role has it, and nothing while ``fence`` says that it is over; show ``lease``."""
        self._server.fence, self._server.lease = fence, lease
        self._server.show_role(role)

    def status(self) -> str:
        """Return where we listen, and how many clients there are."""
        address = url(self._host, self._port, tls=self._tls is not None)
        return f"ready on {address}, {len(self._server.clients)} clients"

    async def lost(self) -> GatewayError:
        """Wait until a listener takes no connections any more, and return why."""
        return await self._server.lost()

    def use(self, settings: Settings) -> None:
        """
        Work by these settings, which must have a token where one is needed.

        Another certificate is shown to whoever connects from now on. Whether TLS is spoken at all is
        settled until the next start: half of the clients would find the other half's protocol.
        """
        if self._tls is not None and settings.tls is not None:
            self._show(settings.tls)
        self._server.use(settings)

    def _show(self, tls: Tls) -> None:
        certificate = _certificate(tls)
        self._tls, self._certificate = tls, certificate
        self._server.show(certificate and certificate.context)

    def _renew(self) -> None:
        """Make another certificate in place of one of ours that ends soon; it takes some milliseconds in years."""
        certificate = self._certificate
        if certificate is None or certificate.renew_at_s is None or self._tls is None:
            return
        if time.time() >= certificate.renew_at_s:
            self._show(self._tls)

    async def stop(self, *, hurry: asyncio.Event, back_in_s: float | None) -> None:
        """Close the listener, then tell clients and let them go; at once if ``hurry`` is set."""
        await self._server.stop(hurry=hurry, back_in_s=back_in_s)


class Clustered:
    """
    Our own server as one of a cluster's, of which one serves: the lifecycle's ``Service`` around another.

    It listens all the time, and says by its health routes whether it is the active one. READY means that it is in
    its role, which may be the standby's. The record is taken after everything else, and given back once the last
    client is gone. A tenure that can't be kept ends the process, which begins anew as a standby.
    """

    def __init__(
        self, own: OwnServer, cluster: Cluster, settings: Settings, life: lifecycle.Life
    ) -> None:
        """
        Set up as a standby that knows nothing yet, and ask nobody.

        Args:
            own: Serves, by the role that it is given.
            cluster: Where the record is.
            settings: Of this gateway.
            life: Told of the role.
        """
        import asyncio

        from openclaw_gateway.cluster.tenure import Keeper

        self._own, self._supervisor = own, life.supervisor
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._keeper = Keeper(
            cluster, state_dir=settings.state_dir, journal=life.journal, show=self._show
        )
        self._keeping: asyncio.Task[None] | None = None
        self._announcing: asyncio.Task[None] | None = None

    async def start(self, claim: claim.Claim) -> None:
        """Listen, and begin to look at the record."""
        import asyncio

        from openclaw_gateway.cluster import tasks

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

    def status(self) -> str:
        """Return where we listen, or what we stand by for."""
        role = self._keeper.role
        if role.active:
            return f"{self._own.status()}, {role.reason} in cluster {role.name}"
        return f"standby: {role.reason}"

    async def lost(self) -> GatewayError:
        """Wait until the tenure or a listener is lost, and return why."""
        import asyncio

        tasks = [asyncio.create_task(lost) for lost in (self._own.lost(), self._tenure_lost())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task.result() for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()

    async def _tenure_lost(self) -> GatewayError:
        import asyncio

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
        import asyncio

        from openclaw_gateway.cluster import tasks

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
        if not self._stopped.is_set():
            self._supervisor.status(self.status())


def _certificate(tls: Tls | None) -> Certificate | None:
    """Return what to show where TLS is asked for; ``ssl`` is loaded only then."""
    if tls is None:
        return None
    from openclaw_gateway.server.certificate import provide

    return provide(tls)


def _failing(state_dir: str) -> list[str]:
    """Return what keeps us from doing our work: a state directory that takes no data."""
    from openclaw_gateway.server.snapshot import STATE_DIRECTORY

    try:
        space = os.statvfs(state_dir)
    except OSError:
        return [STATE_DIRECTORY]
    full = space.f_bavail == 0 or (space.f_files and space.f_favail == 0)
    return [STATE_DIRECTORY] if full or not os.access(state_dir, os.W_OK) else []
