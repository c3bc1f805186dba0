"""Trusted-proxy mode: the proxy's word takes the secret's place, and nobody else's does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Start
from wire import dialled, run


def configure(state_dir: Path, **proxy: object) -> None:
    state_dir.mkdir(mode=0o700)
    gateway = {
        "trustedProxies": ["127.0.0.1"],
        "auth": {"mode": "trusted-proxy", "trustedProxy": {"userHeader": "X-User", **proxy}},
    }
    (state_dir / "openclaw.json").write_text(json.dumps({"gateway": gateway}))


def hello(port: int, headers: dict[str, str]) -> dict[str, Any]:
    async def visit() -> dict[str, Any]:
        async with dialled(port, headers=headers) as wire:
            return await wire.connect("operator.read", "operator.admin", token=None)

    return run(visit())


FORWARDED = {"X-Forwarded-For": "192.0.2.7"}


@pytest.fixture
def gateway(start: Start) -> Start:
    def begin(*arguments: str) -> Any:
        return start(*arguments, OPENCLAW_GATEWAY_TOKEN="").ready()

    return begin


def test_user_of_the_proxy_gets_in_without_a_secret(
    gateway: Start, state_dir: Path, port: int
) -> None:
    configure(state_dir, allowLoopback=True)
    gateway()
    answer = hello(port, {**FORWARDED, "X-User": "ada"})
    assert answer["ok"], answer
    assert answer["payload"]["auth"]["scopes"] == ["operator.read"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-User": "ada"},
        FORWARDED,
        {**FORWARDED, "X-User": " "},
        {**FORWARDED, "X-User": "eve"},
    ],
    ids=str,
)
def test_nobody_else_gets_in(
    gateway: Start, state_dir: Path, port: int, headers: dict[str, str]
) -> None:
    configure(state_dir, allowLoopback=True, allowUsers=["ada"])
    gateway()
    answer = hello(port, headers)
    assert not answer["ok"]
    assert answer["error"]["details"]["code"] == "AUTH_TRUSTED_PROXY_MISSING"


def test_proxy_on_this_machine_counts_only_if_the_settings_say_so(
    gateway: Start, state_dir: Path, port: int
) -> None:
    configure(state_dir)
    gateway()
    assert not hello(port, {**FORWARDED, "X-User": "ada"})["ok"]
