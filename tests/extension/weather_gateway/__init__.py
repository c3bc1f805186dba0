"""
A worked example of an extension, and of everything that one may do wrong.

``setup.cfg`` beside this package names ``extend`` in the entry point group; nothing else is needed.
"""

from __future__ import annotations

import asyncio
import sys
import threading

from openclaw_gateway.extension import (
    Call,
    CallError,
    ErrorCode,
    Registry,
    Request,
    Response,
    closed,
)

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
    registry.route("GET", "/wrong/hangs", route_that_hangs, scope=None)
    registry.route("GET", "/wrong/blocks", route_that_blocks, scope=None)
    registry.route("GET", "/wrong/floods", route_that_floods, scope=None)
    registry.route("GET", "/wrong/splits", route_that_splits_its_head, scope=None)
    registry.route("POST", "/echo", echo, scope=None)
    registry.route("POST", "/echo/{name}", echo, scope="operator.write")
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


def page(request: Request) -> Response:
    city = request.parameters["city"]
    if city not in DEGREES:
        return Response(404, f"no weather for {city}\n")
    return Response.json({"celsius": DEGREES[city]})


async def overview(_: Request) -> Response:
    return Response(body="\n".join(DEGREES))


def echo(request: Request) -> Response:
    """Show what a request is made of."""
    seen = {
        "path": request.path,
        "query": request.query,
        "parameters": dict(request.parameters),
        "encoding": request.headers.get("Content-Encoding"),
        "address": request.address,
        "bytes": len(request.body),
    }
    return Response.json(seen, status=201)


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


async def route_that_raises(_: Request) -> Response:
    raise RuntimeError("the secret is 4711")


async def route_that_exits(_: Request) -> Response:
    raise SystemExit(3)


async def route_that_returns_nothing(_: Request) -> Response:
    return None  # type: ignore[return-value]


async def route_that_hangs(_: Request) -> Response:
    await asyncio.Event().wait()
    return Response()


def route_that_blocks(_: Request) -> Response:
    threading.Event().wait()
    return Response()


def route_that_floods(_: Request) -> Response:
    return Response(body=b"x" * (30 << 20))


def route_that_splits_its_head(_: Request) -> Response:
    return Response(headers={"X-Weather": "fair\r\nX-Forged: yes"})
