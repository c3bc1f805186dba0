"""Where a gateway keeps its things, and which port a profile has: found from flags and environment alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from openclaw_gateway.errors import ConfigurationError


class Origin(NamedTuple):
    """Where a value came from; ``str()`` is for people: ``flag --port``."""

    source: str
    """``flag``, ``variable``, ``credential``, ``profile``, ``default``, ``systemd's``, or a file's path."""
    name: str = ""
    """The flag's, variable's or credential's name, or the dotted key in the file."""

    def __str__(self) -> str:
        return f"{self.source} {self.name}".rstrip()


DEFAULT = Origin("default")


class Location(NamedTuple):
    """Where a gateway keeps its things, found without reading any of them."""

    profile: str | None
    state_dir: str
    state_origin: Origin
    config_path: str
    config_origin: Origin
    config_required: bool
    """Whether someone asked for this very file."""
    profile_origin: Origin


def locate(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Location:
    """
    Find the state directory and the configuration file, which need not exist.

    Args:
        flags: Flag (``--profile``, ``--state-dir``, ``--config``) to the text given, ``None`` if not given.
        environ: The process's environment.

    Raises:
        ConfigurationError: The profile's name is none.
    """
    given = {flag: text for flag, text in flags.items() if text is not None}
    profile, profile_origin = _profile(given, environ)
    state_dir, state_origin = _state_dir(given, environ, profile)
    config = _config_path(given, environ, state_dir)
    return Location(profile, state_dir, state_origin, *config, profile_origin)


def _profile(flags: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str | None, Origin]:
    """Return the profile, ``None`` for the default one, and where that came from."""
    source = "flag" if "--profile" in flags else "variable"
    name = "--profile" if source == "flag" else "OPENCLAW_PROFILE"
    profile = flags.get("--profile") or environ.get("OPENCLAW_PROFILE") or None
    if profile is None:
        return None, DEFAULT
    if profile == "default":
        return None, Origin(source, name)
    if not all(c.isascii() and (c.isalnum() or c in "_-") for c in profile) or len(profile) > 64:
        raise ConfigurationError(
            source, name, "must be letters, digits, _ and -, at most 64 of them"
        )
    return profile, Origin(source, name)


def profile_port(profile: str) -> int:
    """
    Return the port that a named profile has unless told otherwise: 20000 to 59999, by its name.

    The same as OpenClaw's, so that both find each other: 32-bit FNV-1a of the name's UTF-8.
    """
    digest = 0x811C9DC5
    for byte in profile.encode():
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    return 20000 + digest % 40000


def _home(environ: Mapping[str, str], profile: str | None) -> str:
    home = environ.get("HOME") or os.path.expanduser("~")
    return os.path.join(home, f".openclaw-{profile}" if profile else ".openclaw")


def _state_dir(
    flags: Mapping[str, str], environ: Mapping[str, str], profile: str | None
) -> tuple[str, Origin]:
    for source, name, value in (
        ("flag", "--state-dir", flags.get("--state-dir")),
        ("variable", "OPENCLAW_STATE_DIR", environ.get("OPENCLAW_STATE_DIR")),
        # systemd.exec(5): a colon-separated list where the unit names several.
        ("systemd's", "$STATE_DIRECTORY", environ.get("STATE_DIRECTORY", "").split(":")[0]),
    ):
        if value:
            return os.path.abspath(os.path.expanduser(value)), Origin(source, name)
    return _home(environ, profile), DEFAULT


def _config_path(
    flags: Mapping[str, str], environ: Mapping[str, str], state_dir: str
) -> tuple[str, Origin, bool]:
    """Return the file's path, where that came from, and whether someone asked for this very file."""
    for source, name, value in (
        ("flag", "--config", flags.get("--config")),
        ("variable", "OPENCLAW_CONFIG_PATH", environ.get("OPENCLAW_CONFIG_PATH")),
    ):
        if value:
            return os.path.abspath(os.path.expanduser(value)), Origin(source, name), True
    directory = environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    if directory:
        path = os.path.join(directory, "openclaw.json")
        return path, Origin("systemd's", "$CONFIGURATION_DIRECTORY"), False
    return os.path.join(state_dir, "openclaw.json"), DEFAULT, False
