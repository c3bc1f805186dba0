"""Fixtures of the tests of a cluster's faults; ``pytest_plugins`` brings them in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import etcd
from faults.stage import Stage, staged


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Nodes]:
    """Three nodes of etcd for all tests of a module."""
    with etcd.running(tmp_path_factory.mktemp("etcd"), 3, listen="0.0.0.0") as running:
        yield running


@pytest.fixture
def stage(nodes: etcd.Nodes, tmp_path: Path) -> Iterator[Stage]:
    with staged(nodes, tmp_path) as made:
        yield made


@pytest.fixture
def own_stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage whose etcd is the test's to break."""
    with etcd.running(tmp_path / "nodes", 3) as nodes, staged(nodes, tmp_path) as made:
        yield made
