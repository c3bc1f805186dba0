"""Call one method of a running gateway, and find its address and its secret without being told."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from openclaw_gateway import __version__
from openclaw_gateway.admin.look import endpoint, environment
from openclaw_gateway.admin.look.selection import (
    SECRET_FLAGS,
    SECRET_VARIABLES,
    Selection,
)
from openclaw_gateway.admin.report import Report, document
from openclaw_gateway.errors import ConfigurationError, ExitCode, GatewayError
from openclaw_gateway.host.address import url
from openclaw_gateway.protocol.frames import PROTOCOL
from openclaw_gateway.settings.load import TOKEN_FILE, AuthMode, examine, load
from openclaw_gateway.settings.model import Tls
from openclaw_gateway.settings.sources import read_secret


class CallFailed(GatewayError):
    """
    The gateway can't be reached, or answered with an error.

    Attributes:
        url: The gateway's.
        error: The error that it answered with; ``None`` if it did not get that far.
    """

    def __init__(
        self, url: str, problem: str, *, error: dict[str, Any] | None = None, hint: str = ""
    ) -> None:
        super().__init__(url, problem)
        self.url, self.problem, self.error, self.hint = url, problem, error, hint

    def __str__(self) -> str:
        return f"{self.url}: {self.problem}"


class Target(NamedTuple):
    """A gateway, and what it wants to see. At most one of the secrets is set."""

    url: str
    token: str | None
    password: str | None
    fingerprint: str | None = None
    """SHA-256 of the certificate that it must show; ``None`` leaves that to the machine's certificates."""


def report(
    selection: Selection,
    *,
    method: str,
    params: str | None,
    address: str | None,
    fingerprint: str | None,
    timeout_s: float,
    as_json: bool,
) -> Report:
    """
    Make one call, and say what came of it.

    Args:
        selection: Which gateway is meant, and the secret to show it, if one was given.
        method: Such as ``status``.
        params: JSON text; ``None`` sends none.
        address: See ``find``.
        fingerprint: See ``find``.
        timeout_s: Seconds for everything.
        as_json: One document for programs, an error of the gateway's included, instead of the payload.

    Raises:
        ConfigurationError: A flag is wrong, or the gateway's settings are.
        CallFailed: There is no payload, and nobody asked for JSON or there is no answer either.
    """
    try:
        decoded = None if params is None else json.loads(params)
    except ValueError as error:
        raise ConfigurationError("flag", "--params", f"not JSON: {error}") from None
    target = find(selection, address=address, fingerprint=fingerprint)
    try:
        payload = call(target, method, decoded, timeout_s=timeout_s)
    except CallFailed as failure:
        if not as_json or failure.error is None:
            raise
        return Report(document({"ok": False, "error": failure.error}), failure.exit_code)
    if as_json:
        return Report(document({"ok": True, "payload": payload}), ExitCode.OK)
    text = json.dumps(payload, indent=2, ensure_ascii=False)
    return Report(text.splitlines(), ExitCode.OK)


def find(selection: Selection, *, address: str | None, fingerprint: str | None = None) -> Target:
    """
    Work out where to connect to and with what.

    A secret found on this machine goes to this machine only: not to an address elsewhere, unless
    someone gave it for this call.

    Args:
        selection: Which gateway is meant.
        address: A ``ws://`` or ``wss://`` URL; ``None`` is the gateway that ``status`` would show.
        fingerprint: See ``Target``; by default that of a local gateway's own certificate.

    Raises:
        ConfigurationError: A flag is wrong, or the settings that hold the secret are.
        CallFailed: We may not read the secret.
    """
    port = None if address is None else _parse(address)
    if address is not None and port is None:
        return Target(address, *_given(selection), fingerprint)
    meant = selection.at_port(port) if port else selection
    found = endpoint.find(meant)
    values = _settings(found, selection)
    tls: Tls | None = values.get("tls")
    target = address or url(found.host, found.port, tls=tls is not None)
    if fingerprint is None and tls is not None:
        fingerprint = _pinned(target, tls)
    token: str | None
    password: str | None = None
    if any(selection.secret_files.values()):
        token, password = _given(selection)
    elif values.get("auth_mode") is AuthMode.NONE:
        token = None
    elif values.get("auth_mode") is AuthMode.PASSWORD:
        token, password = None, values["password"]
    else:
        token = values.get("token") or _kept_token(target, found, meant)
    return Target(target, token, password, fingerprint)


def _pinned(target: str, tls: Tls) -> str:
    """Return the fingerprint of the certificate that a gateway of this machine has by its settings."""
    from ssl import PEM_cert_to_DER_cert

    from openclaw_gateway.client.conversation import fingerprint_of

    try:
        with open(tls.certificate, encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError as error:
        raise CallFailed(
            target,
            f"cannot read its certificate, {tls.certificate}: {os.strerror(error.errno or 0)}",
            hint="call it with sudo, or say which one it must show: --tls-fingerprint SHA256",
        ) from None
    end = "-----END CERTIFICATE-----"
    try:
        return fingerprint_of(PEM_cert_to_DER_cert(text[: text.index(end) + len(end)]))
    except ValueError:
        raise CallFailed(target, f"no certificate in PEM is in {tls.certificate}") from None


def _parse(address: str) -> int | None:
    """Return the port of a URL if it leads to this machine, ``None`` if it leads elsewhere."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if not host or parts.scheme not in ("ws", "wss"):
        raise ConfigurationError("flag", "--url", "must be like ws://127.0.0.1:18789")
    return (port or {"ws": 80, "wss": 443}[parts.scheme]) if endpoint.is_here(host) else None


def _given(selection: Selection) -> tuple[str | None, str | None]:
    """Read the token or the password that flags of this call name."""
    token, password = (selection.secret_files.get(flag) for flag in SECRET_FLAGS)
    if password and not token:
        return None, read_secret("flag", "--password-file", password, private=True)
    if token:
        return read_secret("flag", "--token-file", token, private=True), None
    return None, None


def _settings(found: endpoint.Endpoint, selection: Selection) -> Mapping[str, Any]:
    """Return the gateway's settings as it has them, as far as we may read them; field to value."""
    place, who = found.place, found.holder
    if found.unit is None:
        if not place.is_readable:
            return {}
        flags: dict[str, str | None] = {**selection.flags, "--port": str(found.port)}
        # A record is its holder's word only: what another account names is not read in its favour.
        if who and who.uid == os.geteuid() and who.record and not selection.names_files:
            flags["--config"] = _existing(who.record.config_path)
        return load(flags, selection.environ)._asdict()
    startup = environment.of_unit(found.unit, selection.where.profile)
    environ = selection.environ
    given = {name: environ[name] for name in SECRET_VARIABLES if environ.get(name)}
    where: dict[str, str | None] = {**startup.flags, "--port": str(found.port)}
    # It runs, so what seems wrong is only what we could not see.
    return examine(where, {**startup.environ, **given}).values


def _existing(path: str | None) -> str | None:
    return path if path and os.path.exists(path) else None


def _kept_token(target: str, found: endpoint.Endpoint, selection: Selection) -> str | None:
    """Read the token that the gateway made for itself; ``None`` if there is none."""
    directory = found.place.state_dir
    who = found.holder
    if who and who.record and who.record.state_dir and not selection.names_files:
        directory = who.record.state_dir
    path = os.path.join(directory, TOKEN_FILE)
    try:
        with open(path, "rb"):
            pass
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise CallFailed(
            target,
            f"its token is in {path}, which you may not read",
            hint="call it with sudo, or give the token with --token-file FILE",
        ) from None
    # Any account can hold a port and name any directory: it is told no secret but its own.
    owner_uid = who.uid if who else None
    return read_secret("file", TOKEN_FILE, path, private=True, owner_uid=owner_uid)


def call(target: Target, method: str, params: object, *, timeout_s: float) -> Any:
    """
    Make one call, and return its payload.

    Args:
        target: See ``find``.
        method: Such as ``status``.
        params: JSON; ``None`` sends none.
        timeout_s: Seconds for everything, connecting included.

    Raises:
        CallFailed: Nobody answers, or the answer is an error.
    """
    from openclaw_gateway.client.conversation import AnsweredError, ConversationError, begun

    try:
        with begun(target.url, timeout_s=timeout_s, fingerprint=target.fingerprint) as conversation:
            conversation.event("connect.challenge")
            conversation.ask("connect", _introduction(target))
            return conversation.ask(method, params)
    except TimeoutError:
        raise CallFailed(target.url, f"no answer within {timeout_s:g} s") from None
    except ConversationError as error:
        if error.connected:
            raise CallFailed(target.url, error.problem) from None
        hint = "is the gateway running there?"
        raise CallFailed(target.url, f"cannot connect: {error.problem}", hint=hint) from None
    except AnsweredError as error:
        shape = dict(error.shape)
        raise CallFailed(
            target.url,
            f"{shape.get('code', 'error')}: {shape.get('message', 'no reason given')}",
            error=shape,
            hint=_hint(shape),
        ) from None


def _introduction(target: Target) -> dict[str, Any]:
    secrets = {"token": target.token, "password": target.password}
    auth = {name: secret for name, secret in secrets.items() if secret}
    return {
        "minProtocol": PROTOCOL,
        "maxProtocol": PROTOCOL,
        "client": {"id": "cli", "version": __version__, "platform": "linux", "mode": "cli"},
        "role": "operator",
        "scopes": ["operator.admin"],
        **({"auth": auth} if auth else {}),
    }


def _hint(error: dict[str, Any]) -> str:
    """Return the way out of an error that has one."""
    details = error.get("details")
    code = str(details.get("code", "")) if isinstance(details, dict) else ""
    if code.startswith("AUTH_"):
        return (
            "give the gateway's secret with --token-file or --password-file, "
            "or call it as the account that it runs as"
        )
    return ""
