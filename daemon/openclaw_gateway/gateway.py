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
    from openclaw_gateway.settings.model import Tls
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
            from openclaw_gateway.clustered import Clustered

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
