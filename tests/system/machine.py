"""A booted Debian with the package in it, and the units of it that a test starts there."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openclaw_gateway.supervisor.events import Event
from testbed import package
from testbed.container import CommandError, Container

CAP_S = 120.0
"""A generous cap on anything that should take seconds; never a measurement."""

LIVE = '{"ok":true,"status":"live"}'
SERVICE = "openclaw-gateway.service"
PORT = 18789

_GET = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode(), end="")
"""

Entry = dict[str, Any]
"""A journal entry, field name to text."""


class Machine(Container):
    """A booted release, and what one says to its systemd and journald."""

    def systemctl(self, *arguments: str, check: bool = True) -> int:
        """Return the exit status; by default raise if it is not 0."""
        return self.run(["systemctl", *arguments], check=check, timeout_s=CAP_S).returncode

    def journal(self, *matches: str) -> list[Entry]:
        """Return the entries that ``journalctl`` selects with these arguments, oldest first."""
        self.run(["journalctl", "--sync"])
        said = self.run(["journalctl", "--all", "--output=json", "--quiet", *matches]).stdout
        return [json.loads(line) for line in said.splitlines()]

    def get(self, path: str, *, port: int = PORT) -> str:
        """Return the body of a 200 answer; raise ``CommandError`` for any other or none."""
        return self.run(["python3", "-c", _GET, f"http://127.0.0.1:{port}{path}"]).stdout

    def is_live(self, port: int = PORT) -> bool:
        """Whether a gateway answers on that port as a healthy one must."""
        try:
            return self.get("/healthz", port=port) == LIVE
        except CommandError:
            return False

    def until(self, script: str, *, cap_s: float = CAP_S) -> None:
        """Wait until a shell script succeeds: there is no event for what these look at."""
        try:
            self.run(f"until {{ {script}; }}; do sleep 0.25; done", timeout_s=cap_s)
        except CommandError as error:
            latest = self.run(["journalctl", "--lines=50", "--output=short-monotonic"]).stdout
            error.add_note(latest)
            raise

    def unit(self, name: str = SERVICE) -> Unit:
        return Unit(self, name)

    def profile(
        self, name: str, *, drop_in: str = "", start: bool = True, **gateway: object
    ) -> Unit:
        """
        Return the unit of a profile, enabled, and started unless told otherwise.

        An enabled one is not forgotten by systemd when it stops: what is read of it then is its own.

        Args:
            name: The profile's name, of this test alone.
            drop_in: Lines for a drop-in.
            start: Whether to start it and wait for READY.
            **gateway: Settings below ``gateway`` in its configuration.
        """
        unit = self.unit(f"openclaw-gateway@{name}.service")
        self.write(unit.config_path, json.dumps({"gateway": gateway}))
        if drop_in:
            unit.drop_in(drop_in)
        self.systemctl("enable", unit.name)
        if start:
            unit.start()
        return unit


class Unit:
    """One unit of a machine's system manager."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine, self.name = machine, name
        self.profile = name.removesuffix(".service").partition("@")[2] or "default"

    @property
    def config_path(self) -> str:
        below = "" if self.profile == "default" else f"{self.profile}/"
        return f"/etc/openclaw-gateway/{below}openclaw.json"

    @property
    def state_dir(self) -> str:
        return f"/var/lib/openclaw-gateway/{self.profile}"

    def show(self, name: str) -> str:
        """Return one property, as ``systemctl show`` prints it."""
        return self.machine.run(
            ["systemctl", "show", f"--property={name}", "--value", self.name]
        ).stdout.strip()

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    @property
    def ready_at_s(self) -> float:
        """When it was last READY, on the machine's monotonic clock, which is ours too."""
        return int(self.show("ActiveEnterTimestampMonotonic")) / 1_000_000

    @property
    def died_at_s(self) -> float:
        """When systemd last saw it leave READY, on the same clock."""
        return int(self.show("ActiveExitTimestampMonotonic")) / 1_000_000

    def start(self, *, check: bool = True) -> int:
        return self.machine.systemctl("start", self.name, check=check)

    def restart(self, *, check: bool = True) -> int:
        return self.machine.systemctl("restart", self.name, check=check)

    def stop(self) -> None:
        self.machine.systemctl("stop", self.name)

    def kill(self, signal: str) -> float:
        """Send the main process a signal; return when, on the monotonic clock."""
        pid = self.pid
        sent_s = time.monotonic()
        self.machine.run(["kill", f"-{signal}", str(pid)])
        return sent_s

    def drop_in(self, text: str) -> None:
        # Named as systemd's manual advises administrators to.
        self.machine.write(f"/run/systemd/system/{self.name}.d/10-test.conf", text)
        self.machine.systemctl("daemon-reload")

    def wait_for(self, name: str, value: str) -> None:
        """Wait until a property has a value."""
        self.machine.until(f'[ "$(systemctl show -P {name} {self.name})" = "{value}" ]')

    def wait_for_another(self, pid: int) -> None:
        """Wait until it is READY with another main process than this one."""
        self.machine.until(
            f"systemctl is-active -q {self.name} && "
            f'! systemctl show -P MainPID {self.name} | grep -qxE "0|{pid}"'
        )

    def journal(self, *matches: str) -> list[Entry]:
        """Return all that it, and systemd about it, wrote to the journal."""
        return self.machine.journal(f"--unit={self.name}", *matches)

    def events(self, event: Event) -> list[Entry]:
        """Return its own entries of one kind."""
        return self.machine.journal(f"_SYSTEMD_UNIT={self.name}", f"MESSAGE_ID={event.message_id}")

    def says(self) -> str:
        """Return every message about it, a line each."""
        return "\n".join(str(entry["MESSAGE"]) for entry in self.journal())


@contextmanager
def booted_with_package(
    release: str, *, shown: Mapping[str, Path] | None = None
) -> Iterator[Machine]:
    """
    Boot a system that had the package installed before.

    Args:
        release: ``bookworm`` or ``trixie``.
        shown: Directories of this host that it sees and cannot write to, by the path that they have there.
    """
    with Machine(release, above=[image(release)], shown=shown) as machine:
        yield machine


def image(release: str, kind: str = "test") -> Path:
    """
    Return what installing the package changes in a root of this kind, for machines to stand on.

    The first caller installs it and keeps that beside the package, for all others. It has no machine id, as images
    should: each machine that is made from it gets one of its own, machine-id(5).
    """
    built = package.build(release)
    name = "installed" if kind == "test" else f"installed-{kind}"
    kept, whole = built.directory / name, built.directory / f"{name}.whole"
    with open(built.directory / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            for left_over in (kept, kept.with_name(f"{name}.work")):
                if left_over.exists():
                    shutil.rmtree(left_over)
            with Machine(release, kind=kind, upper=kept) as machine:
                machine.install(built.deb)
                machine.run(": >/etc/machine-id; rm -f /var/lib/dbus/machine-id")
                machine.poweroff()
            whole.touch()
    return kept
