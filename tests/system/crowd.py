"""
Clients that keep connections open until they are killed; run inside a machine as a service.

usage: crowd.py ADDRESS PORT COUNT KIND...

    idle      completes the handshake, reads, says nothing, answers a close frame
    mute      completes the handshake and never reads again
    half      sends half a request, and no more
"""

from __future__ import annotations

import asyncio
import sys

import websockets
from systemd.daemon import notify

_UPGRADE = (
    "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


async def _read(address: str, port: str, greeted: asyncio.Event) -> None:
    async with websockets.connect(f"ws://{address}:{port}/") as socket:
        greeted.set()
        async for _ in socket:
            pass


async def main(address: str, port: str, count: str, *kinds: str) -> None:
    """Open ``count`` connections of each kind, say so to systemd, and keep them."""
    kept: list[object] = []
    for _ in range(int(count)):
        for kind in kinds:
            if kind == "idle":
                greeted = asyncio.Event()
                kept.append(asyncio.create_task(_read(address, port, greeted)))
                await greeted.wait()
                continue
            reader, writer = await asyncio.open_connection(address, int(port))
            kept.append((reader, writer))
            request = _UPGRADE.format(address).encode()
            writer.write(request if kind == "mute" else request[: len(request) // 2])
            if kind == "mute":
                await reader.readuntil(b"\r\n\r\n")
    notify("READY=1")
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
