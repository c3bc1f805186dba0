"""Somebody with an ordinary account who may use sudo, and types what is advised as it is advised."""

from __future__ import annotations

import json
import shlex
from typing import Any

from machine import CAP_S, Machine, Unit

Document = dict[str, Any]

_EDITOR = """#!/bin/sh
for file; do :; done
cat /run/to-be-written >"$file"
"""
"""What ``systemctl edit`` opens, by its manual; the file is the last word. Where it can't be told, it is looked for."""


class Person:
    """An account of a machine, without a session of its own, as over a plain shell."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine, self.name = machine, name
        machine.run(["useradd", "--create-home", "--shell", "/bin/bash", name])
        machine.write(f"/etc/sudoers.d/{name}", f"{name} ALL=(ALL) NOPASSWD: ALL\n", mode=0o440)
        machine.write("/usr/local/bin/editor", _EDITOR, mode=0o755)
        self.uid = int(machine.run(["id", "-u", name]).stdout)

    def types(self, command: str, *, writes: str = "") -> str:
        """
        Run a command, which must succeed, and return what it prints.

        Args:
            command: As it was advised.
            writes: What is written into the editor that it opens; such a command is given a terminal.
        """
        if " edit " in command:
            assert writes, command
            self.machine.write("/run/to-be-written", writes)
            command = f"script --quiet --return --command {shlex.quote(command)} /dev/null"
        return self._run(command, check=True)

    def asks(self, verb: str, *options: str) -> Document:
        """Return what one of our verbs says as JSON."""
        text = self._run(shlex.join(["openclaw-gateway", verb, "--json", *options]), check=False)
        document: Document = json.loads(text)
        return document

    def status(self, unit: Unit, *options: str) -> tuple[str, list[str]]:
        """Return the state of a profile's unit, and the commands that are advised."""
        said = self.asks("status", "--profile", unit.profile, *options)
        return said["state"], [step["command"] for step in said["next"]]

    def findings(self, unit: Unit, *checks: str) -> dict[str, list[dict[str, str]]]:
        """Return what doctor found of a profile's unit that is worse than well, by the name of the check."""
        said = self.asks("doctor", "--system", "--profile", unit.profile)
        return {
            one["name"]: [found for found in one["findings"] if found["severity"] != "ok"]
            for one in said["checks"]
            if one["name"] in checks
        }

    def _run(self, command: str, *, check: bool) -> str:
        environ = {"HOME": f"/home/{self.name}", "XDG_RUNTIME_DIR": f"/run/user/{self.uid}"}
        return self.machine.run(
            command, user=self.name, environ=environ, check=check, timeout_s=CAP_S
        ).stdout
