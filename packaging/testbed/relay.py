"""Pass connections on: accepted in one network, made in another. ``Container.forwarded`` runs it there.

A socket belongs to the network that it was made in, whoever accepts from it: the listener is inherited
from the host, and what is connected from here is the container's. network_namespaces(7).
"""

from __future__ import annotations

import asyncio
import socket
import sys


async def relay(listener: socket.socket, port: int) -> None:
    """Pass each connection on to a port of our own loopback, until killed."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    server = await asyncio.start_server(pass_on, sock=listener)
    await server.serve_forever()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass  # the other direction's pump is told by its own end
    sink.close()


if __name__ == "__main__":
    asyncio.run(relay(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
