"""The examples for Prometheus, before its own checker."""

from __future__ import annotations

import json
import re
from pathlib import Path

import promtool
from monitoring import ALERTS, EXAMPLES, RULES, expressions


def test_rules_are_rules() -> None:
    assert "SUCCESS" in promtool.run("check", "rules", RULES)


def test_each_alert_fires_when_it_should_and_not_beside_it(tmp_path: Path) -> None:
    tests = tmp_path / "alerts.yml"
    tests.write_text(ALERTS.read_text().replace("- RULES", f"- {RULES}"))
    assert "SUCCESS" in promtool.run("test", "rules", tests)


def test_scrape_configuration_is_one_once_its_files_are_in_place(tmp_path: Path) -> None:
    (tmp_path / "openclaw-gateway.token").write_text("secret\n")
    (tmp_path / RULES.name).write_text(RULES.read_text())
    text = (EXAMPLES / "prometheus.yml").read_text()
    here = tmp_path / "prometheus.yml"
    here.write_text(
        re.sub(r"^([^#\n]*)/etc/prometheus/", rf"\1{tmp_path}/", text, flags=re.MULTILINE)
    )
    said = promtool.run("check", "config", here)
    assert "SUCCESS" in said and "1 rule files found" in said


def test_dashboard_asks_in_words_that_prometheus_knows(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:{number}", "expr": expression}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # YAML too
    assert f"SUCCESS: {len(rules)} rules found" in promtool.run("check", "rules", file)
