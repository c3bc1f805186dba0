"""Files that settings come from: the JSON5 document, and files that hold one secret."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from typing import Any

from openclaw_gateway.errors import ConfigurationError

MAX_FILE_BYTES = 4 << 20
_MAX_DIGITS = 250
"""Of an integer: a double holds as many even in base 16, and Python prints them."""


class Secret(str):
    """A string that does not show itself in ``repr``, and so in no traceback or log of a structure."""

    def __repr__(self) -> str:
        return "Secret('…')"


def read_document(path: str, *, required: bool) -> dict[str, Any]:
    """
    Read the configuration file, JSON or JSON5, as it stands there.

    Args:
        path: The file.
        required: Whether a missing file is an error; otherwise it is an empty document.

    Raises:
        ConfigurationError: It can't be read or parsed, is too long, or is not one object.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if required:
            raise ConfigurationError(path, "", "no such file") from None
        return {}
    except OSError as error:
        raise ConfigurationError(path, "", os.strerror(error.errno or 0)) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(path, "", f"longer than {MAX_FILE_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, "", f"not UTF-8 at byte {error.start}") from None
    document = _parse(text, path)
    if not isinstance(document, dict):
        raise ConfigurationError(path, "", "must be one object: { … }")
    return document


def _parse(text: str, path: str) -> Any:
    try:
        return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_float)
    except ValueError:
        pass  # JSON5 is a superset of JSON; its parser is a hundred times slower, so it comes second.
    except RecursionError:
        raise ConfigurationError(path, "", "nested too deeply") from None
    import json5

    try:
        return json5.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_float)
    except ValueError as error:
        raise ConfigurationError(path, "", f"not JSON5: {error}") from None
    except RecursionError:
        raise ConfigurationError(path, "", "nested too deeply") from None


def _integer(text: str, base: int = 10) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"{text[:20]}… has more than {_MAX_DIGITS} digits")
    return int(text, base)


def _float(text: str) -> float:
    """Read a number that is no integer, if it is finite: no frame could carry NaN or infinity to a client."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not finite")
    return number


def look_up(document: dict[str, Any], path: str) -> Any:
    """Return what stands at a dotted path of a document, ``None`` if nothing does."""
    node: Any = document
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def substituted(value: Any, environ: Mapping[str, str], source: str, name: str) -> Any:
    """Replace ``${NAME}`` in a string of the file by the variable's value, as OpenClaw does."""
    if not isinstance(value, str) or "${" not in value:
        return value
    import re

    def variable(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise ConfigurationError(source, name, f"refers to ${{{match[1]}}}, which is not set")
        return environ[match[1]]

    return re.sub(r"\$\{([A-Z_][A-Z0-9_]*)\}", variable, value)


def read_secret(source: str, name: str, path: str, *, private: bool) -> Secret:
    """
    Read a secret from a file, without the space around it.

    Args:
        source: What named the file, for the error: ``flag``, ``credential``, ``file``.
        name: The flag's or credential's name.
        path: The file.
        private: Whether it must be closed to group and others.

    Raises:
        ConfigurationError: It can't be read, is empty, or open to others.
    """
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "not UTF-8"
        raise ConfigurationError(source, name, f"cannot read {path}: {reason}") from None
    if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            source,
            name,
            f"{path} is open to others (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}",
        )
    if not text:
        raise ConfigurationError(source, name, f"{path} is empty")
    return Secret(text)
