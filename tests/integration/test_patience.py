"""How long a peer is waited for, on real sockets: each wait has an end, and who does his part meets none of them."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from conftest import CAP_S
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.client.frames import Frame, Opcode
from openclaw_gateway.server.connection import PATIENCE, Patience
from wire import admitted, in_process, run

_SHORT_S = 0.2
_MUCH_BYTES = 8 << 20
"""More than the kernel's buffers of both sides and ours hold together."""
_REQUEST = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def serving(port: int, state_dir: Path, patience: Patience) -> AsyncIterator[None]:
    async with in_process(port, state_dir, [], patience=patience) as server:
        server.phase = Phase.READY
        yield


async def reset(client: socket.socket) -> bool:
    """Wait, reading nothing, until the other side has dropped the connection; whether it has."""
    waiting = select.poll()
    waiting.register(client, 0)  # errors and hang-ups are told in any case
    return bool(await asyncio.to_thread(waiting.poll, CAP_S * 1000))


async def dropped(reader: asyncio.StreamReader) -> bytes:
    """Wait, answering nothing, until the other side has ended the connection; return what it said."""
    said = b""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            said += data
    return said


def narrow_client(port: int) -> socket.socket:
    """Connect with buffers as small as the kernel makes them."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


async def ask_much(client: socket.socket, *, until_stuck: bool) -> int:
    """Ask more than the answers to which are read; return the bytes that went out."""
    sent = 0
    piece = _REQUEST * 256
    while sent < _MUCH_BYTES:
        sending = asyncio.get_running_loop().sock_sendall(client, piece)
        try:
            await asyncio.wait_for(sending, 5 * _SHORT_S if until_stuck else CAP_S)
        except (TimeoutError, ConnectionError):
            return sent
        sent += len(piece)
    return sent


def test_who_reads_none_of_the_answers_is_dropped(port: int, state_dir: Path) -> None:
    async def visit() -> None:
        patience = PATIENCE._replace(stalled_s=_SHORT_S)
        async with serving(port, state_dir, patience):
            with narrow_client(port) as client:
                assert await ask_much(client, until_stuck=True) < _MUCH_BYTES
                assert await reset(client)

    run(visit())


def test_who_reads_the_answers_gets_all_of_them_however_many(port: int, state_dir: Path) -> None:
    """The last one is as long as the first: the same bytes, but for the date."""

    async def visit() -> None:
        patience = PATIENCE._replace(stalled_s=5.0)
        count = 20_000
        async with serving(port, state_dir, patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_REQUEST * count)
            for _ in range(count):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 404 ")
                assert await reader.readexactly(len(b"not found\n")) == b"not found\n"
            writer.close()

    run(visit())


def test_connection_that_idles_between_two_requests_is_closed(port: int, state_dir: Path) -> None:
    async def visit() -> None:
        async with serving(port, state_dir, PATIENCE._replace(keepalive_s=_SHORT_S)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_REQUEST * 2)
            said = await reader.read()
            assert said.count(b"HTTP/1.1 404 ") == 2 and b"close" not in said
            writer.close()

    run(visit())


def test_silent_websocket_that_answers_no_ping_is_dropped(port: int, state_dir: Path) -> None:
    async def visit() -> None:
        async with (
            serving(port, state_dir, PATIENCE._replace(ping_s=_SHORT_S)),
            admitted(port) as wire,
        ):
            assert Frame(Opcode.PING, b"").serialize(mask=False) in await dropped(
                wire.socket.reader
            )

    run(visit())


def test_silent_websocket_that_answers_pings_stays(port: int, state_dir: Path) -> None:
    async def visit() -> None:
        async with (
            serving(port, state_dir, PATIENCE._replace(ping_s=1.0)),
            admitted(port) as wire,
        ):
            pings = 0
            while pings < 3:
                data = await wire.socket.reader.read(65536)
                assert data, "dropped"
                pings += data.count(Frame(Opcode.PING, b"").serialize(mask=False))
                if pings:
                    wire.socket.writer.write(Frame(Opcode.PONG, b"").serialize(mask=True))
            assert (await wire.call("health"))["ok"]

    run(visit())


def test_websocket_that_does_not_answer_our_goodbye_is_dropped(port: int, state_dir: Path) -> None:
    async def visit() -> None:
        async with (
            serving(port, state_dir, PATIENCE._replace(goodbye_s=_SHORT_S)),
            admitted(port) as wire,
        ):
            binary = Frame(Opcode.BINARY, b"x").serialize(mask=True)
            wire.socket.writer.write(binary)
            goodbye = await dropped(wire.socket.reader)
            assert goodbye[0] == 0x80 | Opcode.CLOSE

    run(visit())
