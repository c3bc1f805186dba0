"""The project's own tests with each release's Python and libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faults.extent import extent
from testbed import package

Record = Callable[[str, object], None]

_OF_LIBRARIES = (
    *(
        "call_verb",
        "cluster_status",
        "extension",
        "http_conformance",
        "limits",
        "probe",
        "protocol",
    ),
    *("scrape", "serving", "settings_cases", "tls", "unreadable_settings", "websocket_conformance"),
)
"""
Where it shows what h11, websockets, requests, json5 and prometheus_client do.

A sample has only these with Debian 12's versions: it is the release that the tests are run on, with
the same Python.
"""


def test_integration_tests_pass(release: str, tmp_path: Path, record_property: Record) -> None:
    # Those in tests/unit have passed before, when the package was built.
    tests = ["tests/integration"]
    if release == "bookworm" and not extent("SYSTEM_FULL", 0, 1):
        tests = [f"tests/integration/test_{name}.py" for name in _OF_LIBRARIES]
    log = tmp_path / "log"
    status = package.run_tests(release, "-q", "--tb=short", *tests, log=log)
    said = log.read_text(errors="replace")
    assert status == 0, said[-20_000:]
    summary = [line for line in said.splitlines() if " passed" in line]
    record_property("tests/integration", summary[-1])
