"""
RFC 6455 case by case, in the order of the Autobahn test suite, by a client that only knows bytes.

A message is a call of ``health``: what the gateway makes of it shows in the id of its answer. Of the suite's
sections 1 to 7, 9 and 10 are here (8 and 11 are empty), with these differences:

- 1.2, 9.2, 9.4, 9.6, 9.8: this protocol has no binary messages; each is refused.
- 6.4.3 and 6.4.4: a frame is checked once it is whole, fragments as they come. The suite calls that non-strict.
- 7.1.5: a close in the middle of a message is a breach to our library.
- 9: sizes and pieces are a selection, and no times are measured.
- 12 and 13: the gateway compresses nothing. What they offer is not taken up, and calls go on without it.
"""

from __future__ import annotations

import json
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

import pytest

from conftest import CAP_S, Daemon, Start

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
CONNECT = {
    "type": "req",
    "id": "c",
    "method": "connect",
    "params": {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": "test", "version": "1", "platform": "linux", "mode": "test"},
    },
}


def frame(
    kind: int, payload: bytes = b"", *, first: int = FIN, masked: bool = True, size: bytes = b""
) -> bytes:
    """Return one frame; ``size`` overrides what its header says of its length. Section 5.2."""
    length = len(payload)
    bit = 0x80 if masked else 0
    if size:
        header = bytes([bit | size[0]]) + size[1:]
    elif length < 126:
        header = bytes([bit | length])
    elif length < 1 << 16:
        header = bytes([bit | 126]) + struct.pack("!H", length)
    else:
        header = bytes([bit | 127]) + struct.pack("!Q", length)
    if not masked:
        return bytes([first | kind]) + header + payload
    key = b"\x37\xfa\x21\x3d"
    pad = (key * (length // 4 + 1))[:length]
    hidden = (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(length)
    return bytes([first | kind]) + header + key + hidden


def call(id: str = "1") -> bytes:
    return json.dumps({"type": "req", "id": id, "method": "health"}, ensure_ascii=False).encode()


def fragments(data: bytes, *cuts: int, kind: int = TEXT) -> list[bytes]:
    """Cut a message into frames."""
    ends = [*cuts, len(data)]
    parts = [data[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    return [
        frame(CONT if index else kind, part, first=FIN if index == len(parts) - 1 else 0)
        for index, part in enumerate(parts)
    ]


def between(control: bytes) -> list[bytes]:
    """Put a frame between the two halves of a call."""
    first, last = fragments(call(), 9)
    return [first, control, last]


def padded(length: int) -> bytes:
    """Return a call of so many bytes: JSON may end in spaces. RFC 8259, section 2."""
    return call().ljust(length)


def bye(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


class Heard(NamedTuple):
    """What came back: ids of answers, payloads of pongs, and the close frame's code."""

    ids: list[str]
    pongs: list[bytes]
    code: int | None
    """0 for a close frame without a code; ``None`` if there was none."""


class Stream:
    """A raw connection, read frame by frame."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=CAP_S)
        self._file = self.socket.makefile("rb")

    def head(self) -> list[bytes]:
        lines = []
        while (line := self._file.readline().rstrip()) != b"":
            lines.append(line)
        return lines

    def next(self) -> tuple[int, bytes] | None:
        """Return kind and payload of the next frame, which must be whole, final and not masked."""
        header = self._file.read(2)
        if len(header) < 2:
            return None
        assert header[0] & 0xF0 == FIN and header[1] < 0x80, header
        length = header[1]
        if length > 125:
            length = int.from_bytes(self._file.read({126: 2, 127: 8}[length]))
        return header[0] & 0x0F, self._file.read(length)

    def ids(self) -> list[str]:
        """Listen to the end, and return the ids of all answers."""
        ids = []
        while (found := self.next()) is not None:
            if found[0] == TEXT and "id" in (message := json.loads(found[1])):
                ids.append(message["id"])
        return ids

    def close(self) -> None:
        self._file.close()
        self.socket.close()


def opened(port: int) -> Stream:
    """Upgrade, and get through the hello."""
    stream = Stream(port)
    stream.socket.sendall(UPGRADE + b"\r\n" + frame(TEXT, json.dumps(CONNECT).encode()))
    head = stream.head()
    assert head[0] == b"HTTP/1.1 101 Switching Protocols"
    # The key and its answer are those of section 1.3.
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    while (found := stream.next()) is not None:
        if b'"id":"c"' in found[1]:
            return stream
    raise AssertionError("no hello")


def heard(port: int, frames: list[bytes], *, chop: int = 1 << 30) -> Heard:
    """Send frames after the hello, so many bytes at a time, and listen to the end."""
    stream = opened(port)
    ids, pongs, code = [], [], None
    try:
        with suppress(ConnectionError):
            data = b"".join(frames)
            for start in range(0, len(data), chop):
                stream.socket.sendall(data[start : start + chop])
        while (found := stream.next()) is not None:
            kind, payload = found
            if kind == PONG:
                pongs.append(payload)
            elif kind == CLOSE:
                assert code is None
                code = int.from_bytes(payload[:2])
                if payload[2:]:
                    payload[2:].decode()
            elif kind == TEXT and "id" in (message := json.loads(payload)):
                ids.append(message["id"])
    finally:
        stream.close()
    return Heard(ids, pongs, code)


@pytest.fixture
def gateway(start: Start) -> Daemon:
    return start("--auth", "none").ready()


LONG = call("x" * 70_000)
WORD = "κόσμε\U0001f600"
WIDE = call(WORD)
AT = WIDE.index("κ".encode())

VALID_TEXT = [
    # The first and the last of each length, what stands beside the surrogates, and what is no character.
    *("$\x7f\x80\xa2\u07ff\u0800\u20ac\ud7ff\ue000\U00010000\U00024b62\U0010ffff"),
    *map(chr, range(0xFFF9, 0xFFFE)),
    *(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)),
]  # fmt: skip

TAKEN: dict[str, tuple[list[bytes], list[str], list[bytes]]] = {
    # 1 and 9: lengths.
    "short": ([frame(TEXT, call())], ["1"], []),
    "16 bits": ([frame(TEXT, call("x" * 200))], ["x" * 200], []),
    "64 bits": ([frame(TEXT, LONG)], ["x" * 70_000], []),
    **{f"{size} bytes": ([frame(TEXT, padded(size))], ["1"], []) for size in (125, 126, 127, 128, 65535, 65536, 1 << 20, 16 << 20)},
    **{
        f"{size} bytes in fragments of {each}": (fragments(padded(size), *range(each, size, each)), ["1"], [])
        for size, each in ((1 << 16, 64), (1 << 16, 1300), (1 << 20, 1 << 10), (1 << 22, 1 << 16))
    },
    "longer form than needed": ([frame(TEXT, call(), size=b"\x7e" + struct.pack("!H", len(call())))], ["1"], []),
    "empty": ([frame(TEXT)], ["invalid"], []),
    # 2: pings.
    "ping": ([frame(PING)], [], [b""]),
    "ping with payload": ([frame(PING, b"Hello")], [], [b"Hello"]),
    "ping with bytes": ([frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")], [], [b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"]),
    "ping of 125": ([frame(PING, b"\xfe" * 125)], [], [b"\xfe" * 125]),
    "ten pings": ([frame(PING, b"%d" % n) for n in range(10)], [], [b"%d" % n for n in range(10)]),
    "unasked pong": ([frame(PONG), frame(PONG, b"x"), frame(PING, b"y")], [], [b"y"]),
    # 5: fragments.
    "two": (fragments(call(), 9), ["1"], []),
    "many": (fragments(call(), *range(1, 30)), ["1"], []),
    "empty ones": (fragments(call(), 0, 0, 5, 5, 5), ["1"], []),
    "ping between": (between(frame(PING, b"p")), ["1"], [b"p"]),
    "pings between many": (
        [part for piece in fragments(call(), *range(1, 20)) for part in (piece, frame(PING))],
        ["1"],
        [b""] * 20,
    ),
    "pong between": (between(frame(PONG, b"p")), ["1"], []),
    "one after another": ([*fragments(call("a"), 9), frame(TEXT, call("b"))], ["a", "b"], []),
    # 6: UTF-8, cut at every place.
    "wide": ([frame(TEXT, WIDE)], [WORD], []),
    **{f"wide, cut at {n}": (fragments(WIDE, AT + n), [WORD], []) for n in range(1, 14)},
    "wide, byte by byte": (fragments(WIDE, *range(1, len(WIDE))), [WORD], []),
    "all that is valid": ([frame(TEXT, call(text)) for text in VALID_TEXT], VALID_TEXT, []),
}  # fmt: skip

_INCOMPLETE = [
    b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80",
    b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf",
    b"\xce", b"\xe1\xbd", b"\xf0\x90\x80",
]  # fmt: skip
BAD_TEXT = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64",
    # Continuations of nothing, beginnings of nothing, and bytes that are neither.
    *(b"\x80\xbf\x80\xbf\x80\xbf"[:length] for length in range(1, 7)), b"\xbf", bytes(range(0x80, 0xBF)),
    *(bytes(range(first, last)).replace(b"", b" ") for first, last in
      ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))),
    *_INCOMPLETE, b"".join(_INCOMPLETE), b"\xf5", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff",
    # Longer forms than needed: of "/", of what needs one byte less, of NUL.
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf",
    b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf",
    b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80",
    # Surrogates, one and in pairs, and what lies beyond U+10FFFF.
    *(one + two for one in (b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf")
      for two in (b"", b"\xed\xb0\x80", b"\xed\xbf\xbf")),
    b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfc\x84\x80\x80\x80\x80", b"\xfd\xbf\xbf\xbf\xbf\xbf",
]  # fmt: skip

FAILED: dict[str, tuple[list[bytes], list[str], set[int]]] = {
    # 2.5: a ping that is too long.
    "ping of 126": ([frame(PING, b"x" * 126)], [], {1002}),
    "pong of 126": ([frame(PONG, b"x" * 126)], [], {1002}),
    # 3: reserved bits.
    **{f"reserved bits {bits >> 4}": ([frame(TEXT, call(), first=FIN | bits)], [], {1002}) for bits in range(RSV3, FIN, RSV3)},
    "reserved bits after a call, then a ping": ([frame(TEXT, call()), frame(TEXT, call(), first=FIN | RSV2), frame(PING)], ["1"], {1002}),
    "reserved bit of a ping": ([frame(PING, first=FIN | RSV2)], [], {1002}),
    "reserved bit of a close": ([frame(CLOSE, first=FIN | RSV1)], [], {1002}),
    # 4: reserved opcodes.
    **{f"opcode {kind}": ([frame(kind, b"x")], [], {1002}) for kind in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{
        f"opcode {kind} after a call, then a ping": ([frame(TEXT, call()), frame(kind), frame(PING)], ["1"], {1002})
        for kind in (5, 7, 13, 15)
    },
    # 5: fragments.
    "fragmented ping": ([frame(PING, b"a", first=0), frame(CONT, b"b")], [], {1002}),
    "fragmented pong": ([frame(PONG, b"a", first=0), frame(CONT, b"b")], [], {1002}),
    "fragmented close": ([frame(CLOSE, b"\x03\xe8", first=0)], [], {1002}),
    "continuation of nothing": ([frame(CONT, b"x")], [], {1002}),
    "continuation of nothing, not the last": ([frame(CONT, b"x", first=0)], [], {1002}),
    "continuation of nothing, then a call": ([frame(CONT, b"x"), frame(TEXT, call())], [], {1002}),
    "continuation after the last": ([*fragments(call(), 9), frame(CONT, b"x")], ["1"], {1002}),
    "text inside a text": ([frame(TEXT, b"a", first=0), frame(TEXT, b"b")], [], {1002}),
    "binary inside a text": ([frame(TEXT, b"a", first=0), frame(BINARY, b"b")], [], {1002}),
    # 6: no UTF-8; in mid-message as soon as it is certain.
    **{f"text {bad.hex()}": ([frame(TEXT, bad)], [], {1007}) for bad in BAD_TEXT},
    **{f"fragmented text {bad.hex()}": ([frame(TEXT, b"x", first=0), frame(CONT, bad, first=0), frame(CONT)], [], {1007}) for bad in BAD_TEXT},
    "text that is bad before its end": ([frame(TEXT, b"\xce\xba\xed\xa0\x80", first=0)], [], {1007}),
    "half a character, then another": ([frame(TEXT, b"\xce", first=0), frame(CONT, b"x")], [], {1007}),
    "bad text, then a close": ([frame(TEXT, b"\xff"), bye()], [], {1007}),
    # 7: closing.
    "close without a code": ([bye(None)], [], {0}),
    "close of one byte": ([frame(CLOSE, b"\x03")], [], {1002}),
    "close": ([bye()], [], {1000}),
    "close with a reason": ([bye(1000, b"x" * 123)], [], {1000}),
    "close that is too long": ([bye(1000, b"x" * 124)], [], {1002}),
    "close whose reason is no UTF-8": ([bye(1000, b"\xce\xba\xed\xa0\x80")], [], {1002, 1007}),
    **{f"close {code}": ([bye(code)], [], {code}) for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)},
    **{f"close {code}": ([bye(code)], [], {1002}) for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)},
    "twice closed": ([bye(), bye()], [], {1000}),
    "ping after the close": ([bye(), frame(PING)], [], {1000}),
    "call after the close": ([bye(), frame(TEXT, call())], [], {1000}),
    "a long call, a call, a close, then a ping": (
        [frame(TEXT, padded(1 << 18)), frame(TEXT, call("2")), bye(), frame(PING)], ["1", "2"], {1000}
    ),
    # Closed in the middle of a message, where the library sees an error and Autobahn none.
    "close inside a text": ([frame(TEXT, b"a", first=0), bye()], [], {1000, 1002}),
    "close inside a text that goes on": ([frame(TEXT, b"a", first=0), bye(), frame(CONT, b"b")], [], {1000, 1002}),
    # What this protocol has none of, and what a client may not do. Section 5.1.
    "binary": ([frame(BINARY, b"x")], [], {1003}),
    "binary in fragments": ([frame(BINARY, b"x", first=0), frame(CONT, b"\xff")], [], {1003}),
    "not masked": ([frame(TEXT, call(), masked=False)], [], {1002}),
    "ping that is not masked": ([frame(PING, masked=False)], [], {1002}),
    # Lengths. Section 5.2: the first bit of 64 is 0.
    "too long": ([frame(TEXT, b"", size=b"\x7f" + struct.pack("!Q", (25 << 20) + 1))], [], {1009}),
    "negative": ([frame(TEXT, b"", size=b"\x7f" + struct.pack("!Q", 1 << 63))], [], {1002, 1009}),
    "too long together": (
        [frame(TEXT, b"x" * (13 << 20), first=0), frame(CONT, b"x" * (13 << 20))], [], {1009}
    ),
}  # fmt: skip


@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "byte by byte"])
def test_message_is_taken_however_it_is_cut(gateway: Daemon, port: int, *, slowly: bool) -> None:
    for name, (frames, ids, pongs) in TAKEN.items():
        if slowly and sum(map(len, frames)) > 2000:
            continue
        found = heard(port, [*frames, bye()], **({"chop": 1} if slowly else {}))
        assert found == Heard(ids, pongs, 1000), name


def test_long_message_is_taken_in_pieces(gateway: Daemon, port: int) -> None:
    for chop in (64, 997, 2048):
        found = heard(port, [frame(TEXT, padded(1 << 20)), bye()], chop=chop)
        assert found == Heard(["1"], [], 1000), chop


def test_ping_is_answered_before_the_message_around_it_is_whole(gateway: Daemon, port: int) -> None:
    stream = opened(port)
    *before, last = fragments(call(), *range(5, 30, 5))
    for number, part in enumerate(before):
        stream.socket.sendall(part + frame(PING, b"%d" % number))
        assert stream.next() == (PONG, b"%d" % number)
    stream.socket.sendall(last)
    found = stream.next()
    assert found is not None and json.loads(found[1])["id"] == "1"
    stream.close()


def test_a_thousand_messages_one_by_one(gateway: Daemon, port: int) -> None:
    stream = opened(port)
    for number in range(1000):
        stream.socket.sendall(frame(TEXT, call(str(number)).ljust((0, 4096)[number % 2])))
        found = stream.next()
        assert found is not None and json.loads(found[1])["id"] == str(number)
    stream.close()


def test_breach_is_closed_with_its_code(gateway: Daemon, port: int) -> None:
    for name, (frames, ids, codes) in FAILED.items():
        found = heard(port, frames)
        assert (found.ids, found.pongs) == (ids, []), name
        assert found.code in codes, (name, found)
    gateway.stop()
    assert len(gateway.log) == 3, gateway.log  # of all that, not a line


REFUSED = {
    "no key": (UPGRADE.replace(b"Sec-WebSocket-Key", b"X"), 400),
    "short key": (UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"), 400),
    "key that is no base64": (UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25j*Q=="), 400),
    "key in eight bits": (UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"\xe9" * 24), 400),
    "two keys": (UPGRADE + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
    "version 8": (UPGRADE.replace(b"Version: 13", b"Version: 8"), 426),
    "no version": (UPGRADE.replace(b"Sec-WebSocket-Version", b"X"), 426),
    "http/1.0": (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), 426),
    "no upgrade": (UPGRADE.replace(b"Upgrade: websocket\r\n", b""), 426),
    "another upgrade": (UPGRADE.replace(b"websocket", b"h2c"), 426),
    "not in connection": (UPGRADE.replace(b"Connection: Upgrade", b"Connection: keep-alive"), 426),
    "post": (UPGRADE.replace(b"GET", b"POST"), 405),
    "head": (UPGRADE.replace(b"GET", b"HEAD"), 405),
    "with a body": (UPGRADE + b"Content-Length: 1\r\n", 400),
    "elsewhere": (UPGRADE.replace(b"GET / ", b"GET /x "), 404),
}  # fmt: skip


def test_opening_handshake_that_is_wrong_gets_an_answer_in_http(gateway: Daemon, port: int) -> None:
    for name, (request, status) in REFUSED.items():
        stream = Stream(port)
        stream.socket.sendall(request + b"\r\n")
        head = stream.head()
        assert head[0].split()[1] == b"%d" % status, name
        assert (b"Upgrade: websocket" in head) == (status == 426), name
        stream.close()


def test_offers_are_not_taken_up_and_not_logged(gateway: Daemon, port: int) -> None:
    for _ in range(20):
        stream = Stream(port)
        stream.socket.sendall(
            UPGRADE
            + b"Sec-WebSocket-Protocol: chat, \xff" + b"x" * 4000 + b"\r\n"
            + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, ???;;,\r\n\r\n"
        )  # fmt: skip
        head = stream.head()
        assert head[0].split()[1] == b"101"
        assert not [
            line for line in head if line.startswith(b"Sec-WebSocket-") and b"Accept" not in line
        ]
        stream.close()
    gateway.stop()
    assert len(gateway.log) == 3, gateway.log


COMPRESSION = [
    "permessage-deflate",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=15, permessage-deflate",
]


def test_offered_compression_is_declined_and_messages_go_without(
    gateway: Daemon, port: int
) -> None:
    for offer in COMPRESSION:
        stream = Stream(port)
        stream.socket.sendall(
            UPGRADE
            + f"Sec-WebSocket-Extensions: {offer}\r\n\r\n".encode()
            + frame(TEXT, json.dumps(CONNECT).encode())
            + frame(TEXT, call())
            + bye()
        )
        head = stream.head()
        assert head[0].split()[1] == b"101"
        assert not [line for line in head if line.lower().startswith(b"sec-websocket-ext")]
        assert stream.ids() == ["c", "1"]
        stream.close()


def test_frames_that_come_with_the_upgrade_are_not_lost(gateway: Daemon, port: int) -> None:
    # ``opened`` sends both in one piece; this is with more behind it.
    stream = Stream(port)
    data = UPGRADE + b"\r\n" + frame(TEXT, json.dumps(CONNECT).encode())
    stream.socket.sendall(data + frame(TEXT, call("a")) + frame(TEXT, call("b")) + bye())
    stream.head()
    assert stream.ids() == ["c", "a", "b"]
    stream.close()
