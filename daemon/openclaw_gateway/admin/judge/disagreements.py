"""What does not fit together in the facts of a gateway, and what will fail at its next start. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from openclaw_gateway.admin.judge.state import State
from openclaw_gateway.client.answer import Health
from openclaw_gateway.host.address import url

if TYPE_CHECKING:
    from openclaw_gateway.admin.look.credentials import Credential
    from openclaw_gateway.admin.look.facts import Facts, Rival


def contending(facts: Facts) -> Iterator[Rival]:
    """Yield the units that will want the port of the gateway that has it; its own unit is none of them."""
    for rival in facts.rivals:
        if rival.port == facts.subject.place.port and not _runs_owner(facts, rival):
            yield rival


def _runs_owner(facts: Facts, rival: Rival) -> bool:
    owner = facts.owner
    return owner is not None and (owner.unit, owner.manager) == (rival.unit, rival.manager)


def gives_way(facts: Facts) -> Rival | None:
    """Return the unit that has the port which the subject's own unit, being enabled, will want as well."""
    unit = facts.subject.unit
    if unit is None or not unit.is_enabled or unit.main_pid is not None:
        return None
    return next((rival for rival in facts.rivals if _runs_owner(facts, rival)), None)


def disagreements(state: State, facts: Facts) -> Iterator[str]:
    """Name what does not fit together."""
    if facts.displaced_by is None:
        yield from _between_unit_and_lock(state, facts)
    else:
        yield (
            f"{facts.port_holder} holds port {facts.subject.place.port} with the state directory "
            f"{facts.displaced_by}, and not with {facts.lock.state_dir}"
        )
    yield from _between_locks(facts)
    yield from _between_now_and_configured(facts)
    for rival in contending(facts):
        guess = " by default" if rival.is_assumed else ""
        yield f"{rival.unit} ({rival.manager}) is enabled and wants port {rival.port} too{guess}"
    winner = gives_way(facts)
    if winner is not None:
        subject = facts.subject
        yield (
            f"{subject.unit_name} ({subject.manager}) is enabled and wants port {winner.port} too, "
            f"which {winner.unit} ({winner.manager}) has"
        )
    yield from _between_stored_and_handed_over(facts)
    yield from facts.subject.others


def next_start(facts: Facts) -> tuple[str, ...]:
    """Say why the unit that runs will not start again, as far as its settings and its manager tell."""
    unit, place = facts.subject.unit, facts.subject.place
    if unit is None or unit.main_pid is None:
        return ()
    found = []
    if unit.load_error:
        found.append(f"systemd refuses {unit.name} as it stands: {unit.load_error}")
    if place.problem is not None and place.is_readable:
        found.append(place.problem)
    return tuple(found)


def lost(facts: Facts) -> Iterator[tuple[Credential, str]]:
    """Yield the credentials that lie ready and did not come, or won't, and why."""
    for credential in facts.credentials:
        if credential.source is None or credential.came:
            continue
        if not credential.is_asked_for:
            by = credential.taken_back_by
            yield credential, f"{by} takes it back" if by else "the unit does not ask for it"
        elif credential.came is False:
            yield (
                credential,
                "it was not there at the last start, or systemd could not hand it over",
            )


def _between_stored_and_handed_over(facts: Facts) -> Iterator[str]:
    for credential, why in lost(facts):
        if credential.came is False:
            yield f"{credential.source} is not what the gateway uses: {why}"


def _between_unit_and_lock(state: State, facts: Facts) -> Iterator[str]:
    unit, owner, port = facts.subject.unit, facts.owner, facts.subject.place.port
    if facts.process is not None and not facts.process.same_network:
        return
    serves = unit is not None and unit.active_state == "active" and state is not State.STANDBY
    if unit and serves and not facts.listeners:
        yield f"{unit.name} is active, but nothing listens on port {port}"
    if state is State.STANDBY:
        pass  # that somebody else has the port is what it is for
    elif owner and unit and unit.main_pid not in (None, owner.pid):
        yield f"{unit.name} runs pid {unit.main_pid}, but {owner} holds port {port}"
    elif owner and unit and not unit.main_pid and state is not State.PARKED and _is_missed(facts):
        yield f"{unit.name} is {unit.active_state}, but {owner} holds port {port}"
    for fact in facts.strangers if owner else ():
        theirs = [found for found in facts.listeners if found.pid == fact.pid]
        where = ", ".join(url(found.host, found.port) for found in theirs) or f"port {port}"
        is_gateway = any(found.answers is Health.HEALTHY for found in theirs)
        what = ", a healthy gateway," if is_gateway else ""
        yield f"{fact}{what} listens on {where} too, beside pid {owner.pid if owner else '?'}"


def _is_missed(facts: Facts) -> bool:
    """Whether anyone counts on the unit, so that somebody else in its place is odd."""
    unit = facts.subject.unit
    counts = unit is not None and (unit.is_enabled or unit.result != "success")
    return counts and gives_way(facts) is None


def _between_locks(facts: Facts) -> Iterator[str]:
    lock, port = facts.lock, facts.subject.place.port
    waits = facts.process is not None and facts.process != facts.owner
    if lock.port_pid and lock.state_pid not in (None, lock.port_pid) and not waits:
        yield (
            f"pid {lock.port_pid} holds port {port}, but pid {lock.state_pid} "
            f"holds the state directory {lock.state_dir}"
        )
    here = facts.process is None or facts.process.same_network
    if lock.port_pid is None and lock.state_pid is not None and here:
        yield f"pid {lock.state_pid} holds the state directory, but nobody holds port {port}"
    if lock.is_missing and facts.process is not None and facts.displaced_by is None and here:
        yield (
            f"the state directory {lock.state_dir} is gone, and with it the token that clients read there, "
            f"while {facts.process} runs"
        )
    if lock.is_own_record is False:
        yield "the lock record's start time is not that of the process it names"


def _between_now_and_configured(facts: Facts) -> Iterator[str]:
    unit, port, record = facts.subject.unit, facts.subject.place.port, facts.own_record
    runs = facts.displaced_by is None and (facts.owner or facts.process)
    if facts.subject.configured_port != port and runs and facts.subject.place.is_port_known:
        yield f"configured for port {facts.subject.configured_port}, but running on {port}: restart to change it"
    if unit and unit.needs_daemon_reload:
        yield f"{unit.name} changed on disk since it was loaded: {unit.manager.command(facts.viewer_uid)} daemon-reload"
    version = record.version if record else None
    if version and version != facts.cli_version:
        yield f"version {version} runs, but {facts.cli_version} is installed: restart to change it"
