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


class OpenFile(NamedTuple):
    """A file with a secret in it that others may read."""

    path: str
    mode: int
    owner_uid: int
    group: str | None = None
    """The group of a gateway that has to read it and does not own it; ``None`` if the owner alone reads it."""


class Secrets(NamedTuple):
    """Places where a secret may lie, none of which was read for its value."""

    open_files: tuple[OpenFile, ...] = ()
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
    config_path = facts.subject.place.config_path

    def open_configuration(path: str) -> Iterator[OpenFile]:
        return _open_configuration(path, facts.subject.unit)

    # What systemd reads, it reads as whoever it is, and the state is the gateway's own.
    looks: list[tuple[str, Callable[[str], Iterator[OpenFile]]]] = [
        (facts.lock.state_dir, _open_in_state),
        (config_path, open_configuration),
        (own_path_beside(config_path), open_configuration),
        *((path, _open_environment) for unit in found for path in files_of(unit)),
    ]
    open_files: list[OpenFile] = []
    problems = []
    for path, find in looks:
        try:
            open_files += find(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problems.append(f"secrets in {path}: {os.strerror(error.errno or 0)}")
    return Secrets(tuple(open_files), tuple(_secrets_in(found)), tuple(problems))


def _open_in_state(directory: str) -> Iterator[OpenFile]:
    for name in sorted(os.listdir(directory)):
        if "token" in name or "password" in name:
            file = _file(os.path.join(directory, name))
            if file.mode & (stat.S_IRWXG | stat.S_IRWXO):
                yield file


def _open_configuration(path: str, unit: Unit | None) -> Iterator[OpenFile]:
    file = _file(path)
    if file.mode & stat.S_IROTH and _mentions_secret(path):
        yield file._replace(group=_group_of_reader(unit, file.owner_uid))


def _open_environment(path: str) -> Iterator[OpenFile]:
    file = _file(path)
    if file.mode & stat.S_IROTH and _sets_secret(path):
        yield file


def _group_of_reader(unit: Unit | None, owner_uid: int) -> str | None:
    """Return the group of the account that a system unit runs as, if that is neither root nor the owner."""
    from grp import getgrgid
    from pwd import getpwnam

    if unit is None or not unit.manager.is_system or not unit.user:
        return None
    try:
        account = getpwnam(unit.user)
        group = getgrgid(account.pw_gid).gr_name
    except KeyError:
        return None
    return None if account.pw_uid in (0, owner_uid) else group


def _sets_secret(path: str) -> bool:
    variables = parse(files.read(path) or "")
    return any(variables.get(name) for name in _VARIABLES)


def _file(path: str) -> OpenFile:
    """Return a file's permissions and owner; as permissions 0 for what is no file and holds nothing."""
    info = os.stat(path)
    mode = stat.S_IMODE(info.st_mode) if stat.S_ISREG(info.st_mode) else 0
    return OpenFile(path, mode, info.st_uid)


def _mentions_secret(path: str) -> bool:
    text = files.read(path) or ""
    return any(key in text for key in _SECRET_KEYS)
