"""What doctor finds, from what it saw: each finding produced, and none where all is well."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from gateways import (
    PLACE,
    PORT,
    SELECTIONS,
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

from openclaw_gateway.admin.judge.checks import CHECKS
from openclaw_gateway.admin.judge.finding import Examination, Finding, Severity, Storage
from openclaw_gateway.admin.judge.verdict import judge
from openclaw_gateway.admin.look.cluster import ClusterFacts
from openclaw_gateway.admin.look.credentials import Credential
from openclaw_gateway.admin.look.facts import Facts, ListenerFact, Rival
from openclaw_gateway.admin.look.history import Exit
from openclaw_gateway.admin.look.locks import Fault, LockDirectory, LockPath
from openclaw_gateway.admin.look.peer import Peer
from openclaw_gateway.admin.look.secrets import OpenFile, Secrets
from openclaw_gateway.admin.look.selection import Selection, select
from openclaw_gateway.admin.look.units import NO_SYSTEMD, Manager
from openclaw_gateway.admin.look.verify import UnitFault, Verified
from openclaw_gateway.claim.node import Strange
from openclaw_gateway.cluster.etcd import Member
from openclaw_gateway.host.ports import Connections

STATE = "/var/lib/openclaw-gateway/default"
ALICE = Manager(4000000)
OK, NOTE, UNSEEN, WARNING, ERROR = Severity


def seen(facts: Facts | None = None, **changes: Any) -> Examination:
    """Return what doctor sees of a healthy system unit, changed."""
    facts = facts or running()
    made = Examination(
        facts=facts,
        verdict=judge(facts),
        neighbours=(),
        unit_problems=(),
        locks=LockDirectory(STATE, None, 990),
        secrets=Secrets(),
        storage=Storage(10**9, 10**6),
        exits=(),
        journal_problem=None,
        lingers=None,
        is_wsl=False,
        suspended_s=0.0,
        clock_step_s=0.0,
        ports=(("default", PORT),),
        verified=Verified(()),
        peer=Peer(),
    )
    return made._replace(**changes)


def of_unit(**changes: Any) -> Examination:
    return seen(running(unit=unit(**changes)))


def at(exit_status: str, kind: str = "exited", cause: str = "") -> Exit:
    return Exit(datetime(2026, 11, 23, tzinfo=UTC), kind, exit_status, cause)


HELD = LockPath(f"{STATE}/tmp/openclaw-990/gateway.state.lock", 812, record(), False)
LEFTOVER = LockPath(f"{STATE}/tmp/openclaw-990/gateway.state.lock", None, None, True)


def wide(**changes: Any) -> Facts:
    """Return the facts of a gateway that the network reaches."""
    return running(listeners=(ListenerFact("0.0.0.0", PORT, 990, 812, 0, 512),), **changes)


LOST = Credential("openclaw-gateway.token", "/etc/credstore/t", False, "/run/zzz.conf", False)
OFF = unit(active_state="inactive", main_pid=None, enabled="disabled")


def member(name: str, **changes: Any) -> Member:
    made = Member(
        f"http://{name}:2379", version="3.5.16", db_size_bytes=20_000_000, has_leader=True,
        cluster_id="7", revision=900, quota_bytes=2 << 30, compacted=500,
    )  # fmt: skip
    return made._replace(**changes)


def down(name: str) -> Member:
    return Member(f"http://{name}:2379", problem="no answer within 1.0 s")


def clustered(*members: Member, **changes: Any) -> Examination:
    """Return what doctor sees of a healthy gateway in a healthy cluster, changed."""
    facts = ClusterFacts(
        name="home", retry_s=2.0, members=members or (member("e1"), member("e2")), user="openclaw",
        ca=None, certificate=None, key=None, has_common_name=False, problem="", code=None,
        clock_source="tsc",
    )  # fmt: skip
    return seen(cluster=facts._replace(**changes))


# Check, what was seen, severity, part of the evidence, part of the command.
CASES = [
    ("state", seen(nobody()), ERROR, "stopped: openclaw-gateway.service is inactive", "systemctl start"),
    ("state", seen(running(unit=unit(active_state="activating"))), WARNING, "starting: ", "status --wait"),
    ("disagreements", seen(running(configured_port=1)), WARNING, "configured for port 1", "status --all"),
    ("two-managers", seen(running(rivals=(Rival("openclaw-gateway.service", ALICE, PORT, False),))), ERROR, "is enabled too and wants port 18789", "systemctl --user -M 4000000@ disable --now"),
    ("two-managers", seen(neighbours=((unit(ALICE, main_pid=900), PLACE),)), WARNING, "(user 4000000) is active as well, for port 18789", "-M 4000000@ disable"),
    ("two-managers", seen(user_serves(enabled="enabled")), ERROR, "openclaw-gateway.service (system) is enabled too and wants port 18789, which openclaw-gateway.service (user alice) has", "systemctl disable --now openclaw-gateway.service"),
    ("two-managers", seen(unit_problems=("units of user bob: no bus",)), UNSEEN, "no bus", ""),
    ("restart-policy", of_unit(restart="no"), WARNING, "Restart=no", "systemctl edit"),
    ("restart-policy", of_unit(prevents=()), ERROR, "lacks 78", "systemctl edit"),
    ("restart-policy", of_unit(kill_mode="process"), WARNING, "children outlive", "systemctl edit"),
    ("time-outs", of_unit(start_timeout_s=10.0), WARNING, "TimeoutStartSec=10s", "systemctl edit"),
    ("time-outs", of_unit(stop_timeout_s=2.0), WARNING, "TimeoutStopSec=2s", "systemctl edit"),
    ("start-limit", of_unit(start_limit_burst=0), WARNING, "no start limit", "systemctl edit"),
    ("start-limit", of_unit(start_limit_interval_s=10.0), WARNING, "never trips", "systemctl edit"),
    ("start-limit", of_unit(start_limit_interval_s=100.0, start_limit_burst=5), WARNING, "can't hold 5 attempts, which take 160 s", "systemctl edit"),
    ("start-limit", of_unit(start_limit_interval_s=160.0, start_limit_burst=5), WARNING, "which take 160 s", "systemctl edit"),
    ("start-limit-latch", seen(nobody(unit=failed_unit(75, restarts=5))), ERROR, "gave up after 5 restarts", "systemctl reset-failed openclaw-gateway.service && systemctl start"),
    ("daemon-reload", of_unit(needs_daemon_reload=True), WARNING, "changed on disk", "systemctl daemon-reload"),
    ("overrides", of_unit(environment={"OPENCLAW_GATEWAY_PORT": "1"}), NOTE, "sets OPENCLAW_GATEWAY_PORT", "systemctl cat"),
    ("overrides", seen(running(place=PLACE._replace(problem="bad"))), ERROR, "bad", "openclaw-gateway config"),
    ("overrides", seen(running(place=PLACE._replace(problem="closed", is_readable=False))), UNSEEN, "closed", ""),
    ("lock-directory", seen(locks=LockDirectory(STATE, "Permission denied")), UNSEEN, "Permission denied", ""),
    ("lock-directory", seen(locks=LockDirectory(STATE, "there is no such directory yet", is_missing=True)), NOTE, "no such", ""),
    ("lock-directory", seen(locks=LockDirectory(STATE, None, 990, (Fault("x: others may write", ("chmod", "go-w", "/s t/x")),))), ERROR, "x: others may write", "chmod go-w '/s t/x'"),
    ("lock-directory", seen(locks=LockDirectory(STATE, None, 990, (), "nfs4")), WARNING, "lies on nfs4", "--state-dir"),
    ("lock-directory", seen(locks=LockDirectory(STATE, None, 990, (), None, (LEFTOVER,))), NOTE, "left over by", "doctor --fix"),
    ("lock-directory", seen(locks=LockDirectory(STATE, None, 990, strange=(Strange("/tmp/a b", "is no plain file"),))), WARNING, "/tmp/a b is no plain file: ", "ls -ld '/tmp/a b'"),
    ("lock-directory", seen(locks=LockDirectory(STATE, None, 990, (), None, (HELD,))), OK, "gateway.state.lock: held by pid 812", ""),
    ("lock-directory", seen(locks=LockDirectory(STATE, None, 990, (), None, (HELD._replace(holder_pid=None),))), OK, "its record names pid 812, which lives", ""),
    ("port-holders", seen(stranger()), ERROR, "ws://127.0.0.1:18789 is held by pid 4242", "ps -fp 4242"),
    ("port-holders", seen(stranger(strangers=(), listeners=(ListenerFact("::", PORT, 7, None, 0, 1),))), UNSEEN, "uid 7", "sudo"),
    ("port-holders", seen(nobody(displaced_by="/home/bob/.openclaw")), ERROR, "port 18789 is held by a gateway with the state directory /home/bob/.openclaw", "status --port=18789"),
    ("connections", seen(running(connections=Connections(0, 400))), WARNING, "400 clients are gone", "logs"),
    ("connections", seen(running(listeners=(ListenerFact("::", PORT, 990, 812, 500, 512),))), ERROR, "500 of 512", "logs"),
    ("secrets", seen(secrets=Secrets((OpenFile("/s s/token", 0o644, 0),))), ERROR, "/s s/token holds a secret", "chmod 600 '/s s/token'"),
    ("secrets", seen(secrets=Secrets((OpenFile("/s/token", 0o644, 0),))), ERROR, "/s/token holds a secret", "chmod 600 /s/token"),
    ("secrets", seen(running(viewer_uid=7), secrets=Secrets((OpenFile("/s/token", 0o644, 7),))), ERROR, "/s/token holds a secret", "chmod 600 /s/token"),
    ("secrets", seen(running(viewer_uid=7), secrets=Secrets((OpenFile("/s/token", 0o644, 0),))), ERROR, "/s/token holds a secret", "sudo chmod 600 /s/token"),
    ("secrets", seen(secrets=Secrets((OpenFile("/e/o.json", 0o644, 0, "claw"),))), ERROR, "/e/o.json holds a secret", "chgrp claw /e/o.json && chmod 640 /e/o.json"),
    ("secrets", seen(running(viewer_uid=7), secrets=Secrets((OpenFile("/e/o.json", 0o644, 0, "claw"),))), ERROR, "/e/o.json holds a secret", "sudo chgrp claw /e/o.json && sudo chmod 640 /e/o.json"),
    ("secrets", seen(secrets=Secrets((), ((unit(ALICE, name="x.service"), "OPENCLAW_GATEWAY_TOKEN"),))), ERROR, "x.service sets", "systemctl --user -M 4000000@ edit x.service"),
    ("secrets", seen(secrets=Secrets(problems=("secrets in /s: Permission denied",))), UNSEEN, "secrets in /s: Permission denied", ""),
    ("last-exits", seen(journal_problem="the journal is closed to bob"), UNSEEN, "closed to bob", ""),
    ("last-exits", seen(nobody(unit=None), neighbours=((unit(ALICE), PLACE),)), UNSEEN, "no unit: no unit is loaded for this port", ""),
    ("time-outs", of_unit(load_state="bad-setting", load_error="two ExecStart="), UNSEEN, "no unit: two ExecStart=", ""),
    ("linger", seen(nobody(unit=None, unit_problem=NO_SYSTEMD)), UNSEEN, f"no unit: {NO_SYSTEMD}", ""),
    ("disk", seen(storage=None, locks=LockDirectory(STATE, "Permission denied")), UNSEEN, f"{STATE}: Permission denied", ""),
    ("exposure", seen(running(place=PLACE._replace(auth="none"))), NOTE, "no authentication", "config"),
    ("exposure", seen(wide(place=PLACE._replace(auth="none"))), ERROR, "no authentication", "config"),
    ("exposure", seen(wide()), NOTE, "is open", "config --system"),
    ("exposure", seen(wide(selection=select({}, flags={"--profile": "b"}), place=PLACE._replace(has_config=False))), NOTE, "is open", "config --system --profile=b"),
    ("exposure", seen(wide(unit=None, selection=SELECTIONS[1])), NOTE, "is open", "config --profile=work"),
    ("exposure", seen(wide()), NOTE, "ws://0.0.0.0:18789 is open", "config"),
    ("last-exits", seen(exits=(at("78", cause="no port"),)), NOTE, "exited with 78: no port", "logs"),
    ("last-exits", seen(running(selection=SELECTIONS[1]), exits=(at("6"),)), NOTE, "exited with 6", "logs --profile=work --user"),
    ("last-exits", seen(exits=(at("203"),)), NOTE, "exited with 203/EXEC: systemd could not execute", "logs"),
    ("last-exits", seen(exits=(at("KILL", "killed"),)), NOTE, "killed with KILL", "logs"),
    ("linger", seen(running(manager=ALICE), lingers=False), WARNING, "ends with the last session", "loginctl enable-linger 4000000"),
    ("linger", seen(running(manager=ALICE, viewer_uid=4000000), lingers=False), WARNING, "ends with the last session", "sudo loginctl enable-linger 4000000"),
    ("linger", seen(is_wsl=True), NOTE, "WSL", ""),
    ("disk", seen(storage=Storage(10**6, None)), ERROR, "1 MB are free", "df -h"),
    ("disk", seen(storage=Storage(10**9, 3)), ERROR, "3 inodes are free", "df -i"),
    ("clock", seen(suspended_s=600.0), NOTE, "suspended for 600 s", ""),
    ("clock", seen(clock_step_s=-7200.0), NOTE, "moved by -7200 s", "timedatectl"),
    ("next-start", of_unit(load_state="bad-setting", load_error="bad unit file setting"), ERROR, "refuses openclaw-gateway.service as it stands: bad unit file setting", "systemd-analyze verify openclaw-gateway.service"),
    ("next-start", seen(verified=Verified((UnitFault("/e/x.conf:2: Unknown key 'Restrt', ignoring.", True),))), WARNING, "x.conf:2", "systemctl cat"),
    ("next-start", seen(verified=Verified((UnitFault("more than one ExecStart=. Refusing.", False),))), ERROR, "ExecStart", "systemctl cat"),
    ("next-start", seen(verified=Verified((), "systemd-analyze is not installed")), UNSEEN, "not installed", ""),
    ("next-start", seen(running(place=PLACE._replace(warnings=("o.json: unknown key gateway.prot, perhaps gateway.port",)))), WARNING, "gateway.prot", "openclaw-gateway config --system"),
    ("credentials", seen(running(credentials=(LOST,))), ERROR, "/etc/credstore/t was not handed over to openclaw-gateway.service: /run/zzz.conf takes it back", "systemctl edit"),
    ("credentials", seen(running(credentials=(LOST._replace(is_asked_for=True),))), ERROR, "was not handed over", "systemctl restart"),
    ("credentials", seen(nobody(credentials=(LOST._replace(came=None),))), ERROR, "won't be handed over", "systemctl edit"),
    ("credentials", seen(running(credentials=(LOST._replace(came=None, is_asked_for=True),), viewer_uid=1000)), UNSEEN, "for root to see", ""),
    ("openclaw-itself", seen(nobody(unit=OFF), peer=Peer(("/usr/bin/openclaw",))), NOTE, "/usr/bin/openclaw is OpenClaw's own command", "dpkg-divert --local --rename --add /lib/systemd/system/openclaw-gateway.service"),
    ("openclaw-itself", seen(nobody(unit=OFF), peer=Peer(("/usr/bin/openclaw",), (), "/usr/lib/ours.service")), NOTE, "/usr/bin/openclaw", "dpkg-divert --local --rename --add /lib/systemd/system/openclaw-gateway.service && dpkg-divert --local --rename --add /usr/lib/ours.service"),
    ("openclaw-itself", seen(peer=Peer((), ("/home/a/x.service",))), NOTE, "/home/a/x.service is a unit that OpenClaw wrote", ""),
    ("profiles", seen(ports=(("a", 1), ("b", 1))), ERROR, "a and b want the same port 1", "status --all"),
    ("profiles", seen(ports=(("a", 1), ("b", 9))), WARNING, "closer than 20", "status --all"),
    ("cluster", clustered(), OK, "etcd 3.5.16 at http://e1:2379, 20 MB of 2147 MB", ""),
    ("cluster", clustered(down("e1"), member("e2")), WARNING, "etcd at http://e1:2379: no answer", "curl http://e1:2379/health"),
    ("cluster", clustered(down("e1"), down("e2")), ERROR, "etcd at http://e2:2379: no answer", "curl http://e2:2379/health"),
    ("cluster", clustered(member("e1"), member("e2", cluster_id="8")), ERROR, "are of different etcd clusters", "etcdctl --endpoints=http://e1:2379 --user=root member list"),
    ("cluster", clustered(member("e1")), NOTE, "is the only endpoint", ""),
    ("cluster", clustered(user=None), NOTE, "whoever reaches it may take the record", "man 7 openclaw-cluster"),
    ("cluster", clustered(certificate="/c", has_common_name=True), ERROR, "/c has a common name (CN)", "openssl x509 -noout -subject -in /c"),
    ("cluster", clustered(member("e1", version="3.3.25")), ERROR, "3.4 is the oldest", "apt-get install --only-upgrade etcd-server"),
    ("cluster", clustered(member("e1", version="3.5.2")), ERROR, "may lose what it acknowledged", "apt-get install"),
    ("cluster", clustered(member("e1", has_leader=False)), ERROR, "knows no leader", "endpoint status --cluster"),
    ("cluster", clustered(member("e1", errors=("etcdserver: no leader",))), ERROR, "says: etcdserver: no leader", "alarm list"),
    ("cluster", clustered(member("e1", errors=("memberID:1 alarm:NOSPACE ",))), ERROR, "NOSPACE", "compact 900 && etcdctl --endpoints=http://e1:2379 --user=root defrag && etcdctl --endpoints=http://e1:2379 --user=root alarm disarm"),
    ("cluster", clustered(member("e1", db_size_bytes=1_800_000_000)), WARNING, "has 1800 MB of 2147 MB: when it is full", "compact 900 && etcdctl --endpoints=http://e1:2379 --user=root defrag"),
    ("cluster", clustered(member("e1", revision=20_001, compacted=0)), WARNING, "keeps its history for ever (20001 revisions): renewals alone fill it in 169 days", "compact 20001"),
    ("cluster", clustered(problem="denied", code=7), ERROR, "the record can't be read: denied", "role grant-permission openclaw --prefix=true readwrite openclaw/gateway/"),
    ("cluster", clustered(problem="denied", code=7, ca="/a b", certificate="/c", key="/k"), ERROR, "denied", "etcdctl --endpoints=http://e1:2379 --cacert '/a b' --cert /c --key /k --user=root role grant-permission"),
    ("cluster", clustered(member("e1", has_leader=False), user=None), ERROR, "knows no leader", "etcdctl --endpoints=http://e1:2379 endpoint status"),
    ("cluster", clustered(down("e1"), ca="/a", certificate="/c", key="/k"), ERROR, "no answer", "curl --cacert /a --cert /c --key /k http://e1:2379/health"),
    ("cluster", clustered(problem="no leader", code=14), ERROR, "the record can't be read: no leader", ""),
    ("cluster", clustered(clock_source="jiffies"), WARNING, "clock source is jiffies", "available_clocksource"),
]  # fmt: skip


def findings(name: str, what: Examination) -> tuple[Finding, ...]:
    (check,) = (check for check in CHECKS if check.name == name)
    return check.run(what)


@pytest.mark.parametrize(
    ("name", "what", "severity", "evidence", "command"),
    CASES,
    ids=[f"{case[0]}-{case[3][:20]}" for case in CASES],
)
def test_finding(
    name: str, what: Examination, severity: Severity, evidence: str, command: str
) -> None:
    assert any(
        found.severity is severity and evidence in found.evidence and command in found.command
        for found in findings(name, what)
    ), findings(name, what)


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda _: "")
@pytest.mark.parametrize("what", [case[1] for case in CASES], ids=lambda _: "")
def test_commands_exist(what: Examination, selection: Selection) -> None:
    subject = what.facts.subject._replace(selection=selection)
    named = what._replace(facts=what.facts._replace(subject=subject))
    for check in CHECKS:
        for found in check.run(named):
            for words in foreign_words(found.command):
                assert words == [] or words[0] in _TOOLS


_TOOLS = {
    "systemctl",
    "systemd-analyze",
    "chown",
    "dpkg-divert",
    "loginctl",
    "timedatectl",
    "kill",
    "ps",
    "ls",
    "df",
    "chgrp",
    "chmod",
    "etcdctl",
    "curl",
    "man",
    "openssl",
    "apt-get",
    "cat",
}


def test_cases_cover_every_check() -> None:
    assert {case[0] for case in CASES} == {check.name for check in CHECKS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_all_is_well_with_a_healthy_unit(check: Any) -> None:
    assert check.run(seen()) == ()


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("time-outs", {"stop_timeout_s": 10.0}),
        ("start-limit", {"start_limit_interval_s": 161.0, "start_limit_burst": 5}),
    ],
)
def test_what_just_suffices_is_no_finding(check: str, changes: dict[str, Any]) -> None:
    assert findings(check, of_unit(**changes)) == ()


def test_all_is_well_with_a_healthy_cluster() -> None:
    assert {found.severity for found in findings("cluster", clustered())} == {OK}


@pytest.mark.parametrize(
    "changes",
    [
        {"certificate": "/c"},
        {"user": None, "certificate": "/c", "has_common_name": True},
    ],
)
def test_what_is_as_it_should_be_in_a_cluster_is_no_finding(changes: dict[str, Any]) -> None:
    assert {found.severity for found in findings("cluster", clustered(**changes))} == {OK}


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 20_000, "compacted": 0},
        {"revision": 10**9, "compacted": None},
        {"revision": 10**9, "compacted": 5},
        {"version": "3.5.3"},
        {"version": "main"},
        {"version": "3.6.0-alpha"},
        {"quota_bytes": None},
    ],
)
def test_etcd_that_does_is_no_finding(changes: dict[str, Any]) -> None:
    found = findings("cluster", clustered(member("e1", **changes), member("e2")))
    assert {one.severity for one in found} == {OK}


def test_numbers_count_up() -> None:
    assert [check.number for check in CHECKS] == list(range(1, len(CHECKS) + 1))


def test_unit_checks_say_when_there_was_no_unit_to_see() -> None:
    blind = seen(nobody(unit=None, unit_problem=NO_SYSTEMD))
    (found,) = findings("restart-policy", blind)
    assert (found.severity, found.evidence) == (UNSEEN, f"no unit: {NO_SYSTEMD}")


def test_requested_stop_is_no_finding() -> None:
    assert findings("last-exits", seen(exits=(at("0"),))) == ()


@pytest.mark.parametrize(
    "what",
    [
        seen(user_serves()),
        seen(neighbours=((unit(ALICE), PLACE._replace(port=PORT + 1)),)),
        seen(user_serves(), neighbours=((unit(ALICE, main_pid=640), PLACE),)),
    ],
    ids=["disabled here, serves there", "another port", "it is what serves"],
)
def test_unit_of_another_manager_is_no_rival(what: Examination) -> None:
    assert findings("two-managers", what) == ()


def test_unit_of_another_manager_overrides_nothing_here() -> None:
    theirs = unit(ALICE, environment={"OPENCLAW_GATEWAY_PORT": "1"})
    assert findings("overrides", seen(neighbours=((theirs, PLACE),))) == ()


def test_port_that_systemd_keeps_for_the_next_start_is_held_by_nobody_else() -> None:
    kept = (ListenerFact("::", PORT, 7, None, 0, 1, is_kept=True),)
    assert not list(findings("port-holders", seen(nobody(listeners=kept))))


def test_process_of_another_program_is_named_with_its_addresses() -> None:
    other = process(7, command="nc")
    both = (ListenerFact("::1", PORT, 0, 7, 0, 1), ListenerFact("127.0.0.2", PORT, 0, 7, 0, 1))
    (found,) = findings("port-holders", seen(running(strangers=(other,), listeners=both)))
    assert "ws://[::1]:18789, ws://127.0.0.2:18789" in found.evidence
