"""Files that settings come from: the JSON5 document, and files that hold one secret."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Any

from openclaw_gateway.errors import (
    ConfigurationError,
    ShortageError,
    StorageError,
    UnreadableError,
)
from openclaw_gateway.settings.json5 import SyntaxProblem, parse

MAX_FILE_BYTES = 8 << 20

_LASTING = {
    errno.ENOENT: "no such file",
    errno.EISDIR: "it is a directory",
    errno.ENOTDIR: "what its path goes through is no directory",
    errno.ELOOP: "its symbolic links lead nowhere",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ENXIO: "it is a socket or a device without a driver",
    errno.EACCES: "we may not read it",
    errno.EPERM: "we may not read it",
}
"""Refusals that no restart mends, in words. open(2)."""
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_PASSING = frozenset(
    {
        *_SHORTAGES,
        errno.EIO,
        errno.EINTR,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ENOSPC,
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)
"""Refusals that may be over at the next start: shortages, and disks and servers that don't answer."""


class Secret(str):
    """A string that does not show itself in ``repr``, and so in no traceback or log of a structure."""

    def __repr__(self) -> str:
        return "Secret('…')"


def read_document(path: str, *, required: bool, state_dir: str | None = None) -> dict[str, Any]:
    """
    Read the configuration file, JSON or JSON5, as it stands there.

    Args:
        path: The file.
        required: Whether a missing file is an error; otherwise it is an empty document.
        state_dir: The state directory, to be blamed if it keeps us from a file in it.

    Raises:
        ConfigurationError: It is not ours to read, can't be parsed, is too long, or is not one object.
        UnreadableError: Its disk fails, the system is short of something, or the state directory
            that it stands in can't be used.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        if error.errno == errno.ENOENT and not required:
            return {}
        _blame_state_directory(path, error, state_dir)
        _raise_if_passing(path, error)
        if error.errno not in _LASTING:
            raise
        raise ConfigurationError(path, "", _LASTING[error.errno], hint=_hint(path, error)) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(path, "", f"longer than {MAX_FILE_BYTES >> 20} MiB")
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        document = parse(text)
    except SyntaxProblem as error:
        raise ConfigurationError(
            path, "", f"not JSON5: {error.problem}", place=error.place
        ) from None
    if not isinstance(document, dict):
        raise ConfigurationError(path, "", "must be one object: { … }")
    return document


def _blame_state_directory(path: str, error: OSError, state_dir: str | None) -> None:
    """Raise what the claim would exit with, if the way to the file ends at the state directory."""
    # lstat(2) asks nothing of the file itself, only of the directories that lead to it.
    number = error.errno or 0
    lasting = number in _LASTING and number != errno.ENOENT
    if not lasting or os.path.dirname(path) != state_dir or os.path.lexists(path):
        return
    raise UnreadableError(
        path,
        os.strerror(number),
        errno=number,
        exit_code=StorageError(state_dir, "", errno=number).exit_code,
        hint=f"make {state_dir} a directory of the gateway's account, "
        "or choose another (--state-dir)",
    ) from None


def _raise_if_passing(path: str, error: OSError) -> None:
    """Raise an error that lets systemd start us again, if the reason may be over by then."""
    if error.errno in _PASSING:
        hint = ShortageError.hint if error.errno in _SHORTAGES else ""
        problem = os.strerror(error.errno)
        raise UnreadableError(path, problem, errno=error.errno, hint=hint) from None


def _hint(path: str, error: OSError) -> str:
    """Return the way out of a refusal that has one."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"let the gateway's account read it: see namei -l {path}"
    if error.errno in (errno.ENOENT, errno.EISDIR):
        return "name a file that exists, or create it"
    return ""


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


def read_secret(
    source: str, name: str, path: str, *, private: bool, owner_uid: int | None = None
) -> Secret:
    """
    Read a secret from a file, without the space around it.

    Args:
        source: What named the file, for the error: ``flag``, ``credential``, ``file``.
        name: The flag's or credential's name.
        path: The file.
        private: Whether it must be closed to group and others.
        owner_uid: Whose the file must be; ``None`` if that does not matter.

    Raises:
        ConfigurationError: It is not there or not ours to read, is empty, open to others
            or somebody else's.
        UnreadableError: Its disk fails, or the system is short of something.
    """
    try:
        with open(path, encoding="utf-8") as file:
            info = os.fstat(file.fileno())
            mode = info.st_mode
            text = file.read(4096).strip()
    except UnicodeDecodeError:
        raise ConfigurationError(source, name, f"cannot read {path}: not UTF-8") from None
    except OSError as error:
        _raise_if_passing(path, error)
        if error.errno not in _LASTING:
            raise
        problem = f"cannot read {path}: {_LASTING[error.errno]}"
        raise ConfigurationError(source, name, problem, hint=_hint(path, error)) from None
    if owner_uid not in (None, info.st_uid):
        problem = f"{path} belongs to uid {info.st_uid}, and the gateway to uid {owner_uid}"
        raise ConfigurationError(source, name, problem)
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
