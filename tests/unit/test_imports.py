"""The import graph as it stands in the source, types included: every arrow points down, and there is no circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import openclaw_gateway

ROOT = Path(openclaw_gateway.__file__).parent
NAME = "openclaw_gateway"

FLOORS = (
    {"__main__", "extension"},
    {"cli"},
    {"gateway", "guard"},
    {"standby", "clustered"},
    {"lifecycle", "server", "admin"},
    {"claim", "cluster"},
    {"client"},
    {"protocol", "settings"},
    {"supervisor", "host", "errors"},
)
"""
The rooms, from the top: one may use another of its own floor, unless that makes a circle.

``extension`` is a face for the authors of extensions, which nothing of ours looks at.
"""


def floor(module: str) -> int:
    """Return how far from the top a module's room is; what is in no room is below all."""
    room = module.partition(".")[0]
    return next((at for at, rooms in enumerate(FLOORS) if room in rooms), len(FLOORS))


@cache
def graph() -> dict[str, frozenset[str]]:
    """Return what each module imports of ours, wherever the line stands."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in ROOT.rglob("*.py")
    }
    return {module: frozenset(_imports(path, modules.keys())) for module, path in modules.items()}


def _imports(path: Path, modules: object) -> Iterator[str]:
    assert isinstance(modules, type({}.keys()))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # "from package import name" may mean a module or something in the package.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            ours = name.removeprefix(f"{NAME}.")
            if ours == name:
                continue
            yield ours if ours in modules else ours.rpartition(".")[0] or "__init__"


def test_every_room_has_its_floor() -> None:
    rooms = {module.split(".")[0] for module in graph()} - {"__init__"}
    assert rooms == set().union(*FLOORS)


@pytest.mark.parametrize("module", sorted(graph()))
def test_imports_point_down(module: str) -> None:
    up = {used for used in graph()[module] if floor(used) < floor(module)}
    assert not up


def circles(edges: dict[str, set[str]]) -> list[str]:
    """Return one circle, if there is any."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles({module: set(used) for module, used in graph().items()}) == []


def test_no_room_imports_itself_by_way_of_others() -> None:
    rooms: dict[str, set[str]] = {}
    for module, used in graph().items():
        room = module.split(".")[0]
        rooms.setdefault(room, set()).update(name.split(".")[0] for name in used)
        rooms[room].discard(room)
    assert circles(rooms) == []
