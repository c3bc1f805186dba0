"""What a check of doctor's is given and what it makes of that: an examination, findings, and commands in them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from openclaw_gateway.admin.judge.advice import ours
from openclaw_gateway.admin.judge.verdict import Verdict

if TYPE_CHECKING:
    from openclaw_gateway.admin.look.cluster import ClusterFacts
    from openclaw_gateway.admin.look.facts import Facts
    from openclaw_gateway.admin.look.history import Exit
    from openclaw_gateway.admin.look.locks import LockDirectory
    from openclaw_gateway.admin.look.peer import Peer
    from openclaw_gateway.admin.look.place import Place
    from openclaw_gateway.admin.look.secrets import Secrets
    from openclaw_gateway.admin.look.units import Manager, Unit
    from openclaw_gateway.admin.look.verify import Verified


class Severity(StrEnum):
    """How bad it is; in rising order."""

    OK = "ok"
    NOTE = "note"
    UNSEEN = "unseen"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """What a check found."""

    severity: Severity
    evidence: str
    command: str = ""
    """One command that mends it or shows more; empty if there is none."""


class Storage(NamedTuple):
    """Room on the state directory's file system; ``None`` if it could not be asked."""

    free_bytes: int
    free_inodes: int | None
    """``None`` where the file system does not count them."""


class Examination(NamedTuple):
    """Everything that doctor looked at."""

    facts: Facts
    verdict: Verdict
    neighbours: tuple[tuple[Unit, Place], ...]
    """The units of the same name in other managers, as far as these could be asked, and what each wants."""
    unit_problems: tuple[str, ...]
    """Which managers could not be asked, and why."""
    locks: LockDirectory
    secrets: Secrets
    storage: Storage | None
    exits: tuple[Exit, ...]
    journal_problem: str | None
    """Why the journal tells us nothing of the unit; ``None`` if it does."""
    lingers: bool | None
    """Whether the user's manager outlives the last session; ``None`` for a system unit."""
    is_wsl: bool
    suspended_s: float
    """Since boot."""
    clock_step_s: float | None
    """How far the wall clock moved against the others since the gateway began; ``None`` if unknown."""
    ports: tuple[tuple[str, int], ...]
    """Each profile that is enabled or runs, and the port it wants."""
    verified: Verified
    """What systemd finds wrong in the unit's files."""
    peer: Peer
    """OpenClaw's own gateway on this machine."""
    cluster: ClusterFacts | None = None
    """The cluster that the gateway is in; ``None`` without one."""

    def services(self) -> Iterator[Unit]:
        """Yield the subject's own unit, if there is one: those of others are for their own doctor."""
        unit = self.facts.subject.unit
        if unit is not None and unit.is_loaded:
            yield unit

    def no_unit(self) -> Finding:
        """Return what to say where there was no unit to look at."""
        subject = self.facts.subject
        refused = subject.unit.load_error if subject.unit else ""
        why = subject.unit_problem or refused or "no unit is loaded for this port"
        return Finding(Severity.UNSEEN, f"no unit: {why}")

    def systemctl(self, manager: Manager, words: str) -> str:
        """Return the command that has a manager do something, as the viewer would type it."""
        return f"{manager.command(self.facts.viewer_uid)} {words}"

    def edit(self, unit: Unit) -> str:
        """Return the command that opens a unit's drop-in."""
        return self.systemctl(unit.manager, f"edit {unit.name}")

    def ours(self, verb: str, *options: str) -> str:
        """Return our own command line for a verb on the gateway that was asked about."""
        return ours(verb, self.facts, *options)

    def config(self) -> str:
        """Return the command that shows the settings: the unit's, which the caller's own are not."""
        subject = self.facts.subject
        if subject.unit is None:
            return self.ours("config")
        words = [f"--profile={subject.profile}"] if subject.profile else []
        sudo = "" if self.facts.viewer_uid == 0 or not subject.manager.is_system else "sudo "
        scope = "--system" if subject.manager.is_system else "--user"
        return " ".join((f"{sudo}openclaw-gateway config", scope, *words))


Findings = Iterator[Finding]
