"""What a gateway can't be cheaper than: a bare interpreter, its imports, bare aiohttp routes.

    bare.py <imports>|serve <port>

A server answers /healthz, and sends back whatever comes over a WebSocket to /.

Says ``READY=1`` to ``NOTIFY_SOCKET`` when it is done, and waits for SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys


def ready() -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def serve(port: int) -> None:
    import asyncio

    from aiohttp import web

    async def live(_: web.Request) -> web.Response:
        return web.Response(body=b'{"ok":true,"status":"live"}', content_type="application/json")

    async def echo(request: web.Request) -> web.WebSocketResponse:
        client = web.WebSocketResponse(compress=False)
        await client.prepare(request)
        async for message in client:
            await client.send_str(message.data)
        return client

    async def run() -> None:
        application = web.Application()
        application.router.add_get("/", echo)
        application.router.add_get("/healthz", live)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready()
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        for module in filter(None, sys.argv[1].split(",")):
            __import__(module)
        ready()
        signal.pause()
