"""Where a call goes, and which secret goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclaw_gateway.admin.call import Target, find
from openclaw_gateway.settings import load


@pytest.mark.parametrize(
    ("address", "given", "token"),
    [
        (None, False, "local"),
        ("ws://127.0.0.1:1", False, "local"),
        ("ws://localhost:1", False, "local"),
        ("ws://[::1]:1", False, "local"),
        ("ws://gateway.example:1", False, None),
        ("wss://127.0.0.1.example", False, None),
        ("ws://gateway.example:1", True, "local"),
    ],
)
def test_secret_of_this_machine_stays_on_it_unless_it_was_given(
    address: str | None, given: bool, token: str | None
) -> None:
    settings = load({}, {"HOME": "/nonexistent", "OPENCLAW_GATEWAY_TOKEN": "local"})
    target = find(settings, address=address, secret_given=given)
    assert target == Target(address or "ws://127.0.0.1:18789", token, None)


def test_token_is_read_where_the_gateway_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "gateway.token").write_text("made\n")
    (tmp_path / "gateway.token").chmod(0o600)
    settings = load({"--state-dir": str(tmp_path), "--port": "7"}, {})
    assert find(settings, address=None, secret_given=False).token == "made"
