"""One settings file, two programs: OpenClaw's own gateway and ours, one after the other in one directory."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import node_package
import npm
from conftest import CAP_S, Start
from node_gateway import NodeGateway
from node_package import in_full
from openclaw_gateway.client.conversation import AnsweredError, begun, fingerprint_of
from openclaw_gateway.client.health import check
from openclaw_gateway.host.ports import listening

SECRET, WRONG = "a-secret-that-both-read-0123456789", "another-secret-0123456789"


@pytest.fixture(scope="module", autouse=True)
def openclaw() -> None:
    """OpenClaw from npm, or the reason why not."""
    try:
        node_package.installed()
    except npm.Unavailable as missing:
        npm.leave_out(missing, "OPENCLAW'S OWN GATEWAY")


class Seen(NamedTuple):
    """What a client can tell of a gateway's settings."""

    addresses: frozenset[str]
    scheme: str | None
    admits: bool
    """Whether the secret of the settings gets past the door."""
    refuses: bool
    """Whether another one does not."""


def seen(port: int) -> Seen:
    scheme = check("127.0.0.1", port, timeout_s=CAP_S).scheme
    addresses = frozenset(found.host for found in listening(port))
    return Seen(addresses, scheme, admits(port, scheme, SECRET), not admits(port, scheme, WRONG))


def admits(port: int, scheme: str | None, secret: str) -> bool:
    fingerprint = None
    if scheme == "https":
        shown = ssl.get_server_certificate(("127.0.0.1", port))
        fingerprint = fingerprint_of(ssl.PEM_cert_to_DER_cert(shown))
    url = f"{'wss' if scheme == 'https' else 'ws'}://127.0.0.1:{port}"
    client = {"id": "cli", "version": "1", "platform": "linux", "mode": "cli"}
    params = {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": client,
        "role": "operator",
        "scopes": ["operator.read"],
        "auth": {"token": secret},
    }
    with begun(url, timeout_s=CAP_S, fingerprint=fingerprint) as conversation:
        conversation.event("connect.challenge")
        try:
            conversation.ask("connect", params)
        except AnsweredError as error:
            details = error.shape.get("details")
            code = str(details.get("code")) if isinstance(details, dict) else ""
            # OpenClaw's next asks for a device that it knows: the secret was right then.
            return not code.startswith("AUTH_")
    return True


def write(directory: Path, files: dict[str, Any]) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)


def settings(port: int, **gateway: Any) -> dict[str, Any]:
    own = {"mode": "local", "bind": "loopback", "port": port}
    return {"gateway": own | {"auth": {"mode": "token", "token": SECRET}} | gateway}


def variables(port: int) -> dict[str, Any]:
    token = {"auth": {"mode": "token", "token": "${OPENCLAW_TESTS_SECRET}"}}
    return {
        "openclaw.json": settings(port, **token),
        ".env": f"OPENCLAW_TESTS_SECRET={SECRET}  # the same for both\n",
    }


def included(port: int) -> dict[str, Any]:
    return {
        "openclaw.json": '{gateway: {$include: ["./base.json5", "./more.json5"], mode: "local"}}',
        "base.json5": f"{{port: 1, bind: 'loopback', auth: {{mode: 'token', token: '{WRONG}'}}}}",
        "more.json5": f"{{port: {port}, auth: {{token: '{SECRET}'}}}}",
    }


def encrypted(port: int) -> dict[str, Any]:
    return {"openclaw.json": settings(port, tls={"enabled": True})}


def lan(port: int) -> dict[str, Any]:
    return {"openclaw.json": settings(port, bind="lan")}


@pytest.fixture
def own(start: Start, state_dir: Path) -> Iterator[Any]:
    def look(port: int) -> Seen:
        environ = {
            "OPENCLAW_GATEWAY_PORT": "",
            "OPENCLAW_GATEWAY_TOKEN": "",
            "HOME": str(state_dir),
        }
        daemon = start(OPENCLAW_STATE_DIR=str(state_dir), **environ).ready()
        found = seen(port)
        assert daemon.stop() == 0
        return found

    yield look


def nodes(state_dir: Path, port: int, *, tls: bool) -> Seen:
    # Its settings are there; it only has to know how to look at it.
    gateway = NodeGateway(state_dir, port, gateway={"tls": tls})
    try:
        gateway.ready().started()
        return seen(port)
    finally:
        if gateway.ended is None:
            gateway.stop()
        gateway.clean_up()


@pytest.mark.parametrize(
    "files",
    [variables, pytest.param(included, marks=in_full), encrypted, pytest.param(lan, marks=in_full)],
)
def test_both_serve_the_same_from_the_same_directory(
    own: Any, state_dir: Path, port: int, files: Any
) -> None:
    write(state_dir, files(port))
    before = {path.name: path.read_bytes() for path in state_dir.iterdir()}
    ours = own(port)
    after = {name: (state_dir / name).read_bytes() for name in before}
    assert after == before, "we write into nobody's settings"
    assert ours.admits and ours.refuses
    # OpenClaw second: where a certificate was to be made, it takes ours.
    assert nodes(state_dir, port, tls=ours.scheme == "https") == ours
    # And once more ours, with what OpenClaw made of the directory.
    assert own(port) == ours
