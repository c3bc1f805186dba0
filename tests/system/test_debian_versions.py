"""The project's own tests with each release's Python and aiohttp, against the installed package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from machine import Machine

from testbed import package

Record = Callable[[str, object], None]

_VERSIONS = """
import platform, aiohttp, openclaw_gateway
assert openclaw_gateway.__file__.startswith("/usr/lib/python3/dist-packages/")
print(f"Python {platform.python_version()}, aiohttp {aiohttp.__version__}")
"""


def test_unit_and_integration_tests_pass(
    machine: Machine, tmp_path: Path, record_property: Record
) -> None:
    package.copy_source(tmp_path / "checkout")
    machine.copy_in(tmp_path / "checkout", "/var/tmp/checkout")
    # What expects "permission denied" means nothing as root.
    machine.run("useradd --create-home tester; chown -R tester: /var/tmp/checkout")
    pytest = "python3 -m pytest -q -p no:cacheprovider tests/unit tests/integration"
    said = machine.run(f"cd /var/tmp/checkout; {pytest}", user="tester", timeout_s=900)
    versions = machine.run(["python3", "-c", _VERSIONS]).stdout.strip()
    record_property(versions, said.stdout.splitlines()[-1])
