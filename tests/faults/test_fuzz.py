"""Input that nobody meant: lock records, configurations and HTTP requests, bent at random from a kept corpus.

``make fuzz SECONDS=3600`` goes on for longer. An input that found something goes into ``corpus/``.
"""

from __future__ import annotations

import os
import random
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import CAP_S, Start
from faults.extent import extent
from openclaw_gateway import settings
from openclaw_gateway.claim.ownership import MAX_PID, encode, parse
from openclaw_gateway.errors import ConfigurationError

SECONDS = extent("FUZZ_SECONDS", 3, 60)
SEED = int(os.environ.get("FUZZ_SEED") or random.randrange(1 << 32))
CORPUS = Path(__file__).with_name("corpus")

pytestmark = pytest.mark.timeout(SECONDS + 120)

_TOKENS = (
    b"\0", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"{" * 200, b"[" * 5000, b'"', b"'", b"\\u0000", b"\\ud800",
    b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"18446744073709551616", b"9" * 5000, b"${HOME}", b"${",
    b"//", b"/*", b"\n", b"\r\n", b"\r\n\r\n", b":", b",", b" " * 5000, b"Content-Length: -1\r\n", b"%00", b"..",
    b"Transfer-Encoding: chunked\r\n", b"HTTP/9.9", b"\x81\xfe\xff\xff", b"FFFFFFFFFFFFFFFF\r\n",
)  # fmt: skip


def bent(kind: str) -> Iterator[bytes]:
    """Yield the corpus as it is, and then bent in one to six places, until the time is up."""
    chance = random.Random(SEED)
    print(f"FUZZ_SEED={SEED}")
    seeds = [file.read_bytes() for file in sorted((CORPUS / kind).iterdir())]
    yield from seeds
    ends_s = time.monotonic() + SECONDS
    while time.monotonic() < ends_s:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 6)):
            at, to = sorted(chance.randrange(len(data) + 1) for _ in range(2))
            match chance.randrange(5):
                case 0:
                    data[at:at] = chance.choice(_TOKENS)
                case 1:
                    data[at:to] = chance.choice(_TOKENS)
                case 2:
                    del data[at:to]
                case 3:
                    data[at:at] = data[at:to]
                case 4 if data:
                    data[at - 1] ^= 1 << chance.randrange(8)
        yield bytes(data)


def test_any_record_is_read_or_passed_over() -> None:
    for data in bent("record"):
        record = parse(data)
        if record is not None:
            assert 0 < record.pid <= MAX_PID, data
            assert parse(encode(record)) == record, data


def test_any_configuration_is_taken_or_refused_with_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "openclaw.json"
    environ = {"HOME": str(tmp_path), "OPENCLAW_CONFIG_PATH": str(file)}
    for data in bent("config"):
        file.write_bytes(data)
        began_s = time.monotonic()
        try:
            loaded = settings.load({}, environ)
            assert 0 < loaded.port < 65536, data
        except ConfigurationError as error:
            assert str(error), data
        assert time.monotonic() - began_s < CAP_S / 4, data


def test_any_request_is_answered_or_refused_and_the_next_one_served(
    start: Start, port: int
) -> None:
    daemon = start().ready()
    for count, data in enumerate(bent("http")):
        address = ("127.0.0.1", port)
        with socket.create_connection(address, CAP_S) as client, suppress(ConnectionError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        if count % 50 == 0:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/healthz", timeout=CAP_S
            ) as answer:
                assert answer.read() == b'{"ok":true,"status":"live"}', data
    assert daemon.stop() == 0
    assert [line for line in daemon.log if "Traceback" in line] == []
    assert len(daemon.log) <= 5, daemon.log
