"""
A network that containers share: a switch, and a host's own network namespace at the end of each cable.

Each namespace is kept by a shell that waits on a pipe of ours, and goes with it, its interfaces included: nothing is
left behind, however we end. network_namespaces(7), veth(4).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Interface
from typing import Self

from testbed.sandbox import TestbedError

_SWITCH = "switch"
_INTERFACE = "eth0"
"""What a host calls its end of the cable."""


class Namespace:
    """A network namespace, for use in a ``with`` statement."""

    def __enter__(self) -> Self:
        # It says that it is in there by closing its output: what looks at it before would find ours.
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", "exec >&-; read -r _"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        self._keeper.stdout.read()
        self.ip("link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.communicate()

    @property
    def pid(self) -> int:
        """A process in it, which lasts as long as it does."""
        return self._keeper.pid

    @property
    def path(self) -> str:
        """The file that names it, on this host."""
        return f"/proc/{self.pid}/ns/net"

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words that start a program of this host in it."""
        return ("nsenter", f"--net={self.path}", "--")

    def ip(self, *words: str) -> None:
        """Run ip(8) in it."""
        done = subprocess.run(
            [*self.prefix, "ip", *words], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise TestbedError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """
    A switch with a cable to each host, for use in a ``with`` statement.

    What is plugged into it can reach each other, and nothing else: not this host either.
    """

    def __init__(self) -> None:
        if shutil.which("ip") is None:
            raise TestbedError("ip is not installed", hint="apt-get install iproute2")
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._switch = stack.enter_context(Namespace())
            self._switch.ip("link", "add", _SWITCH, "type", "bridge")
            self._switch.ip("link", "set", _SWITCH, "up")
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def host(self, name: str, address: IPv4Interface) -> Namespace:
        """Return a new host's namespace, which has this address; it lasts as long as the network."""
        made = self._resources.enter_context(Namespace())
        peer: Sequence[str] = ("peer", "name", _INTERFACE, "netns", str(made.pid))
        self._switch.ip("link", "add", name, "type", "veth", *peer)
        self._switch.ip("link", "set", name, "master", _SWITCH, "up")
        made.ip("address", "add", str(address), "dev", _INTERFACE)
        made.ip("link", "set", _INTERFACE, "up")
        return made

    def unplug(self, name: str) -> None:
        """Pull a host's cable out, as its own interface sees too."""
        self._switch.ip("link", "set", name, "down")

    def plug(self, name: str) -> None:
        """Put it back in."""
        self._switch.ip("link", "set", name, "up")
