"""A bare client of the protocol, for what the official client is too well behaved to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from conftest import CAP_S, TOKEN
from official import assert_valid_frame


def run(visit: Coroutine[Any, Any, Any]) -> Any:
    """Run a visit to the gateway to its end, within a generous cap."""

    async def bounded() -> Any:
        async with asyncio.timeout(CAP_S):
            return await visit

    return asyncio.run(bounded())


class Wire:
    """One WebSocket; every frame that comes in is checked against the official schema."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self._asked: dict[str, str] = {}
        self._answers: dict[str, dict[str, Any]] = {}

    async def frame(self) -> dict[str, Any] | None:
        """Return the next frame, ``None`` if the gateway closed."""
        message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            return None
        method = self._asked.get(json.loads(message.data).get("id", ""), "")
        return assert_valid_frame(message.data, method=method)

    async def event(self, name: str) -> dict[str, Any]:
        """Return the next event of this name."""
        while True:
            frame = await self.frame()
            assert frame is not None, f"closed with {self.socket.close_code} before {name}"
            if frame.get("event") == name:
                return frame

    async def send(self, method: str, params: object = None, *, id: str = "1") -> None:
        self._asked[id] = method
        request: dict[str, object] = {"type": "req", "id": id, "method": method}
        await self.socket.send_json(request if params is None else {**request, "params": params})

    async def answer(self, id: str = "1") -> dict[str, Any]:
        """Return the answer to a request; events that come before it are kept in ``events``."""
        while id not in self._answers:
            frame = await self.frame()
            assert frame is not None, f"closed with {self.socket.close_code} before the answer"
            if frame["type"] == "event":
                self.events.append(frame)
            else:
                self._answers[frame["id"]] = frame
        return self._answers.pop(id)

    async def call(self, method: str, params: object = None, *, id: str = "1") -> dict[str, Any]:
        await self.send(method, params, id=id)
        return await self.answer(id)

    async def connect(
        self, *scopes: str, token: str | None = TOKEN, **changes: Any
    ) -> dict[str, Any]:
        client = {"id": "test", "version": "1", "platform": "linux", "mode": "test"}
        params = {"minProtocol": 4, "maxProtocol": 4, "client": client, "scopes": list(scopes)}
        auth = {} if token is None else {"auth": {"token": token}}
        return await self.call("connect", {**params, **auth, **changes}, id="c")

    async def closed(self) -> int | None:
        """Wait for the end, and return the close code."""
        while await self.frame() is not None:
            pass
        return self.socket.close_code


@asynccontextmanager
async def dialled(port: int, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Wire]:
    """Open a WebSocket, past the challenge."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://{host}:{port}/", max_msg_size=1 << 28, **options) as socket,
    ):
        wire = Wire(socket)
        await wire.event("connect.challenge")
        yield wire


@asynccontextmanager
async def admitted(port: int, *scopes: str, **options: Any) -> AsyncIterator[Wire]:
    """Open a WebSocket, past the hello."""
    async with dialled(port, **options) as wire:
        hello = await wire.connect(*(scopes or ("operator.admin",)))
        assert hello["ok"], hello
        yield wire
