"""
The registry of RPC methods and HTTP routes, and the way that one call is made.

``openclaw_gateway.extension`` shows how another package adds its own. Each call of a method and each
request of a route runs in a thread of its own, and an ``async def`` on an event loop of its own there.
It may raise, hang, or return too much: its own call then fails, and no other.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from openclaw_gateway.protocol.calls import (
    Answer,
    Call,
    CallError,
    Failure,
    Handler,
    Method,
    Outcome,
)
from openclaw_gateway.protocol.frames import ErrorCode, encode, encode_in_parts, error
from openclaw_gateway.protocol.schema import Schema, problems, refuse_unknown
from openclaw_gateway.protocol.scopes import ADMIN, KNOWN_SCOPES
from openclaw_gateway.server.lines import Lines
from openclaw_gateway.server.message import Pattern, Request, Response
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal

EXTENSIONS = "openclaw_gateway.extensions"
"""The entry point group."""


MAX_CALLS_PER_METHOD = 16
"""Calls of one method or route that may run at once: one that hangs keeps no more than this waiting."""


_GRACE_S = 1.0


RouteHandler = Callable[[Request], Any]
"""Takes the request; returns a ``Response``, or a coroutine that does."""


class Route(NamedTuple):
    """One HTTP route of an extension."""

    verb: str
    path: str
    handler: RouteHandler
    scope: str | None
    pattern: Pattern

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.verb} {self.path}"


class Registry:
    """
    What can be called.

    Attributes:
        methods: Name to method.
        routes: HTTP routes of extensions.
    """

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}
        self.routes: list[Route] = []

    def method(
        self,
        name: str,
        handler: Handler,
        *,
        scope: str | None = ADMIN,
        params: Schema | None = None,
        instant: bool = False,
    ) -> None:
        """
        Add an RPC method.

        Args:
            name: Dotted, as clients call it: ``weather.now``.
            handler: See ``Handler``.
            scope: What the caller needs; ``None`` lets every client that got in call it.
            params: What ``params`` must look like, in the JSON Schema subset of ``schema``; ``None``
                lets anything pass unseen.
            instant: Leave it unset: a handler that is called on the event loop stops all the others.

        Raises:
            ValueError: The name is taken, the scope unknown, or the schema uses what is not supported.
        """
        if not name or name in self.methods or name == "connect":
            raise ValueError(f"method {name!r} is taken")
        self._refuse_scope(scope)
        if params is not None:
            refuse_unknown(params)
        self.methods[name] = Method(
            name, handler, scope, params, instant, problems({}, params or {})
        )

    def route(
        self, verb: str, path: str, handler: RouteHandler, *, scope: str | None = ADMIN
    ) -> None:
        """
        Add an HTTP route.

        Args:
            verb: ``GET``, ``POST``, …
            path: From the root; ``{name}`` matches one part, and is in ``request.parameters``.
            handler: See ``RouteHandler``. It is given the whole body: of a bearer of the secret up to
                ``maxPayloadBytes``, of anybody else up to ``maxPreauthBytes``.
            scope: What a bearer token is asked for; ``None`` opens the route to everyone who can reach
                the port.

        Raises:
            ValueError: The route is taken, its path none, or the scope unknown.
        """
        if any((verb, path) == (route.verb, route.path) for route in self.routes):
            raise ValueError(f"route {verb} {path} is taken")
        self._refuse_scope(scope)
        self.routes.append(Route(verb, path, handler, scope, Pattern(path)))

    def _refuse_scope(self, scope: str | None) -> None:
        if scope is not None and scope not in KNOWN_SCOPES:
            raise ValueError(
                f"scope {scope!r} is unknown; known: {', '.join(sorted(KNOWN_SCOPES))}"
            )

    def load_extensions(self, journal: Journal) -> None:
        """
        Let every installed extension add to this registry; one that fails is logged and adds nothing.

        Looking for them reads the metadata of everything that is installed, so it comes after the port
        is ours.
        """
        from importlib.metadata import entry_points

        for entry_point in entry_points(group=EXTENSIONS):
            methods, routes = dict(self.methods), list(self.routes)
            try:
                entry_point.load()(self)
            except (Exception, SystemExit) as failure:
                # In place: others hold on to these two.
                self.methods.clear()
                self.methods.update(methods)
                self.routes[:] = routes
                journal.write(
                    Event.EXTENSION_FAILED,
                    f"extension {entry_point.name} ({entry_point.value}) left out: {failure!r}",
                    EXTENSION=entry_point.name,
                )


class _Flood(Exception):
    """An answer is longer than a frame may be."""


def _encode(value: object, *, max_bytes: int) -> str:
    """
    Return a value as JSON, without holding the interpreter's lock over all of it.

    Raises:
        _Flood: It has more bytes; those that were made are thrown away.
    """
    parts: list[str] = []
    left = max_bytes
    for part in encode_in_parts(value):
        left -= len(part)
        if left < 0:
            raise _Flood
        parts.append(part)
    return "".join(parts)


class Busy(Exception):
    """As many calls as may run at once do."""


class Late(Exception):
    """No result came in time. The thread can't be ended from outside."""


class Caller:
    """Makes calls: whatever a handler does, out comes an answer or an error, in bounded time."""

    def __init__(
        self, lines: Lines, *, timeout_s: float, max_answer_bytes: int, reached: Counter[str]
    ) -> None:
        """``reached`` counts calls that took longer than ``timeout_s``."""
        self._lines, self._timeout_s, self._max_bytes = lines, timeout_s, max_answer_bytes
        self._reached = reached
        self._running: dict[str, int] = {}

    def now(self, method: Method, call: Call) -> Outcome:
        """Call an ``instant`` method."""
        try:
            result = method.handler(call)
            if isinstance(result, Answer):
                return result
            return self._judged(method, encode(result))
        except Exception as failure:
            return self._failed(method, failure)

    async def soon(self, method: Method, call: Call) -> Outcome:
        """Call a method that may take its time; after ``timeout_s`` the caller gets its error."""

        def work() -> str:
            return _encode(self._result(method.handler, call), max_bytes=self._max_bytes)

        try:
            return self._judged(method, await self._bounded(method.name, work))
        except Busy:
            busy = f"{method.name} is busy; try again in a moment"
            return Failure(error(ErrorCode.UNAVAILABLE, busy, retry_after_ms=1000))
        except Late:
            late = f"{method.name} did not answer within {self._timeout_s:g} s"
            return Failure(error(ErrorCode.UNAVAILABLE, late))
        except Exception as failure:
            return self._failed(method, failure)

    async def respond(self, route: Route, request: Request) -> Response:
        """
        Let a route answer a request.

        Raises:
            Exception: Whatever the handler raises; it is not logged yet.
        """
        try:
            response = await self._bounded(route.name, lambda: self._result(route.handler, request))
        except Busy:
            return Response(503, "busy; try again in a moment\n", {"Retry-After": "1"})
        except Late:
            return Response(503, "no answer in time\n", close=True)
        if not isinstance(response, Response):
            raise TypeError(f"{type(response).__name__} is no Response")
        if isinstance(response.body, str | bytes) and len(response.body) > self._max_bytes:
            raise ValueError(f"the answer has more than {self._max_bytes} bytes")
        return response

    async def _bounded(self, name: str, work: Callable[[], Any]) -> Any:
        """
        Run something in a thread, one of few of its name, and return its result.

        A thread can't be ended from outside: one that hangs counts against those of its name until it
        ends by itself, and a coroutine is cancelled.

        Raises:
            Busy: There are too many.
            Late: It took longer than ``timeout_s``.
            RuntimeError: The kernel has no thread left.
            Exception: What the work itself raises.
        """
        if self._running.get(name, 0) >= MAX_CALLS_PER_METHOD:
            raise Busy
        future = in_thread(work, name=name)
        self._running[name] = self._running.get(name, 0) + 1
        future.add_done_callback(lambda done: self._ended(name, done))
        done, _ = await asyncio.wait({future}, timeout=self._timeout_s)
        if not done:
            self._reached["request_timeout_s"] += 1
            raise Late
        return future.result()

    def _result(self, handler: Callable[[Any], Any], argument: object) -> object:
        """Return what a handler returns; runs in a thread of its own."""
        if not inspect.iscoroutinefunction(handler):
            return handler(argument)

        async def bounded() -> object:
            # A moment after the caller has given up.
            async with asyncio.timeout(self._timeout_s + _GRACE_S):
                return await handler(argument)

        return asyncio.run(bounded())

    def _ended(self, name: str, work: asyncio.Future[Any]) -> None:
        if not work.cancelled():
            work.exception()  # seen: one that comes after the caller left is nobody's
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]

    def _judged(self, method: Method, payload: str) -> Outcome:
        if len(payload) <= self._max_bytes:
            return Answer(payload)
        return self._failed(method, _Flood())

    def _failed(self, method: Method, failure: BaseException) -> Failure:
        if isinstance(failure, CallError):
            return Failure(error(failure.code, failure.message, details=failure.details))
        if isinstance(failure, _Flood):
            flood = f"the answer of {method.name} has more than {self._max_bytes} bytes"
            return Failure(error(ErrorCode.UNAVAILABLE, flood))
        # The exception's text may hold what the caller must not see; the log may.
        self._lines.failed(f"method {method.name}", failure, METHOD=method.name)
        return Failure(error(ErrorCode.UNAVAILABLE, f"{method.name} failed; the log says why"))


def in_thread(function: Callable[[], Any], *, name: str) -> asyncio.Future[Any]:
    """
    Run a function in a thread of its own and return the future of its result.

    Unlike those of ``asyncio.to_thread`` these threads share no pool, so one that hangs takes no place
    from others, and they are daemons, so it does not hold up the exit either.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, failure: BaseException | None) -> None:
        if future.cancelled():  # who asked has left
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)

    def run() -> None:
        try:
            result, failure = function(), None
        except BaseException as raised:  # SystemExit too: it must not look like a hang
            result, failure = None, RuntimeError(repr(raised)) if _odd(raised) else raised
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            return  # the loop is closed: the daemon has stopped meanwhile

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _odd(raised: BaseException) -> bool:
    """Whether a future would not take it, or would not give it back as it is."""
    return not isinstance(raised, Exception) or isinstance(raised, StopIteration)
