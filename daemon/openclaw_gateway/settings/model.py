"""What settings are once they are read and checked: types only."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from openclaw_gateway.settings.location import Origin
from openclaw_gateway.settings.sources import Secret
from openclaw_gateway.supervisor.events import Priority


class Bind(StrEnum):
    """Which addresses to listen on."""

    LOOPBACK = "loopback"
    LAN = "lan"
    TAILNET = "tailnet"
    AUTO = "auto"
    CUSTOM = "custom"


class AuthMode(StrEnum):
    """What a client must present."""

    NONE = "none"
    TOKEN = "token"
    PASSWORD = "password"
    TRUSTED_PROXY = "trusted-proxy"


class Address(NamedTuple):
    """One address to listen on."""

    host: str
    """An IP literal."""
    required: bool
    """Whether a start without it fails; the others are done without where they can't be had."""


class Tls(NamedTuple):
    """How to speak TLS; paths are absolute."""

    certificate: str
    key: str
    ca: str | None
    """More certificates of the chain; clients are asked for none."""
    auto_generate: bool
    """Whether to make a certificate and its key where neither file exists."""


class Limits(NamedTuple):
    """What one client, or all of them together, may use up; ``status`` shows how often each was reached."""

    max_connections: int
    """Open connections in all."""
    max_connections_per_address: int
    max_unauthenticated_per_address: int
    """Of those, connections that have not shown a secret (yet)."""
    handshake_timeout_s: float
    """Seconds from the connection to the hello, or to a complete HTTP request."""
    max_preauth_bytes: int
    """Bytes of a frame before the hello."""
    max_payload_bytes: int
    """Bytes of a frame after the hello, and of an answer."""
    max_buffered_bytes: int
    """Bytes that wait for one client to read them."""
    max_in_flight: int
    """Requests of one client that wait for their answers."""
    requests_per_second: int
    """Requests of one client, on average over a second."""
    request_timeout_s: float
    """Seconds that a method has for its answer."""
    tick_interval_s: float
    """Seconds between two signs of life to clients."""
    auth_max_attempts: int
    """Wrong secrets from one address, in one window, that lock it out."""
    auth_window_s: float
    auth_lockout_s: float


class Cluster(NamedTuple):
    """One active gateway per name, by a record on etcd; see ``settings.cluster``."""

    endpoints: tuple[str, ...]
    """etcd's client URLs, ``http://host:port``, all of one scheme; at least one."""
    name: str
    """The cluster's: letters, digits, ``.``, ``_`` and ``-``. Part of the record's key."""
    url: str
    """Where clients reach this host's gateway, for those who ask a standby."""
    lease_s: float
    """Seconds without a change of the record after which another host may take over."""
    renew_deadline_s: float
    """Seconds since the last acknowledged renewal was sent, after which the active gateway stops."""
    retry_s: float
    """Seconds between two renewals."""
    user: str | None
    """Of etcd; ``None`` where etcd asks for none."""
    password: Secret | None
    """Set if ``user`` is."""
    ca_path: str | None
    """Who signed etcd's certificates; set if the endpoints are ``https``. Absolute, as are the next two."""
    certificate_path: str | None
    """What we show to etcd."""
    key_path: str | None
    """Set if ``certificate_path`` is."""

    @property
    def kill_s(self) -> float:
        """
        Seconds since the last acknowledged renewal was sent, after which the kernel ends us.

        12/15 of the lease: hosts' clocks may run at rates as far apart as that. The rest of the way
        from ``renew_deadline_s`` is for saying goodbye.
        """
        return self.lease_s * KILL_SHARE


KILL_SHARE = 12 / 15
"""Of a lease that is over on the active host's clock when it is ended, whatever it does."""


class Settings(NamedTuple):
    """Every setting of a gateway, checked; made by ``load`` and ``examine`` only."""

    port: int
    bind: Bind
    host: str
    """The first address to listen on, an IP literal."""
    addresses: tuple[Address, ...]
    """All of them; ``host`` is the first."""
    tls: Tls | None
    """``None`` is plain text."""
    cluster: Cluster | None
    """``None``: this gateway asks nobody whether it may serve."""
    config_path: str
    own_path: str
    """The file of our own settings, beside ``config_path``; neither need exist."""
    state_dir: str
    profile: str | None
    auth_mode: AuthMode
    token: Secret | None
    """``None`` in token mode: one is generated and kept in the state directory."""
    password: Secret | None
    user_header: str | None
    """In trusted-proxy mode: the header in which the proxy names the user."""
    proxy_headers: tuple[str, ...]
    """Headers that the proxy must send beside that one, each with something in it."""
    proxy_users: tuple[str, ...]
    """Users that are let in; empty for every user that the proxy names."""
    proxy_on_loopback: bool
    """Whether a proxy on this machine counts: any program here could send its headers."""
    auth_exempt_loopback: bool
    """Whether clients of this machine are never locked out for wrong secrets."""
    status_page: bool
    """Whether browsers are shown the status page."""
    allowed_origins: tuple[str, ...]
    """Values of the ``Origin`` header that browsers may connect from; ``*`` is any."""
    allowed_hosts: tuple[str, ...]
    """Names that the ``Host`` header may have beside ``localhost`` and IP literals, in lower case."""
    trusted_proxies: tuple[str, ...]
    """Addresses and CIDR blocks of reverse proxies whose word on the client's address counts."""
    allow_real_ip_fallback: bool
    """Whether such a proxy's ``X-Real-IP`` counts where it sends no ``X-Forwarded-For``."""
    limits: Limits
    lock_timeout_s: float
    health_timeout_s: float
    log_level: Priority
    standby: bool
    """Whether to wait behind whoever has the port and take over when it ends, instead of leaving."""
    allow_multiple: bool
    """Whether to do without the configuration's lock; the state directory's is always taken."""
    origins: Mapping[str, Origin]
    """Field name to where its value came from; one of ``Limits`` as ``limits.<field>``."""
    warnings: tuple[str, ...]
    """What is odd but no reason to stop."""
