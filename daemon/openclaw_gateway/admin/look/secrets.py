"""Where secrets lie that others may read; the values stay unread where a file's mode tells enough."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from openclaw_gateway.admin.look import files
from openclaw_gateway.admin.look.environment import files_of, parse
from openclaw_gateway.admin.look.facts import Facts
from openclaw_gateway.admin.look.selection import SECRET_VARIABLES
from openclaw_gateway.admin.look.units import Unit
from openclaw_gateway.settings.load import CLUSTER_VARIABLE
from openclaw_gateway.settings.location import own_path_beside

_VARIABLES = (*SECRET_VARIABLES, CLUSTER_VARIABLE)
_SECRET_KEYS = ('"token"', '"password"', "token:", "password:")


class Secrets(NamedTuple):
    """Places where a secret may lie, none of which was read for its value."""

    open_files: tuple[tuple[str, int], ...] = ()
    """Path and mode of files with a secret in them that others may read."""
    in_units: tuple[tuple[Unit, str], ...] = ()
    """Unit and the name of the variable."""
    problems: tuple[str, ...] = ()
    """Which places could not be looked into, and why."""


def _secrets_in(found: tuple[Unit, ...]) -> Iterator[tuple[Unit, str]]:
    for unit in found:
        for variable in _VARIABLES:
            if unit.environment.get(variable):
                yield unit, variable


def look_for_secrets(facts: Facts, found: tuple[Unit, ...]) -> Secrets:
    """Find secrets that others may read; the values stay unread where a file's mode tells enough."""
    looks: list[tuple[str, Callable[[str], Iterator[tuple[str, int]]]]] = [
        (facts.lock.state_dir, _open_in_state),
        (facts.subject.place.config_path, _open_configuration),
        (own_path_beside(facts.subject.place.config_path), _open_configuration),
        *((path, _open_environment) for unit in found for path in files_of(unit)),
    ]
    open_files: list[tuple[str, int]] = []
    problems = []
    for path, find in looks:
        try:
            open_files += find(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problems.append(f"secrets in {path}: {os.strerror(error.errno or 0)}")
    return Secrets(tuple(open_files), tuple(_secrets_in(found)), tuple(problems))


def _open_in_state(directory: str) -> Iterator[tuple[str, int]]:
    for name in sorted(os.listdir(directory)):
        if "token" in name or "password" in name:
            path = os.path.join(directory, name)
            mode = _mode(path)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                yield path, mode


def _open_configuration(path: str) -> Iterator[tuple[str, int]]:
    mode = _mode(path)
    if mode & stat.S_IROTH and _mentions_secret(path):
        yield path, mode


def _open_environment(path: str) -> Iterator[tuple[str, int]]:
    mode = _mode(path)
    if mode & stat.S_IROTH and _sets_secret(path):
        yield path, mode


def _sets_secret(path: str) -> bool:
    variables = parse(files.read(path) or "")
    return any(variables.get(name) for name in _VARIABLES)


def _mode(path: str) -> int:
    """Return a file's permissions; 0 for what is no file and holds nothing."""
    info = os.stat(path)
    return stat.S_IMODE(info.st_mode) if stat.S_ISREG(info.st_mode) else 0


def _mentions_secret(path: str) -> bool:
    text = files.read(path) or ""
    return any(key in text for key in _SECRET_KEYS)
