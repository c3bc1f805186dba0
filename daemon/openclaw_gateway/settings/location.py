"""Where a gateway keeps its things, and which port a profile has: from flags, environment and what exists."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from openclaw_gateway.errors import ConfigurationError

CONFIG_NAME = "openclaw.json"
OWN_NAME = "openclaw-gateway.json"
"""Beside it: what is ours and not OpenClaw's, which starts with no key in its file that it does not know."""
_LEGACY_CONFIG_NAME = "clawdbot.json"
_LEGACY_PREFIXES = ("CLAWDBOT_", "MOLTBOT_")


class Origin:
    """
    Where a value came from; ``str()`` is for people: ``flag --port``.

    Attributes:
        source: ``flag``, ``variable``, ``credential``, ``profile``, ``default``, ``systemd's``, or a file's path.
        name: The flag's, variable's or credential's name, or the dotted key in the file.
        through: What the value went through on its way: ``${TOK} of variable TOK``; empty if nothing.
    """

    __slots__ = ("_find", "name", "source", "through")

    def __init__(
        self,
        source: str,
        name: str = "",
        *,
        through: str = "",
        find: Callable[[], tuple[int, int] | None] | None = None,
    ) -> None:
        self.source, self.name, self.through, self._find = source, name, through, find

    @property
    def place(self) -> tuple[int, int] | None:
        """Line and column in the file, from 1; looked for when it is asked for, as that takes a parser."""
        return self._find() if self._find else None

    def __str__(self) -> str:
        place = self.place
        source = "{}:{}:{}".format(self.source, *place) if place else self.source
        text = f"{source} {self.name}".rstrip()
        return f"{text}, {self.through}" if self.through else text

    def __repr__(self) -> str:
        return f"Origin({self.source!r}, {self.name!r}, through={self.through!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Origin):
            return NotImplemented
        return (self.source, self.name, self.through) == (other.source, other.name, other.through)

    def __hash__(self) -> int:
        return hash((self.source, self.name, self.through))

    def by_way_of(self, through: str) -> Origin:
        """Return the origin of what this one leads to."""
        return Origin(self.source, self.name, through=through, find=self._find)

    def error(self, problem: str, *, hint: str = "") -> ConfigurationError:
        """Return the error that says what is wrong with the value from here."""
        return ConfigurationError(self.source, self.name, problem, hint=hint, place=self.place)


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
    home: str | None
    """What a leading ``~`` in the settings means; ``None`` if nobody says."""
    warnings: tuple[str, ...] = ()

    @property
    def own_path(self) -> str:
        """The file of our own settings."""
        return own_path_beside(self.config_path)


def own_path_beside(config_path: str) -> str:
    """Return the file of our own settings that belongs to a configuration file."""
    return os.path.join(os.path.dirname(config_path), OWN_NAME)


def locate(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Location:
    """
    Find the state directory and the configuration file, which need not exist.

    Args:
        flags: Flag (``--profile``, ``--state-dir``, ``--config``) to the text given, ``None`` if not given.
        environ: The process's environment.

    Raises:
        ConfigurationError: The profile's name is none, or a home directory is needed and nobody names one.
    """
    given = {flag: text for flag, text in flags.items() if text is not None}
    profile, profile_origin = _profile(given, environ)
    home = home_directory(environ)
    # As with OpenClaw the variable alone moves nothing: it changes the default port.
    named = profile if profile_origin.source == "flag" else None
    state_dir, state_origin = _state_dir(given, environ, named, home)
    config = _config_path(given, environ, state_dir, home)
    legacy = sorted(name for name in environ if name.startswith(_LEGACY_PREFIXES))
    warnings = (
        (f"variable {legacy[0]} is of an older program and ignored; names begin with OPENCLAW_",)
        if legacy
        else ()
    )
    return Location(profile, state_dir, state_origin, *config, profile_origin, home, warnings)


def _profile(flags: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str | None, Origin]:
    """Return the profile, ``None`` for the default one, and where that came from."""
    from_flag = flags.get("--profile")
    profile = from_flag or environ.get("OPENCLAW_PROFILE", "").strip()
    if not profile:
        return None, DEFAULT
    origin = Origin("flag", "--profile") if from_flag else Origin("variable", "OPENCLAW_PROFILE")
    if profile == "default":
        return None, origin
    fits = all(c.isascii() and (c.isalnum() or c in "_-") for c in profile)
    if not fits or len(profile) > 64 or not profile[0].isalnum():
        raise origin.error("must be letters, digits, _ and -, at most 64 of them, no _ or - first")
    return profile, origin


def profile_port(profile: str) -> int:
    """
    Return the port that a named profile has unless told otherwise: 20000 to 59999, by its name.

    The same as OpenClaw's, so that both find each other: 32-bit FNV-1a of the name's UTF-8.
    """
    digest = 0x811C9DC5
    for byte in profile.encode():
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    return 20000 + digest % 40000


def home_directory(environ: Mapping[str, str]) -> str | None:
    """Return the directory that ``~`` means: ``OPENCLAW_HOME``, else ``HOME``, else the account's."""
    system = _set(environ, "HOME") or _set(environ, "USERPROFILE")
    if system is None:
        from pwd import getpwuid

        try:
            system = getpwuid(os.getuid()).pw_dir
        except KeyError:
            # Not the text "~", which would be a directory of that name wherever we happen to be.
            system = None
    own = _set(environ, "OPENCLAW_HOME")
    if own is None:
        return os.path.abspath(system) if system else None
    if own == "~" or own.startswith("~/"):
        return os.path.abspath(os.path.join(system, own[2:])) if system else None
    return os.path.abspath(own)


def _set(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name, "").strip()
    return None if value in ("", "undefined", "null") else value


def absolute(path: str, home: str | None, origin: Origin) -> str:
    """
    Return a path of the settings as an absolute one: ``~`` is ``home``, the rest is below the working directory.

    Raises:
        ConfigurationError: It begins with ``~``, and there is no home directory.
    """
    if path == "~" or path.startswith("~/"):
        return os.path.normpath(os.path.join(_known(home, origin), path[2:]))
    return os.path.abspath(path)


def _known(home: str | None, origin: Origin) -> str:
    if home is None:
        raise origin.error(
            "needs a home directory: HOME is not set, and this account has no entry in passwd(5)",
            hint="set HOME, or name a directory with --state-dir and a file with --config",
        )
    return home


def _state_dir(
    flags: Mapping[str, str], environ: Mapping[str, str], profile: str | None, home: str | None
) -> tuple[str, Origin]:
    if flags.get("--state-dir"):
        origin = Origin("flag", "--state-dir")
        return absolute(flags["--state-dir"], home, origin), origin
    variable = Origin("variable", "OPENCLAW_STATE_DIR")
    named = environ.get("OPENCLAW_STATE_DIR", "").strip()
    if named:
        path = absolute(named, home, variable)
        # OpenClaw sets the variable for its children: then the flag means another profile than theirs.
        inherited = os.path.basename(path).startswith(".openclaw") and os.path.dirname(path) == home
        if profile is None or not inherited or not _is_profiles_own(path, environ):
            return path, variable
    # systemd.exec(5): a colon-separated list where the unit names several.
    directory = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if directory:
        return os.path.abspath(directory), Origin("systemd's", "$STATE_DIRECTORY")
    below = _known(home, Origin("variable", "HOME"))
    path = os.path.join(below, f".openclaw-{profile}" if profile else ".openclaw")
    older = os.path.join(below, ".clawdbot")
    if not profile and not os.path.lexists(path) and os.path.isdir(older):
        return older, DEFAULT
    return path, DEFAULT


def _is_profiles_own(path: str, environ: Mapping[str, str]) -> bool:
    """Whether a state directory is the one that belongs to the profile of the environment."""
    former = environ.get("OPENCLAW_PROFILE", "").strip()
    own = ".openclaw" if former in ("", "default") else f".openclaw-{former}"
    return os.path.basename(path) == own


def _config_path(
    flags: Mapping[str, str], environ: Mapping[str, str], state_dir: str, home: str | None
) -> tuple[str, Origin, bool]:
    """Return the file's path, where that came from, and whether someone asked for this very file."""
    for origin, value in (
        (Origin("flag", "--config"), flags.get("--config")),
        (
            Origin("variable", "OPENCLAW_CONFIG_PATH"),
            environ.get("OPENCLAW_CONFIG_PATH", "").strip(),
        ),
    ):
        if value:
            return absolute(value, home, origin), origin, True
    directory = environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    if directory:
        path = os.path.join(os.path.abspath(directory), CONFIG_NAME)
        return path, Origin("systemd's", "$CONFIGURATION_DIRECTORY"), False
    path, older = (os.path.join(state_dir, name) for name in (CONFIG_NAME, _LEGACY_CONFIG_NAME))
    if not os.path.lexists(path) and os.path.lexists(older):
        return older, DEFAULT, False
    return path, DEFAULT, False
