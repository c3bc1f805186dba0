"""A pytest plugin that keeps every test's outcome and noted properties for the README's table.

pytest -p faults.recorder --record FILE
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

_outcomes: dict[str, dict[str, object]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="write outcomes and properties to this file")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcome: dict[str, object] = {"outcome": report.outcome}
        _outcomes[report.nodeid] = outcome | dict(report.user_properties)


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.getoption("--record")
    if file and not hasattr(session.config, "workerinput"):  # pytest-xdist's workers report to us
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_outcomes, indent=1))
