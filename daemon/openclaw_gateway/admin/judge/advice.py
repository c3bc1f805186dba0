"""What to type next: for each state the commands that are right for it, and none that does not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import CLD_EXITED
from typing import TYPE_CHECKING, NamedTuple

from openclaw_gateway.admin.judge.disagreements import contending, gives_way, next_start
from openclaw_gateway.admin.judge.state import State
from openclaw_gateway.admin.judge.verdict import Verdict, in_the_way, is_taken

if TYPE_CHECKING:
    from openclaw_gateway.admin.look.facts import Facts, ProcessDetails


_GATEWAYS = ("openclaw-gateway", "openclaw-guard")
"""How units of gateways begin, OpenClaw's own among them: those stay ended only if they are disabled."""


class Step(NamedTuple):
    """One thing to do next."""

    command: str
    why: str = ""


def steps(facts: Facts, verdict: Verdict) -> tuple[Step, ...]:
    """Return what to type, the first thing first; pure. Empty if all is well."""
    return tuple(_STEPS[verdict.state](facts))


def _settle_rivals(facts: Facts) -> Iterator[Step]:
    for rival in contending(facts):
        why = f"both units want port {rival.port}"
        yield Step(f"{rival.manager.command(facts.viewer_uid)} disable --now {rival.unit}", why)
    if gives_way(facts) is not None:
        why = f"both units want port {facts.subject.place.port}, and this one does not have it"
        yield Step(_unit(facts, "disable --now"), why)
    if next_start(facts):
        yield Step(ours("doctor", facts), "before anything restarts it: what each needs")
    yield from _make_state_anew(facts)


def _make_state_anew(facts: Facts) -> Iterator[Step]:
    if facts.lock.is_missing and facts.subject.unit is not None and facts.subject.unit.main_pid:
        yield Step(_unit(facts, "restart"), "to make the state directory and a token anew")


def _starting(facts: Facts) -> Iterator[Step]:
    if facts.owner and facts.owner.is_stopped:
        yield Step(
            _kill(facts, facts.owner, "-CONT"), "it holds the port; if nobody is debugging it"
        )
    yield Step(ours("status", facts, "--wait", "60"))


def _stopping(facts: Facts) -> Iterator[Step]:
    if facts.subject.unit is not None:  # by hand it logs to its terminal
        yield Step(ours("logs", facts, "-f"))


def _degraded(facts: Facts) -> Iterator[Step]:
    yield from _make_state_anew(facts)
    yield Step(ours("doctor", facts))


def _not_serving(facts: Facts) -> Iterator[Step]:
    who, unit = facts.owner or facts.process, facts.subject.unit
    stopped = [fact for fact in (facts.guarded, who) if fact and fact.is_stopped]
    if stopped:
        yield Step(_kill(facts, stopped[0], "-CONT"), "if nobody is debugging it")
    elif unit and who and unit.main_pid == who.pid:
        for stranger in facts.strangers if facts.guarded else ():
            yield _end(facts, stranger)
        yield Step(_unit(facts, "restart"))
    else:
        yield Step(ours("doctor", facts))


def _parked(facts: Facts) -> Iterator[Step]:
    others = in_the_way(facts)
    for other in others:
        yield _end(facts, other)
    if others:
        yield Step(_unit(facts, "restart"), "once the other is gone")
    elif not is_taken(facts) and not facts.subject.place.is_port_known and facts.viewer_uid != 0:
        # Nobody has the port that it would have by default, which says nothing about its own.
        yield Step(as_root("status", facts), "root can read which port it wants")
    elif not is_taken(facts):
        yield Step(_unit(facts, "restart"))
    elif facts.viewer_uid != 0:
        # To restart it now would park it again.
        yield Step(as_root("status", facts), f"root sees whose it is; {_elsewhere(facts)}")
    else:
        yield Step(ours("doctor", facts), _elsewhere(facts))


def _end(facts: Facts, other: ProcessDetails) -> Step:
    """Return what ends another gateway for good where a unit of a gateway runs it, else for now."""
    why = f"to let this unit take over; {_elsewhere(facts)}"
    if other.unit and other.unit.endswith(".service"):
        verb = "disable --now" if other.unit.startswith(_GATEWAYS) else "stop"
        return Step(f"{other.manager.command(facts.viewer_uid)} {verb} {other.unit}", why)
    return Step(_kill(facts, other), why)


def _kill(facts: Facts, process: ProcessDetails, *options: str) -> str:
    sudo = [] if facts.viewer_uid == 0 or process.user == facts.viewer else ["sudo"]
    return " ".join([*sudo, "kill", *options, str(process.pid)])


def _elsewhere(facts: Facts) -> str:
    """Say how both can be had."""
    return f"or give this one another gateway.port in {facts.subject.place.config_path}"


def _gave_up(facts: Facts) -> Iterator[Step]:
    yield from _find_reason(facts)
    yield Step(f"{_unit(facts, 'reset-failed')} && {_unit(facts, 'start')}", "once that is mended")


def _find_reason(facts: Facts) -> Iterator[Step]:
    """Point to the log where the gateway left no word on its end; else that stands in the first line already."""
    unit = facts.subject.unit
    if unit is None or not unit.status_text or unit.exit_kind not in (0, CLD_EXITED):
        yield Step(ours("logs", facts), "why it failed")


def _foreign_port(facts: Facts) -> Iterator[Step]:
    for fact in facts.strangers:
        yield Step(f"ps -fp {fact.pid}", f"what holds the port; {_elsewhere(facts)}")
    if not facts.strangers and facts.viewer_uid != 0:
        yield Step(as_root("status", facts), "root sees whose it is")
    if facts.subject.unit and facts.subject.unit.active_state == "failed":
        again = f"{_unit(facts, 'reset-failed')} && {_unit(facts, 'start')}"
        yield Step(again, "once the port is free")


def _stopped(facts: Facts) -> Iterator[Step]:
    unit = facts.subject.unit
    if facts.displaced_by is not None:
        # Either may be meant to have the port, so nothing is stopped here.
        whose = f"openclaw-gateway status --port={facts.subject.place.port}"
        yield Step(whose, "the other gateway; only one of the two can have the port")
    elif unit is None:
        yield Step(ours("run", facts))
    elif unit.load_error and unit.load_state != "masked":
        yield Step(f"systemd-analyze verify {unit.name}", "which line it is")
    elif unit.load_state == "masked":
        # A mask below /run is lifted there only. systemctl(1), "--runtime".
        verb = "unmask --runtime" if unit.enabled == "masked-runtime" else "unmask"
        yield Step(f"{_unit(facts, verb)} && {_unit(facts, 'start')}")
    elif unit.active_state == "failed":
        yield from _find_reason(facts)
        yield Step(_unit(facts, "restart"), "once that is mended")
    else:
        yield Step(_unit(facts, "enable --now" if unit.enabled == "disabled" else "start"))


def _unknown(facts: Facts) -> Iterator[Step]:
    if facts.viewer_uid != 0:
        yield Step(as_root("status", facts), "root sees more")
    elif facts.process and not facts.process.same_network:
        pid = facts.process.pid
        yield Step(f"nsenter --target {pid} --net {ours('status', facts)}", "look from inside")
    else:
        yield Step(ours("doctor", facts))


_STEPS: dict[State, Callable[[Facts], Iterator[Step]]] = {
    State.RUNNING: _settle_rivals,
    State.STANDBY: lambda facts: iter(()),
    State.UNMANAGED: _settle_rivals,
    State.STARTING: _starting,
    State.STOPPING: _stopping,
    State.DEGRADED: _degraded,
    State.NOT_SERVING: _not_serving,
    State.PARKED: _parked,
    State.GAVE_UP: _gave_up,
    State.FOREIGN_PORT: _foreign_port,
    State.STOPPED: _stopped,
    State.UNKNOWN: _unknown,
}


def _unit(facts: Facts, verb: str) -> str:
    """Return the manager's command line for a verb on the unit."""
    return f"{facts.subject.manager.command(facts.viewer_uid)} {verb} {facts.subject.unit_name}"


def ours(verb: str, facts: Facts, *options: str) -> str:
    """Return our own command line for a verb on the gateway that was asked about."""
    meant = (
        word for word in facts.subject.selection.arguments if _takes(verb, word.partition("=")[0])
    )
    # A journal that is closed to the viewer is open to root.
    sudo = ["sudo"] if verb == "logs" and not facts.reads_journal else []
    return " ".join((*sudo, "openclaw-gateway", verb, *meant, *options))


def as_root(verb: str, facts: Facts) -> str:
    """
    Return our own command line that has root look.

    To root ``--user`` means root's own unit, and no flag at all the system's: what a user's gateway and the
    system's have in common is the port.
    """
    subject = facts.subject
    if subject.manager.is_system:
        return "sudo " + ours(verb, facts)
    return f"sudo openclaw-gateway {verb} --port={subject.place.port}"


def _takes(verb: str, flag: str) -> bool:
    """Whether a verb takes a flag: a log is a unit's, and settings are a process's."""
    names_unit = flag in ("--system", "--user")
    match verb:
        case "logs":
            return names_unit or flag == "--profile"
        case "run" | "config":
            return not names_unit
        case _:
            return True
