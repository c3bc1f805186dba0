"""Calls over WebSockets, each connection as fast as its answers come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

TOKEN = "the-token-of-the-benchmark"
SECONDS = 1.0
_CAP_S = 60.0
_UPGRADE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA


def _frame(opcode: int, payload: bytes) -> bytes:
    """Return one masked frame, RFC 6455 section 5.2; a mask of zeros leaves the payload as it is."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def _request(request_id: str, method: str, **fields: object) -> bytes:
    request = {"type": "req", "id": request_id, "method": method, **fields}
    return _frame(_TEXT, json.dumps(request, separators=(",", ":")).encode())


_HELLO = _request(
    "hello",
    "connect",
    params={
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": "test", "version": "1", "platform": "linux", "mode": "test"},
        "auth": {"token": TOKEN},
    },
)
_CALL = _request("call", "health")


class _Caller(asyncio.Protocol):
    """
    One connection that calls ``health`` again as soon as it has the answer.

    It costs as little as a client in Python can, so that the figure is the server's: the call is made
    once, and of what comes in only the frames' lengths and the answer's id are looked at.
    """

    def __init__(self, *, is_gateway: bool) -> None:
        self._is_gateway = is_gateway
        self._received = bytearray()
        self._upgraded = False
        self._until_s = 0.0
        loop = asyncio.get_running_loop()
        self.welcome, self.over = loop.create_future(), loop.create_future()
        self.taken_s: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        port = transport.get_extra_info("peername")[1]
        transport.write(_UPGRADE.format(port=port).encode())

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.welcome, self.over):
            if not future.done():
                future.set_exception(error or ConnectionError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._upgraded:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._upgraded, self._received = True, rest
            if self._is_gateway:
                self._transport.write(_HELLO)
            else:
                self.welcome.set_result(None)
        while (frame := self._next_frame()) is not None:
            self._hear(*frame)

    def _next_frame(self) -> tuple[int, bytes] | None:
        """Take one frame out of what was received; ``None`` if there is no whole one."""
        received = self._received
        if len(received) < 2:
            return None
        size, begin = received[1], 2
        if size >= 126:
            begin = 4 if size == 126 else 10
            if len(received) < begin:
                return None
            size = int.from_bytes(received[2:begin], "big")
        end = begin + size
        if len(received) < end:
            return None
        assert received[0] & 0x80, "a fragment"
        opcode, payload = received[0] & 0x0F, bytes(received[begin:end])
        del received[:end]
        return opcode, payload

    def _hear(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self._transport.write(_frame(_PONG, payload))
        elif opcode == _CLOSE:
            raise ConnectionError(f"closed by the server: {payload!r}")
        elif _answers(payload, b"call"):
            now_s = time.perf_counter()
            self.taken_s.append(now_s - self._began_s)
            if now_s < self._until_s:
                self._call()
            elif not self.over.done():
                self.over.set_result(None)
        elif _answers(payload, b"hello"):
            assert b'"ok":true' in payload.replace(b" ", b"")[:200], payload
            self.welcome.set_result(None)

    def call_until(self, until_s: float) -> None:
        """Begin, and call for the last time before ``until_s``, by ``perf_counter``."""
        self._until_s = until_s
        self._call()

    def _call(self) -> None:
        self._began_s = time.perf_counter()
        self._transport.write(_CALL)

    def close(self) -> None:
        self._transport.abort()


def _answers(payload: bytes, request_id: bytes) -> bool:
    """Whether this is the answer to a request, and not one of the events that come between."""
    return b'"id":"%b"' % request_id in payload or b'"id": "%b"' % request_id in payload


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
    loop = asyncio.get_running_loop()
    callers: list[_Caller] = []
    async with asyncio.timeout(_CAP_S):
        for _ in range(connections):
            _, caller = await loop.create_connection(
                lambda: _Caller(is_gateway=is_gateway), "127.0.0.1", port
            )
            await caller.welcome
            callers.append(caller)
        until_s = time.perf_counter() + SECONDS
        for caller in callers:
            caller.call_until(until_s)
        for caller in callers:
            await caller.over
    for caller in callers:
        caller.close()
    return [taken_s for caller in callers for taken_s in caller.taken_s]


def per_second(taken_s: list[float]) -> float:
    """Return how many of these calls were answered in a second."""
    return len(taken_s) / SECONDS


def percentile_ms(percent: int) -> Callable[[list[float]], float]:
    """Return what finds the milliseconds within which so many of a hundred calls were answered."""
    return lambda taken_s: taken_s[len(taken_s) * percent // 100] * 1000
