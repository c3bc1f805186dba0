"""The HTTP side of the listener: health routes, and the upgrade to the protocol."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from ipaddress import ip_address
from socket import socket
from typing import Any

from aiohttp import web

from openclaw_gateway.claim.listener import BACKLOG
from openclaw_gateway.claim.ownership import Phase
from openclaw_gateway.server.websocket import Clients

_DRAIN_S = 3.0
"""Seconds that clients have to say goodbye before we hang up."""

_LIVE = b'{"ok":true,"status":"live"}'
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Server:
    """
    The listener's HTTP and WebSocket server.

    Attributes:
        phase: What the startup and readiness routes say.
        clients: The open WebSockets.
    """

    def __init__(self, *, failing: Callable[[], list[str]]) -> None:
        """``failing`` names what keeps the gateway from doing its work; an empty list if nothing."""
        self.phase = Phase.STARTING
        self.clients = Clients()
        self._failing = failing
        self._began_s = time.monotonic()
        application = web.Application()
        application.on_response_prepare.append(_add_headers)
        for path in ("/healthz", "/health"):
            application.router.add_get(path, _live)
        for path in ("/startupz", "/startup"):
            application.router.add_get(path, self._startup)
        for path in ("/readyz", "/ready"):
            application.router.add_get(path, self._readiness)
        application.router.add_get("/", self._root)
        # aiohttp 3.9 moved the time-out from the site to the runner; 3.8 accepts it there, and then
        # drops every connection without a word. AppKey came with 3.9 too.
        timeout: dict[str, Any] = {"shutdown_timeout": 0.5}
        self._on_runner = hasattr(web, "AppKey")
        self._timeout = timeout
        self._runner = web.AppRunner(
            application,
            handle_signals=False,
            access_log=None,
            **(timeout if self._on_runner else {}),
        )
        self._sites: list[web.SockSite] = []

    async def start(self, sockets: list[socket]) -> None:
        """Accept connections on listening sockets."""
        await self._runner.setup()
        for listener in sockets:
            timeout = {} if self._on_runner else self._timeout
            site = web.SockSite(self._runner, listener, backlog=BACKLOG, **timeout)
            await site.start()
            self._sites.append(site)

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """Close the listener, then tell clients and let them go; at once if ``hurry`` is set."""
        self.phase = Phase.DRAINING
        for site in self._sites:
            await site.stop()
        goodbye = asyncio.create_task(self.clients.close_all())
        impatience = asyncio.create_task(hurry.wait())
        await asyncio.wait(
            {goodbye, impatience}, timeout=_DRAIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (goodbye, impatience):
            task.cancel()
        await asyncio.gather(goodbye, impatience, return_exceptions=True)
        await self._runner.cleanup()

    async def _startup(self, _: web.Request) -> web.Response:
        started = self.phase is Phase.READY
        return _json(
            {"ok": started, "status": "started" if started else self.phase.value}, ok=started
        )

    async def _readiness(self, request: web.Request) -> web.Response:
        failing = self._failing() if self.phase is Phase.READY else [self.phase.value]
        ready = not failing
        body: dict[str, object] = {"ready": ready}
        if _is_local(request):
            body |= {
                "failing": failing,
                "uptimeMs": int((time.monotonic() - self._began_s) * 1000),
            }
        return _json(body, ok=ready)

    async def _root(self, request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse().can_prepare(request).ok:
            raise web.HTTPUpgradeRequired(headers={"Upgrade": "websocket"}, text="WebSocket only\n")
        return await self.clients.serve(request)


async def _live(_: web.Request) -> web.Response:
    return web.Response(body=_LIVE, content_type="application/json")


def _json(body: dict[str, object], *, ok: bool) -> web.Response:
    text = json.dumps(body, separators=(",", ":"))
    return web.Response(text=text, status=200 if ok else 503, content_type="application/json")


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _is_local(request: web.Request) -> bool:
    try:
        return ip_address(request.remote or "").is_loopback
    except ValueError:
        return False
