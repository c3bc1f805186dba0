"""What an exit status says, in words: our own statuses, and those with which systemd ends a start; pure."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from openclaw_gateway.errors import ExitCode

if TYPE_CHECKING:
    from openclaw_gateway.admin.look.history import Exit

_OURS: dict[int, str] = {
    ExitCode.USAGE: "the command line in ExecStart= is wrong",
    ExitCode.CANNOT_CREATE: "the state or lock directory can't be used",
    ExitCode.TEMPORARY: "whoever has the port never became healthy",
    ExitCode.NOT_PERMITTED: "the kernel says that this account may not",
    ExitCode.CONFIG: "another healthy gateway runs, or the settings are wrong",
}

_SIGNALLED = 128
"""A shell adds this to the number of the signal that ended a program; so do we. POSIX, "Exit Status"."""

SYSTEMD = {
    200: ("CHDIR", "systemd could not enter WorkingDirectory="),
    201: ("NICE", "systemd could not set Nice="),
    202: ("FDS", "systemd could not arrange the file descriptors"),
    203: ("EXEC", "systemd could not execute the program in ExecStart=; is it there, and executable?"),
    204: ("MEMORY", "systemd ran out of memory before the start"),
    205: ("LIMITS", "systemd could not set a limit, such as LimitNOFILE="),
    206: ("OOM_ADJUST", "systemd could not set OOMScoreAdjust="),
    207: ("SIGNAL_MASK", "systemd could not set the signal mask"),
    208: ("STDIN", "systemd could not set up StandardInput="),
    209: ("STDOUT", "systemd could not set up StandardOutput="),
    210: ("CHROOT", "systemd could not enter RootDirectory= or RootImage="),
    211: ("IOPRIO", "systemd could not set IOSchedulingClass= or IOSchedulingPriority="),
    212: ("TIMERSLACK", "systemd could not set TimerSlackNSec="),
    213: ("SECUREBITS", "systemd could not set SecureBits="),
    214: ("SETSCHEDULER", "systemd could not set CPUSchedulingPolicy="),
    215: ("CPUAFFINITY", "systemd could not set CPUAffinity="),
    216: ("GROUP", "the group in Group= or SupplementaryGroups= is not there, or may not be taken"),
    217: ("USER", "the account in User= is not there, or may not be taken"),
    218: ("CAPABILITIES", "systemd could not drop capabilities; in a container it may not be allowed to"),
    219: ("CGROUP", "systemd could not set up the unit's control group"),
    220: ("SETSID", "systemd could not begin a session for the process"),
    221: ("CONFIRM", "the start was not confirmed on the console"),
    222: ("STDERR", "systemd could not set up StandardError="),
    224: ("PAM", "the PAM session in PAMName= could not be opened"),
    225: ("NETWORK", "systemd could not set up PrivateNetwork= or NetworkNamespacePath="),
    226: ("NAMESPACE", "systemd could not set up the sandbox's mounts: a path in it is missing, or a container forbids it"),
    227: ("NO_NEW_PRIVILEGES", "systemd could not set NoNewPrivileges="),
    228: ("SECCOMP", "systemd could not set up SystemCallFilter= or its like; the kernel may lack seccomp"),
    229: ("SELINUX_CONTEXT", "systemd could not set SELinuxContext="),
    230: ("PERSONALITY", "systemd could not set Personality="),
    231: ("APPARMOR", "systemd could not take the profile in AppArmorProfile=; is it loaded?"),
    232: ("ADDRESS_FAMILIES", "systemd could not set RestrictAddressFamilies="),
    233: ("RUNTIME_DIRECTORY", "systemd could not make RuntimeDirectory= below /run"),
    235: ("CHOWN", "systemd could not change the owner of a socket or a directory"),
    236: ("SMACK_PROCESS_LABEL", "systemd could not set SmackProcessLabel="),
    237: ("KEYRING", "systemd could not set up the kernel's keyring"),
    238: ("STATE_DIRECTORY", "systemd could not make StateDirectory= below /var/lib; is there something else in its place?"),
    239: ("CACHE_DIRECTORY", "systemd could not make CacheDirectory= below /var/cache"),
    240: ("LOGS_DIRECTORY", "systemd could not make LogsDirectory= below /var/log"),
    241: ("CONFIGURATION_DIRECTORY", "systemd could not make ConfigurationDirectory= below /etc"),
    242: ("NUMA_POLICY", "systemd could not set NUMAPolicy="),
    243: ("CREDENTIALS", "systemd could not hand over a credential: a file that LoadCredential= names is missing or can't be read"),
    244: ("BPF", "systemd could not set up a BPF program"),
    245: ("KSM", "systemd could not have the kernel merge equal pages"),
}  # fmt: skip
"""Status to systemd's name for it and what it says: systemd.exec(5), "Process Exit Codes"."""


def named(status: int) -> str:
    """Return a status as systemd writes it: ``203/EXEC``; the number alone if systemd has no name for it."""
    return f"{status}/{SYSTEMD[status][0]}" if status in SYSTEMD else str(status)


def meaning(status: int) -> str:
    """Return what an exit status says, without a full stop; empty if its number alone says nothing."""
    if status in SYSTEMD:
        return SYSTEMD[status][1]
    if _SIGNALLED < status <= _SIGNALLED + signal.SIGRTMAX:
        return f"{signal_name(status - _SIGNALLED)} ended it"
    return _OURS.get(status, "")


def signal_name(number: int) -> str:
    """Return a signal's name, ``SIGKILL``; its number where it has none, as real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def of_exit(end: Exit) -> tuple[str, str]:
    """Return the status of an end that the journal tells of, named, and its cause: told or read from the status."""
    if not end.status.isdecimal():
        return end.status, end.cause
    if end.kind in ("killed", "dumped"):
        return signal_name(int(end.status)), end.cause
    return named(int(end.status)), end.cause or meaning(int(end.status))


def told(status: int, said: str) -> str:
    """
    Return a status with what is known of it: ``203/EXEC: systemd could not execute …``.

    Args:
        status: What the process exited with.
        said: The gateway's own last words; where it had none, the status has to speak for itself.
    """
    words = said or meaning(status)
    return f"{named(status)}: {words}" if words else named(status)
