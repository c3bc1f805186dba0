"""The verb ``call``: a person asks the running gateway, and is told nothing of tokens and ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CAP_S, TOKEN, Start, clean_environ

NOBODY = 65534

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(port: int, state_dir: Path) -> Call:
    def run(*arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        environ = clean_environ(OPENCLAW_GATEWAY_PORT=str(port), OPENCLAW_STATE_DIR=str(state_dir))
        return subprocess.run(
            [sys.executable, "-m", "openclaw_gateway", "call", *arguments],
            check=False,
            env=environ,
            capture_output=True,
            text=True,
            timeout=CAP_S,
            user=user,
            cwd="/",
        )

    return run


def test_port_and_token_are_found_on_the_same_host(start: Start, call: Call) -> None:
    daemon = start(OPENCLAW_GATEWAY_TOKEN="").ready()
    done = call("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["pid"] == daemon.pid


def test_json_is_one_document_with_the_outcome(start: Start, call: Call) -> None:
    start(OPENCLAW_GATEWAY_TOKEN="").ready()
    good = call("logs.tail", "--params", '{"limit": 1}', "--json")
    assert json.loads(good.stdout)["schema"] == 1
    assert len(json.loads(good.stdout)["payload"]["lines"]) == 1
    bad = call("logs.tail", "--params", '{"limit": 0}', "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["error"]["message"] == (
        "invalid logs.tail params: at /limit: must be >= 1"
    )


def test_password_is_found_in_the_configuration(start: Start, call: Call, state_dir: Path) -> None:
    state_dir.mkdir()
    config = '{gateway: {auth: {mode: "password", password: "open sesame"}}}'
    (state_dir / "openclaw.json").write_text(config)
    (state_dir / "openclaw.json").chmod(0o600)
    start(OPENCLAW_GATEWAY_TOKEN="").ready()
    assert call("health").returncode == 0


def test_wrong_token_is_told_with_the_way_out(start: Start, call: Call, tmp_path: Path) -> None:
    start().ready()
    (tmp_path / "token").write_text("wrong")
    (tmp_path / "token").chmod(0o600)
    done = call("health", "--token-file", str(tmp_path / "token"))
    assert done.returncode == 1
    assert "gateway token mismatch" in done.stderr and "hint: give the gateway's" in done.stderr


def test_forbidden_token_is_named_with_the_way_out(call: Call, state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "gateway.token").write_text("kept")
    (state_dir / "gateway.token").chmod(0)
    done = call("health", user=NOBODY if os.geteuid() == 0 else None)
    assert done.returncode == 1
    assert f"its token is in {state_dir}/gateway.token, which you may not read" in done.stderr
    assert "hint: call it with sudo, or give the token with --token-file" in done.stderr


def test_gateway_that_is_not_there_is_told_by_its_address(call: Call, port: int) -> None:
    done = call("health")
    assert done.returncode == 1
    assert f"ws://127.0.0.1:{port}: cannot connect: Connection refused" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("health", "--params", "{"), "flag --params: not JSON"),
        (("health", "--url", "http://127.0.0.1"), "flag --url: must be like ws://"),
        (("health", "--url", "ws://["), "flag --url: must be like ws://"),
    ],
)
def test_wrong_flags_are_named(call: Call, arguments: tuple[str, ...], problem: str) -> None:
    done = call(*arguments)
    assert done.returncode == 78 and problem in done.stderr


def test_token_is_found_by_the_port_alone(start: Start, port: int, tmp_path: Path) -> None:
    start(OPENCLAW_GATEWAY_TOKEN="").ready()
    done = subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", "call", "health", "--port", str(port)],
        check=False,
        env=clean_environ(HOME=str(tmp_path / "elsewhere")),
        capture_output=True,
        text=True,
        timeout=CAP_S,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_given_token_needs_no_settings(
    start: Start, call: Call, state_dir: Path, tmp_path: Path
) -> None:
    start().ready()
    (state_dir / "openclaw.json").write_text("{gateway: {auth: {token: '${NOT_SET}'}}}")
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    assert call("health", "--token-file", str(tmp_path / "token")).returncode == 0
