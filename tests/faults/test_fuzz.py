"""Input that nobody meant: records, configurations, requests and WebSocket messages, bent at random from a kept corpus.

``make fuzz SECONDS=3600`` goes on for longer. An input that found something goes into ``corpus/``.
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import BinaryIO

import pytest

from conftest import CAP_S, Start
from faults.extent import extent
from openclaw_gateway.admin.config import check, report
from openclaw_gateway.claim.record import MAX_PID, encode, parse
from openclaw_gateway.errors import ConfigurationError, ExitCode
from openclaw_gateway.settings import load as settings
from openclaw_gateway.settings.keys import KEYS, SECRETS

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


def corpus(kind: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((CORPUS / kind).iterdir())]


def bent(kind: str) -> Iterator[bytes]:
    """Yield the corpus as it is, and then bent in one to six places, until the time is up."""
    chance = random.Random(SEED)
    print(f"FUZZ_SEED={SEED}")
    seeds = corpus(kind)
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


ODD_VALUES = (
    None, True, 0, -1, 65536, 2**53, 1e308, float("inf"), "", " ", "\0", "\ud800", "x\udcff", "${HOME}", "$${A}", "$A",
    "${UNSET_ONE}", "\n", "../x", "/", "~", "a" * 5000, [], ["\ud800"], [[]], {}, {"source": "file", "provider": "f", "id": "/"},
    {"$include": "\0"}, {"$include": ["\ud800", 1]}, {"$include": "openclaw.json"}, {"$include": "/etc/passwd"},
)  # fmt: skip


def test_any_value_of_any_key_is_taken_or_refused_at_its_place(tmp_path: Path) -> None:
    file, own = tmp_path / "openclaw.json", tmp_path / "openclaw-gateway.json"
    environ = {"HOME": str(tmp_path), "OPENCLAW_CONFIG_PATH": str(file), "A": "\udcff"}
    chance = random.Random(SEED)
    print(f"FUZZ_SEED={SEED}")
    paths = [key.path for key in (*KEYS, *SECRETS) if key.path]
    paths += ["env", "env.vars.X", "env.shellEnv.enabled", "secrets.providers.f", "secrets.providers.f.path",
              "gateway", "gateway.mode", "gateway.auth", "gateway.tls", "gateway.limits", "meta.lastTouchedVersion",
              "$include", "gateway.$include", "gateway.\ud800", "\0.\n", "__proto__.x"]  # fmt: skip
    own_paths = [key.own_path for key in KEYS if key.own_path] + ["limits", "\ud800"]
    ends_s = time.monotonic() + SECONDS
    count = 0
    while time.monotonic() < ends_s or count < len(paths) * 3:
        count += 1
        file.write_text(
            json.dumps(document(chance, [paths[count % len(paths)], *chance.choices(paths, k=2)]))
        )
        own.write_text(json.dumps(document(chance, chance.choices(own_paths, k=2))))
        (tmp_path / ".env").write_bytes(chance.choice(_TOKENS) + b"=" + chance.choice(_TOKENS))
        found = settings.examine({}, environ)
        assert (found.settings is None) == bool(found.problems)
        said = [str(problem) for problem in found.problems]
        told = (
            report(found, None, as_json=False),
            report(found, None, as_json=True),
            check(found, None),
        )
        for line in [
            *said,
            *found.warnings,
            *(line for one in told for line in (*one.lines, *one.complaints)),
        ]:
            assert line.encode() and "\n" not in line.strip("\n"), (file.read_text(), line)
        for problem in found.problems:
            assert problem.exit_code is ExitCode.CONFIG, (file.read_text(), said)
            assert problem.place or problem.source in ("variable", "flag"), (file.read_text(), said)


def document(chance: random.Random, paths: list[str]) -> dict[str, object]:
    """Return a document with an odd value at each of these ways into it."""
    top: dict[str, object] = {}
    for path in paths:
        node = top
        *way, last = path.split(".")
        for name in way:
            below = node.setdefault(name, {})
            if not isinstance(below, dict):
                break
            node = below
        else:
            node[last] = deepcopy(chance.choice(ODD_VALUES))
    return top


def is_live(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=CAP_S) as answer:
        return bool(answer.read() == b'{"ok":true,"status":"live"}')


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
            assert is_live(port), data
    assert daemon.stop() == 0
    assert [line for line in daemon.log if "Traceback" in line] == []
    assert len(daemon.log) <= 5, daemon.log


UPGRADE = (CORPUS / "http" / "upgrade").read_bytes().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
CONNECT = (CORPUS / "websocket" / "connect").read_bytes()

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_LAST = 0x80


def frame(kind: int, payload: bytes, *, mask: bytes = b"mask", last: int = _LAST) -> bytes:
    """Return a client's frame: complete, of the length that it says, and masked. RFC 6455, section 5.2."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2)
    else:
        length = b"\xff" + size.to_bytes(8)
    key = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)
    return bytes([last | kind]) + length + mask + masked


def framed(payload: bytes, chance: random.Random) -> bytes:
    """Put a payload into frames: mostly one of text, else what a client may send and hardly one does."""
    mask = chance.randbytes(4)
    match chance.randrange(10):
        case 0:
            return frame(_BINARY, payload, mask=mask)
        case 1:  # a control frame in the middle of a message; section 5.4
            at = chance.randrange(len(payload) + 1)
            begin = frame(_TEXT, payload[:at], mask=mask, last=0)
            end = frame(_CONTINUATION, payload[at:], mask=mask)
            return begin + frame(_PING, payload[:125], mask=mask) + end
        case 2:
            return frame(chance.choice((_CLOSE, _PING, _PONG)), payload, mask=mask)
        case 3:  # reserved kinds and bits, and continuations of nothing
            return frame(chance.randrange(16), payload, mask=mask, last=chance.randrange(16) << 4)
        case _:
            return frame(_TEXT, payload, mask=mask)


def read_head(stream: BinaryIO) -> bytes:
    """Return the answer to the upgrade, and leave what comes after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        assert line, head
        head += line
    return head


def read_message(stream: BinaryIO) -> bytes:
    """Return the payload of a whole frame of the gateway's, which masks nothing."""
    size = stream.read(2)[1]
    if size > 125:
        size = int.from_bytes(stream.read({126: 2, 127: 8}[size]))
    return stream.read(size)


@pytest.mark.parametrize("connected", [False, True], ids=["at the door", "connected"])
def test_any_message_is_answered_or_refused_and_the_next_client_served(
    start: Start, port: int, *, connected: bool
) -> None:
    daemon = start("--auth", "none").ready()
    chance = random.Random(SEED)
    for count, data in enumerate(bent("websocket")):
        with socket.create_connection(("127.0.0.1", port), CAP_S) as client:
            stream = client.makefile("rb")
            client.sendall(UPGRADE)
            assert read_head(stream).startswith(b"HTTP/1.1 101 "), data
            assert b"connect.challenge" in read_message(stream), data
            if connected:
                client.sendall(frame(_TEXT, CONNECT))
                assert b'"ok":true' in read_message(stream).replace(b" ", b""), data
            with suppress(ConnectionError):
                for message in (data, *chance.choices(corpus("websocket"), k=chance.randrange(3))):
                    client.sendall(framed(message, chance))
                client.sendall(frame(_CLOSE, b"\x03\xe8"))
                while stream.read(65536):
                    pass
        if count % 50 == 0:
            assert is_live(port), data
    assert daemon.stop() == 0
    assert [line for line in daemon.log if "Traceback" in line] == []
    assert len(daemon.log) <= 5, daemon.log
