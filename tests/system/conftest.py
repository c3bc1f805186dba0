"""
A real systemd as PID 1, once per release and test module; where that is impossible, say so.

``SYSTEM_TESTS=required`` turns "left out" into a failure; CI sets it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from machine import Machine, booted_with_package
from xdist.scheduler import LoadScopeScheduling

from testbed import package, roots
from testbed.package import Built
from testbed.sandbox import TestbedError, require_host

_LONGEST = (
    "test_apt",
    "test_duplicates",
    "test_admin",
    "test_debian_versions",
    "test_autopkgtest",
    "test_lifecycle",
)
"""Modules that begin first, or the others would have to wait for them at the end."""


class _ByMachine(LoadScopeScheduling):
    """Has each module of each release run in one worker, with one machine: they can't be shared."""

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        return f"{module} {[release for release in roots.RELEASES if release in test]}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return _ByMachine(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.timeout(1800))  # the first one may have to make the roots


@pytest.fixture(scope="session")
def host() -> None:
    """What can run a booted Debian."""
    try:
        require_host()
    except TestbedError as error:
        if os.environ.get("SYSTEM_TESTS") == "required":
            raise
        pytest.skip(f"TESTS WITH A REAL SYSTEMD LEFT OUT: {error}")


@pytest.fixture(scope="module", params=roots.RELEASES)
def release(request: pytest.FixtureRequest, host: None) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built(release: str) -> Built:
    """The package of this checkout."""
    return package.build(release)


@pytest.fixture(scope="module")
def machine(release: str) -> Iterator[Machine]:
    """A booted system with the package, shared by the tests of a module."""
    with booted_with_package(release) as machine:
        yield machine


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured with ``record_property``."""
    figures = [
        f"{report.nodeid.rpartition('::')[2]}: {name} = {value}"
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, value in report.user_properties
    ]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))
