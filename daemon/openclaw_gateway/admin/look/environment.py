"""What a unit starts its gateway with, which is not what the caller's shell has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from openclaw_gateway.admin.look.selection import SECRET_FLAGS
from openclaw_gateway.admin.look.units import Unit

STATE_ROOT = "/var/lib"
CONFIGURATION_ROOT = "/etc"
PACKAGE = "openclaw-gateway"
"""The directories' name below both."""


def of_unit(unit: Unit, profile: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the flags and the variables that a unit's gateway gets."""
    home = _home(unit)
    environ = {"HOME": home, **unit.environment}
    if unit.manager.is_system and not unit.is_loaded:
        environ |= packaged(profile)
    elif unit.manager.is_system:
        if unit.state_directory:
            environ["STATE_DIRECTORY"] = os.path.join(STATE_ROOT, unit.state_directory)
        if unit.configuration_directory:
            environ["CONFIGURATION_DIRECTORY"] = os.path.join(
                CONFIGURATION_ROOT, unit.configuration_directory
            )
    flags = {flag: text for flag, text in _flags(unit.argv) if flag not in SECRET_FLAGS}
    if profile:
        flags.setdefault("--profile", profile)
    return flags, environ


def packaged(profile: str | None) -> dict[str, str]:
    """Return the environment in which the package's system unit finds its directories."""
    below = f"{PACKAGE}/{profile}" if profile else PACKAGE
    return {
        "STATE_DIRECTORY": f"{STATE_ROOT}/{PACKAGE}/{profile or 'default'}",
        "CONFIGURATION_DIRECTORY": f"{CONFIGURATION_ROOT}/{below}",
    }


def _home(unit: Unit) -> str:
    from pwd import getpwnam, getpwuid

    try:
        if unit.manager.uid is not None:
            return getpwuid(unit.manager.uid).pw_dir
        return getpwnam(unit.user or "root").pw_dir
    except KeyError:
        return "/"


def _flags(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Read the settings out of a unit's command line: ``--port 1`` and ``--port=1``."""
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            yield name, value if equals else next(words, "")
