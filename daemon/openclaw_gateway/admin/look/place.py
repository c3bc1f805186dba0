"""Where a gateway is configured to be: its port, address and files, from settings that may be wrong or closed to us."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from openclaw_gateway.admin.look import environment
from openclaw_gateway.admin.look.selection import PORT_VARIABLE
from openclaw_gateway.admin.look.units import Unit
from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.settings import load as settings
from openclaw_gateway.settings.location import Location, locate, profile_port

DEFAULT_PORT = 18789


class Place(NamedTuple):
    """Where a gateway is configured to be."""

    port: int
    host: str
    state_dir: str
    config_path: str
    auth: str
    health_timeout_s: float
    """How long a start waits for an owner to get healthy."""
    problem: str | None = None
    """What is wrong with its configuration; the port is then the one it has by default."""
    is_readable: bool = True
    """Whether we may read the configuration."""
    has_config: bool = True
    """Whether there is such a file, as far as we may see."""


def place_of(unit: Unit, profile: str | None) -> Place:
    """Return where a unit's gateway is configured to be, from the unit and, if we may read it, the file."""
    flags, environ = environment.of_unit(unit, profile)
    return configured(flags, environ, locate(flags, environ))


def _may_exist(path: str) -> bool:
    """Whether there is a file, or may be one where we are not let in to look."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True
    return True


def _may_read(path: str) -> bool:
    try:
        with open(path, "rb"):
            return True
    except PermissionError:
        return False
    except OSError:
        return True


def configured(
    flags: Mapping[str, str | None], environ: Mapping[str, str], where: Location
) -> Place:
    """
    Load settings, and where that fails say why and go on with what needs no file.

    Args:
        flags: As for ``settings.load``, without those for secrets: their files stay unread.
        environ: As for ``settings.load``.
        where: What ``locate`` says of both.
    """
    try:
        loaded = settings.load(flags, environ)
    except ConfigurationError as error:
        return Place(
            port=_fallback_port(flags, environ, where),
            host="127.0.0.1",
            state_dir=where.state_dir,
            config_path=where.config_path,
            auth="unknown",
            health_timeout_s=30.0,
            problem=str(error),
            is_readable=_may_read(where.config_path),
            has_config=_may_exist(where.config_path),
        )
    return Place(
        loaded.port,
        loaded.host,
        loaded.state_dir,
        loaded.config_path,
        loaded.auth_mode.value,
        loaded.health_timeout_s,
        has_config=_may_exist(loaded.config_path),
    )


def _fallback_port(
    flags: Mapping[str, str | None], environ: Mapping[str, str], where: Location
) -> int:
    """Return the port that a gateway has unless its file says otherwise."""
    given = flags.get("--port") or environ.get(PORT_VARIABLE) or ""
    if given.isdecimal() and 0 < int(given) < 65536:
        return int(given)
    return profile_port(where.profile) if where.profile else DEFAULT_PORT
