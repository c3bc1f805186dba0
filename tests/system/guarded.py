"""A guard's unit on a machine, its family, and an account that follows the manual's recipes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from machine import CAP_S, PORT, Machine, Unit

from testbed.container import CommandError

USER = "ada"
GUARD = f"openclaw-guard@{USER}.service"
PAGE = "openclaw-guard.8"
SETTINGS = {
    "gateway": {
        "mode": "local",
        "bind": "loopback",
        "auth": {"mode": "token", "token": "the-token-of-the-tests"},
    }
}


class Account:
    """An account that lingers, may use sudo, and has an OpenClaw state directory."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        machine.run(["useradd", "--create-home", "--shell=/bin/bash", USER])
        machine.write(f"/etc/sudoers.d/{USER}", f"{USER} ALL=(ALL) NOPASSWD: ALL\n", mode=0o440)
        machine.write(f"/home/{USER}/.openclaw/openclaw.json", json.dumps(SETTINGS), mode=0o600)
        machine.run(f"chmod 700 /home/{USER}/.openclaw; chown -R {USER}: /home/{USER}")
        machine.run(["loginctl", "enable-linger", USER])
        machine.until(f"systemctl --user -M {USER}@ is-system-running --wait")
        self._uid = machine.run(["id", "-u", USER]).stdout.strip()

    def types(self, script: str, *, timeout_s: float = CAP_S) -> tuple[int, str]:
        """
        Have the account type something into a shell: one failing command does not keep the next from running.

        Returns:
            The last exit status, and all that was printed.
        """
        runtime = f"/run/user/{self._uid}"
        done = self._machine.run(
            ["bash", "-c", f"cd; exec 2>&1\n{script}"],
            user=USER,
            environ={
                "HOME": f"/home/{USER}",
                "XDG_RUNTIME_DIR": runtime,
                "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
            },
            timeout_s=timeout_s,
            check=False,
        )
        return done.returncode, done.stdout


class Guarded:
    """
    One guard's unit, the system's or the account's own.

    Attributes:
        unit: It; of a user's only the name is used.
    """

    def __init__(self, machine: Machine, name: str = GUARD, *, user: str | None = None) -> None:
        self.machine, self.unit = machine, Unit(machine, name)
        self._manager = ["systemctl", *(["--user", f"--machine={user}@"] if user else [])]

    def show(self, name: str) -> str:
        return self.machine.run(
            [*self._manager, "show", f"--property={name}", "--value", self.unit.name]
        ).stdout.strip()

    @property
    def pid(self) -> int:
        """The guard's."""
        return int(self.show("MainPID"))

    @property
    def child_pid(self) -> int:
        """The guarded program's, which the guard started."""
        return int(self.machine.run(["pgrep", "--parent", str(self.pid)]).stdout.split()[0])

    def family(self) -> list[int]:
        """Every process of the unit, the guard first."""
        group = self.show("ControlGroup")
        pids = self.machine.run(["cat", f"/sys/fs/cgroup{group}/cgroup.procs"]).stdout.split()
        guard = self.pid
        return sorted(map(int, pids), key=lambda pid: (pid != guard, pid))

    def is_active(self) -> bool:
        return self.show("ActiveState") == "active"

    def wait_for(self, name: str, value: str, *, cap_s: float = CAP_S) -> None:
        """Wait until a property has a value, or a text in it."""
        self._until(lambda: value in self.show(name), f"{name} has {value!r}", cap_s)

    def wait_for_another(self, pid: int, *, cap_s: float = CAP_S) -> None:
        """Wait until it is READY with another guard than this one."""
        self._until(lambda: self.is_active() and self.pid not in (0, pid), "it is back", cap_s)

    def _until(self, condition: Callable[[], bool], what: str, cap_s: float) -> None:
        deadline_s = time.monotonic() + cap_s
        while not condition():
            assert time.monotonic() < deadline_s, f"not within {cap_s:g} s: {what}\n{self.says()}"
            time.sleep(0.25)  # there is no event for what is looked at

    def says(self) -> str:
        """The last of what it and its program wrote."""
        return self.machine.run(["journalctl", "--lines=60", "--output=short-monotonic"]).stdout

    def listeners(self) -> set[int]:
        """The pids that listen on the port, on whatever address."""
        said = self.machine.run(["ss", "-Hltnp", "sport", "=", f":{PORT}"]).stdout
        return {int(word.split(",")[0]) for word in said.split("pid=")[1:]}

    def check_alone(self) -> None:
        """One healthy gateway serves the port: the child of this guard, and nobody else listens."""
        assert self.is_active(), self.says()
        family = self.family()
        listeners = self.listeners()
        assert listeners, self.says()
        assert listeners <= set(family), (listeners, family)
        assert self.machine.is_live()

    def is_gone(self, pid: int) -> bool:
        try:
            self.machine.run(["test", "!", "-e", f"/proc/{pid}"])
        except CommandError:
            return False
        return True
