"""Addresses of a listener, as text: where it can be reached, and what it is called."""

from __future__ import annotations


def url(host: str, port: int, *, tls: bool = False) -> str:
    """Return ``ws://host:port``, or ``wss://`` where TLS is spoken, with brackets around an IPv6 address. RFC 3986, section 3.2.2."""
    scheme = "wss" if tls else "ws"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def reachable(host: str) -> str:
    """Return the address on which to reach a listener bound to ``host``: loopback for the wildcards."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def is_loopback(host: str) -> bool:
    """Whether an IP literal is an address of this machine's loopback. RFC 1122, 3.2.1.3; RFC 4291, 2.5.3."""
    return host == "::1" or host.startswith("127.") or host.startswith("::ffff:127.")
