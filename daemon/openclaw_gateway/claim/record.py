"""Lock records, pure: how they are written and read, and when one is to be believed.

The kernel's lock is the truth and the record a diagnosis. Nothing here can hand over a lock that is
held; it only says how long to wait for it, and whether a record that nobody locks deserves respect.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from openclaw_gateway.host.process import ProcessFacts
from openclaw_gateway.protocol import fields

RECORD_BLOCK_BYTES = 4096
"""Records are padded to a multiple of this, so that every rewrite is one write of one length."""

MAX_PID = 2**31 - 1


class Phase(StrEnum):
    """Where in its life the gateway that wrote a record is."""

    STARTING = "starting"
    STANDBY = "standby"
    READY = "ready"
    DRAINING = "draining"


class LockRecord(NamedTuple):
    """
    One JSON object in a lock file: the keys that OpenClaw 2026.9 writes, and what a person needs.

    Fields without a default are on every record; the rest are ``None`` where another implementation
    wrote it. ``boot_id`` tells the two apart: who writes one also takes the ``flock``.
    """

    pid: int
    port: int | None = None
    start_ticks: int | None = None
    """Field 22 of ``/proc/<pid>/stat``, clock ticks since boot."""
    owner_id: str | None = None
    created_at: str | None = None
    """ISO 8601, for people; no decision looks at a clock."""
    config_path: str | None = None
    state_dir: str | None = None
    host: str | None = None
    """The address that the owner binds, an IP literal."""
    phase: Phase | None = None
    boot_id: str | None = None
    pid_namespace: int | None = None
    unit: str | None = None
    invocation_id: str | None = None
    version: str | None = None
    child_pid: int | None = None
    """The gateway behind a guard; ``None`` for one that serves by itself."""

    @property
    def takes_flock(self) -> bool:
        """Whether its writer locks the file too, so that a free lock proves the writer gone."""
        return self.boot_id is not None

    def is_local(self, pid_namespace: int) -> bool:
        """Whether its pid means something in this PID namespace; 0 is unknown. pid_namespaces(7)."""
        return self.pid_namespace in (None, 0, pid_namespace) or not pid_namespace


_KEYS = {
    "pid": "pid",
    "ownerId": "owner_id",
    "createdAt": "created_at",
    "configPath": "config_path",
    "stateDir": "state_dir",
    "port": "port",
    "startTime": "start_ticks",
    "host": "host",
    "phase": "phase",
    "bootId": "boot_id",
    "pidNamespace": "pid_namespace",
    "unit": "unit",
    "invocationId": "invocation_id",
    "version": "version",
    "childPid": "child_pid",
}
"""Key on disk to field, in the order in which a person reads them."""

_NUMBERS = {"pid", "port", "start_ticks", "pid_namespace", "child_pid"}


def encode(record: LockRecord) -> bytes:
    """
    Return the record as one line of JSON, padded with spaces to whole blocks, ending in a newline.

    A record of one owner keeps its length through all its phases: a rewrite is one ``pwrite`` of as
    many bytes as before, which no reader sees half done and no full disk can stop.
    """
    text = fields.write(record, _KEYS)
    longest = max(len(phase) for phase in Phase)
    needed = len(text) - len(record.phase or "") + longest + 1
    length = -(-needed // RECORD_BLOCK_BYTES) * RECORD_BLOCK_BYTES
    return text.encode("ascii").ljust(length - 1) + b"\n"


def parse(data: bytes) -> LockRecord | None:
    """
    Read a lock record that anyone may have written; ``None`` if it is not one.

    Never raises; see ``fields.read``. Without a sane pid (1 to 2**31-1: 0 and -1 name process
    groups) there is no record.
    """
    found = fields.read(data, _KEYS, numbers=_NUMBERS)
    if found is None:
        return None
    pid, port, phase = found.get("pid"), found.get("port"), found.get("phase")
    if not isinstance(pid, int) or not 0 < pid <= MAX_PID:
        return None
    if not isinstance(port, int) or not 0 < port < 65536:
        found.pop("port", None)
    found["phase"] = Phase(phase) if isinstance(phase, str) and phase in set(Phase) else None
    return LockRecord(**found)  # type: ignore[arg-type]


def believable(record: LockRecord | None, owner: ProcessFacts | None, *, own_pid: int) -> bool:
    """
    Say whether a record in a file that *we* hold locked may still have a living owner.

    Only an implementation that takes no ``flock`` can leave one. Everything else is a leftover:
    empty or malformed records, those of lock takers, of a pid that is gone or has been given to
    another process, of pid 1 (which is always alive, and in a container always somebody else) and
    of ourselves.

    Args:
        record: The parsed lock file; ``None`` if empty or malformed.
        owner: What ``/proc/<pid>/stat`` says of ``record.pid``; ``None`` if there is no such process.
        own_pid: Ours.

    See Also:
        proc_pid_stat(5); flock(2).
    """
    if record is None or record.takes_flock or record.pid in (1, own_pid):
        return False
    return owner is not None and record.start_ticks == owner.start_ticks
