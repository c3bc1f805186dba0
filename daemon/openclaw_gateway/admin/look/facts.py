"""The four facts about one gateway: unit, lock, listener, health answer. Gathered by ``gather``, judged by ``judge``."""

from __future__ import annotations

from typing import NamedTuple

from openclaw_gateway import __version__
from openclaw_gateway.admin.look.credentials import Credential
from openclaw_gateway.admin.look.history import Exit
from openclaw_gateway.admin.look.subject import Subject
from openclaw_gateway.admin.look.units import Manager
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import HealthFact
from openclaw_gateway.host import process
from openclaw_gateway.host.ports import Connections


class ProcessDetails(NamedTuple):
    """One process; what may not be seen is ``None``."""

    pid: int
    command: str | None
    user: str | None
    unit: str | None
    manager: Manager
    """Whose unit that is."""
    age_s: float | None
    is_stopped: bool
    """By SIGSTOP or a debugger; it does nothing until SIGCONT."""
    memory_bytes: int | None
    threads: int | None
    descriptors: int | None
    descriptor_limit: int | None
    oom_kills: int | None
    """In its unit, since that was started."""
    same_network: bool
    """Whether it lives in our network namespace, so that our view of ports is its."""

    @property
    def unit_of_manager(self) -> str | None:
        """The unit, and of a user's the user."""
        if self.unit is None or self.manager.is_system:
            return self.unit
        return f"{self.unit} of {self.manager}"

    def __str__(self) -> str:
        return str(process.Description(self.pid, self.command, self.user, self.unit_of_manager))


class LockFact(NamedTuple):
    """Who holds what, by the kernel's word."""

    port_pid: int | None
    """Holder of the base port."""
    port_uid: int | None
    state_dir: str
    state_pid: int | None
    """Holder of the state directory's lock."""
    record: LockRecord | None
    """What the holder says of itself."""
    is_own_record: bool | None
    """Whether the record's start time is that of its process; ``None`` if there is nothing to compare."""
    problem: str | None
    """Why the state directory's lock could not be seen."""
    is_missing: bool = False
    """Whether there is no state directory at all."""


class ListenerFact(NamedTuple):
    """One socket that listens on the port."""

    host: str
    port: int
    uid: int
    pid: int | None
    """``None`` if we may not look."""
    queued: int
    backlog: int
    """Limit of ``queued``, for a listener of a gateway."""
    answers: Health | None = None
    """What somebody else than the gateway answers there; ``None`` if nobody else was asked."""
    is_kept: bool = False
    """Whether systemd keeps it for the gateway's next start, and nobody answers until then."""


class Standby(NamedTuple):
    """A unit that stands by behind the gateway, by its own word."""

    unit: str
    manager: Manager
    pid: int | None


class Rival(NamedTuple):
    """Another unit that will want the port."""

    unit: str
    manager: Manager
    port: int
    is_assumed: bool
    """Whether the port is the default's because its configuration can't be read."""


class Facts(NamedTuple):
    """All that is known of one gateway."""

    subject: Subject
    """Which gateway, its unit, and where it is configured to be."""
    process: ProcessDetails | None
    """The gateway: the unit's main process, else whoever holds the lock and is not another gateway."""
    owner: ProcessDetails | None
    """Who holds the base port; usually the same."""
    guarded: ProcessDetails | None
    """The program behind it, by whose listener it is known, if the owner is a guard."""
    lock: LockFact
    listeners: tuple[ListenerFact, ...]
    strangers: tuple[ProcessDetails, ...]
    """Those who listen on the port and are neither the owner nor guarded by it."""
    connections: Connections
    health: HealthFact
    parked_behind: int | None
    """The pid that a parked unit deferred to, from the journal."""
    last_exit: Exit | None
    """Of a unit that was restarted and runs again, from the journal."""
    rivals: tuple[Rival, ...]
    unseen: tuple[str, ...]
    """What could not be seen, in sentences."""
    viewer_uid: int
    """Who is looking, as advice is for them."""
    viewer: str = "root"
    """Their name."""
    reads_journal: bool = True
    """Whether the journal shows them the unit's entries."""
    credentials: tuple[Credential, ...] = ()
    """What should come to the unit, and what came."""
    displaced_by: str | None = None
    """The holder's state directory, if another gateway than the one that was named holds its port."""
    standbys: tuple[Standby, ...] = ()
    """Units of the same manager that take over when the owner ends."""
    cli_version: str = __version__

    @property
    def own_record(self) -> LockRecord | None:
        """What the gateway that was asked about says of itself while it lives."""
        return None if self.owner is None or self.displaced_by else self.lock.record

    @property
    def port_holder(self) -> str:
        """Who holds the port, be it out of our sight."""
        return str(self.owner) if self.owner else f"a process of uid {self.lock.port_uid}"
