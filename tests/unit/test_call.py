"""Where a call goes, and which secret goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclaw_gateway.admin.call import Target, find
from openclaw_gateway.admin.look.selection import select


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
    tmp_path: Path, address: str | None, given: bool, token: str | None
) -> None:
    (tmp_path / "token").write_text("local")
    (tmp_path / "token").chmod(0o600)
    flags = {"--token-file": str(tmp_path / "token") if given else None}
    environ = {"HOME": "/nonexistent", "OPENCLAW_GATEWAY_TOKEN": "local"}
    port = "1" if address is None else None
    target = find(select(environ, flags=flags | {"--port": port}), address=address)
    assert target == Target(address or "ws://127.0.0.1:1", token, None)


def test_token_is_read_where_the_gateway_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "gateway.token").write_text("made\n")
    (tmp_path / "gateway.token").chmod(0o600)
    flags = {"--state-dir": str(tmp_path), "--port": "7"}
    assert find(select({}, flags=flags), address=None).token == "made"
