"""
A worked example of an extension, and of everything that one may do wrong.

``setup.cfg`` beside this package names ``extend`` in the entry point group; nothing else is needed.
"""

from __future__ import annotations

import asyncio
import sys
import threading

from aiohttp import web

from openclaw_gateway.protocol.calls import Call, CallError
from openclaw_gateway.protocol.frames import ErrorCode
from openclaw_gateway.protocol.schema import closed
from openclaw_gateway.server.methods import Registry

DEGREES = {"Oslo": 3, "Cairo": 31}


def extend(registry: Registry) -> None:
    """Add everything to the registry; the gateway calls this once, at its start."""
    city = closed({"city": {"type": "string", "minLength": 1}}, required=("city",))
    registry.method("weather.now", now, scope="operator.read", params=city)
    registry.method("weather.soon", soon, scope="operator.read")
    registry.route("GET", "/weather/{city}", page, scope="operator.read")
    registry.route("GET", "/weather", overview, scope=None)
    for handler in (
        raises,
        exits,
        exits_slowly,
        hangs,
        hangs_softly,
        hangs_deaf,
        blocks,
        floods,
        floods_finely,
        babbles,
    ):
        registry.method(f"wrong.{handler.__name__}", handler, scope=None)
    registry.route("GET", "/wrong/raises", route_that_raises, scope=None)
    registry.route("GET", "/wrong/exits", route_that_exits, scope=None)
    registry.route("GET", "/wrong/nothing", route_that_returns_nothing, scope=None)
    registry.route("GET", "/wrong/halfway", route_that_raises_halfway, scope=None)
    registry.route("GET", "/wrong/socket", websocket_that_raises, scope=None)
    registry.route("GET", "/wrong/hangs", route_that_hangs, scope=None)
    registry.route("GET", "/healthz", overview, scope=None)


def extend_in_vain(registry: Registry) -> None:
    """Add one method, then fail: neither stays."""
    registry.method("weather.never", now, scope=None)
    registry.method("health", now, scope=None)


def extend_and_exit(registry: Registry) -> None:
    """End the whole process, or try to."""
    sys.exit("this machine is not good enough for me")


def now(call: Call) -> object:
    """Answer in a thread of its own: it may read a file or ask another machine."""
    city = call.params["city"]
    if city not in DEGREES:
        raise CallError(f"no weather for {city}", code=ErrorCode.INVALID_REQUEST)
    return {"city": city, "celsius": DEGREES[city], "asked_by": call.conn_id}


async def soon(_: Call) -> object:
    """Answer on an event loop that is this call's alone."""
    await asyncio.sleep(0)
    return {"outlook": "fair"}


async def page(request: web.Request) -> web.Response:
    return web.json_response({"celsius": DEGREES.get(request.match_info["city"])})


async def overview(_: web.Request) -> web.Response:
    return web.Response(text="\n".join(DEGREES))


def raises(_: Call) -> object:
    raise RuntimeError("the secret is 4711")


def exits(_: Call) -> object:
    raise SystemExit(3)


async def exits_slowly(_: Call) -> object:
    raise SystemExit(3)


def hangs(_: Call) -> object:
    threading.Event().wait()
    return None


async def hangs_softly(_: Call) -> object:
    await asyncio.Event().wait()
    return None


async def hangs_deaf(_: Call) -> object:
    while True:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            continue


async def blocks(_: Call) -> object:
    threading.Event().wait()
    return None


def floods(_: Call) -> object:
    return "x" * (30 << 20)


def floods_finely(_: Call) -> object:
    return [{"a": 1}] * 6_000_000


def babbles(_: Call) -> object:
    return {"when": object()}


async def route_that_raises(_: web.Request) -> web.Response:
    raise RuntimeError("the secret is 4711")


async def route_that_exits(_: web.Request) -> web.Response:
    raise SystemExit(3)


async def route_that_returns_nothing(_: web.Request) -> web.Response:
    return None  # type: ignore[return-value]


async def route_that_raises_halfway(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"the first half")
    raise RuntimeError("no second half")


async def websocket_that_raises(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    raise RuntimeError("nothing to say")


async def route_that_hangs(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()
