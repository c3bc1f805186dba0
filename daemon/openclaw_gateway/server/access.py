"""Who may ask at all: which names a request may call us by, and which pages it may come from. Pure."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

HOST_REFUSED = "host not allowed: use an IP address, localhost, or a name in allowedHosts of openclaw-gateway.json"
ORIGIN_REFUSED = "origin not allowed: add it to gateway.controlUi.allowedOrigins"


def refused(
    host: str | None,
    origin: str | None,
    *,
    allowed_hosts: Collection[str],
    allowed_origins: Collection[str],
    tls: bool,
) -> str:
    """
    Say why a browser's page or a foreign name may not ask.

    Args:
        host: The ``Host`` field; ``None`` if there is none.
        origin: The ``Origin`` field, which every browser sends along; ``None`` if there is none.
        allowed_hosts: Names in lower case, beside ``localhost`` and IP literals.
        allowed_origins: As browsers write them, beside our own page's; ``*`` is any.
        tls: Whether we speak TLS, so that no page over plain HTTP is ours.

    Returns:
        A sentence for the peer, without any of its bytes; ``""`` if it may ask.
    """
    if host is None or not is_own_host(host, allowed_hosts):
        return HOST_REFUSED
    if (
        origin is not None
        and not is_same_origin(origin, host, tls=tls)
        and not is_allowed_origin(origin, allowed_origins)
    ):
        return ORIGIN_REFUSED
    return ""


def is_own_host(header: str, allowed: Collection[str]) -> bool:
    """Whether a page that rebinds its DNS name to us could not have sent this ``Host``."""
    try:
        host = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    host = host.rstrip(".")
    if host == "localhost" or host in allowed:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_same_origin(origin: str, host: str, *, tls: bool) -> bool:
    """
    Whether a page came from where it asks now, and so from us. RFC 6454, sections 4 and 5.

    ``host`` must be a name of our own: a page that rebinds its name to us has the same in both. Browsers
    leave out the same ports in both. Whoever speaks TLS in front of us serves our page over ``https``,
    though we do not see it.
    """
    schemes = ("https",) if tls else ("http", "https")
    return origin.lower() in {f"{scheme}://{host.lower()}" for scheme in schemes}


def is_allowed_origin(origin: str, allowed: Collection[str]) -> bool:
    """Whether a page may come from there. RFC 6454, section 7: one origin, scheme and host, or ``null``."""
    known = {one.lower().rstrip("/") for one in allowed}
    # Two origins were joined by a comma, which stands in none.
    return origin.lower() in known or ("*" in known and "://" in origin and "," not in origin)
