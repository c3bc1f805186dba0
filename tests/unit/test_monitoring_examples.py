"""The examples for Prometheus and Grafana ask for metrics that there are, and each alert is tested."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_metrics import ALL
from test_textfile import SEEN

from monitoring import ALERTS, RULES, dashboard, expressions
from openclaw_gateway.guard.textfile import exposition
from openclaw_gateway.server import metrics


def test_each_alert_has_a_test_and_says_what_to_type() -> None:
    text = RULES.read_text()
    assert set(re.findall(r"alert: (\w+)", text)) == set(
        re.findall(r"alertname: (\w+)", ALERTS.read_text())
    )
    for alert in text.split("- alert: ")[1:]:
        assert re.search(r"severity: (critical|warning)\n", alert)
        assert re.search(r"openclaw-gateway status|journalctl|man |Stop all", alert), alert


@pytest.mark.parametrize("text", [RULES.read_text(), *expressions()])
def test_nothing_is_asked_for_that_there_is_not(text: str) -> None:
    body = metrics.answer(ALL).body
    assert isinstance(body, bytes)
    ours = {
        sample.name
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    ours |= set(re.findall(r"^openclaw_guard_[a-z_]+", exposition(SEEN), re.MULTILINE))
    assert set(re.findall(r"\b(?:openclaw_gateway|openclaw_guard|process)_[a-z_]+", text)) <= ours
    assert "$" not in re.sub(r"\{\{.*?\}\}", "", text, flags=re.DOTALL)


def test_dashboard_is_laid_out_without_overlaps() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    for panel in panels:
        at = panel["gridPos"]
        columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells = {(column, row) for column in columns for row in rows}
        assert columns.stop <= 24 and not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
