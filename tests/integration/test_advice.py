"""Advised commands, each run in the state that it is advised in: afterwards things are as it promised."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import CAP_S, Start, clean_environ, without_systemd

pytestmark = without_systemd

Document = dict[str, Any]


class Shell:
    """A person who types what ``status`` and ``doctor`` advise."""

    def __init__(self, home: Path, bin: Path) -> None:
        bin.mkdir()
        ours = bin / "openclaw-gateway"
        ours.write_text(f'#!/bin/sh\nexec {sys.executable} -m openclaw_gateway "$@"\n')
        ours.chmod(0o755)
        self._environ = clean_environ(HOME=str(home), PATH=f"{bin}:{os.environ['PATH']}")
        self._started: list[subprocess.Popen[str]] = []

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            shell=True,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CAP_S,
            check=False,
        )

    def start(self, command: str) -> subprocess.Popen[str]:
        """Run a command that goes on until the test ends."""
        process = subprocess.Popen(
            f"exec {command}",
            shell=True,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._started.append(process)
        return process

    def ask(self, verb: str, *options: str) -> Document:
        said = self.run(" ".join(["openclaw-gateway", verb, "--json", *options]))
        document: Document = json.loads(said.stdout)
        return document

    def status(self, *options: str) -> tuple[str, list[str]]:
        """Return the state and the commands that are advised."""
        said = self.ask("status", *options)
        return said["state"], [step["command"] for step in said["next"]]

    def end(self) -> None:
        for process in self._started:
            process.terminate()
            process.communicate(timeout=CAP_S)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path, tmp_path / "bin")
    yield made
    made.end()


def test_stopped_is_ended_by_a_start(shell: Shell, port: int) -> None:
    state, (command,) = shell.status(f"--port={port}")
    assert state == "stopped"
    shell.start(command)
    assert shell.status(f"--port={port}", "--wait=30") == ("unmanaged", [])


def test_not_serving_is_ended_by_a_signal(shell: Shell, start: Start, port: int) -> None:
    start().ready().signal(signal.SIGSTOP)
    state, (command,) = shell.status(f"--port={port}")
    assert state == "not-serving"
    assert shell.run(command).returncode == 0
    assert shell.status(f"--port={port}", "--wait=30") == ("unmanaged", [])


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps, which is advised")
def test_foreign_port_names_who_holds_it(shell: Shell, port: int) -> None:
    server = shell.start(f"{sys.executable} -u -m http.server --bind 127.0.0.1 {port}")
    assert server.stdout
    assert "Serving" in server.stdout.readline()
    state, (command,) = shell.status(f"--port={port}")
    assert state == "foreign-port"
    assert str(server.pid) in shell.run(command).stdout


def test_starting_is_waited_for(shell: Shell, start: Start, port: int, state_dir: Path) -> None:
    owner = start().ready()
    owner.signal(signal.SIGSTOP)
    start(OPENCLAW_STATE_DIR=str(state_dir.parent / "other")).wait_for("waiting")
    owner.signal(signal.SIGCONT)
    assert shell.run(f"openclaw-gateway status --port={port} --wait 60").returncode == 0


def test_other_gateway_on_the_port_is_shown(
    shell: Shell, start: Start, port: int, tmp_path: Path
) -> None:
    gateway = start().ready()
    state, (command,) = shell.status(f"--port={port}", f"--state-dir={tmp_path}/ours")
    assert state == "stopped"
    shown = shell.run(command)
    assert shown.returncode == 0
    assert f"pid {gateway.pid} " in shown.stdout


def findings(document: Document) -> dict[str, list[Document]]:
    return {check["name"]: check["findings"] for check in document["checks"]}


def test_directories_and_secrets_that_lie_open_are_closed(
    shell: Shell, start: Start, port: int, state_dir: Path
) -> None:
    start().ready().stop()
    # As OpenClaw leaves its own, umask 0002, and worse.
    (state_dir / "gateway.token").write_text("secret-of-the-test")
    for path in (state_dir / "tmp", *(state_dir / "tmp").iterdir(), state_dir / "gateway.token"):
        path.chmod(0o777)
    place = (f"--port={port}", f"--state-dir={state_dir}")
    before = findings(shell.ask("doctor", *place))
    commands = [one["command"] for name in ("lock-directory", "secrets") for one in before[name]]
    assert len([one for one in before["lock-directory"] if one["severity"] == "error"]) == 2
    for command in filter(None, commands):
        assert shell.run(command).returncode in (0, 1), command
    after = findings(shell.ask("doctor", *place))
    assert [one for one in after["lock-directory"] if one["severity"] == "error"] == []
    assert after["secrets"] == []
    start().ready()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_directory_of_somebody_else_is_given_back(
    shell: Shell, start: Start, port: int, state_dir: Path
) -> None:
    start().ready().stop()
    (lock_directory,) = (state_dir / "tmp").iterdir()
    os.chown(lock_directory, 65534, 65534)
    place = (f"--port={port}", f"--state-dir={state_dir}")
    (found,) = (
        one
        for one in findings(shell.ask("doctor", *place))["lock-directory"]
        if one["severity"] == "error"
    )
    assert shell.run(found["command"]).returncode == 0
    start().ready()
