"""Our own gateway: the straight line with our own server in it."""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING

from openclaw_gateway import lifecycle
from openclaw_gateway.claim import claim
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.host.address import reachable, url
from openclaw_gateway.settings.load import Settings

if TYPE_CHECKING:
    import asyncio

    from openclaw_gateway.supervisor.journal import Journal


def run(load: Callable[[], Settings], environ: MutableMapping[str, str]) -> int:
    """
    Be the gateway until told to stop.

    Args:
        load: Reads the settings; called again on each reload.
        environ: The process's environment; systemd's variables are taken out of it.

    Returns:
        What to exit with. Whatever happened is logged.
    """
    with lifecycle.begun(environ) as life:
        settings = life.settings(load)
        with claim.acquire(
            settings, life.supervisor, life.journal, environ=environ, pause=life.pause
        ) as held:
            gateway = OwnServer(settings, held, life.journal)
            life.serve(gateway, held, settings, load=lambda: gateway.complete(load()))
    return life.exit_code


class OwnServer:
    """Our own server, as the lifecycle's ``Service``."""

    def __init__(self, settings: Settings, held: claim.Claim, journal: Journal) -> None:
        """
        Set everything up, and open nothing; loads the event loop and all that the server needs.

        Raises:
            ConfigurationError: A token is needed, and its file can't be used.
            StorageError: A token is needed, and can't be made.
        """
        from openclaw_gateway.server.http import Server

        self._host, self._port = reachable(settings.host), settings.port
        self._state_dir, self._journal = settings.state_dir, journal
        self._server = Server(
            self.complete(settings),
            held.record,
            journal,
            failing=lambda: _failing(settings.state_dir),
        )

    def complete(self, settings: Settings) -> Settings:
        """Add to settings the token that is kept in the state directory, if one is needed; reads files."""
        from openclaw_gateway.server.auth import resolve_token

        return resolve_token(settings, self._state_dir, self._journal)

    async def start(self, claim: claim.Claim) -> None:
        """Accept connections on the claim's listeners; until ``ready``, health is all they can ask for."""
        await self._server.start(claim.sockets)

    async def problem(self, *, timeout_s: float) -> str | None:
        """Ask our own listener for its health through a connection of its own, as any client would."""
        from openclaw_gateway.client.answer import Health
        from openclaw_gateway.client.health import probe_on_loop

        health = await probe_on_loop(self._host, self._port, timeout_s=timeout_s)
        if health is Health.HEALTHY:
            return None
        return f"own /healthz did not answer within {timeout_s:.1f} s"

    def ready(self) -> None:
        """Let clients in."""
        self._server.phase = Phase.READY

    def status(self) -> str:
        """Return where we listen, and how many clients there are."""
        return f"ready on {url(self._host, self._port)}, {len(self._server.clients)} clients"

    async def lost(self) -> GatewayError:
        """Wait until a listener takes no connections any more, and return why."""
        return await self._server.lost()

    def use(self, settings: Settings) -> None:
        """Work by these settings, which must have a token where one is needed."""
        self._server.use(settings)

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """Close the listener, then tell clients and let them go; at once if ``hurry`` is set."""
        await self._server.stop(hurry=hurry)


def _failing(state_dir: str) -> list[str]:
    """Return what keeps us from doing our work: a state directory that takes no data."""
    try:
        space = os.statvfs(state_dir)
    except OSError:
        return ["state-directory"]
    full = space.f_bavail == 0 or (space.f_files and space.f_favail == 0)
    return ["state-directory"] if full or not os.access(state_dir, os.W_OK) else []
