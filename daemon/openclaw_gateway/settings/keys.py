"""Every setting that we read, where it may come from, and what else may stand in its file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from openclaw_gateway.settings.includes import MISSING, Merged, dotted, look_up
from openclaw_gateway.settings.json5 import Keys
from openclaw_gateway.settings.model import AuthMode, Bind
from openclaw_gateway.settings.values import (
    count,
    endpoints,
    hosts,
    http_url,
    interval,
    ip_address,
    key_name,
    level,
    milliseconds,
    nearest,
    one_of,
    port_in_file,
    port_number,
    seconds,
    secret,
    strings,
    switched_on,
    text,
    truth,
)
from openclaw_gateway.supervisor.events import Priority


class Key(NamedTuple):
    """One setting: where it may come from, how it is read there, and what it is otherwise."""

    field: str
    """Of ``Settings``; of ``Limits`` as ``limits.<field>``."""
    parse: Callable[[object], Any]
    """Reads it from a flag, and from files where these have no reader of their own."""
    default: Any
    path: str | None = None
    """Dotted path in ``openclaw.json``."""
    own_path: str | None = None
    """Dotted path in ``openclaw-gateway.json``. ``path`` is then where it used to be, and where it is
    still read: OpenClaw does not start with a key in its file that it does not know."""
    flag: str | None = None
    parse_file: Callable[[object], Any] | None = None

    @property
    def name(self) -> str:
        """The setting's name for people and programs: its path where it belongs."""
        return self.own_path or self.path or self.field


_BIND_ALIASES = {
    "0.0.0.0": Bind.LAN, "::": Bind.LAN, "*": Bind.LAN,
    "127.0.0.1": Bind.LOOPBACK, "localhost": Bind.LOOPBACK, "::1": Bind.LOOPBACK,
}  # fmt: skip
"""What older releases of OpenClaw called them: read, with a warning."""


def bind_alias(value: object) -> Bind | None:
    """Return what an address means that an older release took for ``bind``."""
    return _BIND_ALIASES.get(value) if isinstance(value, str) else None


def _bind_in_file(value: object) -> Bind:
    return bind_alias(value) or one_of(Bind)(value)


def _own(name: str, parse: Callable[[object], Any], default: Any) -> Key:
    """Return one of ``limits``, which are ours."""
    field = "limits." + "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    field = field.removesuffix("_ms") + "_s" if field.endswith("_ms") else field
    return Key(field, parse, default, f"gateway.limits.{name}", f"limits.{name}")


def _cluster(key: str, field: str, parse: Callable[[object], Any], default: Any = None) -> Key:
    """Return one of ``cluster``, which are ours."""
    return Key(f"cluster.{field}", parse, default, f"gateway.cluster.{key}", f"cluster.{key}")


KEYS = (
    Key("port", port_number, 18789, "gateway.port", flag="--port", parse_file=port_in_file),
    Key("bind", one_of(Bind), Bind.LOOPBACK, "gateway.bind", flag="--bind", parse_file=_bind_in_file),
    Key("host", ip_address, None, "gateway.customBindHost", flag="--host"),
    Key("auth_mode", one_of(AuthMode), None, "gateway.auth.mode", flag="--auth"),
    Key("user_header", text, None, "gateway.auth.trustedProxy.userHeader"),
    Key("proxy_headers", strings, (), "gateway.auth.trustedProxy.requiredHeaders"),
    Key("proxy_users", strings, (), "gateway.auth.trustedProxy.allowUsers"),
    Key("proxy_on_loopback", truth, False, "gateway.auth.trustedProxy.allowLoopback"),
    Key("limits.auth_max_attempts", count(1, 10**6), 10, "gateway.auth.rateLimit.maxAttempts"),
    Key("limits.auth_window_s", interval(1), 60.0, "gateway.auth.rateLimit.windowMs"),
    Key("limits.auth_lockout_s", interval(1), 300.0, "gateway.auth.rateLimit.lockoutMs"),
    Key("auth_exempt_loopback", truth, True, "gateway.auth.rateLimit.exemptLoopback"),
    Key("status_page", truth, True, "gateway.controlUi.enabled"),
    Key("allowed_origins", strings, (), "gateway.controlUi.allowedOrigins"),
    Key("trusted_proxies", strings, (), "gateway.trustedProxies"),
    Key("allow_real_ip_fallback", truth, False, "gateway.allowRealIpFallback"),
    Key("tls.enabled", truth, False, "gateway.tls.enabled"),
    Key("tls.certificate", text, None, "gateway.tls.certPath"),
    Key("tls.key", text, None, "gateway.tls.keyPath"),
    Key("tls.ca", text, None, "gateway.tls.caPath"),
    Key("tls.auto_generate", truth, True, "gateway.tls.autoGenerate"),
    Key("log_level", level, Priority.INFO, "logging.level", flag="--log-level"),
    Key("allowed_hosts", hosts, (), "gateway.allowedHosts", "allowedHosts"),
    Key("lock_timeout_s", seconds, 5.0, "gateway.lockTimeoutMs", "lockTimeoutMs", "--lock-timeout", milliseconds),
    Key("health_timeout_s", seconds, 30.0, "gateway.healthTimeoutMs", "healthTimeoutMs", "--health-timeout", milliseconds),
    Key("standby", switched_on, False, None, "standby", "--standby", truth),
    _own("maxConnections", count(1, 1 << 20), 1024),
    _own("maxConnectionsPerAddress", count(1, 1 << 20), 512),
    _own("maxUnauthenticatedPerAddress", count(1, 1 << 20), 128),
    _own("handshakeTimeoutMs", interval(250), 10.0),
    _own("maxPreauthBytes", count(1024, 1 << 20), 64 << 10),
    _own("maxPayloadBytes", count(1024, 1 << 28), 25 << 20),
    _own("maxBufferedBytes", count(65536, 1 << 30), 50 << 20),
    _own("maxInFlight", count(1, 4096), 64),
    _own("requestsPerSecond", count(1, 10**6), 1000),
    _own("requestTimeoutMs", interval(10), 25.0),
    _own("tickIntervalMs", interval(250), 30.0),
    _cluster("endpoints", "endpoints", endpoints),
    _cluster("name", "name", key_name),
    _cluster("url", "url", http_url),
    _cluster("leaseMs", "lease_s", interval(1000), 15.0),
    _cluster("renewDeadlineMs", "renew_deadline_s", interval(500), 10.0),
    _cluster("retryMs", "retry_s", interval(100), 2.0),
    _cluster("user", "user", text),
    _cluster("passwordPath", "password_path", text),
    _cluster("caPath", "ca", text),
    _cluster("certPath", "certificate", text),
    _cluster("keyPath", "key", text),
)  # fmt: skip

CLIENT_SECRETS = (
    Key("token", secret, None, "gateway.auth.token", flag="--token"),
    Key("password", secret, None, "gateway.auth.password", flag="--password"),
)
"""What clients get in with."""

SECRETS = (*CLIENT_SECRETS, _cluster("password", "password", secret))
"""Read apart: they may be references, and what is not needed is not looked for."""


def credential(field: str) -> str:
    """Return the name of the systemd credential that a secret may come as; a profile's has no dot in it."""
    return f"openclaw-gateway.{field.replace('.', '-')}"


LIMIT_NAMES = {
    key.field.removeprefix("limits."): key.name.rpartition(".")[2]
    for key in KEYS
    if key.field.startswith("limits.")
}
"""Field of ``Limits`` to its name in the file and on the wire, where times are milliseconds."""

# What OpenClaw 2026.9 knows beside that: not ours to serve, and not the user's mistake.
_KNOWN = {
    "": """
        $schema meta env wizard diagnostics logging update telemetry browser ui secrets auth accessGroups
        acp models nodeHost agents worktreeRoot worktreeAcceleration tools security bindings broadcast
        attachments messages tts commands approvals session cron transcripts hooks channels discovery
        talk gateway cloudWorkers desktop memory mcp skills plugins surfaces proxy
        """,
    "gateway": """
        mode publicOrigin portals controlUi cliAgents terminal auth roles trustedProxies
        allowRealIpFallback tools tailscale remote reload tls http push nodes
        """,
    "gateway.auth": "mode token password allowTailscale identityScopes trustedProxy rateLimit",
    "gateway.auth.rateLimit": "maxAttempts windowMs lockoutMs exemptLoopback",
    "gateway.auth.trustedProxy": "userHeader requiredHeaders allowUsers allowLoopback",
    "gateway.tls": "enabled autoGenerate certPath keyPath caPath",
    "gateway.limits": "",
    "gateway.cluster": "",
}
_OBJECTS = (
    "controlUi", "terminal", "auth", "auth.rateLimit", "auth.trustedProxy", "tools", "tailscale",
    "remote", "reload", "tls", "http", "push", "nodes", "limits",
    "cluster",
)  # fmt: skip
"""Below ``gateway``: what must be an object."""
_RETIRED = {
    "handshakeTimeoutMs": "OPENCLAW_HANDSHAKE_TIMEOUT_MS is OpenClaw's; ours is limits.handshakeTimeoutMs",
    "channelHealthCheckMinutes": "remove it",
    "channelStaleEventThresholdMinutes": "remove it",
    "channelMaxRestartsPerHour": "remove it",
    "webchat": "remove it",
    "reload.debounceMs": "remove it",
    "reload.deferralTimeoutMs": "remove it",
    "tailscale.resetOnExit": "remove it",
    "tailscale.serviceName": "remove it",
}  # fmt: skip
"""Below ``gateway``: what OpenClaw takes out of its file at a start, and what to do about it."""
_MISPLACED = {"host": "bind", "address": "bind", "customHost": "customBindHost"}
"""Names that say what another key says, and look unlike it."""
_NEAR = 0.75
"""How like a known name one must be to count as a misspelling of it: "prot" of "port" is."""


def own_document_problems(merged: Merged) -> Iterator[Any]:
    """Yield what is odd in our own file: an error where a name is nearly one we know, else a warning."""
    paths = [key.own_path.split(".") for key in (*KEYS, *SECRETS) if key.own_path]
    top = {path[0] for path in paths} | {"$schema"}
    yield from _unknown(merged, (), merged.value, top, top)
    for section in sorted({path[0] for path in paths if len(path) > 1}):
        node = look_up(merged.value, (section,))
        if node is MISSING:
            continue
        if not isinstance(node, dict):
            yield merged.origin((section,)).error("must be an object")
            continue
        known = {path[1] for path in paths if path[0] == section and len(path) > 1}
        yield from _unknown(merged, (section,), node, known, known)


def document_problems(merged: Merged) -> Iterator[Any]:
    """
    Yield what is odd in ``openclaw.json``: errors to be raised and warnings, as text.

    An unknown key below ``gateway`` that is nearly one we know is an error: a gateway on another port
    than its file means is worse than none. Any other is a warning, as newer releases bring keys.
    """
    gateway = look_up(merged.value, ("gateway",))
    if gateway is MISSING:
        gateway = {}
    if not isinstance(gateway, dict):
        yield merged.origin(("gateway",)).error("must be an object")
        gateway = {}
    ours = {key.path for key in (*KEYS, *SECRETS) if key.path}
    # "enabled" may be of anything.
    meant = sorted(
        path for path in ours if path.startswith("gateway.") and not path.endswith(".enabled")
    )
    for prefix, names in _KNOWN.items():
        keys: Keys = tuple(prefix.split(".")) if prefix else ()
        node = look_up(merged.value, keys)
        if not isinstance(node, dict):
            continue
        dot = f"{prefix}." if prefix else ""
        known = {
            *names.split(),
            *(path[len(dot) :].split(".")[0] for path in ours if path.startswith(dot)),
        }
        if prefix == "gateway":
            known |= {name.partition(".")[0] for name in _RETIRED}
        yield from _unknown(merged, keys, node, known, meant if prefix else None)
    for name in _OBJECTS:
        keys = ("gateway", *name.split("."))
        node = look_up(merged.value, keys)
        if node is not MISSING and not isinstance(node, dict):
            yield merged.origin(keys).error("must be an object")
    for name, advice in _RETIRED.items():
        keys = ("gateway", *name.split("."))
        if look_up(merged.value, keys) is not MISSING:
            yield f"{merged.origin(keys)}: OpenClaw no longer has this key: {advice}"
    yield from _not_served(merged)


def _not_served(merged: Merged) -> Iterator[str]:
    """Warn of what opens another way in, or tells clients apart, and is not done here."""
    for path, quiet, meaning in (
        ("tailscale.mode", ("off",), "Tailscale is not told of this gateway"),
        ("auth.allowTailscale", (False,), "nobody gets in by Tailscale's word; clients need the secret"),
        ("auth.identityScopes", ({},), "scopes come from the secret alone"),
        ("roles", ({}, []), "there are no roles here; whoever has the secret may do everything"),
    ):  # fmt: skip
        keys = ("gateway", *path.split("."))
        value = look_up(merged.value, keys)
        if value is not MISSING and value not in quiet:
            yield f"{merged.origin(keys)}: has no effect: {meaning}"


def _unknown(
    merged: Merged, keys: Keys, node: dict[str, Any], known: set[str], meant: Any
) -> Iterator[Any]:
    """Yield what is wrong with names that nobody knows; ``meant`` is ``None`` where none is an error."""
    from openclaw_gateway.settings.values import suggest

    for name in node:
        if name in known:
            continue
        here = (*keys, name)
        close = nearest(name, known, cutoff=_NEAR)
        elsewhere = [path for path in meant or () if path.rpartition(".")[2] == name]
        if keys == ("gateway",) and name in _MISPLACED:
            close = _MISPLACED[name]
        if meant is not None and (close or elsewhere):
            full = elsewhere[0] if elsewhere else dotted((*keys, close or ""))
            yield merged.origin(here).error(f'is no setting; did you mean "{full}"?')
        elif keys != ("gateway", "tls"):  # where OpenClaw takes any
            yield f"{merged.origin(here)}: unknown key{suggest(name, known) if not keys else ''}"


def shown(key: Key, value: Any) -> Any:
    """Return a setting as its file has it: times in milliseconds, levels by name, secrets not at all."""
    from openclaw_gateway.settings.sources import Secret
    from openclaw_gateway.settings.values import duration_ms, level_name

    match value:
        case Secret():
            return "(set)"
        case Priority():
            return level_name(value)
        case float() if key.field.endswith("_s"):
            return duration_ms(value)
        case tuple():
            return list(value)
    return value
