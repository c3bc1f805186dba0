"""Where the gateway that is meant listens, for the verbs that talk to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple

from openclaw_gateway.admin.look.place import Place, configured
from openclaw_gateway.admin.look.selection import Selection
from openclaw_gateway.admin.look.subject import held, resolve
from openclaw_gateway.admin.look.units import Reply, Unit
from openclaw_gateway.claim.baseport import Holder, holder
from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.host.address import is_loopback, reachable
from openclaw_gateway.host.ports import listening
from openclaw_gateway.settings import values

_NO_UNITS = Reply(())
_ADDRESS_FLAGS: tuple[tuple[str, Callable[[object], object]], ...] = (
    ("--port", values.port_number),
    ("--host", values.ip_address),
)


class Endpoint(NamedTuple):
    """A gateway of this machine, running or not, and where to reach it."""

    host: str
    port: int
    place: Place
    unit: Unit | None
    """Its unit, if it has one and that was asked for."""
    holder: Holder | None
    """Who holds its port, by the kernel's word."""


def find(selection: Selection, *, asks_manager: bool = True) -> Endpoint:
    """
    Find the gateway as ``status`` does, and the address on which to reach it.

    Settings that can't be read or are wrong stop nothing: ``place.problem`` has what they lack.

    Args:
        selection: Which one is meant.
        asks_manager: Whether to look for its unit, which takes a child process.

    Raises:
        ConfigurationError: A flag is wrong.
    """
    flags = selection.flags
    for flag, read in _ADDRESS_FLAGS:
        _check(flag, flags.get(flag), read)
    shown = None if asks_manager else _NO_UNITS
    subject = resolve(selection, held() if asks_manager else {}, shown=shown)
    place = subject.place
    who = holder(place.port)
    if flags.get("--host") or flags.get("--bind"):
        host = flags.get("--host") or configured(flags, selection.environ).host
    else:
        host = _told(who, place.port) or place.host
    return Endpoint(reachable(host), place.port, place, subject.unit, who)


def _check(flag: str, text: str | None, read: Callable[[object], object]) -> None:
    if text is None:
        return
    try:
        read(text)
    except values.UnfitError as error:
        raise ConfigurationError("flag", flag, error.about(json.dumps(text))) from None


def _told(who: Holder | None, port: int) -> str | None:
    """Return the address that a port's holder names, if the kernel knows that it listens there."""
    host = who.record.host if who and who.record else None
    ours = any(found.host == host and found.uid == who.uid for found in listening(port) if who)
    return host if ours else None


def is_here(host: str) -> bool:
    """Whether a URL's host can only be this machine: ``127.0.0.1.example`` can be anyone's."""
    try:
        return is_loopback(str(ip_address(host)))
    except ValueError:
        return host == "localhost"
