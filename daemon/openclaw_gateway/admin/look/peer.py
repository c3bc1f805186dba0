"""OpenClaw's own command and units on the same machine: its Node gateway, which shares names with ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from glob import glob
from typing import NamedTuple

from openclaw_gateway.admin.look import files

_PREFIXES = (
    "/usr/local/bin",
    "/usr/bin",
    "/opt/*/bin",
    "{home}/.local/bin",
    "{home}/.npm-global/bin",
    "{home}/.nvm/versions/node/*/bin",
    "{home}/.local/share/pnpm",
    "{home}/.volta/bin",
    "{home}/.bun/bin",
)
"""Where package managers of Node put commands, beside PATH."""
_UNITS = "{home}/.config/systemd/user/openclaw-gateway*.service"
_HEAD_BYTES = 4096
_USER_UNIT = "/usr/lib/systemd/user/openclaw-gateway.service"
"""Ours for every user, where a package brought it."""


class Peer(NamedTuple):
    """What there is of OpenClaw's own gateway, as far as we may see."""

    commands: tuple[str, ...] = ()
    """Paths of ``openclaw`` that run under Node."""
    units: tuple[str, ...] = ()
    """Files of user units that its installer wrote."""
    in_the_way: str = ""
    """The file of our own user unit: where a user has none of that name, its installer refuses for ours."""


def find(path: str, homes: Sequence[str], *, user_unit: str = _USER_UNIT) -> Peer:
    """
    Look for OpenClaw's own command and units; runs nothing.

    Args:
        path: The caller's ``PATH``.
        homes: Homes of those who may have installed it for themselves.
        user_unit: Where our own unit for every user would be.
    """
    directories = [*path.split(":"), *_expanded(_PREFIXES, homes)]
    commands = (f"{directory}/openclaw" for directory in directories if directory.startswith("/"))
    # Several names may lead to one file, as /bin does to /usr/bin.
    found = {os.path.realpath(command): command for command in commands if _is_of_node(command)}
    units = [name for name in _expanded([_UNITS], homes) if _is_installed_by_openclaw(name)]
    return Peer(tuple(found.values()), tuple(units), user_unit if os.path.isfile(user_unit) else "")


def _expanded(patterns: Sequence[str], homes: Sequence[str]) -> Iterator[str]:
    for pattern in patterns:
        for home in homes if "{home}" in pattern else [""]:
            yield from sorted(glob(pattern.replace("{home}", home)))


def _is_of_node(command: str) -> bool:
    """Whether a command is a script for Node; ours, of the same name, is Python's."""
    first_line = _head(command).split("\n", 1)[0]
    return "/node_modules/" in os.path.realpath(command) or (
        first_line.startswith("#!") and "node" in first_line
    )


def _is_installed_by_openclaw(path: str) -> bool:
    return "OPENCLAW_SERVICE_MARKER" in _head(path)


def _head(path: str) -> str:
    try:
        return files.read(path, limit_bytes=_HEAD_BYTES) or ""
    except PermissionError:
        return ""
