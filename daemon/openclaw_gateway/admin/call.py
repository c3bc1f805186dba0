"""Call one method of a running gateway, and find its address and its secret without being told."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from openclaw_gateway import __version__
from openclaw_gateway.admin.report import Report, document
from openclaw_gateway.claim.listener import reachable, url
from openclaw_gateway.errors import ConfigurationError, ExitCode, GatewayError
from openclaw_gateway.server.frames import PROTOCOL
from openclaw_gateway.settings import TOKEN_FILE, AuthMode, Settings, is_loopback, load
from openclaw_gateway.sources import read_secret

_MAX_ANSWER_BYTES = 1 << 28


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


def report(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    method: str,
    params: str | None,
    address: str | None,
    timeout_s: float,
    as_json: bool,
) -> Report:
    """
    Make one call, and say what came of it.

    Args:
        flags: As ``settings.load`` takes them.
        environ: The process's environment.
        method: Such as ``status``.
        params: JSON text; ``None`` sends none.
        address: See ``find``.
        timeout_s: Seconds for everything.
        as_json: One document for programs, an error of the gateway's included, instead of the payload.

    Raises:
        ConfigurationError: A flag is wrong.
        CallFailed: There is no payload, and nobody asked for JSON or there is no answer either.
    """
    try:
        decoded = None if params is None else json.loads(params)
    except ValueError as error:
        raise ConfigurationError("flag", "--params", f"not JSON: {error}") from None
    secret_given = any(flags.get(flag) for flag in ("--token-file", "--password-file"))
    target = find(load(flags, environ), address=address, secret_given=secret_given)
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


def find(settings: Settings, *, address: str | None, secret_given: bool) -> Target:
    """
    Work out where to connect to and with what.

    A secret found on this machine goes to this machine only: not to an address elsewhere, unless
    someone gave it for this call.

    Args:
        settings: As the gateway itself would read them.
        address: A ``ws://`` URL; ``None`` is the gateway that these settings describe.
        secret_given: Whether a flag of this call names the secret.

    Raises:
        ConfigurationError: The URL is none, or a secret can't be read.
    """
    target = address or url(reachable(settings.host), settings.port)
    try:
        parts = urlsplit(target)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("ws", "wss"):
        raise ConfigurationError("flag", "--url", "must be like ws://127.0.0.1:18789")
    ours = address is None or _is_here(host)
    if not (ours or secret_given) or settings.auth_mode is AuthMode.NONE:
        return Target(target, None, None)
    if settings.auth_mode is AuthMode.PASSWORD:
        return Target(target, None, settings.password)
    token = settings.token
    path = os.path.join(settings.state_dir, TOKEN_FILE)
    if token is None and os.path.exists(path):
        token = read_secret("file", TOKEN_FILE, path, private=True)
    return Target(target, token, None)


def _is_here(host: str) -> bool:
    """Whether a URL's host can only be this machine: ``127.0.0.1.example`` can be anyone's."""
    try:
        return is_loopback(str(ip_address(host)))
    except ValueError:
        return host == "localhost"


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
    return asyncio.run(_call(target, method, params, timeout_s))


async def _call(target: Target, method: str, params: object, timeout_s: float) -> Any:
    import aiohttp

    try:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession() as session,
            session.ws_connect(target.url, max_msg_size=_MAX_ANSWER_BYTES) as socket,
        ):
            conversation = _Conversation(target.url, socket)
            await conversation.event("connect.challenge")
            await conversation.ask("connect", _introduction(target))
            return await conversation.ask(method, params)
    except TimeoutError:
        raise CallFailed(target.url, f"no answer within {timeout_s:g} s") from None
    except aiohttp.WSServerHandshakeError as error:
        raise CallFailed(target.url, f"the upgrade was refused with HTTP {error.status}") from None
    except (OSError, aiohttp.ClientError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        hint = "is the gateway running there?"
        raise CallFailed(target.url, f"cannot connect: {reason}", hint=hint) from None


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


class _Conversation:
    """Questions and answers, one after the other, over one WebSocket."""

    def __init__(self, url: str, socket: Any) -> None:
        self._url, self._socket = url, socket
        self._asked = 0

    async def event(self, name: str) -> None:
        while (await self._frame()).get("event") != name:
            pass

    async def ask(self, method: str, params: object) -> Any:
        self._asked += 1
        request = {"type": "req", "id": str(self._asked), "method": method}
        await self._socket.send_json(request if params is None else {**request, "params": params})
        frame = await self._frame()
        while frame.get("id") != request["id"]:
            frame = await self._frame()
        if frame.get("ok") is True:
            return frame.get("payload")
        error = frame.get("error")
        shape = error if isinstance(error, dict) else {}
        raise CallFailed(
            self._url,
            f"{shape.get('code', 'error')}: {shape.get('message', 'no reason given')}",
            error=shape,
            hint=_hint(shape),
        )

    async def _frame(self) -> dict[str, Any]:
        import aiohttp

        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise CallFailed(self._url, f"closed with {self._socket.close_code}")
        try:
            frame = json.loads(message.data)
        except (ValueError, RecursionError):
            frame = None
        if not isinstance(frame, dict):
            raise CallFailed(self._url, "this does not speak the gateway protocol")
        return frame


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
