"""Which gateway is asked about: its unit, its port, its directories.

A host may hold a system unit, units of users, instances for profiles and gateways started by hand.
What was said on the command line decides; else what runs; else what is enabled.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from openclaw_gateway.admin.look import units
from openclaw_gateway.admin.look.units import SYSTEM, Manager, Unit
from openclaw_gateway.claim.baseport import Holder, held_ports, holder
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.host import process
from openclaw_gateway.settings import load as settings
from openclaw_gateway.settings.location import locate, profile_port

STATE_ROOT = "/var/lib"
CONFIGURATION_ROOT = "/etc"
PACKAGE = "openclaw-gateway"
"""The directories' name below both."""
_PLACE_FLAGS = ("--port", "--state-dir", "--config")
_SECRET_FLAGS = ("--token-file", "--password-file")
_MEANT_BY = ("--profile", *_PLACE_FLAGS)
_PLACE_VARIABLES = ("OPENCLAW_GATEWAY_PORT", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH")


class Scope(StrEnum):
    """Which manager's unit is meant."""

    ANY = "any"
    SYSTEM = "system"
    USER = "user"


class Place(NamedTuple):
    """Where a gateway is configured to be."""

    port: int
    port_origin: str
    """Where the port's number comes from, for people."""
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


class Subject(NamedTuple):
    """The gateway that is asked about."""

    arguments: tuple[str, ...]
    """What to say on our own command line to mean it."""
    profile: str | None
    manager: Manager
    """Whose unit it is or would be."""
    unit: Unit | None
    """``None`` if there is no such unit, it is another port's, or nobody could be asked."""
    unit_problem: str | None
    """Why the manager said nothing."""
    socket: Unit | None
    """The socket unit that starts it on the first connection, if that is listening."""
    place: Place
    configured_port: int
    """What its unit or configuration says; ``place.port`` is what it has."""
    others: tuple[str, ...]
    """What else was seen on the way, in sentences."""
    profile_name: str | None
    """Its name or ``default``; ``None`` where a port, a directory or a file was named, which may be any's."""
    state_dirs: tuple[str, ...] = ()
    """Where its state may be, if one gateway was named by that or by what leads to it, and not just a port."""

    def is_of(self, record: LockRecord) -> bool:
        """Whether it may be this gateway that wrote a lock record."""
        if not self.state_dirs or record.state_dir is None:
            return True
        if self.unit is None and self.unit_problem and record.unit == self.unit_name:
            # Its manager can't be asked, and what it sets is unknown to us.
            return True
        theirs = os.path.realpath(record.state_dir)
        return theirs in map(os.path.realpath, self.state_dirs)

    @property
    def unit_name(self) -> str:
        """The name that its unit has or would have."""
        return units.unit_name(self.profile)


def held() -> dict[int, Holder]:
    """Return who holds which base port in our network namespace."""
    found = {port: holder(port) for port in held_ports()}
    return {port: who for port, who in found.items() if who is not None}


def resolve(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    holders: Mapping[int, Holder],
    *,
    scope: Scope = Scope.ANY,
    shown: units.Answer | None = None,
) -> Subject:
    """
    Decide which gateway is meant. Starts at most one child, ``systemctl show``.

    Args:
        flags: As given on the command line; see ``settings.load``.
        environ: The caller's environment.
        holders: Who holds which base port.
        scope: Whose unit is meant, if that was said.
        shown: What the manager said, where it was asked already.

    Raises:
        ConfigurationError: The profile's name is none.
    """
    own = configured(flags, environ)
    profile = locate(flags, environ).profile
    manager = choose_manager(scope, profile, holders)
    answer = shown or units.show(names_of(profile), manager)
    known = {unit.name: unit for unit in answer.units if unit.load_state != "not-found"}
    unit, socket = known.get(units.unit_name(profile)), known.get(units.SOCKET)
    explicit = any(flags.get(flag) for flag in _PLACE_FLAGS) or any(
        environ.get(name) for name in _PLACE_VARIABLES
    )
    mine = None if explicit or scope is not Scope.ANY else _own_foreground(own, holders)
    without_unit = Subject(
        arguments=_arguments(flags, scope),
        profile=profile,
        manager=manager,
        unit=None,
        unit_problem=answer.problem,
        socket=None,
        place=own._replace(port=mine or own.port),
        configured_port=own.port,
        others=(),
        profile_name=profile or (None if explicit else "default"),
        state_dirs=(own.state_dir,) if _is_named(flags, environ) else (),
    )
    if unit is None:
        return without_unit
    planned = place_of(unit, profile)
    pid = unit.main_pid
    bound = next(
        (port for port, who in holders.items() if pid is not None and who.pid == pid), None
    )
    port = bound or planned.port
    wanted = own.port if explicit else mine
    if wanted is not None and wanted != port:
        other = f"{unit.name} ({manager}) is another gateway, for port {port}"
        return without_unit._replace(others=(other,))
    is_placed = flags.get("--state-dir") or environ.get("OPENCLAW_STATE_DIR")
    if is_placed and os.path.realpath(own.state_dir) != os.path.realpath(planned.state_dir):
        other = f"{unit.name} ({manager}) is another gateway, with {planned.state_dir}"
        return without_unit._replace(others=(other,))
    return without_unit._replace(
        unit=unit,
        socket=socket if socket and socket.active_state == "active" else None,
        place=own if explicit and pid is None else planned._replace(port=port),
        configured_port=planned.port,
        profile_name=profile or "default",
        state_dirs=_state_dirs(without_unit, planned, scope),
    )


def names_of(profile: str | None) -> list[str]:
    """Return the units to ask about for a profile: its service, and for the default one the socket."""
    return [units.unit_name(profile), *([] if profile else [units.SOCKET])]


def _arguments(flags: Mapping[str, str | None], scope: Scope) -> tuple[str, ...]:
    given = [f"{flag}={shlex.quote(flags[flag] or '')}" for flag in _MEANT_BY if flags.get(flag)]
    return (*given, *([] if scope is Scope.ANY else [f"--{scope.value}"]))


def _state_dirs(by_hand: Subject, planned: Place, scope: Scope) -> tuple[str, ...]:
    """Return where a gateway that has a unit may keep its state: run by hand it is elsewhere."""
    if scope is not Scope.ANY:
        return (planned.state_dir,)
    return (*by_hand.state_dirs, planned.state_dir) if by_hand.state_dirs else ()


def _is_named(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> bool:
    """Whether flags, or without a port among them the environment, lead to a state directory."""
    if flags.get("--profile") or flags.get("--state-dir"):
        return True
    if flags.get("--port"):
        return False
    variables = ("OPENCLAW_PROFILE", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH")
    return bool(flags.get("--config")) or any(environ.get(name) for name in variables)


def choose_manager(scope: Scope, profile: str | None, holders: Mapping[int, Holder]) -> Manager:
    """
    Choose whose unit to ask about, as only one manager is asked.

    Without a word on it: ours if it runs a gateway, or if it is to run one; else the system's.
    """
    own_uid = os.geteuid()
    match scope:
        case Scope.SYSTEM:
            return SYSTEM
        case Scope.USER:
            return Manager(own_uid)
    for who in holders.values():
        ours = who.uid == own_uid and who.pid is not None
        if ours and process.user_manager_of(who.pid or 0) == own_uid:
            return Manager(own_uid)
    home = os.path.expanduser("~")
    if own_uid != 0 and enabled_in(f"{home}/.config/systemd/user", units.unit_name(profile)):
        return Manager(own_uid)
    return SYSTEM


def enabled_in(directory: str, unit_name: str) -> bool:
    """Whether a directory of units enables one, by a link in some ``*.wants``. systemd.unit(5)."""
    try:
        names = os.listdir(directory)
    except OSError:
        return False
    return any(
        name.endswith((".wants", ".requires"))
        and os.path.lexists(os.path.join(directory, name, unit_name))
        for name in names
    )


def _own_foreground(own: Place, holders: Mapping[int, Holder]) -> int | None:
    """Return the port of a gateway that we run by hand on our own state directory."""
    for port, who in holders.items():
        record = who.record
        if who.uid != os.geteuid() or record is None or record.unit is not None:
            continue
        if record.state_dir == os.path.realpath(own.state_dir):
            return port
    return None


def place_of(unit: Unit, profile: str | None) -> Place:
    """Return where a unit's gateway is configured to be, from the unit and, if we may read it, the file."""
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
    flags = _flags(unit.argv)
    if profile:
        flags.setdefault("--profile", profile)
    return configured(flags, environ)


def packaged(profile: str | None) -> dict[str, str]:
    """Return the environment in which the package's system unit finds its directories."""
    below = f"{PACKAGE}/{profile}" if profile else PACKAGE
    return {
        "STATE_DIRECTORY": f"{STATE_ROOT}/{PACKAGE}/{profile or 'default'}",
        "CONFIGURATION_DIRECTORY": f"{CONFIGURATION_ROOT}/{below}",
    }


def _may_read(path: str) -> bool:
    try:
        with open(path, "rb"):
            return True
    except PermissionError:
        return False
    except OSError:
        return True


def _home(unit: Unit) -> str:
    from pwd import getpwnam, getpwuid

    try:
        if unit.manager.uid is not None:
            return getpwuid(unit.manager.uid).pw_dir
        return getpwnam(unit.user or "root").pw_dir
    except KeyError:
        return "/"


def _flags(argv: Sequence[str]) -> dict[str, str | None]:
    """Read the settings out of a unit's command line: ``--port 1`` and ``--port=1``."""
    flags: dict[str, str | None] = {}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            flags[name] = value if equals else next(words, None)
    return flags


def configured(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Place:
    """
    Load settings, and where that fails say why and go on with what needs no file.

    The files that flags name for secrets are left unread.

    Args:
        flags: As for ``settings.load``.
        environ: As for ``settings.load``.

    Raises:
        ConfigurationError: The profile's name is none.
    """
    public = {flag: text for flag, text in flags.items() if flag not in _SECRET_FLAGS}
    where = locate(public, environ)
    try:
        loaded = settings.load(public, environ)
    except ConfigurationError as error:
        port, origin = 18789, "default"
        if where.profile:
            port, origin = profile_port(where.profile), f"profile {where.profile}"
        given = public.get("--port") or environ.get("OPENCLAW_GATEWAY_PORT") or ""
        if given.isdecimal() and 0 < int(given) < 65536:
            port, origin = int(given), "flag --port"
        return Place(
            port,
            origin,
            "127.0.0.1",
            where.state_dir,
            where.config_path,
            "unknown",
            30.0,
            str(error),
            _may_read(where.config_path),
            os.path.exists(where.config_path),
        )
    return Place(
        loaded.port,
        loaded.origins["port"],
        loaded.host,
        loaded.state_dir,
        loaded.config_path,
        loaded.auth_mode.value,
        loaded.health_timeout_s,
        has_config=os.path.exists(loaded.config_path),
    )
