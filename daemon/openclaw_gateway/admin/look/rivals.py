"""Every gateway that this host could run: units that are enabled, directories, and who holds a port.

Read from the file system and from ``/proc``: a manager that can't be asked hides nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from openclaw_gateway.admin.look.environment import (
    CONFIGURATION_ROOT,
    PACKAGE,
    STATE_ROOT,
    packaged,
)
from openclaw_gateway.admin.look.facts import Rival
from openclaw_gateway.admin.look.place import configured
from openclaw_gateway.admin.look.subject import Subject, enabled_in
from openclaw_gateway.admin.look.units import SYSTEM, Manager, manager_of, unit_name
from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.settings.location import locate

_SYSTEM_UNITS = "/etc/systemd/system"
_ALL_USERS_UNITS = "/etc/systemd/user"
_IN_HOME = ".openclaw-"
"""Before a profile's name: its directory in a home."""


class Home(NamedTuple):
    """An account that could run a gateway of its own."""

    user: str
    uid: int
    path: str


def homes() -> list[Home]:
    """Return the accounts of people and of root, as far as the user database lists them."""
    from pwd import getpwall

    shells_off = ("nologin", "false", "sync")
    return [
        Home(entry.pw_name, entry.pw_uid, entry.pw_dir)
        for entry in getpwall()
        if not entry.pw_shell.endswith(shells_off) and os.path.isdir(entry.pw_dir)
    ]


def enabled_rivals(subject: Subject) -> tuple[Rival, ...]:
    """
    Return the units that are enabled beside the subject's, and the port each will want.

    They are the units of the same name in other managers, and guards; for a guard, units of our own gateway.
    """
    name = unit_name(subject.profile)
    found = []
    of_another = not subject.manager.is_system or subject.guarded_account
    if of_another and enabled_in(_SYSTEM_UNITS, name):
        found.append(_rival(subject, SYSTEM, packaged(subject.profile)))
    accounts = {home.user: home for home in homes()}
    for account in _enabled_guards() if subject.profile is None else ():
        if account in accounts and account != subject.guarded_account:
            place = configured({}, {"HOME": accounts[account].path}, serves=False)
            guard = unit_name(None, guard=account)
            found.append(Rival(guard, SYSTEM, place.port, place.problem is not None))
    everyone = enabled_in(_ALL_USERS_UNITS, name)
    for home in accounts.values():
        manager = manager_of(home.uid)
        own = enabled_in(f"{home.path}/.config/systemd/user", name)
        # Enabled for all users, it still runs only where there is a manager of that user.
        there = own or (everyone and os.path.isdir(f"/run/user/{home.uid}/systemd"))
        if there and manager != subject.manager:
            found.append(_rival(subject, manager, {"HOME": home.path}))
    return tuple(found)


def _rival(subject: Subject, manager: Manager, environ: dict[str, str]) -> Rival:
    place = configured({"--profile": subject.profile}, environ)
    return Rival(unit_name(subject.profile), manager, place.port, place.problem is not None)


def _enabled_guards() -> Iterator[str]:
    """Yield the accounts whose guard is enabled."""
    for wants in _subdirectories(_SYSTEM_UNITS):
        yield from _instances(f"{_SYSTEM_UNITS}/{wants}", unit_name(None, guard="*"))


class Trace(NamedTuple):
    """What shows that there is a profile."""

    profile: str | None
    """``None`` for the default one."""
    state_dir: str | None = None
    """Its directory in another user's home; ``None`` for a profile of the system or our own."""


def traces(own_home: str, accounts: Sequence[Home]) -> Iterator[Trace]:
    """
    Yield the profiles that have left a trace: a directory, or a unit that is enabled.

    The default one comes first, and always. A profile of another user's is one of its own, even if
    it has the name of ours.
    """
    names: set[str] = set()
    elsewhere: list[Trace] = []
    for directory in (f"{CONFIGURATION_ROOT}/{PACKAGE}", f"{STATE_ROOT}/{PACKAGE}"):
        names.update(_subdirectories(directory))
    for path in dict.fromkeys((own_home, *(home.path for home in accounts))):
        found = [name for name in _subdirectories(path) if name.startswith(_IN_HOME)]
        if os.path.realpath(path) == os.path.realpath(own_home):
            names.update(name.removeprefix(_IN_HOME) for name in found)
        else:
            elsewhere += [
                Trace(name.removeprefix(_IN_HOME), f"{path}/{name}") for name in sorted(found)
            ]
    for directory in (_SYSTEM_UNITS, _ALL_USERS_UNITS):
        for wants in _subdirectories(directory):
            names.update(_instances(f"{directory}/{wants}", unit_name("*")))
    yield Trace(None)
    for trace in (*map(Trace, sorted(names)), *elsewhere):
        if trace.profile and trace.profile != "default" and _is_profile(trace.profile):
            yield trace


def _instances(directory: str, template: str) -> Iterator[str]:
    """Yield what stands for the ``*`` of a template in the names of a directory's entries."""
    prefix, _, suffix = template.partition("*")
    try:
        entries = os.listdir(directory)
    except OSError:
        return
    for entry in entries:
        if (
            entry.startswith(prefix)
            and entry.endswith(suffix)
            and len(entry) > len(prefix + suffix)
        ):
            yield entry.removeprefix(prefix).removesuffix(suffix)


def _subdirectories(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []


def _is_profile(name: str) -> bool:
    try:
        return locate({"--profile": name}, {}).profile == name
    except ConfigurationError:
        return False
