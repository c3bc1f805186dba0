"""Defaults < file < environment < flags, into one immutable value that says where each part came from."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.host.address import is_loopback
from openclaw_gateway.settings.location import DEFAULT, Location, Origin, locate, profile_port
from openclaw_gateway.settings.sources import (
    Secret,
    look_up,
    read_document,
    read_secret,
    substituted,
)
from openclaw_gateway.settings.values import (
    UnfitError,
    count,
    hosts,
    interval,
    ip_address,
    level,
    milliseconds,
    one_of,
    port_number,
    seconds,
    secret,
    strings,
    suggest,
    truth,
)
from openclaw_gateway.supervisor.events import Priority

TOKEN_FILE = "gateway.token"
"""In the state directory: the token that is made at the first start if none is configured."""

_TOKEN_CREDENTIAL = "openclaw-gateway.token"
_PASSWORD_CREDENTIAL = "openclaw-gateway.password"
_MULTIPLE = "OPENCLAW_ALLOW_MULTI_GATEWAY"


class Bind(StrEnum):
    """Which addresses to listen on."""

    LOOPBACK = "loopback"
    LAN = "lan"
    CUSTOM = "custom"


class AuthMode(StrEnum):
    """What a client must present."""

    NONE = "none"
    TOKEN = "token"
    PASSWORD = "password"


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
    """Wrong secrets from one address, in one window, that lock it out; never a local one."""
    auth_window_s: float
    auth_lockout_s: float


class Settings(NamedTuple):
    """Every setting of a gateway, checked; made by ``load`` only."""

    port: int
    bind: Bind
    host: str
    """The address to listen on, an IP literal."""
    config_path: str
    state_dir: str
    profile: str | None
    auth_mode: AuthMode
    token: Secret | None
    """``None`` in token mode: one is generated and kept in the state directory."""
    password: Secret | None
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
    allow_multiple: bool
    """Whether to do without the configuration's lock; the state directory's is always taken."""
    origins: Mapping[str, Origin]
    """Field name to where its value came from; one of ``Limits`` as ``limits.<field>``."""
    warnings: tuple[str, ...]
    """What is odd but no reason to stop."""


def _bind(value: object) -> Bind:
    # OpenClaw's "auto" prefers loopback, and so do we.
    return Bind.LOOPBACK if value == "auto" else one_of(Bind)(value)


class _Key(NamedTuple):
    """One setting: where it may come from, how it is read there, and what it is otherwise."""

    field: str
    parse: Callable[[object], Any]
    default: Any
    flag: str | None = None
    variable: str | None = None
    path: str | None = None
    """Dotted path in the file."""
    parse_file: Callable[[object], Any] | None = None
    """Where the file's unit is another."""


_SCHEMA = (
    _Key("port", port_number, 18789, "--port", "OPENCLAW_GATEWAY_PORT", "gateway.port"),
    _Key("bind", _bind, Bind.LOOPBACK, "--bind", None, "gateway.bind"),
    _Key("host", ip_address, None, "--host", None, "gateway.customBindHost"),
    _Key("auth_mode", one_of(AuthMode), None, "--auth", None, "gateway.auth.mode"),
    _Key("token", secret, None, "--token", "OPENCLAW_GATEWAY_TOKEN", "gateway.auth.token"),
    _Key("password", secret, None, "--password", "OPENCLAW_GATEWAY_PASSWORD", "gateway.auth.password"),
    _Key("allowed_origins", strings, (), path="gateway.controlUi.allowedOrigins"),
    _Key("allowed_hosts", hosts, (), path="gateway.allowedHosts"),
    _Key("trusted_proxies", strings, (), path="gateway.trustedProxies"),
    _Key("allow_real_ip_fallback", truth, False, path="gateway.allowRealIpFallback"),
    _Key(
        "lock_timeout_s", seconds, 5.0, "--lock-timeout", None, "gateway.lockTimeoutMs", milliseconds
    ),
    _Key(
        "health_timeout_s",
        seconds,
        30.0,
        "--health-timeout",
        None,
        "gateway.healthTimeoutMs",
        milliseconds,
    ),
    _Key("log_level", level, Priority.INFO, "--log-level", None, "logging.level"),
)  # fmt: skip

_LIMITS = (
    _Key("max_connections", count(1, 1 << 20), 1024, path="gateway.limits.maxConnections"),
    _Key(
        "max_connections_per_address",
        count(1, 1 << 20),
        512,
        path="gateway.limits.maxConnectionsPerAddress",
    ),
    _Key(
        "max_unauthenticated_per_address",
        count(1, 1 << 20),
        128,
        path="gateway.limits.maxUnauthenticatedPerAddress",
    ),
    _Key("handshake_timeout_s", interval(250), 10.0, path="gateway.limits.handshakeTimeoutMs"),
    _Key("max_preauth_bytes", count(1024, 1 << 20), 64 << 10, path="gateway.limits.maxPreauthBytes"),
    _Key("max_payload_bytes", count(1024, 1 << 28), 25 << 20, path="gateway.limits.maxPayloadBytes"),
    _Key("max_buffered_bytes", count(65536, 1 << 30), 50 << 20, path="gateway.limits.maxBufferedBytes"),
    _Key("max_in_flight", count(1, 4096), 64, path="gateway.limits.maxInFlight"),
    _Key("requests_per_second", count(1, 10**6), 1000, path="gateway.limits.requestsPerSecond"),
    _Key("request_timeout_s", interval(10), 25.0, path="gateway.limits.requestTimeoutMs"),
    _Key("tick_interval_s", interval(250), 30.0, path="gateway.limits.tickIntervalMs"),
    _Key("auth_max_attempts", count(1, 10**6), 10, path="gateway.auth.rateLimit.maxAttempts"),
    _Key("auth_window_s", interval(1), 60.0, path="gateway.auth.rateLimit.windowMs"),
    _Key("auth_lockout_s", interval(1), 300.0, path="gateway.auth.rateLimit.lockoutMs"),
)  # fmt: skip

LIMIT_NAMES = {key.field: key.path.rpartition(".")[2] for key in _LIMITS if key.path}
"""Field of ``Limits`` to its name in the file and on the wire, where times are milliseconds."""

_OURS = {key.path for key in (*_SCHEMA, *_LIMITS) if key.path}

# What OpenClaw 2026.9 knows beside that: not ours to serve, and not the user's mistake.
_FOREIGN_TOP = frozenset(
    """
    $schema meta env wizard diagnostics logging update telemetry browser ui secrets auth accessGroups
    acp models nodeHost agents worktreeRoot worktreeAcceleration tools security bindings broadcast
    attachments messages tts commands approvals session cron transcripts hooks channels discovery
    talk gateway cloudWorkers desktop memory mcp skills plugins surfaces proxy
    """.split()
)
_FOREIGN_GATEWAY = frozenset(
    """
    mode publicOrigin portals controlUi cliAgents terminal auth roles trustedProxies
    allowRealIpFallback tools tailscale remote reload tls http push nodes webchat
    """.split()
)
_FOREIGN_AUTH = frozenset({"allowTailscale", "identityScopes", "trustedProxy"})


class Examined(NamedTuple):
    """What is known of a gateway's settings, right or wrong: one that is wrong throws away no other."""

    settings: Settings | None
    """All of them, if a gateway would start with them."""
    values: Mapping[str, Any]
    """Every field of ``Settings``, of ``Limits`` as ``limits.<field>``: as it is, or its default if it is wrong."""
    origins: Mapping[str, Origin]
    """By the same names."""
    problems: tuple[ConfigurationError, ...]
    """Why a gateway would not start, the weightiest first."""
    warnings: tuple[str, ...]
    location: Location


def load(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """
    Read and check every setting.

    Args:
        flags: Flag (``--port``) to the text given; absent or ``None`` if not given. Besides those of
            single settings: ``--config``, ``--state-dir``, ``--profile``, ``--token-file``, ``--password-file``.
        environ: The process's environment.

    Returns:
        Checked settings.

    Raises:
        ConfigurationError: Something is wrong; names the file with key, the flag or the variable.
        UnreadableError: A file can't be read for a reason that is not its own.
    """
    found = examine(flags, environ)
    if found.settings is None:
        raise found.problems[0]
    return found.settings


def examine(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Examined:
    """
    Read and check every setting, and go on where one is wrong.

    Args:
        flags: As for ``load``.
        environ: The environment of the gateway's process.

    Raises:
        ConfigurationError: The profile's name is none, so that nothing says which gateway is meant.
    """
    given = {flag: text for flag, text in flags.items() if text is not None}
    where = locate(flags, environ)
    problems: list[ConfigurationError] = []
    warnings: list[str] = []
    document: dict[str, Any] = {}
    config_path = where.config_path
    try:
        document = read_document(
            config_path, required=where.config_required, state_dir=where.state_dir
        )
        warnings += _unknown_keys(document, config_path)
    except ConfigurationError as error:
        problems.append(error)
    allow_multiple = environ.get(_MULTIPLE) == "1"
    values: dict[str, Any] = {
        "profile": where.profile,
        "state_dir": where.state_dir,
        "config_path": config_path,
        "allow_multiple": allow_multiple,
    }
    origins = {
        "profile": where.profile_origin,
        "state_dir": where.state_origin,
        "config_path": where.config_origin,
        "allow_multiple": Origin("variable", _MULTIPLE) if allow_multiple else DEFAULT,
    }
    for prefix, keys in (("", _SCHEMA), ("limits.", _LIMITS)):
        for key in keys:
            name = prefix + key.field
            values[name], origins[name] = key.default, DEFAULT
            try:
                values[name], origins[name] = _resolve(key, given, environ, document, config_path)
            except ConfigurationError as error:
                problems.append(error)
    for field, flag, credential in (
        ("token", "--token-file", _TOKEN_CREDENTIAL),
        ("password", "--password-file", _PASSWORD_CREDENTIAL),
    ):
        try:
            found = _secret_file(flag, credential, given, environ)
        except ConfigurationError as error:
            problems.append(error)
        else:
            if found:
                values[field], origins[field] = found
    if where.profile and origins["port"] == DEFAULT:
        values["port"], origins["port"] = (
            profile_port(where.profile),
            Origin("profile", where.profile),
        )
    warnings += _readable_secrets(document, config_path)
    warnings += [
        f"flag {flag}: every account can read it in the list of processes; use {flag}-file"
        for flag in ("--token", "--password")
        if flag in given
    ]
    for settle in (_settle_address, _settle_auth):
        try:
            settle(values, origins)
        except ConfigurationError as error:
            problems.append(error)
    return Examined(
        None if problems else _settled(values, origins, warnings),
        values,
        origins,
        tuple(problems),
        tuple(warnings),
        where,
    )


def _settled(
    values: Mapping[str, Any], origins: Mapping[str, Origin], warnings: Sequence[str]
) -> Settings:
    limits = {key.field: values[f"limits.{key.field}"] for key in _LIMITS}
    rest = {name: value for name, value in values.items() if not name.startswith("limits.")}
    return Settings(**rest, limits=Limits(**limits), origins=origins, warnings=tuple(warnings))


def _resolve(
    key: _Key,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    document: dict[str, Any],
    config_path: str,
) -> tuple[Any, Origin]:
    """Take one setting from the strongest source that has it, and say which that was."""
    in_file = look_up(document, key.path) if key.path else None
    source: str
    parse = key.parse
    if key.flag and key.flag in flags:
        source, name, value = "flag", key.flag, flags[key.flag]
    elif key.variable and environ.get(key.variable):
        source, name, value = "variable", key.variable, environ[key.variable]
    elif in_file is not None and key.path:
        source, name, value = (
            config_path,
            key.path,
            substituted(in_file, environ, config_path, key.path),
        )
        parse = key.parse_file or key.parse
    else:
        return key.default, DEFAULT
    try:
        return parse(value), Origin(source, name)
    except UnfitError as error:
        shown = None if parse is secret else json.dumps(value, default=str)
        raise ConfigurationError(source, name, error.about(shown)) from None


def _unknown_keys(document: dict[str, Any], path: str) -> list[str]:
    gateway = document.get("gateway", {})
    if not isinstance(gateway, dict):
        raise ConfigurationError(path, "gateway", "must be an object")
    auth = gateway.get("auth", {})
    if not isinstance(auth, dict):
        raise ConfigurationError(path, "gateway.auth", "must be an object")
    limits = gateway.get("limits", {})
    if not isinstance(limits, dict):
        raise ConfigurationError(path, "gateway.limits", "must be an object")
    levels = (
        ("", document, _FOREIGN_TOP),
        ("gateway.", gateway, _FOREIGN_GATEWAY | _names_below("gateway.")),
        ("gateway.auth.", auth, _FOREIGN_AUTH | _names_below("gateway.auth.")),
        ("gateway.limits.", limits, _names_below("gateway.limits.")),
    )
    return [
        f"{path}: unknown key {prefix}{name}{suggest(name, known)}"
        for prefix, node, known in levels
        for name in node
        if name not in known
    ]


def _names_below(prefix: str) -> set[str]:
    return {path[len(prefix) :].split(".")[0] for path in _OURS if path.startswith(prefix)}


def _secret_file(
    flag: str, credential: str, flags: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[Secret, Origin] | None:
    """Read a secret from the file that a flag names, else from systemd's credential of that name."""
    if flag in flags:
        return read_secret("flag", flag, flags[flag], private=True), Origin("flag", flag)
    directory = environ.get("CREDENTIALS_DIRECTORY")
    path = os.path.join(directory, credential) if directory else ""
    if directory and os.path.exists(path):
        # systemd guards that directory itself: mode 0400, or 0440 with an access list from 257 on.
        return read_secret("credential", credential, path, private=False), Origin(
            "credential", credential
        )
    return None


def _readable_secrets(document: dict[str, Any], path: str) -> list[str]:
    """Warn of a secret written into a file that everyone may read."""
    written = [
        key for key in ("gateway.auth.token", "gateway.auth.password") if look_up(document, key)
    ]
    if not written:
        return []
    mode = os.stat(path).st_mode
    if not mode & stat.S_IROTH:
        return []
    return [
        f"{path}: everyone may read {written[0]} in it (mode {stat.S_IMODE(mode):04o}): chmod 600"
    ]


def _settle_address(values: dict[str, Any], origins: dict[str, Origin]) -> None:
    """Turn ``bind`` and ``host`` into one address."""
    host_given = values["host"] is not None
    if host_given and origins["host"].source == "flag" and origins["bind"].source != "flag":
        values["bind"], origins["bind"] = Bind.CUSTOM, origins["host"]
    match values["bind"]:
        case Bind.CUSTOM if not host_given:
            raise ConfigurationError(
                *origins["bind"], 'is "custom", but no address is given',
                hint="give one with --host or gateway.customBindHost",
            )  # fmt: skip
        case Bind.LOOPBACK:
            values["host"] = "127.0.0.1"
        case Bind.LAN:
            values["host"] = "0.0.0.0"
    if values["bind"] is not Bind.CUSTOM:
        origins["host"] = origins["bind"]


def _settle_auth(values: dict[str, Any], origins: dict[str, Origin]) -> None:
    """Choose the mode that the secrets at hand ask for, and refuse what would leave a door open."""
    mode = values["auth_mode"]
    if mode is None:
        password_only = values["password"] is not None and values["token"] is None
        mode = values["auth_mode"] = AuthMode.PASSWORD if password_only else AuthMode.TOKEN
    if mode is AuthMode.PASSWORD and values["password"] is None:
        raise ConfigurationError(
            *origins["auth_mode"], 'is "password", but none is given',
            hint="give one with --password-file, gateway.auth.password or a systemd credential",
        )  # fmt: skip
    if mode is AuthMode.NONE and not is_loopback(values["host"]):
        raise ConfigurationError(
            *origins["auth_mode"],
            f'is "none", and the gateway would listen on {values["host"]}, beyond this machine',
            hint='set it to "token" or "password", or bind to loopback',
        )
