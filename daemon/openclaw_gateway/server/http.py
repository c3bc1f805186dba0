"""The HTTP side of the listener: health routes, the upgrade to the protocol, and who may ask at all."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket as sockets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from socket import socket
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, web

from openclaw_gateway import __version__
from openclaw_gateway.claim.record import LockRecord, Phase
from openclaw_gateway.client.answer import LIVE
from openclaw_gateway.host.address import is_loopback
from openclaw_gateway.server.auth import Authenticator, Source
from openclaw_gateway.server.builtin import Health, add_builtin
from openclaw_gateway.server.door import Door
from openclaw_gateway.server.methods import Registry, Route
from openclaw_gateway.server.presence import Presence, gateway_entry
from openclaw_gateway.server.websocket import Clients, Shared
from openclaw_gateway.settings.load import LIMIT_NAMES, Settings
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal

_DRAIN_S = 3.0
"""Seconds that clients have to say goodbye before we hang up."""

_KEEPALIVE_S = 10.0
"""Seconds that a connection may idle between two HTTP requests."""

_LINGER_S = 1.0
"""Seconds that we read on after an answer that did not wait for the request's body."""

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_HEALTH_PATHS = frozenset({"/healthz", "/health", "/startupz", "/startup", "/readyz", "/ready"})
_MERE_TIMES = frozenset({"tick_interval_s", "auth_window_s", "auth_lockout_s"})
"""Fields of ``Limits`` that nobody can reach."""

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """
    The listener's HTTP and WebSocket server.

    Attributes:
        clients: The open WebSockets.
    """

    def __init__(
        self,
        settings: Settings,
        record: LockRecord,
        journal: Journal,
        *,
        failing: Callable[[], list[str]],
    ) -> None:
        """
        Set everything up, and open nothing.

        Args:
            settings: Checked, and with the token that token mode needs.
            record: What our lock files say of us, for ``status``.
            journal: Told of what goes wrong; shown by ``logs.tail``.
            failing: Names what keeps the gateway from doing its work; an empty list if nothing.
        """
        self._journal, self._record = journal, record
        self._registry = Registry()
        self._door = Door(settings.limits)
        self._authenticator = Authenticator(settings, reached=self._door.reached)
        self._presence = Presence(
            gateway_entry(
                host=sockets.gethostname() or "localhost",
                address=settings.host,
                version=__version__,
                kernel=os.uname().release,
                now_ms=int(time.time() * 1000),
            )
        )
        self._health = Health(failing)
        shared = Shared(
            journal,
            self._registry.methods,
            self._authenticator,
            self._presence,
            self._health,
            self._door.reached,
        )
        self.clients = Clients(shared, settings, facts=self._facts)
        self._settings = settings
        add_builtin(
            self._registry,
            health=self._health,
            presence=self._presence,
            status=self._status,
            config_path=settings.config_path,
            journal=journal,
        )
        self._background: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None

    @property
    def phase(self) -> Phase:
        """What the startup and readiness routes say, and whether clients are let in."""
        return self.clients.phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self.clients.phase = phase

    def use(self, settings: Settings) -> None:
        """Work by these settings from now on: secrets, limits, origins and hosts; clients stay connected."""
        self._settings = settings
        self._door.use(settings.limits)
        self._authenticator.use(settings)
        self.clients.use(settings)

    async def start(self, listeners: list[socket]) -> None:
        """Accept connections on listening sockets."""
        self._registry.load_extensions(self._journal)
        application = web.Application(middlewares=[self._guard])
        application.on_response_prepare.append(self._begin)
        own = {
            "/healthz": _live,
            "/health": _live,
            "/startupz": self._startup,
            "/startup": self._startup,
            "/readyz": self._readiness,
            "/ready": self._readiness,
            "/": self._root,
        }
        for path, handler in own.items():
            application.router.add_get(path, handler)
        for route in self._registry.routes:
            self._add_route(application, route)
        # What goes wrong in a handler is caught and logged by us; the rest is peers' nonsense.
        silent = logging.getLogger("openclaw_gateway.aiohttp")
        silent.addHandler(logging.NullHandler())
        silent.propagate = False
        self._runner = web.AppRunner(
            application,
            handle_signals=False,
            access_log=None,
            logger=silent,
            keepalive_timeout=_KEEPALIVE_S,
            lingering_time=_LINGER_S,
        )
        await self._runner.setup()
        assert self._runner.server is not None
        server = self._runner.server

        def protocol() -> web.RequestHandler:
            made = server()
            made.__class__ = _Protocol  # aiohttp makes them itself, and asks nobody of what kind
            return made

        self._door.open(listeners, protocol)
        self._background = asyncio.create_task(self.clients.keep_informed())

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """Close the listener, then tell clients and let them go; at once if ``hurry`` is set."""
        self.phase = Phase.DRAINING
        self._door.close()
        if self._background is not None:
            self._background.cancel()
        goodbye = asyncio.create_task(self.clients.close_all())
        impatience = asyncio.create_task(hurry.wait())
        await asyncio.wait(
            {goodbye, impatience}, timeout=_DRAIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (goodbye, impatience):
            task.cancel()
        await asyncio.gather(goodbye, impatience, return_exceptions=True)
        for visitor in list(self._door.visitors.values()):
            if visitor.backlog_bytes():
                visitor.abort()
        if self._runner is not None and self._runner.server is not None:
            await self._runner.server.shutdown(0.5)
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let a request through to its handler, or say why not; whatever the handler does, answer."""
        visitor = self._door.visitor(request.transport)
        if visitor is not None:
            visitor.asked()
            if visitor.confined and request.path not in _HEALTH_PATHS:
                return _leave(503, f"too many connections ({visitor.excess})")
        if request.path not in _HEALTH_PATHS:
            problem = self._refused(request)
            if problem:
                return _leave(403, problem)
        try:
            response = await handler(request)
            if not isinstance(response, web.StreamResponse):
                raise TypeError(f"{type(response).__name__} is no response")
        except web.HTTPException as refusal:
            response = refusal
        except ConnectionResetError:
            raise
        except (Exception, SystemExit) as failure:  # a route must not end the gateway
            self._journal.write(
                Event.HANDLER_FAILED,
                f"route {request.match_info.route.resource} failed: {failure!r}",
            )
            response = _leave(500, "failed; the log says why")
        begun = None if visitor is None else visitor.begun
        if isinstance(begun, web.StreamResponse) and begun is not response:
            return await _break_off(request, begun)
        if visitor is not None and visitor.confined:
            response.force_close()
        return response

    async def _begin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Complete the headers of a response that is about to go out, and remember that it does."""
        response.headers.update(_HEADERS)
        visitor = self._door.visitor(request.transport)
        if visitor is not None:
            visitor.begun = response

    def _refused(self, request: web.Request) -> str:
        """Return why a browser page or a foreign name may not ask, ``""`` if it may."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or not self._is_own_host(hosts[0]):
            return (
                "host not allowed: use an IP address, localhost, or a name in gateway.allowedHosts"
            )
        origins = request.headers.getall("Origin", [])
        if origins and (len(origins) > 1 or not self._is_allowed_origin(origins[0])):
            return "origin not allowed: add it to gateway.controlUi.allowedOrigins"
        return ""

    def _is_own_host(self, header: str) -> bool:
        """Whether a page that rebinds its DNS name to us could not have sent this ``Host``."""
        try:
            host = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        host = host.rstrip(".")
        if host == "localhost" or host in self._settings.allowed_hosts:
            return True
        try:
            ip_address(host)
        except ValueError:
            return False
        return True

    def _is_allowed_origin(self, origin: str) -> bool:
        allowed = {known.lower().rstrip("/") for known in self._settings.allowed_origins}
        return origin.lower() in allowed or ("*" in allowed and "://" in origin)

    async def _startup(self, _: web.Request) -> web.Response:
        started = self.phase is Phase.READY
        return _json(
            {"ok": started, "status": "started" if started else self.phase.value}, ok=started
        )

    async def _readiness(self, request: web.Request) -> web.Response:
        failing = self._health.look() if self.phase is Phase.READY else [self.phase.value]
        ready = not failing
        body: dict[str, object] = {"ready": ready}
        if _source(request).local or await self._shows_secret(request):
            body |= {"failing": failing, "uptimeMs": self.clients.uptime_ms}
        return _json(body, ok=ready)

    async def _root(self, request: web.Request) -> web.StreamResponse:
        try:
            upgrade = web.WebSocketResponse().can_prepare(request).ok
        except ValueError:  # what aiohttp does with a key that is not ASCII
            return _leave(400, "Sec-WebSocket-Key is not base64")
        if not upgrade:
            raise web.HTTPUpgradeRequired(headers={"Upgrade": "websocket"}, text="WebSocket only\n")
        visitor = self._door.visitor(request.transport)
        if visitor is None:
            raise ConnectionResetError("gone before the upgrade")
        return await self.clients.serve(request, visitor, _source(request))

    def _add_route(self, application: web.Application, route: Route) -> None:
        try:
            application.router.add_route(route.verb, route.path, partial(self._extension, route))
        except (ValueError, RuntimeError) as failure:
            self._journal.write(
                Event.EXTENSION_FAILED, f"route {route.verb} {route.path} left out: {failure}"
            )

    async def _extension(self, route: Route, request: web.Request) -> web.StreamResponse:
        """Serve a route of an extension to who may have it, in bounded time."""
        if route.scope is not None and not await self._shows_secret(request):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
        try:
            async with asyncio.timeout(self._settings.limits.request_timeout_s):
                return await route.handler(request)
        except TimeoutError:
            return _leave(503, "no answer in time")

    async def _shows_secret(self, request: web.Request) -> bool:
        """Whether a request bears the secret. RFC 6750, section 2.1. A wrong one costs what it costs elsewhere."""
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        verdict = self._authenticator.judge(
            _source(request),
            token=secret.strip() if scheme.lower() == "bearer" else None,
            password=None,
            now_s=time.monotonic(),
        )
        self.clients.expect_bursts()
        if verdict.delay_s:
            await asyncio.sleep(verdict.delay_s)
        return verdict.refusal is None

    def _facts(self) -> dict[str, object]:
        return {
            "configPath": self._settings.config_path,
            "stateDir": self._settings.state_dir,
            "authMode": self._authenticator.mode.value,
        }

    def _status(self) -> dict[str, object]:
        return {
            "uptimeMs": self.clients.uptime_ms,
            "phase": self.phase.value,
            "failing": self._health.look(),
            "clients": {
                "connected": len(self.clients),
                "connections": self._door.inside,
                "unauthenticated": self._door.strangers.total(),
                "requestsInFlight": self.clients.in_flight,
            },
            "limits": self._limits(),
            "claim": {
                "stateDir": self._record.state_dir,
                "configPath": self._record.config_path,
                "host": self._record.host,
                "port": self._record.port,
                "since": self._record.created_at,
                "ownerId": self._record.owner_id,
            },
        }

    def _limits(self) -> dict[str, dict[str, int]]:
        """Return each limit in force and how often it was reached."""
        reached = self._door.reached
        shown: dict[str, dict[str, int]] = {"descriptors": {"reached": reached["descriptors"]}}
        # The door's: the kernel may grant fewer descriptors than the settings ask for.
        for field, limit in self._door.limits._asdict().items():
            if field not in _MERE_TIMES:
                name = LIMIT_NAMES[field]
                value = round(limit * 1000) if name.endswith("Ms") else limit
                shown[name] = {"limit": value, "reached": reached[field]}
        return shown


class _Protocol(web.RequestHandler):
    """aiohttp's own, whose answers to what is no HTTP reach no application and so no signal."""

    __slots__ = ()

    def handle_error(self, *args: Any, **kwargs: Any) -> web.StreamResponse:
        """Answer a request that can't be read. See ``web.RequestHandler``."""
        response = super().handle_error(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response


async def _live(_: web.Request) -> web.Response:
    return web.Response(body=LIVE, content_type="application/json", charset="utf-8")


def _json(body: dict[str, object], *, ok: bool) -> web.Response:
    text = json.dumps(body, separators=(",", ":"))
    return web.Response(text=text, status=200 if ok else 503, content_type="application/json")


def _leave(status: int, text: str) -> web.Response:
    """Return an answer after which the connection is closed."""
    response = web.Response(status=status, text=f"{text}\n")
    response.force_close()
    return response


async def _break_off(request: web.Request, begun: web.StreamResponse) -> web.StreamResponse:
    """
    End an answer that failed halfway, so that the peer can't take it for a whole one.

    Another answer would land inside the first, or among the frames of a WebSocket. RFC 6455,
    section 7.4.1: 1011 is a server's unexpected condition.
    """
    if isinstance(begun, web.WebSocketResponse):
        if not begun.closed:
            await begun.close(code=WSCloseCode.INTERNAL_ERROR, message=b"failed")
    elif request.transport is not None:
        request.transport.abort()
    return begun


def _source(request: web.Request) -> Source:
    """Say where a request comes from: behind a proxy it is not from here, whatever its address says."""
    address = request.remote or "unknown"
    direct = not any(name in request.headers for name in _FORWARDED)
    return Source(address, is_loopback(address) and direct)
