"""The pump between aiohttp's WebSockets and sessions."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

from aiohttp import WSMsgType, web

from openclaw_gateway.server.session import SERVICE_RESTART, Close, Effect, Send, Session

_CLOSE_TIMEOUT_S = 2.0
"""Seconds that a client has to answer our close frame."""


class Clients:
    """Every WebSocket that is open."""

    def __init__(self) -> None:
        self._open: set[web.WebSocketResponse] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Upgrade one request and see its session through."""
        socket = web.WebSocketResponse(timeout=_CLOSE_TIMEOUT_S, max_msg_size=64 << 10)
        await socket.prepare(request)
        self._open.add(socket)
        session = Session()
        try:
            await _apply(socket, session.open(nonce=str(uuid4()), now_ms=int(time.time() * 1000)))
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await _apply(socket, session.receive(message.data))
                else:
                    await socket.close(code=1003, message=b"text frames only")
        finally:
            self._open.discard(socket)
        return socket

    async def close_all(self) -> None:
        """Tell every client that the service restarts; a mute one holds us up for 2 s at most."""
        await asyncio.gather(
            *(
                socket.close(code=SERVICE_RESTART, message=b"service restart")
                for socket in self._open
            ),
            return_exceptions=True,
        )


async def _apply(socket: web.WebSocketResponse, effects: list[Effect]) -> None:
    for effect in effects:
        match effect:
            case Send(text):
                await socket.send_str(text)
            case Close(code, reason):
                await socket.close(code=code, message=reason.encode())
