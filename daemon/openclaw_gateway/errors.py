"""What can go wrong: every error, its text, its exit code, and the event that it is logged as."""

from __future__ import annotations

from enum import IntEnum
from errno import EACCES, EADDRINUSE, EAGAIN, EINVAL, EPERM

from openclaw_gateway.supervisor.events import Event


class ExitCode(IntEnum):
    """
    Every status the daemon exits with; the names above 63 are those of sysexits.h(3head).

    systemd.exec(5), "Process Exit Codes", reserves 200 and above for the service manager.
    """

    OK = 0
    """Stopped on request."""
    FAILURE = 1
    """A lock error outside systemd, or a failure that a restart may mend."""
    USAGE = 2
    """The command line is wrong."""
    CANNOT_CREATE = 73
    """The state or lock directory can't be used."""
    TEMPORARY = 75
    """Under systemd: whoever is in the way never became healthy."""
    NOT_PERMITTED = 77
    """The kernel says that this account may not."""
    CONFIG = 78
    """A healthy duplicate under systemd, or a configuration that no restart can mend."""


class GatewayError(Exception):
    """
    The root of everything that the daemon says instead of a traceback.

    Attributes:
        exit_code: What the process exits with.
        hint: What to do about it, one sentence or more; empty if there is nothing to advise.
        errno: The kernel's word for it, for sd_notify(3); ``None`` if it has none.
        event: What it is logged as when it ends the process.
    """

    exit_code: int = ExitCode.FAILURE
    hint = ""
    errno: int | None = None
    event = Event.FAILED


class UsageError(GatewayError):
    """
    The command line has a word that is known, and that we don't take.

    Attributes:
        word: It, without its value, which may be a secret.
        problem: Why not.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, word: str, problem: str, hint: str = "") -> None:
        super().__init__(word, problem)
        self.word, self.problem, self.hint = word, problem, hint

    def __str__(self) -> str:
        return f"{self.word} is not taken: {self.problem}"


class NotReadyError(GatewayError):
    """The service was started and is not well. ``problem`` says what is wrong."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"not ready: {self.problem}"


class ListenerLostError(GatewayError):
    """A listener takes no connections any more, and never will. ``cause`` is the kernel's word."""

    hint = (
        "something outside of the gateway shut its listening socket down; a restart opens another"
    )

    def __init__(self, cause: str, *, errno: int | None = None) -> None:
        super().__init__(cause)
        self.cause, self.errno = cause, errno

    def __str__(self) -> str:
        return f"the listener takes no connections any more: {self.cause}"


class ChildEndedError(GatewayError):
    """
    The guarded program has ended, and not because it was asked to.

    Attributes:
        exit_code: What the guard ends with: as the program did, or 128 and the number of the signal that ended it.
        reason: How it ended, a verb and what follows it.
    """

    event = Event.CHILD_ENDED

    def __init__(self, exit_code: int, reason: str, *, hint: str = "") -> None:
        super().__init__(exit_code, reason)
        self.exit_code, self.reason, self.hint = exit_code, reason, hint

    def __str__(self) -> str:
        return f"the guarded program {self.reason}"


class ShortageError(GatewayError):
    """The kernel is out of something that every program needs: descriptors, memory. ``cause`` is its word."""

    hint = "raise the unit's LimitNOFILE=, or see what else on this machine uses it up"

    def __init__(self, cause: str, *, errno: int | None = None) -> None:
        super().__init__(cause)
        self.cause, self.errno = cause, errno

    def __str__(self) -> str:
        return f"the system can't give us what we need: {self.cause}"


class ReloadError(GatewayError):
    """New settings could not be read, for no reason that stands in them; ``problem`` is it."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class ConfigurationError(GatewayError):
    """
    A setting is wrong, and starting again won't make it right.

    Attributes:
        source: Where the value came from: a file's path, ``flag``, ``variable``, ``credential``.
        key: The setting's name there; empty if the source as a whole is at fault.
        problem: What is wrong with it. Never the value of a secret.
        place: Line and column in the file, both from 1; ``None`` if there is no such place.
    """

    exit_code: int = ExitCode.CONFIG
    errno = EINVAL
    event = Event.CONFIG_INVALID

    def __init__(
        self,
        source: str,
        key: str,
        problem: str,
        *,
        hint: str = "",
        place: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(source, key, problem)
        self.source, self.key, self.problem, self.hint = source, key, problem, hint
        self.place = place

    def __str__(self) -> str:
        # As compilers write it, so that editors can follow it.
        file = "{}:{}:{}".format(self.source, *self.place) if self.place else self.source
        where = f"{file} {self.key}" if self.key else file
        return f"{where}: {self.problem}"


class UnreadableError(ConfigurationError):
    """
    Settings or a secret can't be read, and not because of what they say.

    Attributes:
        path: The file.
        errno: The kernel's word.
        exit_code: 1 where another start may find it readable; 73 or 77, as of a ``StorageError``,
            where it is the state directory that can't be used.
    """

    def __init__(
        self,
        path: str,
        problem: str,
        *,
        errno: int,
        exit_code: int = ExitCode.FAILURE,
        hint: str = "",
    ) -> None:
        super().__init__(path, "", problem, hint=hint)
        self.path, self.errno, self.exit_code = path, errno, exit_code
        failed = exit_code == ExitCode.FAILURE
        self.event = Event.FAILED if failed else Event.STORAGE_UNUSABLE

    def __str__(self) -> str:
        return f"cannot read {self.path}: {self.problem}"


class StorageError(GatewayError):
    """
    The state directory, the lock directory or a lock file can't serve.

    Attributes:
        path: What can't be used.
        problem: Why not.
        errno: The kernel's word, or ``None`` where the refusal is ours.
    """

    event = Event.STORAGE_UNUSABLE

    def __init__(
        self, path: str, problem: str, *, errno: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(path, problem)
        self.path, self.problem, self.errno, self.hint = path, problem, errno, hint
        permission = errno in (EACCES, EPERM)
        self.exit_code = ExitCode.NOT_PERMITTED if permission else ExitCode.CANNOT_CREATE

    def __str__(self) -> str:
        return f"cannot use {self.path}: {self.problem}"


class ClaimLostError(GatewayError):
    """
    A lock that was ours no longer guards what it guarded; the daemon stops rather than share.

    Attributes:
        path: What was taken away.
        problem: How.
    """

    hint = "the state directory of a running gateway must stay where it is"
    event = Event.CLAIM_LOST

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"lost the claim on {self.path}: {self.problem}"


class EtcdError(GatewayError):
    """
    etcd did not do what it was asked, as far as we know. It ends nothing but an administrator's command.

    Attributes:
        endpoint: Who was asked last.
        problem: Why not.
        code: gRPC's code, if etcd itself refused; ``None`` if there was no answer of its.
    """

    def __init__(self, endpoint: str, problem: str, *, code: int | None = None) -> None:
        super().__init__(endpoint, problem)
        self.endpoint, self.problem, self.code = endpoint, problem, code

    def __str__(self) -> str:
        return f"etcd at {self.endpoint}: {self.problem}"


class TenureLostError(GatewayError):
    """The cluster's record could not be kept: we may not be its active gateway any more. ``problem`` says why."""

    exit_code = ExitCode.TEMPORARY
    hint = "it stands by after its restart; see whether the cluster's etcd nodes can be reached from here"
    event = Event.TENURE_LOST

    def __init__(self, cluster: str, problem: str, *, fencing_token: int | None = None) -> None:
        super().__init__(cluster, problem)
        self.cluster, self.problem, self.fencing_token = cluster, problem, fencing_token

    def __str__(self) -> str:
        return f"no longer the active gateway of the cluster {self.cluster}: {self.problem}"


class InstallError(GatewayError):
    """Units can't be installed; ``problem`` says why."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem, self.hint = problem, hint

    def __str__(self) -> str:
        return f"cannot install the units: {self.problem}"


class NothingToShowError(GatewayError):
    """
    What an administrator asked for is not there, or not theirs to see.

    Attributes:
        what: It.
        problem: Why not.
    """

    def __init__(self, what: str, problem: str, *, hint: str = "") -> None:
        super().__init__(what, problem)
        self.what, self.problem, self.hint = what, problem, hint

    def __str__(self) -> str:
        return f"cannot show {self.what}: {self.problem}"


class GatewayLockError(GatewayError):
    """
    Someone else has what we came for, or the kernel won't give it: the error of the page "Gateway lock".

    Attributes:
        exit_code: 78 for a healthy duplicate under systemd, 75 for an owner that never became
            healthy under systemd, 77 for a port that needs a privilege, else 1.
        hint: Who holds it, and the way out.
        owner_pid: The process that holds it, ``None`` if unknown.
    """

    def __init__(
        self,
        *,
        owner_pid: int | None = None,
        exit_code: ExitCode = ExitCode.FAILURE,
        hint: str = "",
    ) -> None:
        super().__init__()
        self.owner_pid, self.exit_code, self.hint = owner_pid, exit_code, hint
        duplicate = exit_code is ExitCode.CONFIG
        self.event = Event.DUPLICATE if duplicate else Event.LOCK_FAILED


class AlreadyListeningError(GatewayLockError):
    """Another process holds the port. ``url`` is ``ws://host:port``."""

    errno = EADDRINUSE

    def __init__(
        self,
        url: str,
        *,
        owner_pid: int | None = None,
        exit_code: ExitCode = ExitCode.FAILURE,
        hint: str = "",
    ) -> None:
        super().__init__(owner_pid=owner_pid, exit_code=exit_code, hint=hint)
        self.url = url

    def __str__(self) -> str:
        return f"another gateway instance is already listening on {self.url}"


class BindError(GatewayLockError):
    """The kernel refused the address for a reason other than ``EADDRINUSE``. ``cause`` is that reason."""

    def __init__(self, url: str, cause: str, *, errno: int, hint: str = "") -> None:
        permission = errno in (EACCES, EPERM)
        code = ExitCode.NOT_PERMITTED if permission else ExitCode.FAILURE
        super().__init__(exit_code=code, hint=hint)
        self.url, self.cause, self.errno = url, cause, errno

    def __str__(self) -> str:
        return f"failed to bind gateway socket on {self.url}: {self.cause}"


class AlreadyRunningError(GatewayLockError):
    """A lock stayed held for the whole of ``timeout_s`` seconds; ``errno`` is flock(2)'s word for that."""

    errno = EAGAIN

    def __init__(
        self,
        owner_pid: int | None,
        timeout_s: float,
        *,
        exit_code: ExitCode = ExitCode.FAILURE,
        hint: str = "",
    ) -> None:
        super().__init__(owner_pid=owner_pid, exit_code=exit_code, hint=hint)
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        pid = "unknown" if self.owner_pid is None else self.owner_pid
        return (
            f"gateway already running (pid {pid}); lock timeout after {self.timeout_s * 1000:.0f}ms"
        )
