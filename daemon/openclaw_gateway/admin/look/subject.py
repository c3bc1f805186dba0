"""Which gateway is asked about: its unit, its port, its directories.

A host may hold a system unit, units of users, instances for profiles and gateways started by hand.
What was said on the command line decides; else what runs; else what is enabled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from openclaw_gateway.admin.look import units
from openclaw_gateway.admin.look.place import Place, configured, place_of
from openclaw_gateway.admin.look.selection import Scope, Selection
from openclaw_gateway.admin.look.units import SYSTEM, Manager, Unit, manager_of
from openclaw_gateway.claim.baseport import Holder, held_ports, holder
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.host import process
from openclaw_gateway.supervisor.events import STANDBY_STATUS


class Subject(NamedTuple):
    """The gateway that is asked about."""

    selection: Selection
    """What was said to mean it."""
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
    standbys: tuple[Unit, ...] = ()
    """Units of the same manager that stand by, behind whichever gateway."""
    state_dirs: tuple[str, ...] = ()
    """Directories that may be its state directory; empty if only a port was named, as any gateway may have that."""

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
    def profile(self) -> str | None:
        """Its profile; ``None`` for the default one, or where nobody knows."""
        return self.selection.where.profile

    @property
    def profile_name(self) -> str | None:
        """Its name or ``default``; ``None`` where a port, a directory or a file was named, which may be any's."""
        if self.profile is None and self.unit is None and self.selection.is_placed:
            return None
        return None if self.guarded_account else self.profile or "default"

    @property
    def guarded_account(self) -> str | None:
        """The account whose gateway a guard runs, if the unit is one; ``None`` for gateways of our own."""
        return units.guarded_account(self.unit_name)

    @property
    def lacks_systemd(self) -> bool:
        """Whether nobody was asked because systemd does not run here."""
        return self.unit_problem == units.NO_SYSTEMD

    @property
    def unit_name(self) -> str:
        """The name that its unit has or would have."""
        return self.unit.name if self.unit else _name(self.selection)


def held() -> dict[int, Holder]:
    """Return who holds which base port in our network namespace."""
    found = {port: holder(port) for port in held_ports()}
    return {port: who for port, who in found.items() if who is not None}


def resolve(
    selection: Selection, holders: Mapping[int, Holder], *, shown: units.Reply | None = None
) -> Subject:
    """
    Decide which gateway is meant. Starts at most one child, ``systemctl show``.

    Args:
        selection: What was said.
        holders: Who holds which base port.
        shown: What the manager said, where it was asked already.
    """
    profile = selection.where.profile
    manager = choose_manager(selection, holders)
    named = [_name(selection)] if selection.guard else names_of(profile)
    answer = shown or units.show([*named, units.ANY_GATEWAY], manager)
    known = {unit.name: unit for unit in answer.units if unit.load_state != "not-found"}
    own = configured(selection.flags, selection.environ)
    undecided = not selection.is_placed and selection.scope is Scope.ANY
    running = _own_foreground(own, holders) if undecided else None
    by_hand = _without_unit(selection, manager, answer.problem, own, running)
    by_hand = by_hand._replace(
        standbys=tuple({unit.name: unit for unit in answer.units if stands_by(unit)}.values())
    )
    unit = known.get(_name(selection))
    if _may_be_guarded(selection, unit):
        unit = _guard_of(own.port, known, holders, unit) or unit
    if unit is None:
        return by_hand
    planned = place_of(unit, profile)
    actual = planned._replace(port=_bound_port(unit, holders) or planned.port)
    other = _another(selection, own, own.port if selection.is_placed else running, actual)
    if other is not None:
        return by_hand._replace(others=(f"{unit.name} ({manager}) is another gateway, {other}",))
    socket = known.get(units.SOCKET)
    return by_hand._replace(
        unit=unit,
        socket=socket if socket and socket.active_state == "active" else None,
        place=own if selection.is_placed and unit.main_pid is None else actual,
        configured_port=planned.port,
        state_dirs=_state_dirs(by_hand, planned),
    )


def _name(selection: Selection) -> str:
    """Return the name of the unit that was named, or else of our own."""
    return units.unit_name(selection.where.profile, guard=selection.guard)


def _may_be_guarded(selection: Selection, unit: Unit | None) -> bool:
    """Whether nothing that was said means a unit of our own."""
    if selection.guard or selection.where.profile or selection.scope is Scope.USER:
        return False
    return unit is None or selection.scope is Scope.ANY


def _guard_of(
    port: int, known: Mapping[str, Unit], holders: Mapping[int, Holder], ours: Unit | None
) -> Unit | None:
    """
    Return the guard that has a port or, while nobody has it and our own unit does not count, the one to have it.

    Args:
        port: That was asked about, or the default one.
        known: The manager's units.
        holders: Who holds which base port.
        ours: Our own gateway's unit, if there is one.
    """
    guards = [unit for unit in known.values() if units.guarded_account(unit.name)]
    holder = holders.get(port)
    if holder is not None:
        return next((unit for unit in guards if unit.main_pid == holder.pid), None)
    if ours is not None and (ours.main_pid or ours.is_enabled):
        return None
    used = (unit for unit in guards if unit.is_used)
    return next((unit for unit in used if place_of(unit, None).port == port), None)


def stands_by(unit: Unit) -> bool:
    """Whether a unit runs, and waits for the end of another's gateway; by its own word."""
    return unit.main_pid is not None and unit.status_text.startswith(STANDBY_STATUS)


def _without_unit(
    selection: Selection, manager: Manager, problem: str | None, own: Place, running: int | None
) -> Subject:
    """Return the subject as the caller's own settings have it; ``running`` is the port it runs on by hand."""
    return Subject(
        selection=selection,
        manager=manager,
        unit=None,
        unit_problem=problem,
        socket=None,
        place=own._replace(port=running or own.port),
        configured_port=own.port,
        others=(),
        state_dirs=(own.state_dir,) if selection.names_state else (),
    )


def _bound_port(unit: Unit, holders: Mapping[int, Holder]) -> int | None:
    """Return the base port that a unit's main process holds."""
    pid = unit.main_pid
    return next((port for port, who in holders.items() if pid and who.pid == pid), None)


def _another(selection: Selection, own: Place, port: int | None, actual: Place) -> str | None:
    """Say by what a unit's gateway differs from the one that is meant; ``None`` if it may be that."""
    if port is not None and port != actual.port:
        return f"for port {actual.port}"
    if selection.names_state_dir and not _is_same(own.state_dir, actual.state_dir):
        return f"with {actual.state_dir}"
    return None


def _is_same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def names_of(profile: str | None) -> list[str]:
    """Return the units to ask about for a profile: its service, and for the default one the socket."""
    return [units.unit_name(profile), *([] if profile else [units.SOCKET])]


def _state_dirs(by_hand: Subject, planned: Place) -> tuple[str, ...]:
    """Return where a gateway that has a unit may keep its state: run by hand it is elsewhere."""
    if by_hand.selection.scope is not Scope.ANY:
        return (planned.state_dir,)
    return (*by_hand.state_dirs, planned.state_dir) if by_hand.state_dirs else ()


def choose_manager(selection: Selection, holders: Mapping[int, Holder]) -> Manager:
    """
    Choose whose unit to ask about, as only one manager is asked.

    Without a word on it: ours if it runs a gateway, or if it is to run one; else the system's.
    """
    own_uid = os.geteuid()
    match selection.scope:
        case Scope.SYSTEM:
            return SYSTEM
        case Scope.USER:
            return manager_of(own_uid)
    for who in holders.values():
        ours = who.uid == own_uid and who.pid is not None
        if ours and process.user_manager_of(who.pid or 0) == own_uid:
            return manager_of(own_uid)
    home = os.path.expanduser("~")
    name = units.unit_name(selection.where.profile)
    if own_uid != 0 and enabled_in(f"{home}/.config/systemd/user", name):
        return manager_of(own_uid)
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
