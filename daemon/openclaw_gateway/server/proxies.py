"""Whose request is it? The client's address, of which a reverse proxy that we trust may speak. Pure.

A header from anywhere else counts for nothing. As OpenClaw has it, a request that looks like a
proxy's and comes from nobody that is trusted is refused: somebody put a proxy there and did not say so,
and all its clients would look like one, and like one on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from openclaw_gateway.host.address import is_loopback
from openclaw_gateway.protocol.scopes import KNOWN_SCOPES, READ, WRITE

_MAX_HOPS = 32
"""Addresses of an ``X-Forwarded-For`` that are looked at, from the right."""

UNTRUSTED = (
    "forwarded by an address that is not in gateway.trustedProxies: add the proxy's address to it"
)
NO_CLIENT = (
    "the proxy names no client: it must send X-Forwarded-For with the client's address, "
    "which is neither loopback nor in gateway.trustedProxies"
)


class User(NamedTuple):
    """Who a client is, by the word of a proxy that knows: in trusted-proxy mode that takes the secret's place."""

    name: str
    scopes: frozenset[str]
    """What the user may be granted at the most."""


class Source(NamedTuple):
    """
    Where a client comes from.

    Attributes:
        address: IP literal.
        local: Whether it is on this machine, and no proxy's client.
        user: Who it is, where a proxy says so and its word counts.
    """

    address: str
    local: bool
    user: User | None = None

    @property
    def network(self) -> str:
        """What limits are counted by: an IPv4 address, or the /64 that one IPv6 host usually has."""
        return network(self.address)


def network(address: str) -> str:
    """Return the part of an IP literal that belongs to one host. RFC 4291, section 2.5.4."""
    parsed = _address(address)
    if parsed is None:
        return "unknown"
    if isinstance(parsed, IPv4Address) or parsed.is_loopback:
        return str(parsed)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


class TrustedProxies:
    """The proxies whose word counts: addresses and CIDR blocks; what is neither matches nothing."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            try:
                found = ip_network(entry.strip(), strict=False)
            except ValueError:
                continue
            mapped = found.network_address.ipv4_mapped if isinstance(found, IPv6Network) else None
            if mapped is not None and found.prefixlen >= 96:
                found = IPv4Network(f"{mapped}/{found.prefixlen - 96}", strict=False)
            self._networks.append(found)

    def __contains__(self, address: object) -> bool:
        parsed = _address(address) if isinstance(address, str) else None
        # Addresses of one version are never in a network of the other.
        return parsed is not None and any(parsed in known for known in self._networks)


def is_forwarded(headers: Mapping[str, str]) -> bool:
    """Whether a request has the look of a proxy's; names in ``headers`` are in lower case."""
    return any(
        name in ("forwarded", "x-real-ip") or name.startswith("x-forwarded-") for name in headers
    )


def resolve(
    peer: str, headers: Mapping[str, str], *, trusted: TrustedProxies, real_ip_fallback: bool
) -> Source | str:
    """
    Say where a request comes from.

    Args:
        peer: The IP literal at the other end of the connection.
        headers: By name in lower case; a repeated field is joined by commas.
        trusted: Whose headers count.
        real_ip_fallback: Whether ``X-Real-IP`` counts where ``X-Forwarded-For`` names no client.

    Returns:
        The client: of a trusted proxy the right-most address that is neither loopback nor trusted, as
        every proxy appends whom it heard from. Or why nobody can say, for a 403.
    """
    forwarded = is_forwarded(headers)
    if peer not in trusted:
        return UNTRUSTED if forwarded else Source(peer, is_loopback(peer))
    if not forwarded:
        # A program of this machine talks to us itself, though a proxy runs here too. Elsewhere a proxy
        # that names no client leaves us without one.
        return Source(peer, True) if is_loopback(peer) else NO_CLIENT
    hops = headers.get("x-forwarded-for", "").split(",")
    if real_ip_fallback:
        hops.insert(0, headers.get("x-real-ip", ""))
    for hop in hops[:-_MAX_HOPS:-1]:
        client = _address(_bare(hop))
        if client is not None and not is_loopback(str(client)) and str(client) not in trusted:
            return Source(str(client), False)
    return NO_CLIENT


USER_SCOPES = frozenset({READ, WRITE, "operator.approvals", "operator.questions"})
"""What OpenClaw grants to users whom a proxy vouches for, unless told otherwise: not ``operator.admin``."""

_SCOPES_HEADER = "x-openclaw-scopes"
"""In which the proxy may narrow them; present and empty, it grants none."""


def identify(
    headers: Mapping[str, str],
    *,
    user_header: str,
    required: Iterable[str] = (),
    allowed: Iterable[str] = (),
) -> User | None:
    """
    Say who the client of a trusted proxy is.

    To be asked only for a request whose proxy is trusted, and which ``resolve`` found a client for.

    Args:
        headers: By name in lower case.
        user_header: The header that names the user.
        required: Headers that must have something in them.
        allowed: Users that are let in; empty for all.

    Returns:
        ``None`` if the proxy names nobody, or nobody who is let in.
    """
    name = headers.get(user_header.lower(), "").strip()
    users = frozenset(allowed)
    if not name or (users and name not in users):
        return None
    if not all(headers.get(header.lower(), "").strip() for header in required):
        return None
    scopes = USER_SCOPES
    if _SCOPES_HEADER in headers:
        scopes &= frozenset(headers[_SCOPES_HEADER].replace(",", " ").split()) & KNOWN_SCOPES
    return User(name, scopes)


def _bare(hop: str) -> str:
    """Return an address without the quotes, brackets and port that proxies put around it."""
    hop = hop.strip().strip('"').strip()
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _address(literal: str) -> IPv4Address | IPv6Address | None:
    """Return an address without its zone, and an IPv4 one that IPv6 carries as what it is."""
    try:
        parsed = ip_address(literal.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
