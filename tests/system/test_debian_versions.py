"""The project's own tests with each release's Python and libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from testbed import package

Record = Callable[[str, object], None]


def test_integration_tests_pass(release: str, tmp_path: Path, record_property: Record) -> None:
    # Those in tests/unit have passed before, when the package was built.
    log = tmp_path / "log"
    status = package.run_tests(release, "-q", "--tb=short", "tests/integration", log=log)
    said = log.read_text(errors="replace")
    assert status == 0, said[-20_000:]
    summary = [line for line in said.splitlines() if " passed" in line]
    record_property("tests/integration", summary[-1])
