"""The manual's cluster is one: its settings are taken as they stand, and page and examples say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openclaw_gateway.settings.load import AROUND, examine

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "debian/examples/cluster"
PAGE = (ROOT / "packaging/man/openclaw-cluster.7").read_text()
BLOCKS = re.findall(r"^\.Bd -literal\n(.*?)^\.Ed$", PAGE, re.MULTILINE | re.DOTALL)


def block(text: str) -> str:
    """Return the block of the page in which this stands."""
    (found,) = (one for one in BLOCKS if text in one)
    return str(found)


def lines(text: str) -> list[str]:
    """Return the lines that are no comments and not empty."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith(("#", "//"))]


@pytest.mark.parametrize("own", [(EXAMPLES / "openclaw-gateway.json").read_text(), block('"name"')])
def test_settings_are_taken(tmp_path: Path, own: str) -> None:
    (tmp_path / "openclaw.json").write_text((EXAMPLES / "openclaw.json").read_text())
    (tmp_path / "openclaw-gateway.json").write_text(own)
    environ = {"CONFIGURATION_DIRECTORY": str(tmp_path), "STATE_DIRECTORY": str(tmp_path)}
    found = examine({}, environ, around=AROUND._replace(host_name=lambda: "gw-a"))
    assert not found.problems
    assert found.settings is not None and found.settings.cluster is not None
    cluster = found.settings.cluster
    assert (cluster.name, cluster.url) == ("home", "http://gw-a:18789")
    assert [endpoint[7:17] for endpoint in cluster.endpoints] == [
        "192.0.2.11", "192.0.2.12", "192.0.2.13",
    ]  # fmt: skip
    # What the manual says of authentication, and nothing else.
    (warning,) = found.warnings
    assert "the record goes to http://192.0.2.11:2379 in the clear" in warning


def test_page_and_examples_say_the_same() -> None:
    assert lines(block("ETCD_NAME")) == lines((EXAMPLES / "etcd").read_text())
    balancer = lines((EXAMPLES / "haproxy.cfg").read_text())
    shown = lines(block("backend active"))
    assert balancer[balancer.index("backend active") :] == shown


def test_nodes_of_etcd_are_the_endpoints() -> None:
    text = (EXAMPLES / "etcd").read_text()
    peers = re.findall(r"gw-[abc]=http://([0-9.]+):2380", text)
    settings = (EXAMPLES / "openclaw-gateway.json").read_text()
    assert re.findall(r"http://([0-9.]+):2379", settings) == peers
