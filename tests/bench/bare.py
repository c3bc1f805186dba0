"""What a gateway can't be cheaper than: a bare interpreter, its imports, a bare server on the same libraries.

    bare.py <imports>|serve <port>

A server answers every request as /healthz is answered, by h11, and sends back whatever comes over a
WebSocket, by the core of websockets. It has no limits, no checks and no back-pressure.

Says ``READY=1`` to ``NOTIFY_SOCKET`` when it is done, and waits for SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys

_LIVE = b'{"ok":true,"status":"live"}'


def ready() -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def serve(port: int) -> None:
    import asyncio

    import h11
    from websockets.frames import Opcode
    from websockets.http11 import Request
    from websockets.server import ServerProtocol

    class Connection(asyncio.Protocol):
        """HTTP until someone upgrades, then an echo."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self._transport = transport
            self._http = h11.Connection(h11.SERVER)
            self._websocket: ServerProtocol | None = None

        def data_received(self, data: bytes) -> None:
            if self._websocket is None and b"\r\nUpgrade: websocket\r\n" in data:
                self._websocket = ServerProtocol()
            if self._websocket is None:
                self._answer(data)
            else:
                self._echo(self._websocket, data)

        def _answer(self, data: bytes) -> None:
            self._http.receive_data(data)
            while True:
                match self._http.next_event():
                    case h11.EndOfMessage():
                        headers = [("Content-Type", "application/json")]
                        headers += [("Content-Length", str(len(_LIVE)))]
                        head = self._http.send(h11.Response(status_code=200, headers=headers))
                        body = self._http.send(h11.Data(data=_LIVE))
                        end = self._http.send(h11.EndOfMessage())
                        self._transport.write(b"".join(filter(None, (head, body, end))))
                        self._http.start_next_cycle()
                    case h11.Request():
                        continue
                    case h11.ConnectionClosed():
                        self._transport.close()
                        return
                    case _:
                        return

        def _echo(self, websocket: ServerProtocol, data: bytes) -> None:
            websocket.receive_data(data)
            for event in websocket.events_received():
                if isinstance(event, Request):
                    websocket.send_response(websocket.accept(event))
                elif event.opcode is Opcode.TEXT:
                    websocket.send_text(event.data)
            for part in websocket.data_to_send():
                if part:
                    self._transport.write(part)
                else:
                    self._transport.close()

    async def run() -> None:
        await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
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
