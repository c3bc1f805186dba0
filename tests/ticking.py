"""
A program for a guard to guard, which leaves a trace of every moment in which it serves.

ticking.py PORT TRACE [deaf]

It answers OpenClaw's health routes on PORT, and appends "<CLOCK_MONOTONIC in ns> <fencing token> <pid>" to TRACE some
hundred times a second, until SIGTERM; that it ignores if it is deaf.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EVERY_S = 0.005


class _Routes(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = b"started" if self.path == "/startupz" else b"live"
        body = b'{"ok":true,"status":"%s"}' % status
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        pass


def main() -> None:
    port, trace, *words = sys.argv[1:]
    stopping = threading.Event()
    deaf = "deaf" in words
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: stopping.set())
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), _Routes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    token, pid = os.environ["OPENCLAW_FENCING_TOKEN"], os.getpid()
    with open(trace, "ab", buffering=0) as file:
        while not stopping.wait(EVERY_S):
            file.write(b"%d %s %d\n" % (time.monotonic_ns(), token.encode(), pid))
    os._exit(0)


if __name__ == "__main__":
    main()
