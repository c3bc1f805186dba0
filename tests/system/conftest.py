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

from faults.extent import extent
from testbed import package, roots
from testbed.package import Built
from testbed.sandbox import TestbedError, require_host

_LONGEST = (
    "test_debian_versions",
    "test_autopkgtest",
    "test_kept_listener",
    "test_cluster_hosts",
    "test_apt",
    "test_admin",
    "test_guard_node",
    "test_guard",
    "test_lifecycle",
    "test_findings",
)
"""Modules that begin first, or the others would have to wait for them at the end."""

_ON_ONE_RELEASE = {
    "test_call": "trixie",
    "test_cluster": "trixie",
    "test_example_of_the_manual_works": "bookworm",
    "test_fifty_restarts_are_each_ready_when_systemctl_returns": "bookworm",
    "test_findings": "bookworm",
    "test_guard": "trixie",
    "test_killed_gateway_is_back": "bookworm",
    "test_openclaws_own_user_unit_runs_behind_a_guard_by_the_recipe": "trixie",
    "test_page_of_service": "bookworm",
    "test_restart_by_openclaws_own_command_goes_through_systemd": "trixie",
    "test_unit_by_the_recipe_is_active_only_once_startupz_says_started": "bookworm",
    "test_watched": "trixie",
}
"""
Modules, and tests, of which a sample has one release: what they try differs little from one to the other.

Each release has its share. ``SYSTEM_FULL=1``, as ``make system`` sets it, has them on both.
"""


class _ByMachine(LoadScopeScheduling):
    """Has each module of each release run in one worker, with one machine: they can't be shared."""

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        return f"{module} {[release for release in roots.RELEASES if release in test]}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return _ByMachine(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [] if extent("SYSTEM_FULL", 0, 1) else list(filter(_is_on_the_other, items))
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    ranks = {name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def _is_on_the_other(item: pytest.Item) -> bool:
    """Whether a sample has this test on the other release only."""
    function = item.name.partition("[")[0]
    only = _ON_ONE_RELEASE.get(item.path.stem) or _ON_ONE_RELEASE.get(function)
    return only is not None and only not in item.name


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
