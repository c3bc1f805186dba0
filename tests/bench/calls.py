"""Calls over WebSockets, each connection as fast as its answers come."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp

TOKEN = "bench"
SECONDS = 1.0
_HELLO = {
    "type": "req",
    "id": "hello",
    "method": "connect",
    "params": {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": "test", "version": "1", "platform": "linux", "mode": "test"},
        "auth": {"token": TOKEN},
    },
}
_CALL = json.dumps({"type": "req", "id": "call", "method": "health"})


def latencies(port: int, *, connections: int, is_gateway: bool) -> list[float]:
    """
    Call ``health`` for a second, from this process.

    Args:
        port: Where a gateway, or something that sends everything back, listens.
        connections: How many at once.
        is_gateway: Whether to say hello first.

    Returns:
        How long each call took, in seconds, shortest first.
    """
    return sorted(asyncio.run(_load(port, connections, is_gateway)))


async def _load(port: int, connections: int, is_gateway: bool) -> list[float]:
    taken_s: list[float] = []

    async def ask(socket: aiohttp.ClientWebSocketResponse, until_s: float) -> None:
        while (began_s := time.perf_counter()) < until_s:
            await socket.send_str(_CALL)
            await _answer(socket, "call")
            taken_s.append(time.perf_counter() - began_s)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sockets = [await session.ws_connect(f"ws://127.0.0.1:{port}/") for _ in range(connections)]
        for socket in sockets if is_gateway else ():
            await socket.send_json(_HELLO)
            await _answer(socket, "hello")
        until_s = time.perf_counter() + SECONDS
        await asyncio.gather(*(ask(socket, until_s) for socket in sockets))
        for socket in sockets:
            await socket.close()
    return taken_s


async def _answer(socket: aiohttp.ClientWebSocketResponse, request_id: str) -> None:
    """Wait for it; events may come before."""
    marks = (f'"id":"{request_id}"', f'"id": "{request_id}"')
    while True:
        text = await socket.receive_str()
        if any(mark in text for mark in marks):
            return
