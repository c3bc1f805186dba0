"""What a unit starts its gateway with: flags, variables, credentials. The caller's shell has none of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from openclaw_gateway.admin.look import credentials, files
from openclaw_gateway.admin.look.selection import SECRET_FLAGS
from openclaw_gateway.admin.look.units import Unit
from openclaw_gateway.host.process import PROC
from openclaw_gateway.settings.foreign import SWITCHES

STATE_ROOT = "/var/lib"
CONFIGURATION_ROOT = "/etc"
PACKAGE = "openclaw-gateway"
"""The directories' name below both."""
_OURS = "OPENCLAW_"
_SECRETS = {
    "openclaw-gateway.token": "OPENCLAW_GATEWAY_TOKEN",
    "openclaw-gateway.password": "OPENCLAW_GATEWAY_PASSWORD",
    "openclaw-gateway.cluster-password": "OPENCLAW_GATEWAY_CLUSTER_PASSWORD",
}
"""Each credential of ours, and the variable that says the same."""
_MAX_FILE_BYTES = 1 << 20


class Startup(NamedTuple):
    """What a unit's gateway is given."""

    flags: dict[str, str]
    """As for ``settings.load``."""
    environ: dict[str, str]
    unread: tuple[str, ...] = ()
    """What adds to it, and we may not read."""
    to_come: tuple[str, ...] = ()
    """Credentials that lie ready, and that systemd will hand over at the next start."""

    @property
    def judged_environ(self) -> dict[str, str]:
        """The variables by which to judge the settings: something stands in for secrets that will come."""
        stand_ins = {_SECRETS[name]: "stands in" for name in self.to_come if name in _SECRETS}
        return self.environ | stand_ins

    @property
    def public_flags(self) -> dict[str, str]:
        """The flags without those for secrets, whose files so stay unread."""
        return {flag: text for flag, text in self.flags.items() if flag not in SECRET_FLAGS}


def of_unit(unit: Unit, profile: str | None, *, proc: str = PROC) -> Startup:
    """
    Return what a unit's gateway gets at its next start.

    What stands in the unit and in its environment files counts, in systemd's order. Variables that
    others add (a user's manager, ``PassEnvironment=``), or that stand in a file which we may not
    read, are those of the process that runs, if that is ours to look into.

    Args:
        unit: It.
        profile: The profile that it runs; ``None`` for the default one.
        proc: Where the process table is mounted.

    See Also:
        systemd.exec(5), "Environment" and "Credentials".
    """
    from_files, unread = _environment_files(unit)
    environ = {**_given_to_process(unit, proc, is_whole=not unread), "HOME": _home(unit)}
    environ |= unit.environment | _directories(unit, profile) | from_files
    environ.pop("CREDENTIALS_DIRECTORY", None)
    asked_for = [found for found in credentials.of_unit(unit) if found.is_asked_for]
    directory = credentials.directory_of(unit, proc=proc)
    to_come: tuple[str, ...] = ()
    if unit.main_pid is not None and credentials.may_be_listed(directory):
        environ["CREDENTIALS_DIRECTORY"] = directory
    elif asked_for and os.geteuid() != 0:
        unread = (*unread, f"the credentials of {unit.name}")
    elif unit.main_pid is None:
        to_come = tuple(found.name for found in asked_for if found.source)
    flags = dict(_flags(unit.argv))
    if profile:
        flags.setdefault("--profile", profile)
    return Startup(flags, environ, unread, to_come)


def _directories(unit: Unit, profile: str | None) -> dict[str, str]:
    """Return the variables with which systemd tells a system unit of its directories."""
    if not unit.manager.is_system:
        return {}
    if not unit.is_loaded:
        return packaged(profile)
    named = {
        "STATE_DIRECTORY": (STATE_ROOT, unit.state_directory),
        "CONFIGURATION_DIRECTORY": (CONFIGURATION_ROOT, unit.configuration_directory),
    }
    return {name: f"{root}/{below}" for name, (root, below) in named.items() if below}


def packaged(profile: str | None) -> dict[str, str]:
    """Return the environment in which the package's system unit finds its directories."""
    below = f"{PACKAGE}/{profile}" if profile else PACKAGE
    return {
        "STATE_DIRECTORY": f"{STATE_ROOT}/{PACKAGE}/{profile or 'default'}",
        "CONFIGURATION_DIRECTORY": f"{CONFIGURATION_ROOT}/{below}",
    }


def _given_to_process(unit: Unit, proc: str, *, is_whole: bool) -> dict[str, str]:
    """
    Return the variables of the process that runs, as far as they may come from elsewhere than the unit's files.

    A setting of ours that the unit no longer has would be read from the process for ever; so those
    count only where a file that may have them is closed to us, or a user's manager may.
    """
    if unit.main_pid is None:
        return {}
    try:
        with open(f"{proc}/{unit.main_pid}/environ", "rb") as file:
            pairs = file.read(_MAX_FILE_BYTES).decode("utf-8", "replace").split("\0")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return {}
    given = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if is_whole and unit.manager.is_system:
        return {name: value for name, value in given.items() if not name.startswith(_OURS)}
    return given


def _environment_files(unit: Unit) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read a unit's environment files; return their variables, and the files that we may not read."""
    environ: dict[str, str] = {}
    unread: list[str] = []
    for path in files_of(unit):
        try:
            environ |= parse(files.read(path) or "")
        except PermissionError:
            unread.append(path)
    return environ, tuple(unread)


def files_of(unit: Unit) -> list[str]:
    """Return the files that a unit reads variables from, each once; the names may be patterns. systemd.exec(5)."""
    from glob import glob, has_magic

    return list(
        dict.fromkeys(
            path
            for name in unit.environment_files
            for path in (sorted(glob(name)) if has_magic(name) else [name])
        )
    )


def parse(text: str) -> dict[str, str]:
    """
    Read an environment file; pure.

    Quotes around a value are taken off; a backslash keeps the next character as it is, and one at a
    line's end joins it to the next. Lines that begin with ``#`` or ``;`` are comments.

    See Also:
        systemd.exec(5), ``EnvironmentFile=``.
    """
    environ = {}
    for line in text.replace("\\\n", "").splitlines():
        name, equals, value = line.strip().partition("=")
        name = name.rstrip()
        if equals and name.isidentifier() and name[0] not in "#;":
            environ[name] = _unquoted(value.strip())
    return environ


def _unquoted(value: str) -> str:
    text, quote, characters = "", "", iter(value)
    for character in characters:
        if character == "\\" and quote != "'":
            text += next(characters, "")
        elif character == quote:
            quote = ""
        elif character in "'\"" and not quote:
            quote = character
        else:
            text += character
    return text


def _home(unit: Unit) -> str:
    from pwd import getpwnam, getpwuid

    try:
        if unit.manager.uid is not None:
            return getpwuid(unit.manager.uid).pw_dir
        return getpwnam(unit.user or "root").pw_dir
    except KeyError:
        return "/"


def _flags(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """
    Read the settings out of a unit's command line: ``--port 1`` and ``--port=1``; switches have no value.

    What stands behind ``--`` is another program's: the one that is guarded.
    """
    words = iter(argv)
    for word in words:
        if word == "--":
            return
        name, equals, value = word.partition("=")
        if name in SWITCHES:
            yield name, "yes"
        elif name.startswith("--"):
            yield name, value if equals else next(words, "")
