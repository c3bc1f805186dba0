"""The listener's server: what each path answers, and how everything behind it is put together."""

from __future__ import annotations

import asyncio
import os
import socket as sockets
import time
from collections.abc import Callable, Sequence
from functools import partial
from socket import socket
from typing import TYPE_CHECKING

from openclaw_gateway import __version__
from openclaw_gateway.claim.record import LockRecord, Phase
from openclaw_gateway.client.answer import LIVE
from openclaw_gateway.errors import ListenerLostError
from openclaw_gateway.protocol.role import Lease, Role
from openclaw_gateway.protocol.scopes import READ, satisfies
from openclaw_gateway.server import access, page, standing
from openclaw_gateway.server.acceptor import Acceptor
from openclaw_gateway.server.auth import Admission, Authenticator
from openclaw_gateway.server.builtin import Health, add_builtin, resident_bytes
from openclaw_gateway.server.clients import Clients
from openclaw_gateway.server.connection import PATIENCE, Connection, Patience, Upgrade, Work
from openclaw_gateway.server.lines import Lines, take_over
from openclaw_gateway.server.message import (
    HEALTH_PATHS,
    METRICS_PATHS,
    ROLE_PATHS,
    WATCHED_PATHS,
    Pattern,
    Request,
    Response,
)
from openclaw_gateway.server.methods import Registry, Route
from openclaw_gateway.server.presence import Presence, gateway_entry
from openclaw_gateway.server.proxies import Source, TrustedProxies, User, identify, resolve
from openclaw_gateway.server.snapshot import Holding, Limit, Snapshot, role_details
from openclaw_gateway.server.tally import OUTCOMES
from openclaw_gateway.server.websocket import Shared, refused_upgrade
from openclaw_gateway.settings.load import LIMIT_NAMES, Settings
from openclaw_gateway.settings.model import AuthMode
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal
from openclaw_gateway.supervisor.vitals import Vitals

if TYPE_CHECKING:
    import ssl

_DRAIN_S = 3.0
"""Seconds that clients have to say goodbye before we hang up."""

_LAST_ANSWERS_S = 0.5
"""Seconds that requests which are being answered have then."""

_JSON = {"Content-Type": "application/json; charset=utf-8"}
_OWN_PATHS = WATCHED_PATHS | page.PATHS
_METRICS = Pattern("/metrics")
_MERE_TIMES = frozenset({"tick_interval_s", "auth_window_s", "auth_lockout_s"})
"""Fields of ``Limits`` that nobody can reach."""


class Server:
    """
    The listener's HTTP and WebSocket server. It is its connections' ``Application``.

    Attributes:
        clients: The open WebSockets.
        lease: Returns how the cluster's record is kept, for who watches over it.
    """

    def __init__(
        self,
        settings: Settings,
        record: LockRecord,
        journal: Journal,
        *,
        failing: Callable[[], list[str]],
        tls: ssl.SSLContext | None = None,
        patience: Patience = PATIENCE,
        vitals: Vitals | None = None,
        lock_paths: Sequence[str] = (),
    ) -> None:
        """
        Set everything up, and open nothing.

        Args:
            settings: Checked, and with the token that token mode needs.
            record: What our lock files say of us, for ``status``.
            journal: Told of what goes wrong; shown by ``logs.tail``.
            failing: Names what keeps the gateway from doing its work; an empty list if nothing.
            tls: What to speak TLS with; ``None`` speaks plain HTTP.
            patience: How long peers are waited for, beside what the settings say.
            vitals: How the process is that we serve in.
            lock_paths: The lock files that the record is in.
        """
        self._journal, self._record = journal, record
        self._vitals, self._lock_paths = vitals or Vitals(), tuple(lock_paths)
        self._lines = Lines(journal)
        self._registry = Registry()
        self._trusted = TrustedProxies(settings.trusted_proxies)
        self._acceptor = Acceptor(settings.limits, self._trusted, tls=tls, patience=patience)
        self._authenticator = Authenticator(settings, reached=self._acceptor.reached)
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
        self._page = page.Page()
        shared = Shared(
            self._lines,
            self._registry.methods,
            self._authenticator,
            self._presence,
            self._health,
            self._acceptor,
        )
        self.clients = Clients(shared, settings, facts=self._facts)
        self._role: Role | None = None
        self.lease: Callable[[], Lease | None] = lambda: None
        self._settings = settings
        add_builtin(
            self._registry,
            health=self._health,
            presence=self._presence,
            snapshot=self.snapshot,
            config_path=settings.config_path,
            journal=journal,
        )
        self._background: asyncio.Task[None] | None = None
        self._undo: Callable[[], None] | None = None
        self._close_listeners: Callable[[], None] = lambda: None

    @property
    def phase(self) -> Phase:
        """What the startup and readiness routes say, and whether clients are let in."""
        return standing.phase(self.clients.phase, self._role, is_fenced=self.fence())

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self.clients.phase, self.clients.phase_since_s = phase, time.time()

    @property
    def draining(self) -> bool:
        """Whether connections end with the answer that they wait for."""
        return self.phase is Phase.DRAINING

    @property
    def role(self) -> Role | None:
        """Our part in the cluster; ``None`` without one."""
        return self._role

    def show_role(self, role: Role | None) -> None:
        """Answer by this role from now on; as a standby nobody is served."""
        before, self._role = self.phase, role
        if self.phase is not before:
            self.clients.phase_since_s = time.time()
        self.clients.fencing_token = role.token if role is not None and role.active else None
        self._acceptor.stamps.marks = standing.marks(role)

    @property
    def fence(self) -> Callable[[], bool]:
        """
        Says whether nothing may be served any more, as another host may soon be the active one.

        Asked before each request and each frame is dispatched; never true without a cluster.
        """
        return self.clients.fence

    @fence.setter
    def fence(self, fence: Callable[[], bool]) -> None:
        self.clients.fence = fence

    def fenced(self) -> bool:
        """Whether nothing but health may be answered; see ``connection.Application``."""
        return self.fence()

    def use(self, settings: Settings) -> None:
        """Work by these settings from now on: secrets, limits, origins, hosts, proxies; clients stay connected."""
        self._settings = settings
        self._trusted = TrustedProxies(settings.trusted_proxies)
        self._acceptor.use(settings.limits, self._trusted)
        self._authenticator.use(settings)
        self.clients.use(settings)

    def show(self, tls: ssl.SSLContext | None) -> None:
        """Speak TLS with this to whoever connects from now on."""
        self._acceptor.tls = tls

    async def start(self, listeners: list[socket], *, close: Callable[[], None]) -> None:
        """Accept connections on listening sockets; ``close`` closes them, once we have let go of them."""
        self._close_listeners = close
        self._undo = take_over(self._lines)
        asyncio.get_running_loop().set_exception_handler(self._lines.loop_failed)
        self._registry.load_extensions(self._journal)
        for route in list(self._registry.routes):
            if route.path in _OWN_PATHS:
                self._registry.routes.remove(route)
                self._journal.write(
                    Event.EXTENSION_FAILED, f"route {route.name} left out: it is the gateway's own"
                )
        self._acceptor.open(listeners, self)
        self._background = asyncio.create_task(self.clients.keep_informed())

    async def lost(self) -> ListenerLostError:
        """Wait until a listener takes no connections any more, and return why: the service can't go on."""
        return await asyncio.shield(self._acceptor.lost)

    async def stop(self, *, hurry: asyncio.Event, back_in_s: float | None = None) -> None:
        """
        Close the listener, then tell clients and let them go; at once if ``hurry`` is set.

        ``back_in_s`` is when we are expected back, if this is known to be a restart.
        """
        self.phase = Phase.DRAINING
        self._acceptor.close()
        self._close_listeners()
        if self._background is not None:
            self._background.cancel()
        goodbye = asyncio.create_task(self.clients.close_all(back_in_s=back_in_s))
        impatience = asyncio.create_task(hurry.wait())
        await asyncio.wait(
            {goodbye, impatience}, timeout=_DRAIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (goodbye, impatience):
            task.cancel()
        await asyncio.gather(goodbye, impatience, return_exceptions=True)
        last_answers_s = 0 if hurry.is_set() else _LAST_ANSWERS_S
        await self._acceptor.settle(timeout_s=last_answers_s)
        connections = list(self._acceptor.connections)
        for connection in connections:
            if connection.backlog_bytes():
                connection.abort()
            else:
                connection.end()
        if connections:
            closed = {connection.closed for connection in connections}
            await asyncio.wait(closed, timeout=last_answers_s)
            for connection in connections:
                connection.abort()
            await asyncio.wait(closed)
        if self._undo is not None:
            self._undo()

    def answer(self, request: Request, connection: Connection) -> Response | Upgrade | Work:
        """Decide on a request; see ``connection.Application``."""
        source = resolve(
            connection.peer,
            request.headers,
            trusted=self._trusted,
            real_ip_fallback=self._settings.allow_real_ip_fallback,
        )
        if request.path in HEALTH_PATHS:
            # Whatever a proxy says or leaves out, we live; but nobody is local then.
            if isinstance(source, str):
                source = Source(connection.peer, False)
            return self._health_route(request, source)
        if isinstance(source, str):
            return Response(403, f"{source}\n", close=True)
        if self._settings.auth_mode is AuthMode.TRUSTED_PROXY:
            source = source._replace(user=self._user(request, source, connection))
        if request.path in METRICS_PATHS:
            return self._metrics(request, source, connection)
        refusal = self._refuse(request, source, connection)
        if refusal is not None:
            return refusal
        request = request._replace(address=source.address, fencing_token=self.clients.fencing_token)
        if request.path in page.PATHS:
            return self._own(request, source)
        return self._extension(request, source)

    def _refuse(self, request: Request, source: Source, connection: Connection) -> Response | None:
        """Return the answer to who is not served at all, whatever the path."""
        excess = self._acceptor.attribute(connection, source.address)
        if excess:
            return Response(503, f"too many connections ({excess})\n", close=True)
        problem = self._refused(request)
        if problem:
            return Response(403, f"{problem}\n", close=True)
        if self.phase is Phase.STANDBY and self._role is not None and not self._wants_page(request):
            return standing.turned_away(self._role)
        return None

    def _wants_page(self, request: Request) -> bool:
        """Whether a request is for the status page or one of its files, and there is to be one."""
        is_its = request.path in page.PATHS and (request.path != "/" or page.is_wanted(request))
        return is_its and self._settings.status_page

    def failed(self, request: Request, failure: BaseException) -> None:
        """Log that an answer could not be made; the route is named, not what the peer asked for."""
        route, _ = self._find(request)
        self._lines.failed(f"route {route.name if route else 'of the gateway'}", failure)

    def snapshot(self) -> Snapshot:
        """Return how we are, as one value."""
        record, vitals, tally = self._record, self._vitals, self.clients.tally
        pinged_at_s = vitals.pinged_at_s
        return Snapshot(
            version=__version__,
            instance=self.clients.boot_id,
            unit=record.unit,
            pid=os.getpid(),
            resident_bytes=resident_bytes(),
            uptime_ms=self.clients.uptime_ms,
            phase=self.phase,
            phase_since_ms=int(self.clients.phase_since_s * 1000),
            failing=tuple(self._health.look()),
            problem=vitals.problem,
            watchdog_s=vitals.watchdog_s,
            pinged_at_ms=None if pinged_at_s is None else int(pinged_at_s * 1000),
            loop_delay_s=vitals.loop_delay.longest_s(now_s=time.monotonic()),
            locks_restored=vitals.locks_restored,
            auth_mode=self._authenticator.mode.value,
            auth_failures=self._authenticator.failures,
            connected=len(self.clients),
            connections=self._acceptor.inside,
            unauthenticated=self._acceptor.unauthenticated.total(),
            over_limit=self._acceptor.over_limit,
            in_flight=self.clients.in_flight,
            accepted=self._acceptor.accepted,
            requests=self._acceptor.requests,
            requested=tally.by_method(self._registry.methods),
            outcomes={name: tally.outcomes[name] for name in OUTCOMES},
            durations=tally.durations,
            limits=self._limits(),
            claim=Holding(
                record.state_dir,
                record.config_path,
                record.host,
                record.port,
                record.created_at,
                record.owner_id,
                self._lock_paths,
            ),
            role=self._role,
            lease=self.lease(),
        )

    def _limits(self) -> dict[str, Limit]:
        """Return each limit in force, by its name in the file."""
        reached = self._acceptor.reached
        limits = {"descriptors": Limit(None, reached["descriptors"])}
        # The acceptor's: the kernel may grant fewer descriptors than the settings ask for.
        for field, value in self._acceptor.limits._asdict().items():
            if field not in _MERE_TIMES:
                name = LIMIT_NAMES[field]
                shown = round(value * 1000) if name.endswith("Ms") else value
                limits[name] = Limit(shown, reached[field])
        return limits

    def _health_route(self, request: Request, source: Source) -> Response | Work:
        # HAProxy's httpchk, as Patroni's manual has it, asks with OPTIONS.
        verbs = ("GET", "HEAD", "OPTIONS") if request.path in ROLE_PATHS else ("GET", "HEAD")
        if request.method not in verbs:
            return _not_allowed(", ".join(verbs))
        if request.path in ("/healthz", "/health"):
            return Response(200, LIVE, _JSON)
        if request.path in ("/startupz", "/startup"):
            # A standby has started: it waits for nothing but another host's end.
            started = self.phase in (Phase.READY, Phase.STANDBY)
            status = "started" if self.phase is Phase.READY else self.phase.value
            return _json({"ok": started, "status": status}, ok=started)
        if source.local:
            return self._readiness(request.path, told=True)
        if "authorization" not in request.headers:
            return self._readiness(request.path, told=False)
        admission = self._judge(request, source)
        return Work(partial(self._readiness_later, admission))

    async def _readiness_later(self, admission: Admission, request: Request) -> Response:
        await asyncio.sleep(admission.delay_s)
        return self._readiness(request.path, told=admission.refusal is None)

    def _readiness(self, path: str, *, told: bool) -> Response:
        phase = self.phase
        failing = self._health.look() if phase is Phase.READY else [phase.value]
        in_role = standing.is_in_role(path, phase, failing)
        body: dict[str, object] = {path[1:] if path in ROLE_PATHS else "ready": in_role}
        if told:
            body |= {"failing": failing, "uptimeMs": self.clients.uptime_ms}
            if self._role is not None:
                body["cluster"] = role_details(self._role)
        return _json(body, ok=in_role)

    def _own(self, request: Request, source: Source) -> Response | Upgrade:
        """Serve the status page to browsers, and on its path the WebSocket to clients."""
        if self._wants_page(request):
            return self._page.answer(request)
        if request.path != "/":
            return Response(404, "not found\n")
        if request.method != "GET":
            return _not_allowed("GET")
        accept = refused_upgrade(request)
        if isinstance(accept, Response):
            return accept
        return self.clients.upgrade(accept, source)

    def _refused(self, request: Request, *, knows_secret: bool = False) -> str:
        """
        Say why a browser's page may not ask; ``""`` if whoever asks is none, or a page of ours.

        Who knows the secret, and shows it by itself, is no page that rebinds its name to us, and may call us
        by any name: Prometheus scrapes by host name.
        """
        return access.refused(
            "localhost" if knows_secret else request.headers.get("host"),
            request.headers.get("origin"),
            allowed_hosts=self._settings.allowed_hosts,
            allowed_origins=self._settings.allowed_origins,
            tls=self._acceptor.tls is not None,
        )

    def _metrics(self, request: Request, source: Source, connection: Connection) -> Response | Work:
        """Serve a scraper that shows the secret, in whatever state we are; there is no public mode."""
        excess = self._acceptor.attribute(connection, source.address)
        if excess and not connection.over_limit:
            return Response(503, f"too many connections ({excess})\n", close=True)
        if request.method not in ("GET", "HEAD"):
            return _not_allowed("GET, HEAD")
        admission = self._judge(request, source)
        if admission.refusal is not None:
            # Before the host is looked at: a wrong guess must cost what it costs under any name.
            return Work(partial(self._unauthorized, admission))
        knows_secret = self._authenticator.mode in (AuthMode.TOKEN, AuthMode.PASSWORD)
        if knows_secret:
            self._acceptor.authenticated(connection)
        problem = self._refused(request, knows_secret=knows_secret)
        if problem:
            return Response(403, f"{problem}\n", close=True)
        if source.user is not None and not satisfies(source.user.scopes, READ):
            return Response(403, f"missing scope: {READ}\n")
        return Work(self._scrape)

    async def _scrape(self, request: Request) -> Response:
        """Take the snapshot here, where what it copies stands still, and write it down in a thread."""
        from openclaw_gateway.server import metrics

        snapshot = self.snapshot()
        route = Route("GET", request.path, lambda _: metrics.answer(snapshot), READ, _METRICS)
        return await self.clients.caller.respond(route, request)

    def _find(self, request: Request) -> tuple[Route | None, dict[str, str]]:
        """Return the route of an extension that serves a request, and what its names stand for."""
        for route in self._registry.routes:
            # What serves GET serves HEAD. RFC 9110, section 9.3.2.
            if request.method in (route.verb, "HEAD" if route.verb == "GET" else route.verb):
                parameters = route.pattern.match(request.path)
                if parameters is not None:
                    return route, parameters
        return None, {}

    def _extension(self, request: Request, source: Source) -> Response | Work:
        """Serve a route of an extension to who may have it."""
        route, parameters = self._find(request)
        if route is None:
            served = {
                r.verb for r in self._registry.routes if r.pattern.match(request.path) is not None
            }
            return (
                _not_allowed(", ".join(sorted(served))) if served else Response(404, "not found\n")
            )
        limits = self._settings.limits
        request = request._replace(parameters=parameters)
        if route.scope is None:
            return Work(
                partial(self._respond, route, request),
                limits.max_preauth_bytes,
                "max_preauth_bytes",
            )
        admission = self._judge(request, source)
        if admission.refusal is not None:
            return Work(partial(self._unauthorized, admission))
        if source.user is not None and not satisfies(source.user.scopes, route.scope):
            return Response(403, f"missing scope: {route.scope}\n")
        return Work(
            partial(self._respond, route, request),
            limits.max_payload_bytes,
            "max_payload_bytes",
            limits.request_timeout_s,
        )

    async def _respond(self, route: Route, judged: Request, whole: Request) -> Response:
        return await self.clients.caller.respond(route, judged._replace(body=whole.body))

    async def _unauthorized(self, admission: Admission, _: Request) -> Response:
        await asyncio.sleep(admission.delay_s)
        return Response(401, "the gateway's secret is needed\n", {"WWW-Authenticate": "Bearer"})

    def _judge(self, request: Request, source: Source) -> Admission:
        """Judge the secret that a request bears. RFC 6750, section 2.1. A wrong one costs what it costs elsewhere."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        admission = self._authenticator.judge(
            source,
            token=secret.strip() if scheme.lower() == "bearer" else None,
            password=None,
            now_s=time.monotonic(),
        )
        self.clients.expect_bursts()
        return admission

    def _user(self, request: Request, source: Source, connection: Connection) -> User | None:
        """Return who the client is by its proxy's word; ``None`` where that word does not count."""
        settings = self._settings
        if source.address == connection.peer:  # no proxy in between
            return None
        if connection.same_host and not settings.proxy_on_loopback:
            return None
        return identify(
            request.headers,
            user_header=settings.user_header or "",
            required=settings.proxy_headers,
            allowed=settings.proxy_users,
        )

    def _facts(self) -> dict[str, object]:
        return {
            "configPath": self._settings.config_path,
            "stateDir": self._settings.state_dir,
            "authMode": self._authenticator.mode.value,
        }


def _json(body: dict[str, object], *, ok: bool) -> Response:
    return Response.json(body, status=200 if ok else 503)


def _not_allowed(verbs: str) -> Response:
    return Response(405, "method not allowed\n", {"Allow": verbs})
