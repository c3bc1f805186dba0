"""What systemd is doing with our unit at this moment: whether a stop is one half of a restart."""

from __future__ import annotations

import os
import subprocess

_RESTARTS = ("restart", "try-restart")


def is_restart(unit: str, *, of_user: bool, timeout_s: float) -> bool:
    """
    Ask the unit's manager for the job that it runs on the unit, with one child process.

    A restart is one job: for as long as the unit is being stopped it is called that, and then becomes
    a start. Where the unit is stopped, or ends by itself, there is another job or none.

    Args:
        unit: The unit's name.
        of_user: Whether it is one of our user's manager.
        timeout_s: Seconds for the answer.

    Returns:
        Whether a start will follow; ``False`` as well if nobody could be asked, or not in time.

    See Also:
        systemctl(1), "list-jobs": job, unit, type, state. org.freedesktop.systemd1(5), "JobType".
    """
    command = ["systemctl", *(["--user"] if of_user else []), "list-jobs"]
    options = ["--plain", "--full", "--no-legend", "--no-pager"]
    try:
        said = subprocess.run(
            [*command, *options, "--", unit],
            check=False,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired):
        # No such program, no room for a process, no answer: nobody could be asked.
        return False
    return said.returncode == 0 and job_type(said.stdout, unit) in _RESTARTS


def job_type(listed: str, unit: str) -> str | None:
    """Return the type of a unit's job from what ``list-jobs`` printed; ``None`` if it has none. Pure."""
    for line in listed.splitlines():
        words = line.split()
        if len(words) == 4 and words[1] == unit:
            return words[2]
    return None
