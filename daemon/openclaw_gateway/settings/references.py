"""Secrets that stand elsewhere: ``{source, provider, id}`` and ``$NAME``, resolved as OpenClaw does."""

from __future__ import annotations

import json
import os
import re
import stat
from typing import Any

from openclaw_gateway.settings.environment import Environment
from openclaw_gateway.settings.includes import MISSING, Merged, look_up
from openclaw_gateway.settings.location import Origin, absolute
from openclaw_gateway.settings.sources import MAX_SECRET_BYTES, read_bounded

_SHORTHAND = r"\$([A-Z][A-Z0-9_]{0,127})"
_ENV_ID = r"[A-Z][A-Z0-9_]{0,127}"
_ALIAS = r"[a-z][a-z0-9_-]{0,63}"
_WAY_OUT = (
    'use a source of "env" or "file", --token-file or --password-file, or a systemd credential'
)
_UNSUPPORTED = {
    "exec": "starts a program, which this gateway does not do",
    "store": "is OpenClaw's own database, which this gateway does not read",
}


def is_reference(value: Any) -> bool:
    """Whether a value of the settings refers to a secret elsewhere."""
    return isinstance(value, dict) or (
        isinstance(value, str) and re.fullmatch(_SHORTHAND, value.strip()) is not None
    )


def check(value: Any, origin: Origin) -> None:
    """
    Check what can be checked of a reference without following it.

    Raises:
        ConfigurationError: It is not one.
    """
    if isinstance(value, str):
        return
    if set(value) != {"source", "provider", "id"}:
        raise origin.error('must be a string or { "source": …, "provider": …, "id": … }, no more')
    source, alias, name = value["source"], value["provider"], value["id"]
    if source not in ("env", "file", *_UNSUPPORTED):
        raise origin.error('its source must be "env", "file", "exec" or "store"')
    if not isinstance(alias, str) or not re.fullmatch(_ALIAS, alias):
        raise origin.error("its provider must be small letters, digits, _ and -, at most 64")
    if not isinstance(name, str) or (source == "env" and not re.fullmatch(_ENV_ID, name)):
        raise origin.error("its id must be a variable's name in capital letters")


def follow(
    value: Any, origin: Origin, merged: Merged, environment: Environment, *, home: str | None
) -> tuple[str, Origin]:
    """
    Return the secret that a reference leads to, and where it is.

    Args:
        value: The reference, checked.
        origin: Where it stands.
        merged: The document, for its ``secrets`` section.
        environment: The variables.
        home: What ``~`` means.

    Raises:
        ConfigurationError: It leads nowhere, or to what may not be read; names key, source and way out.
        UnreadableError: A disk fails, or the system is short of something.
    """
    if isinstance(value, str):
        value = {"source": "env", "provider": "default", "id": value.strip()[1:]}
    source, alias = value["source"], value["provider"]
    if source in _UNSUPPORTED:
        problem = f'its source "{source}" {_UNSUPPORTED[source]}'
        raise origin.error(problem, hint=_WAY_OUT)
    keys = ("secrets", "providers", alias)
    provider = look_up(merged.value, keys)
    default = look_up(merged.value, ("secrets", "defaults", source))
    if provider is MISSING:
        if source != "env" or alias not in ("default", default):
            raise origin.error(f"there is no secrets.providers.{alias}", hint=_WAY_OUT)
        provider = {"source": "env"}
    if not isinstance(provider, dict) or provider.get("source") != source:
        raise merged.origin(keys).error(f'must be an object whose source is "{source}"')
    if source == "env":
        return _variable(value["id"], provider, origin, environment)
    return _from_file(value["id"], provider, origin, merged.origin((*keys, "path")), home)


def _variable(
    name: str, provider: dict[str, Any], origin: Origin, environment: Environment
) -> tuple[str, Origin]:
    allowed = provider.get("allowlist")
    if isinstance(allowed, list) and name not in allowed:
        raise origin.error(f"variable {name} is not in its provider's allowlist")
    variable = environment.get(name)
    if variable is None:
        raise origin.error(
            f"refers to variable {name}, which is not set", hint=f"set {name}, or {_WAY_OUT}"
        )
    return variable.value, origin.by_way_of(f"variable {name}")


def _from_file(
    name: str, provider: dict[str, Any], origin: Origin, path_origin: Origin, home: str | None
) -> tuple[str, Origin]:
    named, mode = provider.get("path"), provider.get("mode", "json")
    if not isinstance(named, str) or not named or "\0" in named:
        raise path_origin.error("must be a path")
    if mode not in ("json", "singleValue"):
        raise path_origin.error('the mode of its provider must be "json" or "singleValue"')
    path = absolute(named, home, path_origin)
    text = _read_private(path, provider.get("maxBytes"), origin)
    found = origin.by_way_of(f"file {path}")
    if mode == "singleValue":
        if name != "value":
            raise origin.error('its id must be "value", as the provider\'s mode is "singleValue"')
        return text.removesuffix("\n").removesuffix("\r"), found
    try:
        node = json.loads(text)
    except (ValueError, RecursionError):
        node = None
    if not isinstance(node, dict):
        raise origin.error(f"{path} is no JSON object")
    if not name.startswith("/"):
        raise origin.error('its id must be a JSON pointer, such as "/gateway/token"')
    for part in name[1:].split("/"):
        # RFC 6901, section 4: first ~1, then ~0.
        step = part.replace("~1", "/").replace("~0", "~")
        node = node.get(step) if isinstance(node, dict) else None
    if not isinstance(node, str):
        raise origin.error(f"{path} has no string at {json.dumps(name)[:80]}")
    return node, found


def _read_private(path: str, max_bytes: object, origin: Origin) -> str:
    """Read a file that must be the user's alone: regular, no link, one name, closed to others."""
    bound = MAX_SECRET_BYTES
    if isinstance(max_bytes, int) and not isinstance(max_bytes, bool) and 0 < max_bytes < bound:
        bound = max_bytes
    try:
        is_link = os.path.islink(path)
    except ValueError:
        is_link = False
    if is_link:
        raise origin.error(f"{path} is a link", hint="name the file itself")
    found = read_bounded(path, bound)
    if isinstance(found, str):
        raise origin.error(f"cannot read {path}: {found}")
    data, info = found
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.geteuid():
        raise origin.error(
            f"{path} belongs to uid {info.st_uid}, and the gateway to {os.geteuid()}"
        )
    if info.st_nlink > 1:
        raise origin.error(f"{path} has {info.st_nlink} hard links", hint="copy it")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise origin.error(f"{path} is open to others (mode {mode:04o})", hint=f"chmod 600 {path}")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise origin.error(f"cannot read {path}: not UTF-8") from None
