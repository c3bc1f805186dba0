"""The manual's load balancer in front of a cluster: clients reach the active gateway, whichever that is."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import etcd
from conftest import CAP_S, TOKEN, Daemon, clean_environ, free_port
from openclaw_gateway.host.address import is_loopback
from openclaw_gateway.host.interfaces import own_ipv4
from wire import RefusedUpgrade, Wire, admitted, run

EXAMPLES = Path(__file__).parents[2] / "debian/examples/cluster"


def tool(name: str) -> str:
    """Return where a program is, or leave the test out as those with etcd are."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    return found or etcd.leave_out(f"apt-get install {name}")


@pytest.mark.skipif(os.geteuid() != 0, reason="as another account haproxy can't take its user's")
def test_haproxy_takes_the_example_as_it_stands() -> None:
    said = subprocess.run(
        [tool("haproxy"), "-c", "-f", EXAMPLES / "haproxy.cfg"],
        capture_output=True, text=True, check=False, timeout=CAP_S,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "WARNING" not in said.stderr


def test_keepalived_takes_the_example(tmp_path: Path) -> None:
    """But for the interface, which has to be one that there is."""
    if os.geteuid() != 0:
        pytest.skip("needs root: keepalived looks at interfaces")
    names = [name for name in os.listdir("/sys/class/net") if name != "lo"]
    if not names:
        pytest.skip("needs an interface beside lo")
    here = tmp_path / "keepalived.conf"
    text = (EXAMPLES / "keepalived.conf").read_text()
    here.write_text(text.replace("eth0", names[0]))
    command = [tool("keepalived"), "--config-test", "--use-file", str(here)]

    def complaints() -> str:
        # It ends with a signal to its process group where it was not started by init.
        said = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=CAP_S,
            start_new_session=True,
        )  # fmt: skip
        return said.stdout + said.stderr

    script = r"\(.*keepalived.conf: Line \d+\).*|.*[Uu]nknown.*"
    assert re.findall(script, complaints()) == []
    here.write_text(here.read_text().replace("interval 1", "intervall 1"))
    assert re.findall(script, complaints()) != []


class Host:
    """A gateway behind the balancer, with settings as on a machine of its own."""

    def __init__(self, folder: Path, name: str, nodes: etcd.Nodes) -> None:
        self.port = free_port()
        self.state_dir = folder / name
        self.state_dir.mkdir()
        own = (EXAMPLES / "openclaw-gateway.json").read_text()
        own = re.sub(r'"endpoints": \[.*?\]', f'"endpoints": {json.dumps(nodes.urls)}', own)
        # A lease that a test can wait for, and tell from nothing happening.
        times = '"leaseMs": 3000, "renewDeadlineMs": 2000, "retryMs": 400'
        own = own.replace('"name": "home"', f'"name": "{folder.name}", {times}')
        (self.state_dir / "openclaw-gateway.json").write_text(own)
        settings = (EXAMPLES / "openclaw.json").read_text().replace("192.0.2.10", "127.0.0.1")
        (self.state_dir / "openclaw.json").write_text(settings.replace('"lan"', '"loopback"'))
        self.daemon = self.start()

    def start(self) -> Daemon:
        environ = clean_environ(
            OPENCLAW_GATEWAY_PORT=str(self.port),
            OPENCLAW_STATE_DIR=str(self.state_dir),
            OPENCLAW_GATEWAY_TOKEN=TOKEN,
        )
        return Daemon("run", environ=environ)


@contextmanager
def balanced(folder: Path, hosts: list[Host]) -> Iterator[int]:
    """Run HAProxy with the example's settings before these, and yield the port where clients come in."""
    port = free_port()
    text = (EXAMPLES / "haproxy.cfg").read_text().replace("bind :18789", f"bind :{port}")
    text = re.sub(r"    (user|group) haproxy\n|    log .*\n", "", text)
    text = re.sub(r"    server .*\n", "", text)
    servers = (f"    server s{n} 127.0.0.1:{host.port} check\n" for n, host in enumerate(hosts))
    (folder / "haproxy.cfg").write_text(text + "".join(servers))
    process = subprocess.Popen(
        [tool("haproxy"), "-db", "-f", folder / "haproxy.cfg"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield port
    finally:
        process.kill()
        process.wait(CAP_S)


def address() -> str:
    """Return an address of this machine that is not its loopback's: who comes from there is nobody's client."""
    found = [one for one in own_ipv4() if not is_loopback(one)]
    if not found:
        pytest.skip("needs an address beside loopback's, to come from through a trusted proxy")
    return found[0]


@asynccontextmanager
async def client(port: int) -> AsyncIterator[tuple[Wire, int]]:
    """
    Come in through the balancer as soon as anybody serves; yield the connection, and the fencing token.

    A balancer takes every server for a good one until it has asked, and for some seconds after the
    last good answer: clients that come meanwhile are turned away, and come again.
    """
    deadline_s = time.monotonic() + CAP_S
    async with AsyncExitStack() as stack:
        while True:
            try:
                wire = await stack.enter_async_context(
                    admitted(port, "operator.read", host=address())
                )
                break
            except (ConnectionError, RefusedUpgrade) as error:
                assert time.monotonic() < deadline_s, error
                await asyncio.sleep(0.1)
        token = (await wire.call("status"))["payload"]["cluster"]["token"]
        yield wire, int(token)


def test_clients_find_the_active_gateway_and_the_next_one(tmp_path: Path) -> None:
    tool("haproxy")
    with etcd.running(tmp_path / "etcd") as nodes:
        first = Host(tmp_path, "gw-a", nodes)
        first.daemon.wait_for("active (token")
        second = Host(tmp_path, "gw-b", nodes)
        second.daemon.wait_for("is active (token")
        try:
            with balanced(tmp_path, [first, second]) as port:

                async def visit() -> None:
                    async with client(port) as (wire, before):
                        first.daemon.signal(signal.SIGKILL)
                        # Its connection ends, and is not left hanging at a host that is gone.
                        await wire.closed()
                    async with client(port) as (_, taken_over):
                        assert taken_over > before
                    # Back again, it is the standby, and nobody is sent there.
                    first.daemon.finish()
                    first.daemon = first.start()
                    first.daemon.wait_for("is active (token")
                    async with client(port) as (wire, token):
                        assert token == taken_over
                        second.daemon.signal(signal.SIGTERM)
                        assert (await wire.event("shutdown"))["payload"]
                    async with client(port) as (_, token):
                        assert token > taken_over

                run(visit())
        finally:
            for host in (first, second):
                if host.daemon.process.poll() is None:
                    host.daemon.kill()
