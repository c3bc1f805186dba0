"""The examples for Prometheus and Grafana that are shipped, taken apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "debian/examples/prometheus"
RULES = EXAMPLES / "openclaw-gateway.rules.yml"
ALERTS = REPOSITORY / "tests/alerts.yml"
"""Unit tests of the rules, for ``promtool test rules``; ``RULES`` stands for their path."""


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    return found


def expressions() -> Iterator[str]:
    """Yield everything that the dashboard asks for, as Grafana sends it: with its variables filled in."""
    found = dashboard()
    for panel in found["panels"]:
        yield from (filled(target["expr"]) for target in panel["targets"])
    yield from (filled(note["expr"]) for note in found["annotations"]["list"])


def filled(expression: str) -> str:
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".+")
