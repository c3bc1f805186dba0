"""Reading the kernel's socket tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclaw_gateway.host.address import reachable, url
from openclaw_gateway.host.ports import Connections, Listening, connections, listening

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(address: str, state: str, uid: int = 0, inode: int = 1, queued: int = 0) -> str:
    return f"   0: {address} 00000000:0000 {state} 00000000:{queued:08X} 00:00000000 00000000 {uid:5} 0 {inode} 1 0\n"


def test_listeners_of_a_port_are_found_on_every_address(tmp_path: Path) -> None:
    net = tmp_path / "self/net"
    net.mkdir(parents=True)
    (net / "tcp").write_text(
        HEADER
        + row("0100007F:4965", "0A", uid=5, inode=77, queued=18)
        + row("0200007F:4965", "0A")
        + row("0100007F:0016", "0A")
        + row("0100007F:4965", "01")
    )
    (net / "tcp6").write_text(HEADER + row("00000000000000000000000001000000:4965", "0A"))
    assert listening(18789, proc=str(tmp_path)) == [
        Listening("127.0.0.1", 18789, 5, 77, 18),
        Listening("127.0.0.2", 18789, 0, 1, 0),
        Listening("::1", 18789, 0, 1, 0),
    ]


def test_connections_of_a_port_are_counted_by_their_state(tmp_path: Path) -> None:
    net = tmp_path / "self/net"
    net.mkdir(parents=True)
    (net / "tcp").write_text(
        HEADER
        + row("0100007F:4965", "0A")
        + row("0100007F:4965", "01")
        + row("0100007F:4965", "08")
        + row("0100007F:1234", "01")
    )
    (net / "tcp6").write_text(HEADER + row("00000000000000000000000001000000:4965", "01"))
    assert connections(18789, proc=str(tmp_path)) == Connections(established=2, half_closed=1)


def test_a_kernel_without_ipv6_has_no_such_listeners(tmp_path: Path) -> None:
    (tmp_path / "self/net").mkdir(parents=True)
    assert listening(18789, proc=str(tmp_path)) == []


@pytest.mark.parametrize(
    ("host", "text"),
    [("127.0.0.1", "ws://127.0.0.1:18789"), ("::1", "ws://[::1]:18789")],
)
def test_url(host: str, text: str) -> None:
    assert url(host, 18789) == text


@pytest.mark.parametrize(
    ("host", "at"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1")]
)
def test_wildcards_are_reached_on_loopback(host: str, at: str) -> None:
    assert reachable(host) == at
