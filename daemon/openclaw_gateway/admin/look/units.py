"""What a service manager says of the gateway's units: one ``systemctl show``, and its text read.

Works where there is no systemd: then it says what could not be seen, and why.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import NamedTuple

NO_SYSTEMD = "systemd does not run here"
_TIMEOUT_S = 3.0
_RUNTIME = "/run/systemd/system"
"""Exists if systemd is the system's manager: sd_booted(3)."""

_PROPERTIES = """
    Id LoadState LoadError ActiveState SubState Result UnitFileState FragmentPath DropInPaths NeedDaemonReload
    MainPID ExecMainCode ExecMainStatus NRestarts StatusText StatusErrno InvocationID ControlGroup
    Restart RestartUSec RestartPreventExitStatus KillMode TimeoutStartUSec TimeoutStopUSec
    StartLimitIntervalUSec StartLimitBurst WatchdogUSec WatchdogTimestampMonotonic
    ActiveEnterTimestampMonotonic InactiveExitTimestampMonotonic InactiveEnterTimestampMonotonic
    ExecMainStartTimestampMonotonic ExecMainExitTimestampMonotonic
    User StateDirectory ConfigurationDirectory Environment EnvironmentFiles ExecStart NFileDescriptorStore
""".split()


class Manager(NamedTuple):
    """A service manager: the system's, or that of one user."""

    uid: int | None = None
    """``None`` for the system's."""
    name: str = ""
    """The user's name, if it has one; see ``manager_of``."""

    @property
    def is_system(self) -> bool:
        """Whether it is the system's."""
        return self.uid is None

    def command(self, viewer_uid: int) -> str:
        """Return how a user addresses it in a shell: ``systemctl --user -M alice@``."""
        sudo = "" if viewer_uid == 0 else "sudo "
        if self.uid is None:
            return f"{sudo}systemctl"
        if self.uid == viewer_uid:
            return "systemctl --user"
        return f"{sudo}systemctl --user -M {self.user}@"

    @property
    def user(self) -> str:
        """The user's name or else number, ``""`` for the system's manager."""
        return "" if self.uid is None else self.name or str(self.uid)

    def __str__(self) -> str:
        return "system" if self.uid is None else f"user {self.user}"


SYSTEM = Manager()


def manager_of(uid: int) -> Manager:
    """Return the manager of a user, with its name from the user database."""
    return Manager(uid, user_name(uid))


def user_name(uid: int) -> str:
    """Return a user's name, ``""`` if the database does not know it."""
    from pwd import getpwuid

    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return ""


SOCKET = "openclaw-gateway.socket"
"""The unit that listens in the default gateway's place until its first client comes."""

ANY_GATEWAY = "openclaw-g*.service"
"""Matches every unit of ours that is loaded, guards and units for a standby included."""


class Unit(NamedTuple):
    """One loaded unit, as its manager sees it. Times are seconds; ages count back from now."""

    name: str
    manager: Manager
    load_state: str
    """``loaded``, ``not-found``, ``masked``, ``bad-setting``, …"""
    load_error: str
    """Why it is not loaded, in systemd's words; empty if it is."""
    active_state: str
    """``active``, ``activating``, ``deactivating``, ``failed``, ``inactive``, ``reloading``."""
    sub_state: str
    result: str
    enabled: str
    """``enabled``, ``disabled``, ``static``, ``masked``, … or empty."""
    fragment_path: str
    drop_ins: tuple[str, ...]
    needs_daemon_reload: bool
    main_pid: int | None
    exit_kind: int
    """0 if it never ended, else ``si_code``: 1 exited, 2 killed, 3 dumped core. sigaction(2)."""
    exit_status: int
    """Exit code, or the signal's number."""
    restarts: int
    status_text: str
    """The gateway's last word to its manager; outlives it."""
    status_errno: int
    """The error number that it ended with, by its own word, 0 if none; outlives it. sd_notify(3), ``ERRNO=``."""
    invocation_id: str
    control_group: str
    restart: str
    restart_s: float | None
    prevents: tuple[int, ...]
    """Exit codes that are never followed by a restart."""
    kill_mode: str
    start_timeout_s: float | None
    """``None`` for none, here and below."""
    stop_timeout_s: float | None
    start_limit_interval_s: float | None
    start_limit_burst: int
    watchdog_s: float | None
    watchdog_age_s: float | None
    active_age_s: float | None
    """Since READY."""
    changed_age_s: float | None
    """Since it began to start, or since it ended."""
    startup_s: float | None
    """From exec to READY."""
    exited_age_s: float | None
    user: str
    state_directory: str
    """Below /var/lib, the first one; empty if none."""
    configuration_directory: str
    """Below /etc, the first one; empty if none."""
    environment: dict[str, str]
    environment_files: tuple[str, ...]
    argv: tuple[str, ...]
    kept: int
    """Descriptors that the manager keeps for the next start: its listening sockets."""

    @property
    def is_guard(self) -> bool:
        """Whether it runs a gateway that somebody else wrote: then only where that is, is set by our settings."""
        program = os.path.basename(self.argv[0]) if self.argv else ""
        return program == "openclaw-guard" or self.argv[1:2] == ("guard",)

    @property
    def is_enabled(self) -> bool:
        """Whether something starts it by itself, at each boot or (``enabled-runtime``) until the next one."""
        return self.enabled.startswith("enabled")

    @property
    def is_used(self) -> bool:
        """Whether anyone counts on it: it is enabled, runs, or has failed. Packages bring units that nobody uses."""
        return self.is_enabled or self.active_state != "inactive"

    @property
    def is_loaded(self) -> bool:
        """Whether there is such a unit that could run."""
        return self.load_state == "loaded"


class Reply(NamedTuple):
    """What a manager said: units, or why it said nothing."""

    units: tuple[Unit, ...]
    problem: str | None = None


def unit_name(profile: str | None, *, guard: str | None = None) -> str:
    """Return the unit that runs a profile, ``None`` for the default one; or the guard of an account."""
    if guard:
        return f"openclaw-guard@{guard}.service"
    return f"openclaw-gateway@{profile}.service" if profile else "openclaw-gateway.service"


def guarded_account(name: str) -> str | None:
    """Return the account whose gateway a unit guards; ``None`` for units that are no guard's."""
    before, _, account = name.removesuffix(".service").partition("@")
    return account if before == "openclaw-guard" and account else None


def show(names: list[str], manager: Manager = SYSTEM, *, runtime: str = _RUNTIME) -> Reply:
    """
    Ask a manager for units, with one child process; starts and changes nothing.

    Args:
        names: Units, or patterns of units that are loaded.
        manager: Whom to ask. Another user's takes root.
        runtime: The directory that proves systemd to be there.

    Returns:
        The units, ``not-found`` ones included, or in ``problem`` why nobody could be asked.

    See Also:
        systemctl(1), org.freedesktop.systemd1(5).
    """
    if not os.path.isdir(runtime):
        return Reply((), NO_SYSTEMD)
    import subprocess
    import time

    environ = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    scope = []
    if manager.uid is not None:
        scope = ["--user"]
        environ["XDG_RUNTIME_DIR"] = f"/run/user/{manager.uid}"
        environ.pop("DBUS_SESSION_BUS_ADDRESS", None)
    other = manager.uid not in (None, os.geteuid())
    wanted = [f"--property={','.join(_PROPERTIES)}"]
    try:
        said = subprocess.run(
            ["systemctl", *scope, "show", "--no-pager", *wanted, "--", *names],
            check=False,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            user=manager.uid if other else None,
            group=_group(manager.uid) if other else None,
            extra_groups=[] if other else None,
        )
    except FileNotFoundError:
        return Reply((), "systemctl is not installed")
    except PermissionError:
        return Reply((), f"the manager of {manager} can't be asked as {_own_name()}")
    except subprocess.TimeoutExpired:
        return Reply((), f"systemctl did not answer within {_TIMEOUT_S:g} s")
    if said.returncode != 0:
        lines = said.stderr.strip().splitlines()
        return Reply((), lines[-1] if lines else f"systemctl ended with {said.returncode}")
    now_s = time.clock_gettime(time.CLOCK_MONOTONIC)
    return Reply(tuple(parse(said.stdout, manager, now_s=now_s)))


def _group(uid: int | None) -> int | None:
    from pwd import getpwuid

    try:
        return None if uid is None else getpwuid(uid).pw_gid
    except KeyError:
        return None


def _own_name() -> str:
    return manager_of(os.geteuid()).user


def parse(text: str, manager: Manager, *, now_s: float) -> list[Unit]:
    """
    Read what ``systemctl show`` printed: a block of ``Name=value`` lines a unit.

    Pure. What a version of systemd does not know is absent, and read as its zero.

    Args:
        text: Its output.
        manager: Who said it.
        now_s: ``CLOCK_MONOTONIC`` at that moment.
    """
    units = []
    for block in text.strip().split("\n\n"):
        lines = (line.partition("=") for line in block.splitlines())
        # EnvironmentFiles= comes once for each file; of the others there is one line.
        values: dict[str, str] = {}
        for name, _, value in lines:
            values[name] = f"{values[name]}\n{value}" if name in values else value
        if "Id" in values:
            units.append(_unit(values, manager, now_s))
    return units


def _unit(values: dict[str, str], manager: Manager, now_s: float) -> Unit:
    def text(name: str) -> str:
        return values.get(name, "")

    def number(name: str) -> int:
        return int(text(name)) if text(name).isdecimal() else 0

    def moment_s(name: str) -> float | None:
        return number(name) / 1e6 or None

    def age_s(moment: float | None) -> float | None:
        return None if moment is None else max(now_s - moment, 0.0)

    is_active = text("ActiveState") in ("active", "reloading")
    active = moment_s("ActiveEnterTimestampMonotonic")
    began = moment_s("ExecMainStartTimestampMonotonic")
    settled = text("ActiveState") in ("inactive", "failed")
    left = moment_s("InactiveExitTimestampMonotonic")
    ended = moment_s("InactiveEnterTimestampMonotonic")
    return Unit(
        name=text("Id"),
        manager=manager,
        load_state=text("LoadState"),
        load_error=_quoted(text("LoadError")),
        active_state=text("ActiveState"),
        sub_state=text("SubState"),
        result=text("Result"),
        enabled=text("UnitFileState"),
        fragment_path=text("FragmentPath"),
        drop_ins=tuple(text("DropInPaths").split()),
        needs_daemon_reload=text("NeedDaemonReload") == "yes",
        main_pid=number("MainPID") or None,
        exit_kind=number("ExecMainCode"),
        exit_status=number("ExecMainStatus"),
        restarts=number("NRestarts"),
        status_text=text("StatusText"),
        status_errno=number("StatusErrno"),
        invocation_id=text("InvocationID"),
        control_group=text("ControlGroup"),
        restart=text("Restart"),
        restart_s=seconds(text("RestartUSec")),
        prevents=tuple(int(word) for word in text("RestartPreventExitStatus").split() if word.isdecimal()),
        kill_mode=text("KillMode"),
        start_timeout_s=seconds(text("TimeoutStartUSec")),
        stop_timeout_s=seconds(text("TimeoutStopUSec")),
        start_limit_interval_s=seconds(text("StartLimitIntervalUSec")),
        start_limit_burst=number("StartLimitBurst"),
        watchdog_s=seconds(text("WatchdogUSec")) or None,
        watchdog_age_s=age_s(moment_s("WatchdogTimestampMonotonic")) if is_active else None,
        active_age_s=age_s(active) if is_active else None,
        changed_age_s=age_s(ended if settled else left),
        startup_s=active - began if is_active and active and began and active >= began else None,
        exited_age_s=age_s(moment_s("ExecMainExitTimestampMonotonic")),
        user=text("User"),
        state_directory=text("StateDirectory").split(" ")[0],
        configuration_directory=text("ConfigurationDirectory").split(" ")[0],
        environment=_environment(text("Environment")),
        environment_files=tuple(
            line.rpartition(" (ignore_errors=")[0] or line
            for line in text("EnvironmentFiles").splitlines()
        ),
        argv=_argv(text("ExecStart")),
        kept=number("NFileDescriptorStore"),
    )  # fmt: skip


def _quoted(text: str) -> str:
    """Read ``org.freedesktop.systemd1.BadUnitSetting "Unit x has a bad unit file setting."``."""
    return text.partition('"')[2].rpartition('"')[0]


_SECONDS = {
    "us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800, "month": 2629800, "y": 31557600, "year": 31557600,
}  # fmt: skip


def seconds(timespan: str) -> float | None:
    """Read ``1min 30s``; ``None`` for ``infinity``, none or anything else. systemd.time(7), "Parsing Time Spans"."""
    if not re.fullmatch(r"(\s*[0-9.]+\s*[a-z]+)+\s*|0", timespan):
        return None
    parts = re.findall(r"([0-9.]+)\s*([a-z]+)", timespan)
    if any(unit not in _SECONDS for _, unit in parts):
        return None
    return sum((float(number) * _SECONDS[unit] for number, unit in parts), 0.0)


def _environment(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError:
        return {}
    return {
        name: value for name, equals, value in (word.partition("=") for word in words) if equals
    }


def _argv(text: str) -> tuple[str, ...]:
    """Read ``{ path=… ; argv[]=/usr/bin/openclaw-gateway run ; ignore_errors=no ; … }``."""
    match = re.search(r"argv\[\]=(.*?) ; ignore_errors=", text)
    return tuple(match[1].split()) if match else ()
