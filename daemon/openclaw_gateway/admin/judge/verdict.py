"""Facts in; one state word, its reason and what disagrees out. Pure and total.

The words are tried in the order of a table, and the first that has a reason is it.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EADDRINUSE, EAGAIN
from typing import TYPE_CHECKING, NamedTuple

from openclaw_gateway.admin.judge import exits
from openclaw_gateway.admin.judge.disagreements import disagreements, next_start
from openclaw_gateway.admin.judge.state import EXIT_CODES, State, StatusCode
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.client.answer import Health
from openclaw_gateway.errors import ExitCode
from openclaw_gateway.host.address import url
from openclaw_gateway.supervisor.events import (
    CLUSTER_STANDBY_STATUS,
    DEGRADED_STATUS,
    STANDBY_STATUS,
)

if TYPE_CHECKING:
    from openclaw_gateway.admin.look.facts import Facts, ProcessDetails
    from openclaw_gateway.admin.look.units import Unit


class Verdict(NamedTuple):
    """What follows from the facts."""

    state: State
    reason: str
    disagreements: tuple[str, ...]
    next_start: tuple[str, ...] = ()
    """Why the next start will fail, while it runs still."""

    @property
    def exit_code(self) -> StatusCode:
        """What ``status`` exits with."""
        return EXIT_CODES[self.state]

    @property
    def is_healthy(self) -> bool:
        """Whether the gateway is as it should be."""
        return self.exit_code is StatusCode.HEALTHY


def judge(facts: Facts) -> Verdict:
    """
    Say how a gateway is, from what is known of it.

    Pure: asks nothing. What is missing is never read as "not there": without a manager's word it
    takes the kernel's on lock and port to say ``stopped``.
    """
    found = ((state, rule(facts)) for state, rule in _RULES)
    state, reason = next((state, reason) for state, reason in found if reason is not None)
    return Verdict(state, reason, tuple(disagreements(state, facts)), next_start(facts))


def _elsewhere(facts: Facts) -> str | None:
    if facts.process is None or facts.process.same_network:
        return None
    return f"{facts.process} runs in another network namespace than ours"


def _stopping(facts: Facts) -> str | None:
    unit = facts.subject.unit
    if (unit and unit.active_state == "deactivating") or _phase(facts) is Phase.DRAINING:
        return _said(unit) or "clients are being sent away"
    return None


def _phase(facts: Facts) -> Phase | None:
    record = facts.own_record
    return record.phase if record else None


def _said(unit: Unit | None) -> str:
    return unit.status_text if unit else ""


def _standby(facts: Facts) -> str | None:
    unit = facts.subject.unit
    if unit is None or unit.active_state not in ("active", "reloading"):
        return None
    if not unit.status_text.startswith(STANDBY_STATUS):
        return None
    return f"behind {unit.status_text.removeprefix(STANDBY_STATUS)}"


def _cluster_standby(facts: Facts) -> str | None:
    """By its own word on the port; by that to systemd where a guard stands by, which has no listener."""
    role, unit = facts.health.role, facts.subject.unit
    if role is not None and facts.health.ready is False and not role.active:
        return f"in cluster {role.name}: {role.reason}"
    if unit is None or unit.active_state not in ("active", "reloading") or not _runs(facts):
        return None
    if not unit.status_text.startswith(CLUSTER_STANDBY_STATUS) or facts.health.ready:
        return None
    return f"in its cluster: {unit.status_text.removeprefix(CLUSTER_STANDBY_STATUS)}"


def _parked(facts: Facts) -> str | None:
    """78, and by its own word because someone else has the port or the state, not for its configuration."""
    unit = facts.subject.unit
    if unit is None or unit.active_state != "failed" or _exited(unit) != ExitCode.CONFIG:
        return None
    if unit.status_errno not in _CONTENDED:
        return None
    others = in_the_way(facts)
    if others:
        return f"behind {', '.join(map(str, others))}, which is still there"
    if is_taken(facts):
        return f"behind whoever has port {facts.subject.place.port}, which is still there"
    behind = "another gateway" if facts.parked_behind is None else f"pid {facts.parked_behind}"
    if not facts.subject.place.is_port_known:
        return (
            f"behind {behind}; on which port we may not read, and so not whether it is still there"
        )
    return f"behind {behind}, which is gone"


_CONTENDED = (EADDRINUSE, EAGAIN)
"""The port was someone else's, or a lock was; see ``AlreadyListeningError`` and ``AlreadyRunningError``."""


def in_the_way(facts: Facts) -> tuple[ProcessDetails, ...]:
    """Return who keeps the gateway from its port, as far as we may see: its holder, else who listens there."""
    return (facts.owner,) if facts.owner else facts.strangers


def is_taken(facts: Facts) -> bool:
    """Whether anyone at all has the port."""
    answered = facts.health.health not in (Health.REFUSED, Health.UNKNOWN)
    return bool(facts.owner or facts.lock.port_uid is not None or facts.listeners or answered)


def _exited(unit: Unit) -> int | None:
    """Return the exit code of a main process that exited, ``None`` for other ends."""
    return unit.exit_status if unit.exit_kind == 1 else None


def _awaited(facts: Facts) -> str | None:
    subject = facts.subject
    gave_up = subject.unit is not None and gave_up_starting(subject.unit)
    if subject.socket is None or facts.process is not None or gave_up:
        return None
    return f"{subject.socket.name} listens, and the first client will start {subject.unit_name}"


def _held_by_stranger(facts: Facts) -> str | None:
    if not _is_strangers(facts) or facts.health.health not in (Health.MUTE, Health.FOREIGN):
        return None
    doing = (
        "answers nothing and holds no lock of ours"
        if facts.health.health is Health.MUTE
        else "is no gateway"
    )
    gave_up = (
        f"; {facts.subject.unit.name} gave up"
        if facts.subject.unit and gave_up_starting(facts.subject.unit)
        else ""
    )
    return f"{_strangers(facts)} and {doing}{gave_up}"


def _stranger_unclear(facts: Facts) -> str | None:
    if _is_strangers(facts) and facts.health.health in (Health.UNKNOWN, Health.REFUSED):
        return f"{_strangers(facts)}, but could not be asked"
    return None


def _is_strangers(facts: Facts) -> bool:
    """Whether everyone who listens on the port is somebody else, as far as we may see."""
    ours = {fact.pid for fact in (facts.owner, facts.process, facts.guarded) if fact}
    seen = {fact.pid for fact in facts.listeners if not fact.is_kept}
    if None in seen:
        # Not ours to see: then it is a stranger's if no gateway is about.
        return not ours
    return bool(seen) and not seen & ours


def _strangers(facts: Facts) -> str:
    names = ", ".join(str(fact) for fact in facts.strangers)
    uids = ", ".join(sorted({f"uid {fact.uid}" for fact in facts.listeners}))
    where = url(facts.listeners[0].host, facts.listeners[0].port)
    return f"{names or f'a process of {uids}'} listens on {where}"


def _gave_up(facts: Facts) -> str | None:
    unit = facts.subject.unit
    if unit is None or not gave_up_starting(unit):
        return None
    starts = f"after {unit.restarts} restarts" if unit.restarts else "at its start limit"
    return f"systemd gave up {starts}; the last start {_ending(unit)}"


def gave_up_starting(unit: Unit) -> bool:
    """
    Whether the start limit ended the restarts of a unit.

    systemd keeps the last failure's result then, so this goes by what it would have done otherwise:
    the unit failed, its policy is to restart it, and the exit is none that prevents that.
    """
    if unit.active_state != "failed":
        return False
    if unit.result == "start-limit-hit":
        return True
    restarts = {"always": True, "on-failure": True, "on-abnormal": unit.exit_kind != 1}
    prevented = _exited(unit) in unit.prevents
    return restarts.get(unit.restart, False) and not prevented and unit.restarts > 0


def _ending(unit: Unit) -> str:
    said = f": {unit.status_text}" if unit.status_text else ""
    if unit.exit_kind == 0:
        return f"ended with result {unit.result}{said}"
    if unit.exit_kind == 1:
        return f"exited with {exits.told(unit.exit_status, unit.status_text)}"
    # Its last word was not about its end: nobody tells a process of SIGKILL.
    return f"was killed by {exits.signal_name(unit.exit_status)}"


def _starting(facts: Facts) -> str | None:
    unit, healthy = facts.subject.unit, facts.health.health is Health.HEALTHY
    activating = unit is not None and unit.active_state == "activating"
    by_record = _phase(facts) is Phase.STARTING and not healthy
    if not (activating or by_record or _warming(facts) or _says_it_starts(facts)):
        return None
    if facts.process is not None and facts.process.is_stopped:
        return None
    if unit and unit.sub_state == "auto-restart":
        kept = any(fact.is_kept for fact in facts.listeners)
        meanwhile = "; systemd keeps the port, and clients wait" if kept else ""
        return f"waits for its next start; the last one {_ending(unit)}{meanwhile}"
    age_s = facts.process.age_s if facts.process else (unit.changed_age_s if unit else None)
    since = f" for {age_s:.0f} s" if age_s is not None else ""
    said = f": {_said(unit)}" if _said(unit) else ""
    return f"phase {_phase(facts) or Phase.STARTING}{since}{said}"


def _warming(facts: Facts) -> bool:
    """Whether a gateway without locks of ours says that it starts."""
    return facts.owner is None and facts.health.health is Health.STARTING


def _says_it_starts(facts: Facts) -> bool:
    """Whether it answers, and says that it lets nobody in yet; a check that fails has a name of its own."""
    return facts.health.ready is False and facts.health.failing == (Phase.STARTING.value,)


def _displaced(facts: Facts) -> str | None:
    if facts.displaced_by is None:
        return None
    return f"another gateway has port {facts.subject.place.port}: {facts.port_holder}"


def _usurped(facts: Facts) -> str | None:
    """A guard's program runs, and somebody else listens in its place, as far as we may see."""
    listeners = {fact.pid for fact in facts.listeners}
    if facts.guarded is None or not listeners or None in listeners:
        return None
    if facts.guarded.pid in listeners:
        return None
    port = facts.subject.place.port
    names = ", ".join(str(fact) for fact in facts.strangers) or "somebody else"
    return f"{names} has port {port}, in the place of the guarded {facts.guarded}"


def _degraded(facts: Facts) -> str | None:
    if facts.health.health is not Health.HEALTHY:
        return None
    if facts.health.ready is False:
        what = ", ".join(facts.health.failing) or "it does not say why"
        return f"answers, but is not ready: {what}"
    unit = facts.subject.unit
    if unit and _runs(facts) and unit.status_text.startswith(DEGRADED_STATUS):
        return unit.status_text.removeprefix(DEGRADED_STATUS)
    return None


def _runs(facts: Facts) -> bool:
    """Whether the unit itself runs whoever answers."""
    unit, owner = facts.subject.unit, facts.owner
    if unit is None or unit.main_pid is None:
        return False
    return owner is None or unit.main_pid == owner.pid


def _running(facts: Facts) -> str | None:
    if facts.health.health is not Health.HEALTHY:
        return None
    if _runs(facts):
        return "healthy" if facts.owner else "healthy, but it takes no lock of ours"
    return f"healthy, by {facts.owner}" if _is_supervised(facts) else None


def _is_supervised(facts: Facts) -> bool:
    """Whether a service manager started the owner, by the owner's word or by its control group."""
    owner, record = facts.owner, facts.lock.record
    if owner is None:
        return False
    if record is not None and record.unit is not None:
        return True
    return bool(owner.unit and owner.unit.startswith("openclaw-gateway"))


def _unmanaged(facts: Facts) -> str | None:
    if facts.health.health is not Health.HEALTHY:
        return None
    if facts.owner is None:
        return "healthy, but it takes no lock of ours: another implementation"
    return f"healthy, but no unit runs it: {facts.owner}"


_SILENCE = {
    Health.REFUSED: "nothing listens on",
    Health.MUTE: "no answer within 2 s from",
    Health.STARTING: "it says it is not ready yet on",
    Health.FOREIGN: "no gateway's answer from",
}


def _not_serving(facts: Facts) -> str | None:
    who = facts.guarded or facts.owner or facts.process
    if who is None:
        return None
    if who.is_stopped:
        return f"pid {who.pid} is stopped (SIGSTOP, or a debugger)"
    found = _SILENCE.get(facts.health.health, "could not ask")
    return f"pid {who.pid} lives, but {found} {url(facts.health.host, facts.health.port)}"


def _unclear(facts: Facts) -> str | None:
    if facts.health.health is Health.UNKNOWN:
        return f"{url(facts.health.host, facts.health.port)} could not be asked"
    if (
        facts.subject.unit is None
        and facts.subject.unit_problem
        and not facts.subject.lacks_systemd
    ):
        return f"nothing runs on port {facts.subject.place.port}, but {facts.subject.unit_problem}"
    return None


def _stopped(facts: Facts) -> str:
    unit = facts.subject.unit
    if unit is None:
        return f"nothing runs on port {facts.subject.place.port}, and no unit is there to run it"
    if unit.load_state == "masked":
        return f"{unit.name} is masked"
    if unit.load_error:
        return f"systemd refuses {unit.name} as it stands: {unit.load_error}"
    if unit.active_state != "failed":
        return f"{unit.name} is {unit.active_state}"
    if _exited(unit) == ExitCode.CONFIG:
        return f"the configuration was refused: {unit.status_text or 'see the log'}"
    return f"failed: the last start {_ending(unit)}"


_RULES: tuple[tuple[State, Callable[[Facts], str | None]], ...] = (
    (State.UNKNOWN, _elsewhere),
    (State.STOPPING, _stopping),
    (State.STANDBY, _standby),
    (State.STANDBY, _cluster_standby),
    (State.PARKED, _parked),
    (State.FOREIGN_PORT, _held_by_stranger),
    (State.STOPPED, _awaited),
    (State.UNKNOWN, _stranger_unclear),
    (State.GAVE_UP, _gave_up),
    (State.STARTING, _starting),
    (State.STOPPED, _displaced),
    (State.NOT_SERVING, _usurped),
    (State.DEGRADED, _degraded),
    (State.RUNNING, _running),
    (State.UNMANAGED, _unmanaged),
    (State.NOT_SERVING, _not_serving),
    (State.UNKNOWN, _unclear),
    (State.STOPPED, _stopped),
)
"""The first state that has a reason is the verdict; the last one always has."""
