"""Files that settings come from, read within bounds: the document, files beside it, and files that hold one secret."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, NamedTuple, NoReturn

from openclaw_gateway.errors import (
    ConfigurationError,
    ShortageError,
    StorageError,
    UnreadableError,
)
from openclaw_gateway.settings.json5 import Keys, Place, SyntaxProblem, parse, places

MAX_FILE_BYTES = 8 << 20
MAX_SECRET_BYTES = 1 << 20
_PIPE_TIMEOUT_S = 5.0
"""How long a secret may take that comes through a pipe, as of ``--token-file <(command)``."""

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


class Secret(str):
    """A string that does not show itself in ``repr``, and so in no traceback or log of a structure."""

    def __repr__(self) -> str:
        return "Secret('…')"


class Text:
    """
    A JSON5 file that was read: what it says, and where in it.

    Attributes:
        path: The file, as it was named.
        text: What is in it.
        document: Its value, any.
        info: What fstat(2) said.
    """

    def __init__(self, path: str, data: bytes, info: os.stat_result) -> None:
        self.path, self.info = path, info
        # As OpenClaw reads it: invalid bytes become U+FFFD, a byte order mark is passed over.
        self.text = data.decode("utf-8", "replace").removeprefix("\ufeff")
        try:
            self.document: Any = parse(self.text)
        except SyntaxProblem as error:
            raise ConfigurationError(
                path, "", f"not JSON5: {error.problem}", place=error.place
            ) from None
        self._places: dict[Keys, Place] | None = None

    def place(self, keys: Keys) -> Place | None:
        """Return where a value stands, or the nearest one around it; a member begins with its name."""
        if self._places is None:
            try:
                self._places = places(self.text)
            except SyntaxProblem:
                self._places = {}  # plain JSON with more values than our own parser may count
        for length in range(len(keys), -1, -1):
            if keys[:length] in self._places:
                return self._places[keys[:length]]
        return None


def read_text(path: str, *, required: bool, state_dir: str | None = None) -> Text | None:
    """
    Read a file of settings.

    Args:
        path: The file.
        required: Whether a missing file is an error; otherwise it is ``None``.
        state_dir: The state directory, to be blamed if it keeps us from a file in it.

    Raises:
        ConfigurationError: It is not ours to read, is no regular file, is too long, or can't be parsed.
        UnreadableError: Its disk fails, the system is short of something, or the state directory
            that it stands in can't be used.
    """
    try:
        data, info = _read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        if error.errno == errno.ENOENT and os.path.islink(path):
            raise ConfigurationError(
                path, "", f"a link to {os.readlink(path)}, where there is nothing",
                hint="create that file, or remove the link",
            ) from None  # fmt: skip
        if error.errno == errno.ENOENT and not required:
            return None
        _blame_state_directory(path, error, state_dir)
        problem, hint = refusal(path, error)
        raise ConfigurationError(path, "", problem, hint=hint) from None
    except _UnfitFileError as error:
        raise ConfigurationError(path, "", str(error)) from None
    return Text(path, data, info)


def read_document(path: str, *, required: bool, state_dir: str | None = None) -> dict[str, Any]:
    """
    Read the configuration file, JSON or JSON5, as it stands there.

    Args:
        path: The file.
        required: Whether a missing file is an error; otherwise it is an empty document.
        state_dir: The state directory, to be blamed if it keeps us from a file in it.

    Raises:
        ConfigurationError: As ``read_text``, or it is not one object.
        UnreadableError: As ``read_text``.
    """
    text = read_text(path, required=required, state_dir=state_dir)
    return {} if text is None else as_object(text)


def as_object(text: Text) -> dict[str, Any]:
    """
    Return a file's document if it is one object.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(text.document, dict):
        raise ConfigurationError(
            text.path, "", "must be one object: { … }", place=text.place(())
        )  # fmt: skip
    return text.document


class _UnfitFileError(Exception):
    """A file could be opened and is not to be read; the text says why."""


def _read_regular(path: str, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """Read a regular file whole. Opening blocks on nothing: a pipe without a writer would, for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError:  # NUL, or half a character: no file has such a name
        raise _UnfitFileError("no such file: its name is impossible") from None
    with open(descriptor, "rb", buffering=0) as file:
        info = os.fstat(descriptor)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(info.st_mode):
            raise _UnfitFileError("not a regular file")
        data = b""
        while len(data) <= max_bytes:
            piece = file.read(max_bytes + 1 - len(data))
            if not piece:
                return data, info
            data += piece
    raise _UnfitFileError(f"longer than {max_bytes >> 20} MiB")


def read_bounded(path: str, max_bytes: int) -> tuple[bytes, os.stat_result] | str:
    """
    Read a regular file whole; return its bytes and what fstat(2) said, or why it is not to be read.

    Raises:
        UnreadableError: Its disk fails, or the system is short of something.
    """
    try:
        return _read_regular(path, max_bytes)
    except _UnfitFileError as error:
        return str(error)
    except OSError as error:
        return refusal(path, error)[0]


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


def refusal(path: str, error: OSError) -> tuple[str, str]:
    """
    Return why the kernel does not let us read, in words, and the way out, if no restart would mend it.

    Raises:
        UnreadableError: A restart might: a shortage, a disk that fails, a mount whose server is gone
            (ENOTCONN, ENODEV, ESTALE). Any number that we do not know is taken for one of these, so
            that nothing but errors of ours comes out of settings.
    """
    number = error.errno or 0
    if number not in _LASTING:
        hint = ShortageError.hint if number in _SHORTAGES else ""
        raise UnreadableError(path, os.strerror(number), errno=number, hint=hint) from None
    if number in (errno.EACCES, errno.EPERM):
        return _LASTING[number], f"let the gateway's account read it: see namei -l {path}"
    if number in (errno.ENOENT, errno.EISDIR):
        return _LASTING[number], "name a file that exists, or create it"
    return _LASTING[number], ""


class _SecretFile(NamedTuple):
    text: str
    info: os.stat_result


def read_secret(
    source: str, name: str, path: str, *, private: bool, owner_uid: int | None = None
) -> Secret:
    """
    Read a secret from a file, without the space around it.

    Args:
        source: What named the file, for the error: ``flag``, ``credential``, ``file``.
        name: The flag's or credential's name.
        path: The file, or a pipe.
        private: Whether it must be closed to group and others.
        owner_uid: Whose the file must be; ``None`` if that does not matter.

    Raises:
        ConfigurationError: It is not there or not ours to read, is empty, open to others
            or somebody else's.
        UnreadableError: Its disk fails, or the system is short of something.
    """

    def fail(problem: str, hint: str = "") -> NoReturn:
        raise ConfigurationError(source, name, problem, hint=hint) from None

    try:
        data, info = _read_file_or_pipe(path)
        text = data.decode("utf-8").strip()
    except ValueError:
        fail(f"cannot read {path}: not UTF-8")
    except OSError as error:
        problem, hint = refusal(path, error)
        fail(f"cannot read {path}: {problem}", hint)
    if owner_uid not in (None, info.st_uid):
        fail(f"{path} belongs to uid {info.st_uid}, and the gateway to uid {owner_uid}")
    mode = stat.S_IMODE(info.st_mode)
    if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
        fail(f"{path} is open to others (mode {mode:04o})", f"chmod 600 {path}")
    if not text:
        fail(f"{path} is empty")
    return Secret(text)


def _read_file_or_pipe(path: str) -> tuple[bytes, os.stat_result]:
    """Read at most 4096 bytes; of a pipe until its writers are gone or its time is up."""
    import select
    from time import monotonic

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        info = os.fstat(descriptor)
        data, ends_s = b"", monotonic() + _PIPE_TIMEOUT_S
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while len(data) < 4096:
            if not poll.poll(max(0.0, ends_s - monotonic()) * 1000):
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            piece = os.read(descriptor, 4096 - len(data))
            if not piece:
                break
            data += piece
        return data, info
    finally:
        os.close(descriptor)
