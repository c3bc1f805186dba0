"""The verdict on a gateway: every state word from its facts, and no facts without one."""

from __future__ import annotations

from errno import EADDRINUSE, EAGAIN
from typing import Any

import pytest
from gateways import (
    ALICE,
    PID,
    PLACE,
    PORT,
    SELECTIONS,
    answer,
    failed_unit,
    foreign_words,
    nobody,
    process,
    record,
    running,
    stranger,
    unit,
    user_serves,
)
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.admin.judge.advice import steps
from openclaw_gateway.admin.judge.state import EXIT_CODES, State, StatusCode
from openclaw_gateway.admin.judge.verdict import judge
from openclaw_gateway.admin.look.credentials import Credential
from openclaw_gateway.admin.look.facts import Facts, ListenerFact, LockFact, Rival
from openclaw_gateway.admin.look.units import NO_SYSTEMD, SYSTEM
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.client.answer import Health
from openclaw_gateway.protocol.role import Role

DUPLICATE = f"another gateway instance is already listening on ws://127.0.0.1:{PORT}"
AT_USER = process(640, user="alice", manager=ALICE, age_s=9.0)
BY_HAND = process(640, user="alice", unit="session-3.scope")
HELD_BY_640 = LockFact(640, 1000, "/var/lib/openclaw-gateway/default", None, None, None, None)
PARKED = failed_unit(78, status_text=DUPLICATE, status_errno=EADDRINUSE)
GUARDING: dict[str, Any] = {
    "guarded": process(700, command="openclaw", user="ada"),
    "listeners": (ListenerFact("127.0.0.1", PORT, 1000, 700, 0, 512),),
}
"""The owner is a guard, and its program listens."""

DISPLACED: dict[str, Any] = {
    "owner": BY_HAND,
    "lock": HELD_BY_640._replace(record=record(pid=640, unit=None, version="0.0.9")),
    "listeners": (ListenerFact("127.0.0.1", PORT, 1000, 640, 0, 512),),
    "health": answer(Health.HEALTHY, ready=True),
    "displaced_by": "/home/alice/.openclaw-a",
}
"""A healthy gateway with another state directory than the one that was asked about."""

KEPT = (ListenerFact("127.0.0.1", PORT, 990, 1, 3, 512, is_kept=True),)
"""What systemd keeps for the gateway's next start."""


def node(**changes: Any) -> Facts:
    """Return the facts of a unit that parked behind OpenClaw's own gateway, which holds no lock of ours."""
    viewer = {name: changes.pop(name) for name in ("viewer_uid", "viewer") if name in changes}
    theirs = {"command": "MainThread", "user": "alice", "manager": ALICE}
    return nobody(
        unit=PARKED,
        health=answer(Health.HEALTHY),
        listeners=(ListenerFact("127.0.0.1", PORT, 4000000, 700, 0, 512),),
        strangers=(process(700, **(theirs | changes)),),
        **viewer,
    )


STANDBY = Role("home", False, "b1", "ws://gw-b:1", 42, None, "gw-b is active (token 42)")

# The facts, the state, a part of its reason, and the commands advised.
CASES: dict[str, tuple[Facts, State, str, list[str]]] = {
    "healthy unit": (running(), State.RUNNING, "healthy", []),
    "other manager's unit serves": (
        running(unit=None, process=AT_USER, owner=AT_USER),
        State.RUNNING,
        "healthy, by pid 640",
        [],
    ),
    "by hand": (
        running(unit=None, owner=BY_HAND, process=BY_HAND, lock=LockFact(640, 0, "/s", 640, record(unit=None), True, None)),
        State.UNMANAGED,
        "no unit runs it: pid 640",
        [],
    ),
    "another implementation, by hand": (
        nobody(health=answer(Health.HEALTHY), unit=None),
        State.UNMANAGED,
        "takes no lock of ours",
        [],
    ),
    "another implementation, in the unit": (
        running(owner=None, lock=nobody().lock),
        State.RUNNING,
        "takes no lock of ours",
        [],
    ),
    "standby": (
        running(
            unit=unit(status_text="standby behind pid 640 (claw-gateway), takes over when it ends"),
            owner=process(640),
            lock=LockFact(640, 0, "/s", 640, record(pid=640), True, None),
        ),
        State.STANDBY,
        "behind pid 640 (claw-gateway), takes over when it ends",
        [],
    ),
    "standby in a cluster": (
        running(health=answer(Health.HEALTHY, ready=False, failing=("standby",), role=STANDBY)),
        State.STANDBY,
        "in cluster home: gw-b is active (token 42)",
        [],
    ),
    "standby in a cluster, run by hand": (
        running(
            unit=None, owner=BY_HAND, process=BY_HAND,
            lock=LockFact(640, 0, "/s", 640, record(unit=None), True, None),
            health=answer(Health.HEALTHY, ready=False, failing=("standby",), role=STANDBY),
        ),
        State.STANDBY,
        "in cluster home: gw-b is active (token 42)",
        [],
    ),
    "guard that stands by in a cluster": (
        running(
            unit=unit(status_text="standby: gw-b is active (token 42)"),
            listeners=(), health=answer(Health.REFUSED),
        ),
        State.STANDBY,
        "in its cluster: gw-b is active (token 42)",
        [],
    ),
    "active gateway of a cluster": (
        running(health=answer(Health.HEALTHY, ready=True, role=STANDBY._replace(active=True))),
        State.RUNNING,
        "healthy",
        [],
    ),
    "active gateway of a cluster that is not ready": (
        running(
            health=answer(
                Health.HEALTHY, ready=False, failing=("state-directory",),
                role=STANDBY._replace(active=True),
            )
        ),
        State.DEGRADED,
        "answers, but is not ready: state-directory",
        ["openclaw-gateway doctor"],
    ),
    "standby whose owner was not seen healthy yet": (
        running(
            unit=unit(
                active_state="activating", sub_state="start",
                status_text="standby behind pid 640 (claw-gateway), which is not healthy: no answer",
            ),
            owner=process(640),
            lock=LockFact(640, 0, "/s", 640, record(pid=640), True, None),
        ),
        State.STARTING,
        "standby behind pid 640 (claw-gateway), which is not healthy",
        ["openclaw-gateway status --wait 60"],
    ),
    "activating": (
        running(unit=unit(active_state="activating", sub_state="start", status_text="waiting up to 3 s"), health=answer(Health.REFUSED), listeners=()),
        State.STARTING,
        "phase ready for 500 s: waiting up to 3 s",
        ["openclaw-gateway status --wait 60"],
    ),
    "between two starts": (
        nobody(unit=failed_unit(1, active_state="activating", sub_state="auto-restart", status_text="no room")),
        State.STARTING,
        "waits for its next start; the last one exited with 1: no room",
        ["openclaw-gateway status --wait 60"],
    ),
    "ended before the gateway's first word": (
        nobody(unit=failed_unit(238, status_text="")),
        State.STOPPED,
        "the last start exited with 238/STATE_DIRECTORY: systemd could not make StateDirectory=",
        ["openclaw-gateway logs", "systemctl restart openclaw-gateway.service"],
    ),
    "starting by hand": (
        running(unit=None, lock=running().lock._replace(record=record(phase=Phase.STARTING)), health=answer(Health.REFUSED), listeners=()),
        State.STARTING,
        "phase starting for 500 s",
        ["openclaw-gateway status --wait 60"],
    ),
    "starting by hand, and answers": (
        running(unit=None, lock=running().lock._replace(record=record(phase=Phase.STARTING)), health=answer(Health.HEALTHY, ready=False, failing=("starting",))),
        State.STARTING,
        "phase starting for 500 s",
        ["openclaw-gateway status --wait 60"],
    ),
    # Its record could not be written any more: what it says itself counts.
    "not ready, by a record that says starting": (
        running(unit=None, lock=running().lock._replace(record=record(phase=Phase.STARTING)), health=answer(Health.HEALTHY, ready=False, failing=("state-directory",))),
        State.DEGRADED,
        "answers, but is not ready: state-directory",
        ["openclaw-gateway doctor"],
    ),
    "not ready": (
        running(health=answer(Health.HEALTHY, ready=False, failing=("state-directory",))),
        State.DEGRADED,
        "answers, but is not ready: state-directory",
        ["openclaw-gateway doctor"],
    ),
    "degraded by its own word": (
        running(unit=unit(status_text="degraded: the event loop was 4.0 s late")),
        State.DEGRADED,
        "the event loop was 4.0 s late",
        ["openclaw-gateway doctor"],
    ),
    "stopped by a signal": (
        running(process=process(is_stopped=True), owner=process(is_stopped=True), health=answer(Health.MUTE)),
        State.NOT_SERVING,
        "pid 812 is stopped",
        ["kill -CONT 812"],
    ),
    "hangs": (
        running(health=answer(Health.MUTE)),
        State.NOT_SERVING,
        "pid 812 lives, but no answer within 2 s",
        ["systemctl restart openclaw-gateway.service"],
    ),
    "lives without a listener": (
        running(health=answer(Health.REFUSED), listeners=()),
        State.NOT_SERVING,
        "nothing listens on ws://127.0.0.1:18789",
        ["systemctl restart openclaw-gateway.service"],
    ),
    "stopping": (
        running(unit=unit(active_state="deactivating", status_text="stopping: saying goodbye to clients")),
        State.STOPPING,
        "saying goodbye",
        ["openclaw-gateway logs -f"],
    ),
    "draining by hand": (
        running(unit=None, lock=running().lock._replace(record=record(phase=Phase.DRAINING))),
        State.STOPPING,
        "clients are being sent away",
        [],
    ),
    "parked, the other is there": (
        running(unit=PARKED, owner=BY_HAND, process=BY_HAND, lock=HELD_BY_640),
        State.PARKED,
        "behind pid 640 (openclaw-gateway, user alice, unit session-3.scope), which is still there",
        ["kill 640", "systemctl restart openclaw-gateway.service"],
    ),
    "parked, the other is gone": (
        nobody(unit=PARKED, parked_behind=640),
        State.PARKED,
        "behind pid 640, which is gone",
        ["systemctl restart openclaw-gateway.service"],
    ),
    "parked behind another implementation": (
        node(),
        State.PARKED,
        "behind pid 700 (MainThread, user alice, unit openclaw-gateway.service of user alice), which is still there",
        [
            "systemctl --user -M alice@ disable --now openclaw-gateway.service",
            "systemctl restart openclaw-gateway.service",
        ],
    ),
    "parked behind another implementation that was started by hand": (
        node(unit="session-3.scope", viewer_uid=1000, viewer="bob"),
        State.PARKED,
        "behind pid 700",
        ["sudo kill 700", "sudo systemctl restart openclaw-gateway.service"],
    ),
    "parked behind another implementation's unit of the system": (
        node(unit="assistant.service", manager=SYSTEM),
        State.PARKED,
        "behind pid 700",
        ["systemctl stop assistant.service", "systemctl restart openclaw-gateway.service"],
    ),
    "parked behind somebody whom we may not see": (
        nobody(unit=PARKED, health=answer(Health.HEALTHY), viewer_uid=1000, listeners=(ListenerFact("127.0.0.1", PORT, 4000000, None, 0, 512),)),
        State.PARKED,
        "behind whoever has port 18789, which is still there",
        ["sudo openclaw-gateway status"],
    ),
    "parked, and we may not read on which port": (
        nobody(unit=PARKED, place=PLACE._replace(is_port_known=False), parked_behind=640, viewer_uid=1000),
        State.PARKED,
        "behind pid 640; on which port we may not read",
        ["sudo openclaw-gateway status"],
    ),
    "a user's unit that is parked behind somebody whom they may not see": (
        nobody(
            unit=PARKED._replace(manager=ALICE),
            manager=ALICE,
            health=answer(Health.HEALTHY),
            viewer_uid=ALICE.uid,
            listeners=(ListenerFact("127.0.0.1", PORT, 990, None, 0, 512),),
        ),
        State.PARKED,
        "behind whoever has port 18789, which is still there",
        ["sudo openclaw-gateway status --port=18789"],
    ),
    "parked behind somebody whom nobody may see": (
        nobody(unit=PARKED, health=answer(Health.HEALTHY)),
        State.PARKED,
        "behind whoever has port 18789, which is still there",
        ["openclaw-gateway doctor"],
    ),
    "parked behind the holder of the same state directory": (
        nobody(unit=PARKED._replace(status_errno=EAGAIN, status_text="gateway already running (pid 9)")),
        State.PARKED,
        "behind another gateway, which is gone",
        ["systemctl restart openclaw-gateway.service"],
    ),
    "a user's unit serves, and ours is off": (user_serves(), State.RUNNING, "healthy, by pid 640", []),
    "a user's unit serves, and ours is to start as well": (
        user_serves(enabled="enabled"),
        State.RUNNING,
        "healthy, by pid 640",
        ["systemctl disable --now openclaw-gateway.service"],
    ),
    "gave up": (
        nobody(unit=failed_unit(75, restarts=5, status_text="gateway already running (pid 9)")),
        State.GAVE_UP,
        "systemd gave up after 5 restarts; the last start exited with 75: gateway already running",
        [
                        "systemctl reset-failed openclaw-gateway.service && systemctl start openclaw-gateway.service",
        ],
    ),
    "gave up, and the journal is closed to who asks": (
        nobody(
            unit=failed_unit(0, exit_kind=0, result="start-limit-hit", restart="no"),
            viewer_uid=1000,
            viewer="bob",
            reads_journal=False,
        ),
        State.GAVE_UP,
        "systemd gave up at its start limit",
        [
            "sudo openclaw-gateway logs",
            "sudo systemctl reset-failed openclaw-gateway.service && sudo systemctl start openclaw-gateway.service",
        ],
    ),
    "gave up on manual starts": (
        nobody(unit=failed_unit(0, exit_kind=0, result="start-limit-hit", restart="no")),
        State.GAVE_UP,
        "systemd gave up at its start limit",
        [
            "openclaw-gateway logs",
            "systemctl reset-failed openclaw-gateway.service && systemctl start openclaw-gateway.service",
        ],
    ),
    "systemd keeps the port until the next start": (
        nobody(
            unit=unit(active_state="activating", sub_state="auto-restart", main_pid=None, exit_kind=2, exit_status=9),
            listeners=KEPT,
            health=answer(Health.UNKNOWN),
        ),
        State.STARTING,
        "waits for its next start; the last one was killed by SIGKILL; systemd keeps the port, and clients wait",
        ["openclaw-gateway status --wait 60"],
    ),
    "foreign program": (
        stranger(),
        State.FOREIGN_PORT,
        "pid 4242 (python3, user bob, unit session-1.scope) listens on ws://127.0.0.1:18789 and is no gateway",
        ["ps -fp 4242"],
    ),
    "foreign program, and the unit gave up": (
        stranger(unit=failed_unit(75, restarts=5)),
        State.FOREIGN_PORT,
        "openclaw-gateway.service gave up",
        [
            "ps -fp 4242",
            "systemctl reset-failed openclaw-gateway.service && systemctl start openclaw-gateway.service",
        ],
    ),
    "foreign program, while we wait for the port": (
        stranger(owner=process(), process=process(), lock=running().lock),
        State.FOREIGN_PORT,
        "pid 4242",
        ["ps -fp 4242"],
    ),
    "mute foreign program that we may not look into": (
        stranger(strangers=(), listeners=(ListenerFact("::", PORT, 0, None, 0, 512),), viewer_uid=1000, health=answer(Health.MUTE)),
        State.FOREIGN_PORT,
        "a process of uid 0 listens on ws://[::]:18789 and answers nothing",
        ["sudo openclaw-gateway status"],
    ),
    "guarded program, healthy": (running(**GUARDING), State.RUNNING, "healthy", []),
    "guarded program that hangs": (
        running(**GUARDING, health=answer(Health.MUTE)),
        State.NOT_SERVING,
        "pid 700 lives, but no answer within 2 s from ws://127.0.0.1:18789",
        ["systemctl restart openclaw-gateway.service"],
    ),
    "guarded program that is stopped": (
        running(**GUARDING | {"guarded": process(700, is_stopped=True)}, health=answer(Health.MUTE)),
        State.NOT_SERVING,
        "pid 700 is stopped",
        ["kill -CONT 700"],
    ),
    "guarded program whose port another gateway took": (
        running(**GUARDING | {"listeners": stranger().listeners, "strangers": stranger().strangers}),
        State.NOT_SERVING,
        "pid 4242 (python3, user bob, unit session-1.scope) has port 18789, in the place of the guarded pid 700",
        ["kill 4242", "systemctl restart openclaw-gateway.service"],
    ),
    "another gateway has its port": (
        nobody(**DISPLACED),
        State.STOPPED,
        f"another gateway has port 18789: {BY_HAND}",
        ["openclaw-gateway status --port=18789"],
    ),
    "another gateway has its port, and no unit is there": (
        nobody(unit=None, **DISPLACED),
        State.STOPPED,
        f"another gateway has port 18789: {BY_HAND}",
        ["openclaw-gateway status --port=18789"],
    ),
    "another gateway has its port and is about to stop": (
        nobody(unit=None, **DISPLACED | {"lock": HELD_BY_640._replace(record=record(phase=Phase.DRAINING))}),
        State.STOPPED,
        "another gateway has port 18789",
        ["openclaw-gateway status --port=18789"],
    ),
    "parked behind a gateway of another directory": (
        nobody(**DISPLACED | {"unit": PARKED}),
        State.PARKED,
        "behind pid 640",
        ["kill 640", "systemctl restart openclaw-gateway.service"],
    ),
    "waits for its next start behind a gateway of another directory": (
        nobody(**DISPLACED | {"unit": failed_unit(75, active_state="activating", sub_state="auto-restart")}),
        State.STARTING,
        "waits for its next start",
        ["openclaw-gateway status --wait 60"],
    ),
    "listener that can't be asked": (
        stranger(health=answer(Health.UNKNOWN)),
        State.UNKNOWN,
        "could not be asked",
        ["openclaw-gateway doctor"],
    ),
    "a socket unit listens for it": (
        nobody(socket=unit(name="openclaw-gateway.socket"), health=answer(Health.UNKNOWN)),
        State.STOPPED,
        "openclaw-gateway.socket listens, and the first client will start",
        ["systemctl start openclaw-gateway.service"],
    ),
    "inactive": (
        nobody(),
        State.STOPPED,
        "openclaw-gateway.service is inactive",
        ["systemctl start openclaw-gateway.service"],
    ),
    "inactive and disabled": (
        nobody(unit=unit(active_state="inactive", main_pid=None, enabled="disabled")),
        State.STOPPED,
        "openclaw-gateway.service is inactive",
        ["systemctl enable --now openclaw-gateway.service"],
    ),
    "masked": (
        nobody(unit=unit(active_state="inactive", main_pid=None, load_state="masked")),
        State.STOPPED,
        "is masked",
        ["systemctl unmask openclaw-gateway.service && systemctl start openclaw-gateway.service"],
    ),
    "masked until the next boot": (
        nobody(unit=unit(active_state="inactive", main_pid=None, load_state="masked", enabled="masked-runtime")),
        State.STOPPED,
        "is masked",
        ["systemctl unmask --runtime openclaw-gateway.service && systemctl start openclaw-gateway.service"],
    ),
    "systemd refuses the unit's files": (
        nobody(unit=unit(active_state="inactive", main_pid=None, load_state="bad-setting", load_error="Unit has a bad unit file setting.")),
        State.STOPPED,
        "systemd refuses openclaw-gateway.service as it stands: Unit has a bad unit file setting.",
        ["systemd-analyze verify openclaw-gateway.service"],
    ),
    "runs, and its new settings are refused": (
        running(place=PLACE._replace(problem="/etc/o.json gateway.port: must be a port")),
        State.RUNNING,
        "healthy",
        ["openclaw-gateway doctor"],
    ),
    "runs, and its state directory is gone": (
        running(lock=running().lock._replace(state_pid=None, is_missing=True)),
        State.RUNNING,
        "healthy",
        ["systemctl restart openclaw-gateway.service"],
    ),
    "configuration refused": (
        nobody(unit=failed_unit(78, status_text="/etc/o.json gateway.port: must be a port")),
        State.STOPPED,
        "the configuration was refused: /etc/o.json gateway.port: must be a port",
        ["systemctl restart openclaw-gateway.service"],
    ),
    "killed, and nobody restarts it": (
        nobody(unit=failed_unit(9, exit_kind=2, restart="no", result="signal", status_text="ready on ws://127.0.0.1:18789")),
        State.STOPPED,
        "failed: the last start was killed by SIGKILL",
        ["openclaw-gateway logs", "systemctl restart openclaw-gateway.service"],
    ),
    "no systemd, nothing there": (
        nobody(unit=None, unit_problem=NO_SYSTEMD),
        State.STOPPED,
        "nothing runs on port 18789",
        ["openclaw-gateway run"],
    ),
    "systemd could not be asked": (
        nobody(unit=None, unit_problem="Failed to connect to bus: No such file or directory"),
        State.UNKNOWN,
        "nothing runs on port 18789, but Failed to connect to bus",
        ["openclaw-gateway doctor"],
    ),
    "another network": (
        running(process=process(same_network=False), owner=None, lock=nobody().lock, listeners=(), health=answer(Health.UNKNOWN)),
        State.UNKNOWN,
        "runs in another network namespace",
        ["nsenter --target 812 --net openclaw-gateway status"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_state_reason_and_advice(name: str) -> None:
    facts, state, reason, commands = CASES[name]
    verdict = judge(facts)
    assert verdict.state is state
    assert reason in verdict.reason
    assert [step.command for step in steps(facts, verdict)] == commands


def test_cases_cover_every_state() -> None:
    assert {state for _, state, _, _ in CASES.values()} == set(State)


def test_every_state_has_an_exit_code() -> None:
    assert set(EXIT_CODES) == set(State)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"listeners": ()}, "is active, but nothing listens on port 18789"),
        ({"owner": BY_HAND, "lock": HELD_BY_640}, "runs pid 812, but pid 640"),
        ({"unit": unit(active_state="inactive", main_pid=None)}, "is inactive, but pid 812"),
        (
            {"strangers": (process(7, command="nc"),)},
            "pid 7 (nc, user openclaw, unit openclaw-gateway.service) listens on port 18789 too",
        ),
        (
            {
                "strangers": (process(7, command="MainThread"),),
                "listeners": (
                    ListenerFact("127.0.0.2", PORT, 990, PID, 0, 512),
                    ListenerFact("127.0.0.1", PORT, 990, 7, 0, 512, Health.HEALTHY),
                ),
            },
            "service), a healthy gateway, listens on ws://127.0.0.1:18789 too, beside pid 812",
        ),
        ({"lock": running().lock._replace(state_pid=5)}, "but pid 5 holds the state directory"),
        ({"lock": nobody().lock._replace(state_pid=5)}, "but nobody holds port 18789"),
        ({"lock": running().lock._replace(is_own_record=False)}, "start time is not that of"),
        ({"configured_port": 1}, "configured for port 1, but running on 18789"),
        ({"unit": unit(needs_daemon_reload=True)}, "changed on disk since it was loaded"),
        ({"cli_version": "0.2.0"}, "version 0.1.0 runs, but 0.2.0 is installed"),
        (
            {"rivals": (Rival("openclaw-gateway.service", ALICE, PORT, True),)},
            "openclaw-gateway.service (user alice) is enabled and wants port 18789 too by default",
        ),
        ({"others": ("something else",)}, "something else"),
        (
            {"lock": running().lock._replace(state_pid=None, is_missing=True)},
            "/var/lib/openclaw-gateway/default is gone, and with it the token that clients read there",
        ),
        (
            {"credentials": (Credential("t", "/etc/credstore/t", False, "/run/z.conf", False),)},
            "/etc/credstore/t is not what the gateway uses: /run/z.conf takes it back",
        ),
    ],
)
def test_disagreement_is_named(changes: dict[str, Any], sentence: str) -> None:
    assert any(sentence in text for text in judge(running(**changes)).disagreements)


def test_healthy_unit_has_nothing_to_disagree_about() -> None:
    assert judge(running()).disagreements == ()


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        (running(), ()),
        (running(place=PLACE._replace(problem="bad port")), ("bad port",)),
        (running(place=PLACE._replace(problem="closed", is_readable=False)), ()),
        (nobody(place=PLACE._replace(problem="bad port")), ()),
        (
            running(unit=unit(load_state="bad-setting", load_error="two ExecStart=")),
            ("systemd refuses openclaw-gateway.service as it stands: two ExecStart=",),
        ),
        (running(unit=None, place=PLACE._replace(problem="the caller's own")), ()),
    ],
)
def test_why_the_next_start_will_fail(facts: Facts, reasons: tuple[str, ...]) -> None:
    assert judge(facts).next_start == reasons


def test_port_that_is_not_known_is_no_disagreement() -> None:
    unknown = PLACE._replace(problem="closed", is_readable=False, is_port_known=False)
    assert judge(running(configured_port=1, place=unknown)).disagreements == ()


def test_both_directories_of_a_contested_port_are_named() -> None:
    assert judge(nobody(unit=None, **DISPLACED)).disagreements == (
        f"{BY_HAND} holds port 18789 with the state directory /home/alice/.openclaw-a, "
        "and not with /var/lib/openclaw-gateway/default",
    )


def test_unit_of_another_manager_that_serves_is_no_disagreement() -> None:
    assert judge(user_serves()).disagreements == ()
    assert judge(user_serves(enabled="enabled")).disagreements == (
        "openclaw-gateway.service (system) is enabled and wants port 18789 too, "
        "which openclaw-gateway.service (user alice) has",
    )


def test_rival_unit_is_to_be_disabled() -> None:
    facts = running(rivals=(Rival("openclaw-gateway.service", ALICE, PORT, False),))
    (step,) = steps(facts, judge(facts))
    assert step.command == "systemctl --user -M alice@ disable --now openclaw-gateway.service"


def _one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


FACTS = st.builds(
    running,
    unit=_one_of(
        None,
        unit(),
        PARKED,
        failed_unit(75, restarts=5),
        failed_unit(78),
        unit(active_state="activating", main_pid=None),
        unit(active_state="activating"),
        unit(active_state="deactivating"),
        unit(active_state="inactive", main_pid=None),
        unit(active_state="maintenance", load_state="error", main_pid=None),
    ),
    unit_problem=_one_of(None, NO_SYSTEMD, "no bus"),
    process=_one_of(None, process(), process(is_stopped=True), process(same_network=False)),
    owner=_one_of(None, process(), BY_HAND, AT_USER),
    lock=_one_of(
        running().lock,
        nobody().lock,
        HELD_BY_640,
        running().lock._replace(record=record(phase=Phase.STARTING, unit=None)),
    ),
    listeners=_one_of((), running().listeners, stranger().listeners, (ListenerFact("::", 1, 0, None, 0, 1),), KEPT),
    strangers=_one_of((), stranger().strangers),
    health=st.builds(answer, st.sampled_from(Health), ready=_one_of(None, True, False)),
    parked_behind=_one_of(None, 640),
    displaced_by=_one_of(None, "/home/alice/.openclaw-a"),
    viewer_uid=_one_of(0, 1000),
    selection=_one_of(*SELECTIONS),
)  # fmt: skip


@given(FACTS)
def test_all_facts_have_a_verdict_with_a_reason(facts: Facts) -> None:
    verdict = judge(facts)
    assert verdict.reason
    assert isinstance(steps(facts, verdict), tuple)


@given(FACTS)
def test_healthy_is_said_only_of_what_answers(facts: Facts) -> None:
    if judge(facts).exit_code is StatusCode.HEALTHY:
        assert facts.displaced_by is None
        assert facts.health.health is Health.HEALTHY


@given(FACTS)
def test_stopped_is_never_said_of_what_lives_or_could_not_be_asked(facts: Facts) -> None:
    if judge(facts).state is State.STOPPED and facts.displaced_by is None:
        assert facts.owner is None
        assert facts.process is None
        assert facts.health.health is not Health.HEALTHY
        assert facts.subject.unit is not None or facts.subject.unit_problem in (None, NO_SYSTEMD)


@given(FACTS)
def test_advised_commands_exist(facts: Facts) -> None:
    for step in steps(facts, judge(facts)):
        for words in foreign_words(step.command):
            assert (words[0], words[1]) in {
                ("systemd-analyze", "verify"),
                ("systemctl", "restart"),
                ("systemctl", "start"),
                ("systemctl", "enable"),
                ("systemctl", "reset-failed"),
                ("systemctl", "unmask"),
                ("systemctl", "disable"),
                ("systemctl", "--user"),
                ("kill", "640"),
                ("kill", "4242"),
                ("kill", "-CONT"),
                ("ps", "-fp"),
            }
