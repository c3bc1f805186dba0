"""Whose settings ``config`` shows: a unit's gateway's, or those of one that is started from here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from openclaw_gateway.admin.look import environment, units
from openclaw_gateway.admin.look.selection import Scope, Selection
from openclaw_gateway.admin.look.subject import choose_manager, held
from openclaw_gateway.admin.look.units import Unit
from openclaw_gateway.errors import NothingToShowError
from openclaw_gateway.settings.location import CONFIG_NAME, OWN_NAME


class View(NamedTuple):
    """
    What a unit's gateway would read its settings by.

    Attributes:
        flags: As for ``settings.load``; those that were given here are stronger than the unit's.
        environ: As for ``settings.load``.
        unread: What else it is configured by, and we may not read.
        unit: It.
    """

    flags: Mapping[str, str]
    environ: Mapping[str, str]
    unread: tuple[str, ...]
    unit: Unit

    def __str__(self) -> str:
        return f"{self.unit.name} ({self.unit.manager}) at its next start"


def of_unit(selection: Selection, *, shown: units.Reply | None = None) -> View | None:
    """
    Return a unit's view if that is meant, ``None`` if the caller's own is. Asks a service manager at most once.

    ``--system`` and ``--user`` mean the unit. So does a profile alone, if it has a unit that runs, is
    enabled, failed, or finds a settings file: as a template, the packaged unit exists for any name.
    All else means what is started from here, and so does ``ExecReload=`` of a unit.

    Args:
        selection: What was said.
        shown: What the manager said, where it was asked already.

    Raises:
        NothingToShowError: A unit was asked for, and there is none, or its manager could not be asked.
    """
    profile = selection.where.profile
    is_asked_for = selection.scope is not Scope.ANY
    if not is_asked_for and (profile is None or selection.names_files or _is_units(selection)):
        return None
    manager = choose_manager(selection, {} if is_asked_for else held())
    name = units.unit_name(profile)
    reply = shown or units.show([name], manager)
    found = [unit for unit in reply.units if unit.load_state != "not-found"]
    if not found and is_asked_for:
        problem = reply.problem or "there is no such unit"
        raise NothingToShowError(f"the settings of {name} ({manager})", problem)
    if not found or not (is_asked_for or _is_used(found[0], profile)):
        return None
    given = environment.of_unit(found[0], profile)
    flags = given.flags | selection.flags | dict(selection.secret_files)
    return View(flags, given.judged_environ, given.unread, found[0])


def _is_units(selection: Selection) -> bool:
    """
    Whether the caller is a unit's own process, as in ``ExecReload=``: what it was given is what counts.

    systemd tells such a process, and no other, of the unit's directories; systemd.exec(5).
    """
    return any(
        selection.environ.get(name) for name in ("STATE_DIRECTORY", "CONFIGURATION_DIRECTORY")
    )


def _is_used(unit: Unit, profile: str | None) -> bool:
    """Whether anybody has made something of a unit, or of the directory that it is configured in."""
    if unit.is_used:
        return True
    if not unit.manager.is_system:
        return False
    directory = environment.packaged(profile)["CONFIGURATION_DIRECTORY"]
    return any(os.path.lexists(f"{directory}/{name}") for name in (CONFIG_NAME, OWN_NAME))
