"""Where a gateway is configured to be: its port, address and files, from settings that may be wrong or closed to us."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from errno import EACCES, EIO, ELOOP, ENAMETOOLONG, ENODEV, ENOENT, ENOTCONN, ENOTDIR, ESTALE
from typing import NamedTuple

from openclaw_gateway.admin.look import environment
from openclaw_gateway.admin.look.units import Unit
from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.settings.load import Examined, examine
from openclaw_gateway.settings.location import Location, locate
from openclaw_gateway.settings.model import Cluster

_FALLBACK_HOST = "127.0.0.1"
_PORT_KEYS = ("gateway.port", "gateway", "--port", "OPENCLAW_GATEWAY_PORT", "")
"""Where something is wrong if the port is not known; the last one stands for a file as a whole."""


class Place(NamedTuple):
    """Where a gateway is configured to be; what is wrong in one setting leaves the others as they are."""

    port: int
    host: str
    state_dir: str
    config_path: str
    auth: str
    health_timeout_s: float
    """How long a start waits for an owner to get healthy."""
    problem: str | None = None
    """Why a gateway would not start with its settings, or why we can't tell."""
    is_readable: bool = True
    """Whether we may read all that it is configured by, so that the problem is the gateway's as well."""
    is_port_known: bool = True
    """Whether the port is what is configured; else it is the one that it has by default."""
    has_config: bool = True
    """Whether there is such a file, as far as we may see."""
    warnings: tuple[str, ...] = ()
    """What is odd in the settings but no reason to stop."""
    cluster: Cluster | None = None
    """The cluster that it is in; ``None`` without one, or where that can't be told."""


def place_of(unit: Unit, profile: str | None) -> Place:
    """Return where a unit's gateway is configured to be: by its files and its environment, not by the caller's."""
    startup = environment.of_unit(unit, profile)
    return configured(
        startup.public_flags,
        startup.judged_environ,
        unread=startup.unread,
        serves=not unit.is_guard,
    )


def configured(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    unread: Sequence[str] = (),
    serves: bool = True,
) -> Place:
    """
    Examine settings, and where they are wrong say why and go on with those that are not.

    Args:
        flags: As for ``settings.load``, without those for secrets: their files stay unread.
        environ: As for ``settings.load``.
        unread: What else the gateway is configured by, and we may not read.
        serves: As for ``settings.examine``: not so for a gateway that is guarded.

    Raises:
        ConfigurationError: The profile's name is none.
    """
    where = locate(flags, environ)
    if _has_no_end(where.config_path):
        return _without_file(flags, environ, where, serves=serves)
    found = examine(flags, environ, serves=serves)
    values, mode = found.values, found.values["auth_mode"]
    path = found.location.config_path
    is_readable = _may_read(path) and not (found.problems and unread)
    return Place(
        port=values["port"],
        host=values["host"] or _FALLBACK_HOST,
        state_dir=found.location.state_dir,
        config_path=path,
        auth=mode.value if mode else "unknown",
        health_timeout_s=values["health_timeout_s"],
        problem=_told(found.problems[0], unread) if found.problems else None,
        is_readable=is_readable,
        is_port_known=_is_port_known(found),
        has_config=_may_exist(path),
        warnings=found.warnings,
        cluster=values["cluster"],
    )


def _has_no_end(path: str) -> bool:
    """Whether reading a file may never end: what another user calls settings can be a FIFO or a device."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in _NOT_TO_BE_LOOKED_AT:
            return False
        raise
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


_NOT_TO_BE_LOOKED_AT = (ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, EACCES, ESTALE, ENOTCONN, ENODEV, EIO)
"""``examine`` has words for these."""


def _without_file(
    flags: Mapping[str, str | None], environ: Mapping[str, str], where: Location, *, serves: bool
) -> Place:
    """Return the place as it is without the settings' file, and that it is none."""
    rest = {flag: text for flag, text in flags.items() if flag != "--config"}
    elsewhere = {**environ, "OPENCLAW_CONFIG_PATH": "", "CONFIGURATION_DIRECTORY": "/nonexistent"}
    return configured(rest, elsewhere, serves=serves)._replace(
        config_path=where.config_path,
        problem=f"{where.config_path}: it is no regular file",
        is_port_known=False,
        has_config=True,
    )


def _told(problem: ConfigurationError, unread: Sequence[str]) -> str:
    """Say what is wrong; where something else may put it right, that we have not seen it."""
    return f"{problem}; not seen: {', '.join(unread)}" if unread else str(problem)


def _is_port_known(found: Examined) -> bool:
    if found.origins["port"].source not in ("default", "profile"):
        return True
    return not any(problem.key in _PORT_KEYS for problem in found.problems)


def _may_exist(path: str) -> bool:
    """Whether there is a file, or may be one where we can't look."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_LOOKED_AT:
            raise
        return error.errno not in (ENOENT, ENOTDIR)
    return True


def _may_read(path: str) -> bool:
    try:
        with open(path, "rb"):
            return True
    except PermissionError:
        return False
    except OSError:
        return True
