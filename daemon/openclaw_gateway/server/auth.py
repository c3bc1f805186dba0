"""Who may in: secrets compared in constant time, guessing made slow, each burst of it logged once."""

from __future__ import annotations

import hmac
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from errno import EMLINK, ENOSYS, EOPNOTSUPP, EPERM
from typing import NamedTuple

from openclaw_gateway.errors import StorageError
from openclaw_gateway.protocol.frames import ErrorCode, error
from openclaw_gateway.protocol.session import Refusal
from openclaw_gateway.server.proxies import Source
from openclaw_gateway.settings.load import TOKEN_FILE, AuthMode, Limits, Settings
from openclaw_gateway.settings.sources import read_secret
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal

_TOKEN_BYTES = 32

_FIRST_DELAY_S = 0.25
_MAX_DELAY_S = 5.0
_MAX_SOURCES = 4096
"""Sources remembered at once; beyond that the ones heard of least recently are forgotten."""

_BURST_PAUSE_S = 3.0
"""So long without a wrong secret ends a burst."""
_MAX_BURST_S = 60.0
"""A burst that goes on is logged as often as this."""


def resolve_token(settings: Settings, state_dir: str, journal: Journal) -> Settings:
    """
    Give token mode its token: where none is configured, one that is kept in the state directory.

    It is made at the first start, from 256 bits of the kernel's randomness, and logged by path only.

    Args:
        settings: Checked.
        state_dir: The one that we hold the claim on: nobody else may make a token meanwhile.
        journal: Told of a token that was made.

    Returns:
        The settings, with a token wherever one is needed.

    Raises:
        ConfigurationError: The token file is empty, or open to others.
        StorageError: It can't be made; nothing is left behind that a later start would trip over.
    """
    if settings.auth_mode is not AuthMode.TOKEN or settings.token is not None:
        return settings
    path = os.path.join(state_dir, TOKEN_FILE)
    if not os.path.lexists(path) or _is_unfinished(path):
        try:
            _create_token(path)
        except OSError as failure:
            problem = os.strerror(failure.errno or 0)
            raise StorageError(path, problem, errno=failure.errno) from failure
        journal.write(
            Event.TOKEN_CREATED,
            f"no token was configured: made one for clients, in {path}",
            TOKEN_PATH=path,
        )
    return settings._replace(token=read_secret("file", TOKEN_FILE, path, private=True))


_WITHOUT_LINKS = (EPERM, ENOSYS, EOPNOTSUPP, EMLINK)
"""link(2): what file systems without hard links say."""


def _is_unfinished(path: str) -> bool:
    """Whether a start died between the two last steps of ``_create_token`` on a file system without links."""
    return os.path.lexists(f"{path}.new") and os.lstat(path).st_size == 0


def _create_token(path: str) -> None:
    """
    Write a token under another name first, so that whoever sees the file sees all of it.

    The steps of a crash: before the link there is only the other name, which the next start removes;
    after it there is a whole token. link(2) does not replace what an administrator put there meanwhile.
    Where there are no hard links, an empty file takes the name, which fails if it is taken, and the
    whole one is renamed over it; a crash in between leaves both, by which the next start knows it.
    """
    unfinished = f"{path}.new"
    if os.path.lexists(unfinished):
        if os.path.lexists(path) and _is_unfinished(path):
            os.unlink(path)
        os.unlink(unfinished)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(unfinished, flags, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_urlsafe(_TOKEN_BYTES)}\n")
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(unfinished, path)
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            os.close(os.open(path, flags, 0o600))
            os.rename(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Admission(NamedTuple):
    """
    What comes of credentials: whether who showed them is let in.

    Attributes:
        refusal: ``None`` lets the client in.
        delay_s: Seconds to wait before saying so.
    """

    refusal: Refusal | None
    delay_s: float = 0.0


_IN = Admission(None)


class Authenticator:
    """
    Judges credentials; the clock is an argument.

    Attributes:
        failures: Wrong secrets since the start, and tries of those who are locked out.
        bursts: Those of lately, to be logged.
    """

    def __init__(self, settings: Settings, *, reached: Counter[str]) -> None:
        """``reached`` counts clients that were locked out."""
        self._reached = reached
        self._key = secrets.token_bytes(32)
        self._guesses = Guesses(settings.limits)
        self._guesses.exempts_local = settings.auth_exempt_loopback
        self.failures = 0
        self.bursts = Bursts()
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Judge by other secrets from now on; who is in stays in."""
        self.mode = settings.auth_mode
        secret = settings.password if self.mode is AuthMode.PASSWORD else settings.token
        self._secret = self._digest(secret or "")
        self._guesses.limits = settings.limits
        self._guesses.exempts_local = settings.auth_exempt_loopback

    def judge(
        self, source: Source, *, token: str | None, password: str | None, now_s: float
    ) -> Admission:
        """
        Decide on the credentials of one client.

        The secret may come in either field, as other gateways have it; if both are filled, the mode's
        own counts.

        Args:
            source: Where the client comes from.
            token: What it sent as such.
            password: What it sent as such.
            now_s: Monotonic clock.
        """
        if self.mode is AuthMode.TRUSTED_PROXY:
            return _IN if source.user else Admission(_refusal("trusted_proxy", "missing"))
        if self.mode is AuthMode.NONE:
            return _IN if source.local else Admission(_refusal("token", "missing"))
        kind = self.mode.value
        own, other = (token, password) if self.mode is AuthMode.TOKEN else (password, token)
        given = own or other
        if not given:
            return Admission(_refusal(kind, "missing"))
        locked_s = self._guesses.locked_s(source, now_s=now_s)
        if locked_s:
            self._reached["auth_max_attempts"] += 1
            self._fail(source, now_s)
            return Admission(_rate_limited(locked_s))
        # Digests of one length: compare_digest on the secrets themselves would tell theirs.
        if hmac.compare_digest(self._digest(given), self._secret):
            self._guesses.forget(source)
            return _IN
        self._fail(source, now_s)
        return Admission(_refusal(kind, "mismatch"), self._guesses.wrong(source, now_s=now_s))

    def _fail(self, source: Source, now_s: float) -> None:
        self.failures += 1
        self.bursts.add(source.network, now_s=now_s)

    def _digest(self, secret: str) -> bytes:
        return hmac.digest(self._key, secret.encode("utf-8", "surrogatepass"), "sha256")


def _refusal(kind: str, problem: str) -> Refusal:
    """Return the error that stops a client from trying the same again; its words are known to clients."""
    advice = (
        f"provide gateway auth {kind}"
        if problem == "missing"
        else f"use this gateway's gateway.auth.{kind}"
    )
    if kind == "trusted_proxy":
        advice = "connect through the proxy, which must name a user that is let in"
    details: dict[str, object] = {
        "code": f"AUTH_{kind.upper()}_{problem.upper()}",
        "authReason": f"{kind}_{problem}",
        "canRetryWithDeviceToken": False,
        "recommendedNextStep": "update_auth_configuration"
        if problem == "missing"
        else "update_auth_credentials",
    }
    message = f"unauthorized: gateway {kind} {problem} ({advice})"
    return Refusal(error(ErrorCode.INVALID_REQUEST, message, details=details))


def _rate_limited(locked_s: float) -> Refusal:
    details: dict[str, object] = {
        "code": "AUTH_RATE_LIMITED",
        "authReason": "rate_limited",
        "recommendedNextStep": "wait_then_retry",
    }
    return Refusal(
        error(
            ErrorCode.INVALID_REQUEST,
            "unauthorized: too many failed authentication attempts (retry later)",
            details=details,
            retry_after_ms=round(locked_s * 1000),
        )
    )


class _Record(NamedTuple):
    wrong: int
    since_s: float
    answer_at_s: float


class Guesses:
    """
    What wrong secrets cost whoever sends them: a delay that doubles, and for strangers a lock-out.

    Programs of this machine are never locked out unless the settings say so: one with a wrong token
    would lock out all the others.
    """

    exempts_local = True

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._records: dict[str, _Record] = {}

    def wrong(self, source: Source, *, now_s: float) -> float:
        """Count a wrong secret; returns the seconds to wait before saying so."""
        record = self._records.pop(source.network, None)
        if record is None or now_s - record.since_s > self.limits.auth_window_s:
            record = _Record(0, now_s, now_s)
        if len(self._records) >= _MAX_SOURCES:
            del self._records[next(iter(self._records))]
        delay_s = min(_FIRST_DELAY_S * 2.0 ** min(record.wrong, 10), _MAX_DELAY_S)
        # Guesses side by side wait for one common moment: trying in parallel gains nothing.
        answer_at_s = max(record.answer_at_s, now_s + delay_s)
        self._records[source.network] = _Record(record.wrong + 1, record.since_s, answer_at_s)
        return answer_at_s - now_s

    def locked_s(self, source: Source, *, now_s: float) -> float:
        """Return for how many seconds more this source is not listened to."""
        record = self._records.get(source.network)
        if record is None or record.wrong < self.limits.auth_max_attempts:
            return 0.0
        if source.local and self.exempts_local:
            return 0.0
        return max(record.since_s + self.limits.auth_lockout_s - now_s, 0.0)

    def forget(self, source: Source) -> None:
        """Let bygones be bygones after a right secret."""
        self._records.pop(source.network, None)


class Burst(NamedTuple):
    """Wrong secrets from one source, close together."""

    source: str
    times: int
    first_s: float
    last_s: float


class Bursts:
    """Gathers wrong secrets into bursts, so that a storm of them is a line and not a storm of lines."""

    def __init__(self) -> None:
        self._open: dict[str, Burst] = {}

    def add(self, source: str, *, now_s: float) -> None:
        """Count one; sources too many to keep apart are counted together."""
        if source not in self._open and len(self._open) >= _MAX_SOURCES:
            source = "many addresses"
        burst = self._open.get(source, Burst(source, 0, now_s, now_s))
        self._open[source] = burst._replace(times=burst.times + 1, last_s=now_s)

    def over(self, *, now_s: float) -> Iterator[Burst]:
        """Yield the bursts that have ended, each once; ``math.inf`` ends them all."""
        for source, burst in list(self._open.items()):
            if now_s >= burst.last_s + _BURST_PAUSE_S or now_s >= burst.first_s + _MAX_BURST_S:
                del self._open[source]
                yield burst

    def __bool__(self) -> bool:
        return bool(self._open)
