"""A bare client of the protocol, for what the official client is too well behaved to do."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from given import CAP_S, TOKEN
from official import assert_valid_frame
from openclaw_gateway.claim.listener import listen
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.client.frames import Core, Opcode, Side, State
from openclaw_gateway.server.connection import PATIENCE, Patience
from openclaw_gateway.server.http import Server
from openclaw_gateway.settings.load import load
from openclaw_gateway.supervisor.events import Priority
from openclaw_gateway.supervisor.journal import PlainJournal


def run(visit: Coroutine[Any, Any, Any]) -> Any:
    """Run a visit to the gateway to its end, within a generous cap."""

    async def bounded() -> Any:
        async with asyncio.timeout(CAP_S):
            return await visit

    return asyncio.run(bounded())


class RefusedUpgrade(Exception):
    """The gateway answered an upgrade with something else."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


class Socket:
    """A client's WebSocket: websockets' core over a stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._core = Core(Side.CLIENT, state=State.OPEN, max_size=1 << 28)
        self._messages: list[bytes] = []
        self._parts = b""
        self._eof = False

    @property
    def close_code(self) -> int | None:
        """The gateway's, once it has said goodbye."""
        return self._core.close_rcvd.code if self._core.close_rcvd else None

    @property
    def raw(self) -> Any:
        return self.writer.get_extra_info("socket")

    async def _flush(self) -> None:
        for piece in self._core.data_to_send():
            if piece:
                self.writer.write(piece)
        with suppress(ConnectionError):
            await self.writer.drain()

    async def send_str(self, text: str) -> None:
        self._core.send_text(text.encode())
        await self._flush()

    async def send_bytes(self, data: bytes) -> None:
        self._core.send_binary(data)
        await self._flush()

    async def receive(self) -> bytes | None:
        """Return the next message, ``None`` once there is none any more."""
        while not self._messages and not self._eof:
            try:
                data = await self.reader.read(65536)
            except ConnectionError:
                data = b""
            if not data:
                self._eof = True
                break
            self._core.receive_data(data)
            for frame in self._core.events_received():
                if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    self._parts += bytes(frame.data)
                    if frame.fin:
                        self._messages.append(self._parts)
                        self._parts = b""
            await self._flush()
        return self._messages.pop(0) if self._messages else None

    async def close(self) -> None:
        if self._core.state is State.OPEN and not self._eof:
            self._core.send_close(1000)
            await self._flush()
        while not self._eof:
            await self.receive()
            self._messages.clear()
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class Wire:
    """One WebSocket; every frame that comes in is checked against the official schema."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self._asked: dict[str, str] = {}
        self._answers: dict[str, dict[str, Any]] = {}

    async def frame(self) -> dict[str, Any] | None:
        """Return the next frame, ``None`` if the gateway closed."""
        message = await self.socket.receive()
        if message is None:
            return None
        method = self._asked.get(json.loads(message).get("id", ""), "")
        return assert_valid_frame(message.decode(), method=method)

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
        if params is not None:
            request["params"] = params
        await self.socket.send_str(json.dumps(request))

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
async def upgraded(
    port: int, host: str = "127.0.0.1", *, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Socket]:
    """Open a WebSocket. Raises ``RefusedUpgrade`` if the gateway has another answer."""
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    try:
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "Host": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
            **(headers or {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            raise RefusedUpgrade(0, "") from None
        status = int(head.split()[1])
        if status != 101:
            # A proxy in between may keep the connection open after the answer.
            length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
            body = await (reader.readexactly(int(length[1])) if length else reader.read())
            raise RefusedUpgrade(status, body.decode())
        socket = Socket(reader, writer)
        try:
            yield socket
        finally:
            await socket.close()
    finally:
        writer.close()


@asynccontextmanager
async def dialled(port: int, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Wire]:
    """Open a WebSocket, past the challenge."""
    async with upgraded(port, host, **options) as socket:
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


@asynccontextmanager
async def in_process(
    port: int, state_dir: Path, failing: list[str], *, patience: Patience = PATIENCE
) -> AsyncIterator[Server]:
    """Serve from this very process, so that what fails, the phase and the patience are ours to say."""
    environ = {"OPENCLAW_STATE_DIR": str(state_dir), "OPENCLAW_GATEWAY_TOKEN": TOKEN}
    settings = load({"--port": str(port)}, environ)
    server = Server(
        settings,
        LockRecord(os.getpid(), port),
        PlainJournal(Priority.CRIT),
        failing=lambda: list(failing),
        patience=patience,
    )
    listener = listen("127.0.0.1", port)
    await server.start([listener], close=listener.close)
    try:
        yield server
    finally:
        await server.stop(hurry=asyncio.Event())
