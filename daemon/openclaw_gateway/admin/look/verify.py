"""What systemd itself finds wrong in a unit's files: for doctor, which has the time to ask."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from openclaw_gateway.admin.look.units import Unit

_TIMEOUT_S = 10.0


class UnitFault(NamedTuple):
    """One sentence of ``systemd-analyze verify``, with file and line where it names them."""

    sentence: str
    is_ignored: bool
    """Whether systemd goes on without the line; else the unit won't start."""


class Verified(NamedTuple):
    """What was found, or why nobody looked."""

    faults: tuple[UnitFault, ...]
    problem: str | None = None


def verify(unit: Unit, environ: Mapping[str, str] = os.environ) -> Verified:
    """
    Have systemd read a unit's files as it would at the next ``daemon-reload``; starts and changes nothing.

    Args:
        unit: Of the system's manager or our own.
        environ: Of the child; ``SYSTEMD_UNIT_PATH`` in it says where units are.

    See Also:
        systemd-analyze(1), ``verify``.
    """
    import subprocess

    if unit.manager.uid not in (None, os.geteuid()):
        return Verified((), f"the files of {unit.name} ({unit.manager}) are for that user to check")
    scope = "--system" if unit.manager.is_system else "--user"
    words = ["systemd-analyze", "verify", scope, "--man=no", "--recursive-errors=no", unit.name]
    try:
        said = subprocess.run(
            words,
            check=False,
            env={**environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_LOG_LEVEL": "warning"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
        )
    except FileNotFoundError:
        return Verified((), "systemd-analyze is not installed")
    except PermissionError:
        return Verified((), "systemd-analyze may not be run")
    except subprocess.TimeoutExpired:
        return Verified((), f"systemd-analyze did not answer within {_TIMEOUT_S:g} s")
    faults = tuple(parse(said.stderr, unit))
    # Where it could not look at all, as an ordinary user without a /run/systemd, its silence on the unit says nothing.
    failure = next((line for line in said.stderr.splitlines() if line.startswith("Failed to ")), "")
    if said.returncode != 0 and failure and not faults:
        return Verified((), f"systemd-analyze verify: {failure}")
    return Verified(faults)


def parse(text: str, unit: Unit) -> Iterator[UnitFault]:
    """Read what ``systemd-analyze verify`` said of one unit; pure. What it says of others is left out."""
    about = (f"{unit.name}:", f"Unit {unit.name} ", unit.fragment_path, *unit.drop_ins)
    for line in dict.fromkeys(text.splitlines()):
        if any(name and line.startswith(name) for name in about):
            yield UnitFault(line.strip(), "ignor" in line)
