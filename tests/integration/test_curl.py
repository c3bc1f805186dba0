"""curl, which everybody has: connections kept, bodies invited, versions and encodings offered, certificates pinned."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from test_http_conformance import extension, serving

from conftest import CAP_S, Daemon, Start

__all__ = ["extension", "serving"]

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

LIVE = '{"ok":true,"status":"live"}'


class Said(NamedTuple):
    """What curl printed and said."""

    body: str
    log: str
    code: int

    @property
    def heads(self) -> list[str]:
        """The status lines that came, in order."""
        return [line[2:] for line in self.log.splitlines() if line.startswith("< HTTP/")]

    @property
    def reused(self) -> int:
        """How often a connection served another request; newer releases say "existing http: connection"."""
        return len(
            re.findall(r"^\* Re-using existing (?:https?: )?connection", self.log, re.MULTILINE)
        )


def curl(*words: str) -> Said:
    """Run curl as from a shell that has no settings for it."""
    done = subprocess.run(
        ["curl", "--disable", "--silent", "--verbose", "--noproxy", "*", "--max-time", f"{CAP_S:g}", *words],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    return Said(done.stdout, done.stderr, done.returncode)


@pytest.fixture
def url(start: Start, port: int) -> str:
    start().ready()
    return f"http://127.0.0.1:{port}"


def test_one_connection_serves_many_requests(url: str) -> None:
    said = curl(f"{url}/healthz", f"{url}/readyz", f"{url}/nowhere", f"{url}/healthz")
    assert said.heads == ["HTTP/1.1 200 OK"] * 2 + ["HTTP/1.1 404 Not Found", "HTTP/1.1 200 OK"]
    assert said.reused == 3


@pytest.mark.parametrize("path", ["/healthz", "/startupz", "/readyz"])
def test_head_has_the_length_of_the_body_and_none(url: str, path: str) -> None:
    whole = curl(f"{url}{path}")
    said = curl("--head", f"{url}{path}", f"{url}{path}")
    assert said.code == 0
    assert said.heads == ["HTTP/1.1 200 OK"] * 2
    assert said.log.lower().count(f"< content-length: {len(whole.body.encode())}") == 2
    assert said.reused == 1


def test_body_that_waits_to_be_invited_is(serving: Callable[..., Daemon], port: int) -> None:
    serving()
    body = "x" * 3000
    said = curl(
        "--header", "Expect: 100-continue", "--header", "Content-Type: text/plain",
        "--expect100-timeout", f"{CAP_S:g}", "--data", body, f"http://127.0.0.1:{port}/echo",
    )  # fmt: skip
    assert said.heads == ["HTTP/1.1 100 Continue", "HTTP/1.1 201 Created"]
    assert json.loads(said.body)["bytes"] == len(body)


def test_body_that_nobody_wants_is_refused_before_it_is_sent(url: str) -> None:
    said = curl(
        "--header", "Expect: 100-continue", "--expect100-timeout", f"{CAP_S:g}",
        "--data", "x" * 100_000, f"{url}/nowhere",
    )  # fmt: skip
    assert said.heads == ["HTTP/1.1 404 Not Found"]
    assert said.code == 0


def test_chunked_body_of_unknown_length_is_read(serving: Callable[..., Daemon], port: int) -> None:
    serving()
    said = curl(
        "--header", "Transfer-Encoding: chunked", "--data", "in pieces", f"http://127.0.0.1:{port}/echo"
    )  # fmt: skip
    assert said.heads[-1] == "HTTP/1.1 201 Created"
    assert json.loads(said.body)["bytes"] == len("in pieces")


def test_offer_of_http_2_is_passed_over(url: str) -> None:
    """RFC 9110, section 7.8: a server may ignore an upgrade that it does not speak."""
    said = curl("--http2", f"{url}/healthz")
    assert (said.code, said.heads, said.body) == (0, ["HTTP/1.1 200 OK"], LIVE)


def test_http_2_without_asking_is_refused_and_not_waited_on(url: str) -> None:
    said = curl("--http2-prior-knowledge", f"{url}/healthz")
    assert said.code != 0 and "timed out" not in said.log


def test_old_version_is_answered_and_closed(url: str) -> None:
    said = curl("--http1.0", f"{url}/healthz", f"{url}/healthz")
    assert said.body == LIVE * 2
    assert "Re-using" not in said.log


def test_offer_of_compression_is_passed_over(url: str) -> None:
    said = curl("--compressed", f"{url}/healthz")
    assert (said.code, said.body) == (0, LIVE)
    assert "accept-encoding" in said.log.lower() and "content-encoding" not in said.log.lower()


def test_certificate_that_we_made_is_pinned(start: Start, state_dir: Path, port: int) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "openclaw.json").write_text('{"gateway": {"tls": {"enabled": true}}}')
    start().ready()
    path = state_dir / "gateway" / "tls" / "gateway-cert.pem"
    key = x509.load_pem_x509_certificate(path.read_bytes()).public_key()
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    right = base64.b64encode(hashlib.sha256(der).digest()).decode()
    wrong = base64.b64encode(bytes(32)).decode()
    address = f"https://127.0.0.1:{port}/healthz"
    # The pin alone says who it is: nobody has signed the certificate.
    said = curl("--insecure", "--pinnedpubkey", f"sha256//{right}", address, address)
    assert (said.code, said.body) == (0, LIVE * 2)
    assert said.reused == 1
    assert curl("--insecure", "--pinnedpubkey", f"sha256//{wrong}", address).code == 90
    assert curl(address).code == 60
    assert curl(f"http://127.0.0.1:{port}/healthz").code != 0
