"""Every message that a user may see, to the letter, with its exit code."""

from __future__ import annotations

import errno

import pytest

from openclaw_gateway.errors import (
    AlreadyListeningError,
    AlreadyRunningError,
    BindError,
    ClaimLostError,
    ConfigurationError,
    EtcdError,
    ExitCode,
    GatewayError,
    GatewayLockError,
    InstallError,
    ListenerLostError,
    NothingToShowError,
    NotReadyError,
    ReloadError,
    ShortageError,
    StorageError,
    TenureLostError,
    UnreadableError,
    UsageError,
)
from openclaw_gateway.supervisor.events import Event

URL = "ws://127.0.0.1:18789"


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (
            AlreadyListeningError(URL),
            "another gateway instance is already listening on ws://127.0.0.1:18789",
            1,
        ),
        (
            AlreadyListeningError(URL, exit_code=ExitCode.CONFIG),
            "another gateway instance is already listening on ws://127.0.0.1:18789",
            78,
        ),
        (
            BindError(URL, "Cannot assign requested address", errno=errno.EADDRNOTAVAIL),
            "failed to bind gateway socket on ws://127.0.0.1:18789: Cannot assign requested address",
            1,
        ),
        (
            BindError(URL, "Permission denied", errno=errno.EACCES),
            "failed to bind gateway socket on ws://127.0.0.1:18789: Permission denied",
            77,
        ),
        (
            AlreadyRunningError(812, 5.0),
            "gateway already running (pid 812); lock timeout after 5000ms",
            1,
        ),
        (
            AlreadyRunningError(None, 30.0, exit_code=ExitCode.TEMPORARY),
            "gateway already running (pid unknown); lock timeout after 30000ms",
            75,
        ),
        (
            ListenerLostError("Invalid argument"),
            "the listener takes no connections any more: Invalid argument",
            1,
        ),
        (
            ShortageError("Too many open files"),
            "the system can't give us what we need: Too many open files",
            1,
        ),
        (
            StorageError("/state", "No space left on device", errno=errno.ENOSPC),
            "cannot use /state: No space left on device",
            73,
        ),
        (
            StorageError("/state", "Permission denied", errno=errno.EACCES),
            "cannot use /state: Permission denied",
            77,
        ),
        (
            UnreadableError("/etc/x.json", "Input/output error", errno=errno.EIO),
            "cannot read /etc/x.json: Input/output error",
            1,
        ),
        (
            NotReadyError("own /healthz did not answer within 10.0 s"),
            "not ready: own /healthz did not answer within 10.0 s",
            1,
        ),
        (ReloadError("ENODEV: no such device"), "ENODEV: no such device", 1),
        (
            ClaimLostError("/state", "replaced by another directory"),
            "lost the claim on /state: replaced by another directory",
            1,
        ),
        (
            ConfigurationError("/etc/x.json", "gateway.port", "must be a port"),
            "/etc/x.json gateway.port: must be a port",
            78,
        ),
        (
            EtcdError("http://etcd-a:2379", "etcdserver: no leader", code=14),
            "etcd at http://etcd-a:2379: etcdserver: no leader",
            1,
        ),
        (
            TenureLostError("home", "the record was not renewed for 10 s"),
            "no longer the active gateway of the cluster home: the record was not renewed for 10 s",
            75,
        ),
        (InstallError("it is taken"), "cannot install the units: it is taken", 1),
        (UsageError("--force", "it ends others"), "--force is not taken: it ends others", 2),
        (
            NothingToShowError("the log of x.service", "nothing in the journal"),
            "cannot show the log of x.service: nothing in the journal",
            1,
        ),
        (ConfigurationError("/etc/x.json", "", "no such file"), "/etc/x.json: no such file", 78),
        (
            ConfigurationError("/etc/x.json", "gateway.port", "must be a port", place=(4, 7)),
            "/etc/x.json:4:7 gateway.port: must be a port",
            78,
        ),
    ],
)
def test_text_and_exit_code(error: GatewayError, text: str, code: int) -> None:
    assert (str(error), error.exit_code) == (text, code)


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (AlreadyListeningError(URL, exit_code=ExitCode.CONFIG), Event.DUPLICATE),
        (AlreadyListeningError(URL), Event.LOCK_FAILED),
        (AlreadyRunningError(812, 5.0, exit_code=ExitCode.TEMPORARY), Event.LOCK_FAILED),
        (BindError(URL, "Permission denied", errno=errno.EACCES), Event.LOCK_FAILED),
        (ConfigurationError("/etc/x.json", "", "no such file"), Event.CONFIG_INVALID),
        (UnreadableError("/x", "Input/output error", errno=errno.EIO), Event.FAILED),
        (
            UnreadableError("/x", "denied", errno=errno.EACCES, exit_code=ExitCode.NOT_PERMITTED),
            Event.STORAGE_UNUSABLE,
        ),
        (StorageError("/state", "full", errno=errno.ENOSPC), Event.STORAGE_UNUSABLE),
        (ClaimLostError("/state", "replaced"), Event.CLAIM_LOST),
        (ShortageError("Too many open files"), Event.FAILED),
        (NotReadyError("no answer"), Event.FAILED),
        (TenureLostError("home", "gone"), Event.TENURE_LOST),
    ],
)
def test_event_that_an_ending_is_logged_as(error: GatewayError, event: Event) -> None:
    assert error.event is event


@pytest.mark.parametrize("kind", [AlreadyListeningError, BindError, AlreadyRunningError])
def test_the_three_texts_of_the_page_are_lock_errors(kind: type[GatewayError]) -> None:
    assert issubclass(kind, GatewayLockError)


def test_no_exit_code_is_one_that_systemd_reserves() -> None:
    assert all(0 <= code < 200 for code in ExitCode)
