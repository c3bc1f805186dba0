"""
Clients that ask for the gateway's health in a loop, each time over a new connection, until SIGTERM.

usage: load.py PORT FILE

FILE then has, as JSON: connections tried, refused, answered, cut in flight, and the seconds
that the slowest answer took, its connect included.
Half of the clients come over IPv4, half over IPv6.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections import Counter

from systemd.daemon import notify

_CLIENTS = 8
_TIMEOUT_S = 60.0
_PAUSE_S = 0.002
"""Or eight busy loops are all that the machine does."""
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ask(host: str, port: int, counts: Counter[str]) -> float:
    """Ask once; count how it ended, and return the seconds that it took."""
    counts["tried"] += 1
    began_s = time.monotonic()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(_TIMEOUT_S)
        try:
            client.connect((host, port))
        except ConnectionRefusedError:
            counts["refused"] += 1
            return 0.0
        try:
            client.sendall(_REQUEST)
            answer = b""
            while chunk := client.recv(4096):
                answer += chunk
        except ConnectionError:
            answer = b""
        counts["answered" if answer.startswith(b"HTTP/1.1 200 ") else "cut"] += 1
        return time.monotonic() - began_s


def main(port: int, path: str) -> None:
    stop = threading.Event()
    counts = [Counter[str]() for _ in range(_CLIENTS)]
    slowest_s = [0.0] * _CLIENTS

    def loop(number: int) -> None:
        host = ("127.0.0.1", "::1")[number % 2]
        while not stop.is_set():
            slowest_s[number] = max(slowest_s[number], ask(host, port, counts[number]))
            time.sleep(_PAUSE_S)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    clients = [threading.Thread(target=loop, args=(number,)) for number in range(_CLIENTS)]
    for client in clients:
        client.start()
    notify("READY=1")
    signal.sigwait([signal.SIGTERM])
    stop.set()
    for client in clients:
        client.join()
    total = sum(counts, Counter[str]())
    names = ("tried", "refused", "answered", "cut")
    told = {name: total[name] for name in names} | {"slowest_s": max(slowest_s)}
    with open(path, "w") as file:
        json.dump(told, file)


main(int(sys.argv[1]), sys.argv[2])
