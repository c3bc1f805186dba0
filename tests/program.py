"""
A small program with health routes, for a guard to guard: it listens, answers, and goes as it is told.

It is run as a script, and told what to do by words on its command line and, once it runs, by the
lines of a FIFO::

    program.py PORT FIFO [WORD]...

``deaf`` do not listen; ``starting`` answer 503 until ``started``; ``elsewhere N`` listen on port N
instead; ``fork`` serve from a grandchild and end; ``launch`` serve from a child and wait for it;
``stubborn`` ignore SIGTERM. From the FIFO: ``listen``, ``started``, ``unlisten``, ``mute``, ``speak``,
``exit N``, ``say TEXT`` (on standard output).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress

LIVE = b'{"ok":true,"status":"live"}'
STARTED = b'{"ok":true,"status":"started"}'
STARTING = b'{"ok":false,"status":"starting"}'


class Program:
    """What it serves, and how it does it just now."""

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        self.host, self.port = host, port
        self.started = True
        self.mute = False
        self.listener: socket.socket | None = None

    def listen(self) -> None:
        self.listener = socket.create_server((self.host, self.port), backlog=64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def unlisten(self) -> None:
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if not self.mute:
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):  # who asked may have gone meanwhile
            path = client.recv(65536).split(b" ")[1]
            status, body = b"404 Not Found", b""
            if path in (b"/healthz", b"/startupz"):
                said = LIVE if path == b"/healthz" else STARTED
                status, body = (b"200 OK", said) if self.started else (b"503 Wait", STARTING)
            client.sendall(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
            client.sendall(body)


def main() -> None:
    port, fifo, words = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if "stubborn" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if "fork" in words and os.fork():
        return
    if "launch" in words and (child := os.fork()):
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    if "elsewhere" in words:
        port = int(words[words.index("elsewhere") + 1])
    program = Program(port)
    program.started = "starting" not in words
    if "deaf" not in words:
        program.listen()
    while True:
        with open(fifo, encoding="utf-8") as told:
            for line in told:
                match line.split():
                    case ["listen"]:
                        program.listen()
                    case ["unlisten"]:
                        program.unlisten()
                    case ["started"]:
                        program.started = True
                    case ["mute"]:
                        program.mute = True
                    case ["speak"]:
                        program.mute = False
                    case ["exit", code]:
                        os._exit(int(code))
                    case ["say", text]:
                        print(text, flush=True)


if __name__ == "__main__":
    main()
