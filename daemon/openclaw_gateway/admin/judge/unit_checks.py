"""Checks of doctor's that concern a unit: its policies, its files, and what it hands to its gateway. Pure."""

from __future__ import annotations

import shlex

from openclaw_gateway.admin.judge.disagreements import lost
from openclaw_gateway.admin.judge.exits import of_exit
from openclaw_gateway.admin.judge.finding import Examination, Finding, Findings, Severity
from openclaw_gateway.admin.judge.verdict import gave_up_starting
from openclaw_gateway.errors import ExitCode

_STOP_S = 10.0
"""More than an honest stop takes: 3 s of goodbyes and what comes after."""


def restart_policy(seen: Examination) -> Findings:
    """Does a crash restart, 78 not, and does a stop leave nothing behind?"""
    for unit in seen.services():
        edit = seen.edit(unit)
        if unit.restart not in ("always", "on-failure"):
            yield Finding(
                Severity.WARNING, f"{unit.name}: Restart={unit.restart}: a crash stays down", edit
            )
        elif ExitCode.CONFIG not in unit.prevents:
            evidence = (
                f"{unit.name}: RestartPreventExitStatus lacks 78: a duplicate restarts for ever"
            )
            yield Finding(Severity.ERROR, evidence, edit)
        if unit.kill_mode in ("process", "none"):
            evidence = f"{unit.name}: KillMode={unit.kill_mode}: children outlive a stop"
            yield Finding(Severity.WARNING, evidence, edit)


def timeouts(seen: Examination) -> Findings:
    """Do starts and stops get the time that they may need?"""
    for unit in seen.services():
        start_s, stop_s = unit.start_timeout_s, unit.stop_timeout_s
        attempt_s = seen.facts.subject.place.health_timeout_s
        if start_s is not None and start_s < attempt_s:
            evidence = f"{unit.name}: TimeoutStartSec={start_s:g}s, and a start may wait {attempt_s:g} s for an owner"
            yield Finding(Severity.WARNING, evidence, seen.edit(unit))
        if stop_s is not None and stop_s < _STOP_S:
            evidence = (
                f"{unit.name}: TimeoutStopSec={stop_s:g}s, and goodbyes take up to {_STOP_S:g} s"
            )
            yield Finding(Severity.WARNING, evidence, seen.edit(unit))


def start_limit(seen: Examination) -> Findings:
    """Does a gateway that fails for ever end as failed?"""
    for unit in seen.services():
        window_s, burst = unit.start_limit_interval_s, unit.start_limit_burst
        if not window_s or not burst:
            yield Finding(
                Severity.WARNING,
                f"{unit.name}: no start limit: failures loop for ever",
                seen.edit(unit),
            )
            continue
        needed_s = burst * (seen.facts.subject.place.health_timeout_s + (unit.restart_s or 0.0))
        if window_s <= needed_s:
            evidence = (
                f"{unit.name}: StartLimitIntervalSec={window_s:g}s can't hold {burst} attempts, "
                f"which take {needed_s:g} s where an owner never gets healthy: the limit never trips"
            )
            yield Finding(Severity.WARNING, evidence, seen.edit(unit))


def latch(seen: Examination) -> Findings:
    """Has systemd given up?"""
    for unit in seen.services():
        if gave_up_starting(unit):
            evidence = (
                f"{unit.name} gave up after {unit.restarts} restarts: it starts no more by itself"
            )
            reset = seen.systemctl(unit.manager, f"reset-failed {unit.name}")
            command = f"{reset} && {seen.systemctl(unit.manager, f'start {unit.name}')}"
            yield Finding(Severity.ERROR, evidence, command)


def reload_pending(seen: Examination) -> Findings:
    """Is the unit loaded as it stands on disk?"""
    for unit in seen.services():
        if unit.needs_daemon_reload:
            evidence = f"{unit.name} or a drop-in of it changed on disk since it was loaded"
            yield Finding(
                Severity.WARNING,
                evidence,
                seen.systemctl(unit.manager, "daemon-reload"),
            )


def exits(seen: Examination) -> Findings:
    """Which ends did nobody ask for?"""
    if seen.facts.subject.unit is None:
        yield seen.no_unit()
    elif seen.journal_problem:
        yield Finding(Severity.UNSEEN, seen.journal_problem)
    command = seen.ours("logs", "-n", "200")
    for end in seen.exits:
        requested = end.kind == "exited" and end.status in ("0", "SUCCESS")
        if not requested:
            at = end.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
            status, cause = of_exit(end)
            evidence = f"{at} {end.kind} with {status}{f': {cause}' if cause else ''}"
            yield Finding(Severity.NOTE, evidence, command)
            command = ""


def linger(seen: Examination) -> Findings:
    """Does the unit outlive the last session of its user?"""
    if seen.facts.subject.unit is None:
        yield seen.no_unit()
    elif seen.lingers is False:
        user = seen.facts.subject.manager.user
        evidence = f"the user unit of {user} ends with the last session"
        # Without polkit, as on a small server, logind takes root's word only, even for one's own account.
        sudo = "" if seen.facts.viewer_uid == 0 else "sudo "
        yield Finding(Severity.WARNING, evidence, f"{sudo}loginctl enable-linger {user}")
    if seen.is_wsl:
        yield Finding(
            Severity.NOTE, "on WSL not even lingering keeps the virtual machine up when idle"
        )


def next_start(seen: Examination) -> Findings:
    """Do systemd and the gateway take their files as they stand now?"""
    place, unit = seen.facts.subject.place, seen.facts.subject.unit
    if unit is not None and unit.load_error:
        evidence = f"systemd refuses {unit.name} as it stands: {unit.load_error}"
        yield Finding(Severity.ERROR, evidence, f"systemd-analyze verify {unit.name}")
    for fault in seen.verified.faults:
        severity = Severity.WARNING if fault.is_ignored else Severity.ERROR
        command = seen.systemctl(unit.manager, f"cat {unit.name}") if unit else ""
        yield Finding(severity, fault.sentence, command)
    if seen.verified.problem:
        yield Finding(Severity.UNSEEN, seen.verified.problem)
    for warning in place.warnings:
        yield Finding(Severity.WARNING, warning, seen.config())


def credentials(seen: Examination) -> Findings:
    """Does every credential that lies ready reach the gateway?"""
    unit = seen.facts.subject.unit
    if unit is None:
        yield seen.no_unit()
        return
    for credential, why in lost(seen.facts):
        did = "was not" if credential.came is False else "won't be"
        evidence = f"{credential.source} {did} handed over to {unit.name}: {why}"
        verb = "restart" if credential.is_asked_for else "edit"
        yield Finding(Severity.ERROR, evidence, seen.systemctl(unit.manager, f"{verb} {unit.name}"))
    if seen.facts.viewer_uid != 0 and unit.manager.is_system and seen.facts.credentials:
        yield Finding(Severity.UNSEEN, "the credentials of a system unit are for root to see")


def openclaw_itself(seen: Examination) -> Findings:
    """Is there a command of OpenClaw's own that minds our unit's name?"""
    subject, peer = seen.facts.subject, seen.peer
    unit = subject.unit
    if unit is None or not unit.manager.is_system or subject.profile is not None:
        return
    for found in (*peer.commands, *peer.units):
        whose = "OpenClaw's own command" if found in peer.commands else "a unit that OpenClaw wrote"
        evidence = (
            f"{found} is {whose}: its gateway start, restart and install refuse while there is a "
            f"system unit {unit.name}, disabled or masked as well"
        )
        sudo = "" if seen.facts.viewer_uid == 0 else "sudo "
        # Its installer minds our user unit as well, for those who have none of their own.
        divert = " && ".join(
            f"{sudo}dpkg-divert --local --rename --add {shlex.quote(path)}"
            for path in (unit.fragment_path, peer.in_the_way)
            if path
        )
        yield Finding(
            Severity.NOTE, evidence, divert if unit.fragment_path and not unit.is_used else ""
        )
