"""
What an extension of the gateway is made of. This module is the whole of it, and stays as it is.

A package adds RPC methods and HTTP routes through the entry point group ``openclaw_gateway.extensions``:
each entry point names a function that takes the ``Registry``. ::

    # setup.cfg:  [options.entry_points]
    #             openclaw_gateway.extensions = weather = weather.gateway:extend

    from openclaw_gateway.extension import Call, CallError, Registry, Request, Response, closed

    def extend(registry: Registry) -> None:
        registry.method("weather.now", now, scope="operator.read",
                        params=closed({"city": {"type": "string"}}, required=("city",)))
        registry.route("GET", "/weather/{city}", page, scope="operator.read")

    def now(call: Call) -> object:
        if call.params["city"] not in KNOWN:
            raise CallError("unknown city")
        return {"celsius": 21}

    def page(request: Request) -> Response:
        if request.parameters["city"] not in KNOWN:
            return Response(404, "unknown city\\n")
        return Response.json({"celsius": 21})

Each call of a method and each request of a route runs in a thread of its own, an ``async def`` on an
event loop of its own there: it may block, read files, ask other machines. It may raise, hang, or return too
much: its own call then fails, and no other. It has ``requestTimeoutMs`` for its answer; few calls of one
method run at once, and the rest are told to come back.

A request comes whole, a response goes whole: there is no streaming, and no WebSocket but the gateway's own.
"""

from __future__ import annotations

from openclaw_gateway.protocol.calls import Call, CallError
from openclaw_gateway.protocol.frames import ErrorCode
from openclaw_gateway.protocol.schema import closed
from openclaw_gateway.server.message import Request, Response
from openclaw_gateway.server.methods import Registry

__all__ = ["Call", "CallError", "ErrorCode", "Registry", "Request", "Response", "closed"]
