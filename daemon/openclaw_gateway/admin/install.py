"""``install-units``: the units that come with the package, for a gateway that pip installed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from errno import EACCES, EDQUOT, ENOSPC, ENOTDIR, EPERM, EROFS
from typing import NamedTuple

from openclaw_gateway.admin.report import Report
from openclaw_gateway.errors import ExitCode, InstallError

SOURCES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "units")
"""Package data; in the repository a link to ``systemd/``. Debian's package has them where dpkg looks after them."""

_PROGRAM = "/usr/bin/openclaw-gateway"
"""As the units have it."""
_MARK = (
    "# openclaw-gateway install-units wrote this file; change it with drop-ins (systemctl edit)."
)
_PLAIN_PATH = re.compile(r"(/[A-Za-z0-9._+,@~-]+)+")
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")
"""What ProtectHome= and PrivateTmp= of the system's units hide from their gateway."""


class Target(NamedTuple):
    """One file to write."""

    path: str
    text: str


def report(*, of_system: bool, dry_run: bool, root: str = "/", home: str | None = None) -> Report:
    """
    Install the units of this gateway, and say what to type next.

    Args:
        of_system: For the system's manager, else for that of the user who asks.
        dry_run: Print the files, write none.
        root: Below which the system's files go.
        home: Where the user's configuration is; ``None`` for what XDG says.

    Raises:
        InstallError: The package manager has them already, this program would not run in them, or a file
            is in the way that is not as we wrote it: nothing is written then. Or a file can't be written.
    """
    program = installed_program()
    check_program(program, of_system=of_system)
    check_package(root, "system" if of_system else "user")
    if of_system:
        targets = list(system_targets(program, root, systemd_release()))
    else:
        configuration = home or os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        targets = [_unit(f"user/{_GATEWAY}", f"{configuration}/systemd/user/{_GATEWAY}", program)]
    if dry_run:
        lines = [line for path, text in targets for line in (f"==> {path}", *text.splitlines(), "")]
        return Report(lines, ExitCode.OK)
    for target in targets:
        check_place(target)
    for target in targets:
        write(target)
    done = [f"wrote {path}" for path, _ in targets]
    return Report([*done, "Next:", *(f"  {step}" for step in next_steps(of_system))], ExitCode.OK)


_GATEWAY = "openclaw-gateway.service"
_SYSTEM_UNITS = (
    _GATEWAY,
    "openclaw-gateway@.service",
    "openclaw-gateway-failed@.service",
    "openclaw-gateways.target",
)


def system_targets(program: str, root: str, release: int) -> Iterator[Target]:
    """Return the files of the system's manager for this release of systemd."""
    units = os.path.join(root, "etc/systemd/system")
    for name in _SYSTEM_UNITS:
        yield _unit(name, f"{units}/{name}", program)
    for since in (254, 257):
        directory = f"{SOURCES}/from-{since}"
        for unit in sorted(os.listdir(directory)) if release >= since else ():
            for name in sorted(os.listdir(f"{directory}/{unit}")):
                yield _unit(f"from-{since}/{unit}/{name}", f"{units}/{unit}/{name}", program)
    account = os.path.join(root, "etc/sysusers.d/openclaw-gateway.conf")
    yield _unit("openclaw-gateway.sysusers", account, program)


def _unit(source: str, path: str, program: str) -> Target:
    with open(f"{SOURCES}/{source}", encoding="utf-8") as file:
        body = file.read().replace(_PROGRAM, program)
    return Target(path, f"{_MARK} sha256={_digest(body)}\n{body}")


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def is_ours(text: str) -> bool:
    """Whether a file is as we once wrote it, to the letter."""
    first, _, body = text.partition("\n")
    return first == f"{_MARK} sha256={_digest(body)}"


def installed_program() -> str:
    """Return the path of our own command: beside the interpreter of its environment, else as it was called."""
    beside = os.path.join(os.path.dirname(sys.executable), "openclaw-gateway")
    return beside if os.access(beside, os.X_OK) else os.path.abspath(sys.argv[0])


def check_program(program: str, *, of_system: bool) -> None:
    """Raise ``InstallError`` if a unit can't execute the program from where it is."""
    if program == _PROGRAM or not os.path.isdir(SOURCES):
        raise InstallError(
            "Debian's package has installed them already",
            "systemctl enable --now openclaw-gateway, or systemctl --user enable --now openclaw-gateway",
        )
    if not os.access(program, os.X_OK):
        raise InstallError(
            f"{program} is no program that systemd could execute",
            "install the package into a virtual environment, and call the openclaw-gateway in there",
        )
    if not _PLAIN_PATH.fullmatch(program):
        raise InstallError(
            f"{program!r} has characters that mean something else in a unit file",
            "install it below a path of letters, digits and . _ + , @ ~ -",
        )
    if of_system and os.path.realpath(program).startswith(_HIDDEN):
        raise InstallError(
            f"the system's units run in a sandbox that has no {program}",
            "python3 -m venv /opt/openclaw-gateway, and install the package there; or install-units --user",
        )


def check_package(root: str, kind: str) -> None:
    """Raise ``InstallError`` if a package has brought the unit: a file of the same name below /etc or home would hide it."""
    path = os.path.join(root, "usr/lib/systemd", kind, _GATEWAY)
    if os.path.exists(path):
        raise InstallError(
            f"a package has brought {path}, and another unit of that name would hide it",
            "use that one, or remove the package first",
        )


def check_place(target: Target) -> None:
    """Raise ``InstallError`` if something stands in a file's place that is not as we wrote it."""
    try:
        with open(target.path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        if not os.path.islink(target.path):
            return
        text = ""  # "systemctl mask" makes such a link
    if os.path.islink(target.path) or not is_ours(text):
        raise InstallError(
            f"{target.path} is there already, and not as install-units wrote it",
            "move it away, if it is not needed; changes of your own belong into drop-ins",
        )


def write(target: Target) -> None:
    """
    Write one file as a whole: whoever reads it meanwhile reads the old one or the new one.

    Raises:
        InstallError: The file system does not take it, or not from us.
    """
    new = f"{target.path}.new-{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(target.path), exist_ok=True)
        with open(new, "x", encoding="utf-8") as file:
            file.write(target.text)
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(new, target.path)
    except OSError as error:
        if error.errno not in (EACCES, EPERM, EROFS, ENOSPC, EDQUOT, ENOTDIR):
            raise
        hint = "the system's units are root's to install: sudo, or --user for your own"
        raise InstallError(
            f"{target.path} can't be written: {error.strerror}",
            hint if error.errno in (EACCES, EPERM) else "",
        ) from None


def systemd_release() -> int:
    """Return which release of systemd is installed, 0 if none can be found."""
    import subprocess

    program = shutil.which("systemctl")
    if program is None:
        return 0
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"systemd (\d+)", said.stdout)
    return int(found[1]) if found else 0


def next_steps(of_system: bool) -> Sequence[str]:
    """Return what is to be typed then."""
    if of_system:
        return (
            "systemd-sysusers /etc/sysusers.d/openclaw-gateway.conf   # the service's account",
            "systemctl daemon-reload",
            "systemctl enable --now openclaw-gateway",
            "openclaw-gateway status",
        )
    return (
        "systemctl --user daemon-reload",
        "systemctl --user enable --now openclaw-gateway",
        "sudo loginctl enable-linger $USER   # or it ends when you log out",
        "openclaw-gateway status --user",
    )
