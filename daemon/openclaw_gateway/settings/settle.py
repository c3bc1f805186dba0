"""Decisions over values that were read: which addresses, which mode, whose secret. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.host.address import is_loopback
from openclaw_gateway.host.interfaces import first_tailnet
from openclaw_gateway.settings.location import DEFAULT, Location, Origin, absolute
from openclaw_gateway.settings.model import Address, AuthMode, Bind, Tls
from openclaw_gateway.settings.sources import Secret

_LOOPBACK = (Address("127.0.0.1", True), Address("::1", False))
"""::1 where it can be had: a machine may have no IPv6, and the port may be taken there."""
_LOCAL = Address("127.0.0.1", True)
"""Clients of this machine expect the gateway there, whatever else it listens on."""


class Surroundings(NamedTuple):
    """What the machine says of itself; asked only where a setting depends on it."""

    addresses: Callable[[], tuple[str, ...]]
    """The IPv4 addresses of its interfaces."""
    is_container: Callable[[], bool]
    host_name: Callable[[], str] = lambda: os.uname().nodename


def addresses(bind: Bind, host: str | None, around: Surroundings) -> tuple[Address, ...]:
    """
    Return the addresses to listen on, the one that names the gateway first.

    Args:
        bind: Which kind; ``custom`` needs ``host``.
        host: An IP literal.
        around: The machine.
    """
    match bind:
        case Bind.LAN:
            return (Address("0.0.0.0", True),)
        case Bind.AUTO if around.is_container():
            return (Address("0.0.0.0", True),)
        case Bind.TAILNET:
            found = first_tailnet(around.addresses())
            return (Address(found, True), _LOCAL) if found else _LOOPBACK
        case Bind.CUSTOM if host in ("0.0.0.0", "::"):
            return (Address(host, True),)
        case Bind.CUSTOM if host and host != "127.0.0.1":
            return (Address(host, True), _LOCAL)
        case _:
            return _LOOPBACK


def settle_addresses(
    values: dict[str, Any], origins: dict[str, Origin], around: Surroundings
) -> None:
    """
    Turn ``bind`` and ``host`` into addresses.

    Raises:
        ConfigurationError: An address is needed, and none is given.
    """
    given = values["host"] is not None
    if given and origins["host"].source == "flag" and origins["bind"].source != "flag":
        values["bind"], origins["bind"] = Bind.CUSTOM, origins["host"]
    missing = values["bind"] is Bind.CUSTOM and not given
    if values["bind"] is not Bind.CUSTOM:
        values["host"], origins["host"] = None, origins["bind"]
    values["addresses"] = addresses(values["bind"], values["host"], around)
    values["host"] = values["addresses"][0].host
    origins["addresses"] = origins["host"]
    if missing:
        raise origins["bind"].error(
            'is "custom", but no address is given',
            hint="give one with --host or gateway.customBindHost",
        )


def settle_tls(values: dict[str, Any], origins: dict[str, Origin], where: Location) -> None:
    """
    Turn the values of ``gateway.tls`` into one.

    Raises:
        ConfigurationError: A path begins with ``~``, and there is no home directory.
    """
    origins["tls"] = origins["tls.enabled"]
    values["tls"] = None
    if not values["tls.enabled"]:
        return
    kept = os.path.join(where.state_dir, "gateway/tls")

    def path(field: str, default: str) -> str:
        named, origin = values[f"tls.{field}"], origins[f"tls.{field}"]
        return absolute(named, where.home, origin) if named else default

    values["tls"] = Tls(
        path("certificate", os.path.join(kept, "gateway-cert.pem")),
        path("key", os.path.join(kept, "gateway-key.pem")),
        path("ca", "") or None,
        auto_generate=values["tls.auto_generate"],
    )


class Candidate(NamedTuple):
    """A secret that may be used, and is read only if it is."""

    origin: Origin
    read: Callable[[], tuple[Secret, Origin]]
    in_document: bool = False
    unset: tuple[str, ...] = ()
    """Variables that it refers to and that are not set."""


def settle_auth(
    values: dict[str, Any],
    origins: dict[str, Origin],
    candidates: Mapping[str, list[Candidate]],
    *,
    mode_in_file: bool,
    shell_lends: Origin | None,
) -> None:
    """
    Choose the mode that the secrets at hand ask for, read the secret it needs, and refuse what leaves a door open.

    Args:
        values: Changed: ``auth_mode``, ``token``, ``password``.
        origins: Likewise.
        candidates: For ``token`` and ``password`` what there is, the strongest first.
        mode_in_file: Whether the mode stands in the file, so that it says which secret counts.
        shell_lends: Where it says that the login shell's variables are to be used, ``None`` if nowhere.

    Raises:
        ConfigurationError: What is chosen can't be had, or contradicts itself.
    """
    mode, origin = values["auth_mode"], origins["auth_mode"]
    if not mode_in_file:
        _refuse_two(candidates)
    known = {kind: [c for c in found if not c.unset] for kind, found in candidates.items()}
    if mode is None:
        mode = AuthMode.PASSWORD if known["password"] else AuthMode.TOKEN
        origin = known["password"][0].origin if known["password"] else DEFAULT
        if shell_lends and not known["password"]:
            raise _no_shell(shell_lends)
    values["auth_mode"], origins["auth_mode"] = mode, origin
    match mode:
        case AuthMode.TOKEN | AuthMode.PASSWORD:
            _choose(mode, values, origins, candidates[mode.value], shell_lends=shell_lends)
        case AuthMode.TRUSTED_PROXY:
            _check_trusted_proxy(values, origins, known["token"])
        case AuthMode.NONE:
            exposed = [a.host for a in values["addresses"] if not is_loopback(a.host)]
            if exposed:
                raise origin.error(
                    f'is "none", and the gateway would listen on {exposed[0]}, beyond this machine',
                    hint='set it to "token" or "password", or bind to loopback',
                )


def _refuse_two(candidates: Mapping[str, list[Candidate]]) -> None:
    """Refuse a file with both secrets that does not say which of them counts."""
    token, password = (
        next((c.origin for c in candidates[kind] if c.in_document), None)
        for kind in ("token", "password")
    )
    if token and password:
        raise password.error(
            f"stands beside {token.name}, and nothing says which of them counts",
            hint='set gateway.auth.mode to "token" or "password"',
        )


def _choose(
    mode: AuthMode,
    values: dict[str, Any],
    origins: dict[str, Origin],
    found: list[Candidate],
    *,
    shell_lends: Origin | None,
) -> None:
    kind = mode.value
    for candidate in found:
        if candidate.unset:
            others = [c for c in found if c is not candidate and not c.unset and not c.in_document]
            if others:
                # Which one is meant? OpenClaw does not start either.
                raise candidate.origin.error(
                    f"refers to ${{{candidate.unset[0]}}}, which is not set, "
                    f"and there is a {kind} from {others[0].origin} too",
                    hint=f"set {candidate.unset[0]}, or take {candidate.origin.name} out of the file",
                )
            continue
        values[kind], origins[kind] = candidate.read()
        return
    if shell_lends:
        raise _no_shell(shell_lends)
    if mode is AuthMode.PASSWORD:
        raise origins["auth_mode"].error(
            'is "password", but none is given',
            hint="give one with --password-file, gateway.auth.password or a systemd credential",
        )


def _no_shell(origin: Origin) -> ConfigurationError:
    return origin.error(
        "asks for the variables of the login shell, and this gateway starts no shell",
        hint='set the secret with "env.vars", a .env file, --token-file or a systemd credential',
    )


def _check_trusted_proxy(
    values: dict[str, Any], origins: dict[str, Origin], tokens: list[Candidate]
) -> None:
    origin = origins["auth_mode"]
    if not values["user_header"]:
        raise origin.error(
            'is "trusted-proxy", but nothing says which header names the user',
            hint="set gateway.auth.trustedProxy.userHeader",
        )
    if not values["trusted_proxies"]:
        raise origin.error(
            'is "trusted-proxy", but no proxy is trusted', hint="set gateway.trustedProxies"
        )
    if tokens:
        raise tokens[0].origin.error(
            'is a token, and the mode is "trusted-proxy", which takes none', hint="remove it"
        )
