"""The credentials of a unit: which lie ready for it, which its files ask for, and which systemd handed over."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from openclaw_gateway.admin.look import unitfile
from openclaw_gateway.admin.look.unitfile import Assignment
from openclaw_gateway.admin.look.units import Unit
from openclaw_gateway.host.process import PROC

_LOADING = ("LoadCredential", "LoadCredentialEncrypted")
_IMPORTING = "ImportCredential"
STORES = tuple(
    f"{directory}/credstore{suffix}"
    for directory in ("/etc", "/run", "/usr/local/lib", "/usr/lib")
    for suffix in ("", ".encrypted")
)
"""Where systemd looks for a credential that is named without a path. systemd.exec(5), ``LoadCredential=``."""
HANDED_OVER = "/run/credentials"


class Credential(NamedTuple):
    """One credential that a unit's files ask for, or asked for before another file took that back."""

    name: str
    """As the gateway is given it: ``openclaw-gateway.token``."""
    source: str | None
    """The file that it would come from; ``None`` if there is none that we can see."""
    is_asked_for: bool
    """Whether the unit still asks for it."""
    taken_back_by: str | None
    """The file that empties the list which it stood in."""
    came: bool | None
    """Whether systemd handed it over at the last start; ``None`` if nothing runs, or we may not look."""


def directory_of(unit: Unit, *, root: str = HANDED_OVER, proc: str = PROC) -> str:
    """
    Return where a running unit's credentials are, for those who may look. systemd.exec(5).

    They are mounted where the service sees them, and from systemd 257 on only there: so it is
    looked at with the service's own eyes.
    """
    uid = unit.manager.uid
    path = f"{root}/{unit.name}" if uid is None else f"/run/user/{uid}/credentials/{unit.name}"
    return path if unit.main_pid is None else f"{proc}/{unit.main_pid}/root{path}"


def may_be_listed(directory: str) -> bool:
    """Whether there is such a directory, and its names are ours to see."""
    return os.path.isdir(directory) and os.access(directory, os.R_OK | os.X_OK)


def of_unit(
    unit: Unit, *, stores: Sequence[str] = STORES, root: str = HANDED_OVER, proc: str = PROC
) -> tuple[Credential, ...]:
    """
    Compare what should come to a unit with what came.

    Args:
        unit: It.
        stores: Directories of credentials.
        root: Where systemd puts those that it hands over.
        proc: Where the process table is mounted.
    """
    lines = unitfile.assignments(unit, *_LOADING, _IMPORTING)
    kept = unitfile.effective(lines)
    handed_over = directory_of(unit, root=root, proc=proc)
    may_look = unit.main_pid is not None and os.geteuid() == 0
    found: dict[str, Credential] = {}
    for line in lines:
        for name, source in _named(line, stores if unit.manager.is_system else ()):
            known = found.get(name)
            came = os.path.exists(f"{handed_over}/{name}") if may_look else None
            found[name] = Credential(
                name=name,
                source=source or (known.source if known else None),
                is_asked_for=line in kept or (known is not None and known.is_asked_for),
                taken_back_by=None if line in kept else _emptied_by(line, lines),
                came=came,
            )
    return tuple(found.values())


def _named(line: Assignment, stores: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the credentials that a line stands for, and the file of each, if there is one."""
    if line.key == _IMPORTING:
        pattern, _, renamed = line.value.partition(":")
        prefix = pattern.partition("*")[0]
        for store in stores:
            for name in _names(store):
                if fnmatchcase(name, pattern):
                    given = renamed + name.removeprefix(prefix) if renamed else name
                    yield given, f"{store}/{name}"
        return
    name, _, path = line.value.partition(":")
    if not name:
        return
    places = [path] if path.startswith("/") else [f"{store}/{path or name}" for store in stores]
    yield name, next(filter(os.path.isfile, places), None)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _emptied_by(line: Assignment, lines: Sequence[Assignment]) -> str | None:
    later = lines[lines.index(line) + 1 :]
    return next((other.path for other in later if other.key == line.key and not other.value), None)
