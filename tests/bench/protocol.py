"""
Requests per second and latency of ``health``, beside a bare aiohttp echo in the same run.

    python tests/bench/protocol.py [--seconds 5] [--connections 1 100]

Prints one JSON object. The load comes from one process with aiohttp's client, so the numbers are of both
sides together; what tells is the ratio of the two servers under the same load. Rounds alternate between
the servers, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import clean_environ, free_port
from openclaw_gateway.claim.listener import listening

TOKEN = "bench"
ROUNDS = 3
CONNECT = {
    "minProtocol": 4,
    "maxProtocol": 4,
    "client": {"id": "test", "version": "1", "platform": "linux", "mode": "test"},
    "auth": {"token": TOKEN},
}


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


def serve_echo(port: int) -> None:
    application = web.Application()
    application.router.add_get("/", echo)
    web.run_app(application, host="127.0.0.1", port=port, print=lambda _: None, access_log=None)


@contextmanager
def running(command: list[str], port: int, environ: dict[str, str]) -> Iterator[int]:
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    try:
        while not listening(port):
            if process.poll() is not None:
                raise SystemExit(f"ended at once: {' '.join(command)}")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


async def load(port: int, connections: int, seconds: float, *, handshake: bool) -> list[float]:
    """Ask as fast as the answers come, on each connection; return every latency in seconds."""
    latencies: list[float] = []
    request = json.dumps({"type": "req", "id": "1", "method": "health"})

    async def ask(socket: aiohttp.ClientWebSocketResponse, until_s: float) -> None:
        while (began_s := time.perf_counter()) < until_s:
            await socket.send_str(request)
            while '"id":"1"' not in (await socket.receive_str()).replace(" ", ""):
                pass
            latencies.append(time.perf_counter() - began_s)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sockets = [await session.ws_connect(f"ws://127.0.0.1:{port}/") for _ in range(connections)]
        if handshake:
            connect = {"type": "req", "id": "c", "method": "connect", "params": CONNECT}
            for socket in sockets:
                await socket.send_json(connect)
                while '"hello-ok"' not in await socket.receive_str():
                    pass
        until_s = time.perf_counter() + seconds
        await asyncio.gather(*(ask(socket, until_s) for socket in sockets))
        for socket in sockets:
            await socket.close()
    return latencies


def summary(rounds: list[list[float]], seconds: float) -> dict[str, float]:
    everything = sorted(latency for latencies in rounds for latency in latencies)
    return {
        "requests_per_second": round(
            statistics.median(len(latencies) / seconds for latencies in rounds)
        ),
        "p50_ms": round(everything[len(everything) // 2] * 1000, 3),
        "p99_ms": round(everything[len(everything) * 99 // 100] * 1000, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="of one round")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--serve-echo", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_echo:
        serve_echo(arguments.serve_echo)
        return
    gateway_port, echo_port = free_port(), free_port()
    results: dict[str, dict[str, dict[str, float]]] = {}
    with ExitStack() as stack:
        state_dir = stack.enter_context(tempfile.TemporaryDirectory())
        limits = {"requestsPerSecond": 1_000_000}
        Path(state_dir, "openclaw.json").write_text(json.dumps({"gateway": {"limits": limits}}))
        environ = clean_environ(OPENCLAW_STATE_DIR=state_dir, OPENCLAW_GATEWAY_TOKEN=TOKEN)
        gateway = [sys.executable, "-m", "openclaw_gateway", "run", "--port", str(gateway_port)]
        bare = [sys.executable, __file__, "--serve-echo", str(echo_port)]
        stack.enter_context(running(gateway, gateway_port, environ))
        stack.enter_context(running(bare, echo_port, dict(os.environ)))
        for connections in arguments.connections:
            rounds: dict[str, list[list[float]]] = {"gateway": [], "echo": []}
            for _ in range(ROUNDS):
                for name, port in (("gateway", gateway_port), ("echo", echo_port)):
                    visit = load(port, connections, arguments.seconds, handshake=name == "gateway")
                    rounds[name].append(asyncio.run(visit))
            results[str(connections)] = {
                name: summary(of, arguments.seconds) for name, of in rounds.items()
            }
    about = {
        "python": platform.python_version(),
        "aiohttp": aiohttp.__version__,
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "seconds_per_round": arguments.seconds,
        "rounds": ROUNDS,
    }
    print(json.dumps({"about": about, "connections": results}, indent=2))


if __name__ == "__main__":
    main()
