"""What doctor checks of a cluster: etcd's nodes, the record, this host's clock. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from openclaw_gateway.admin.judge.finding import Examination, Finding, Findings, Severity

if TYPE_CHECKING:
    from openclaw_gateway.admin.look.cluster import ClusterFacts
    from openclaw_gateway.cluster.etcd import Member

_OLDEST = (3, 4)
"""The first release whose JSON gateway has /v3/."""
_CORRUPTING = ((3, 5, 0), (3, 5, 3))
"""From the first of these to below the second etcd may lose what it acknowledged: etcd-io/etcd#13766."""
_FULL = 0.8
"""Of the quota, from which on it is time."""
_MANY_REVISIONS = 20_000
"""Eleven hours of one cluster's renewals: history that is dropped once an hour is shorter by far."""
_DEFAULT_QUOTA_BYTES = 2 << 30
_RENEWAL_BYTES = 294
"""What a renewal adds to etcd's database, measured."""
_DAY_S = 86400
_NO_PERMISSION = 7
"""gRPC's code."""
_UNSTEADY = ("jiffies", "refined-jiffies")
"""Clock sources that lose time when interrupts are late."""


def cluster(seen: Examination) -> Findings:
    """Say what is wrong with the cluster that the gateway is in; nothing without one."""
    facts = seen.cluster
    if facts is None:
        return
    yield from _endpoints(facts)
    for member in facts.members:
        if not member.problem:
            yield from _member(member, facts)
    yield from _record(facts)
    if facts.clock_source in _UNSTEADY:
        yield Finding(
            Severity.WARNING,
            f"the kernel's clock source is {facts.clock_source}: this host's clock may run at another "
            "rate than the others', which takeovers rely on within 12 to 15",
            "cat /sys/devices/system/clocksource/clocksource0/available_clocksource",
        )


def _endpoints(facts: ClusterFacts) -> Findings:
    reached = [member for member in facts.members if not member.problem]
    for member in facts.members:
        if member.problem:
            severity = Severity.WARNING if reached else Severity.ERROR
            evidence = f"etcd at {member.endpoint}: {member.problem}"
            url = shlex.quote(f"{member.endpoint}/health")
            yield Finding(severity, evidence, " ".join(["curl", *_tls(facts), url]))
    if len({member.cluster_id for member in reached}) > 1:
        names = ", ".join(member.endpoint for member in reached)
        yield Finding(
            Severity.ERROR,
            f"{names} are of different etcd clusters: each may have an active gateway of its own",
            _etcdctl(facts, reached[0], "member list"),
        )
    if len(facts.members) == 1:
        yield Finding(
            Severity.NOTE,
            f"{facts.members[0].endpoint} is the only endpoint: without it nobody is active; name all nodes",
        )
    if facts.user is None and facts.certificate is None:
        yield Finding(
            Severity.NOTE,
            "etcd is asked without a user and without a certificate: whoever reaches it may take the record",
            "man 7 openclaw-cluster",
        )
    if facts.user is not None and facts.has_common_name:
        yield Finding(
            Severity.ERROR,
            f"{facts.certificate} has a common name (CN), and with authentication on etcd's JSON "
            "gateway refuses every request that comes with one (400): make one without",
            f"openssl x509 -noout -subject -in {shlex.quote(facts.certificate or '')}",
        )


def _member(member: Member, facts: ClusterFacts) -> Findings:
    version = version_of(member.version)
    if version and version < _OLDEST:
        evidence = (
            f"etcd at {member.endpoint} is {member.version}, and 3.4 is the oldest that will do"
        )
        yield Finding(Severity.ERROR, evidence, "apt-get install --only-upgrade etcd-server")
    elif version and _CORRUPTING[0] <= version < _CORRUPTING[1]:
        evidence = (
            f"etcd at {member.endpoint} is {member.version}, which may lose what it acknowledged"
        )
        yield Finding(Severity.ERROR, evidence, "apt-get install --only-upgrade etcd-server")
    if not member.has_leader:
        evidence = (
            f"etcd at {member.endpoint} knows no leader: more than half of its nodes must run"
        )
        yield Finding(
            Severity.ERROR, evidence, _etcdctl(facts, member, "endpoint status --cluster")
        )
    for error in member.errors:
        evidence = f"etcd at {member.endpoint} says: {error[:200]}"
        command = _etcdctl(facts, member, "alarm list")
        if "NOSPACE" in error:
            command = " && ".join(
                (*_shrinking(facts, member), _etcdctl(facts, member, "alarm disarm"))
            )
        yield Finding(Severity.ERROR, evidence, command)
    yield from _room(member, facts)


def _room(member: Member, facts: ClusterFacts) -> Findings:
    quota_bytes = member.quota_bytes or _DEFAULT_QUOTA_BYTES
    size = f"{member.db_size_bytes / 1e6:.0f} MB of {quota_bytes / 1e6:.0f} MB"
    if member.db_size_bytes > _FULL * quota_bytes:
        evidence = f"the database of etcd at {member.endpoint} has {size}: when it is full, nobody can be active"
        yield Finding(Severity.WARNING, evidence, " && ".join(_shrinking(facts, member)))
    elif member.compacted == 0 and member.revision > _MANY_REVISIONS:
        days = quota_bytes / (_RENEWAL_BYTES * _DAY_S / facts.retry_s)
        evidence = (
            f"etcd at {member.endpoint} keeps its history for ever ({member.revision} revisions): "
            f"renewals alone fill it in {days:.0f} days; set ETCD_AUTO_COMPACTION_RETENTION=1 in "
            "/etc/default/etcd on each node"
        )
        yield Finding(
            Severity.WARNING, evidence, _etcdctl(facts, member, f"compact {member.revision}")
        )
    else:
        yield Finding(Severity.OK, f"etcd {member.version} at {member.endpoint}, {size}")


def _record(facts: ClusterFacts) -> Findings:
    if facts.problem and any(not member.problem for member in facts.members):
        command = ""
        if facts.code == _NO_PERMISSION:
            role = facts.user or "ROLE"
            command = _etcdctl(
                facts,
                facts.members[0],
                f"role grant-permission {role} --prefix=true readwrite openclaw/gateway/",
            )
        yield Finding(Severity.ERROR, f"the record can't be read: {facts.problem}", command)


def version_of(text: str) -> tuple[int, ...]:
    """Read a version, ``3.5.16``; ``()`` if it is none."""
    numbers = text.partition("-")[0].split(".")
    return tuple(map(int, numbers)) if all(n.isascii() and n.isdecimal() for n in numbers) else ()


def _etcdctl(facts: ClusterFacts, member: Member, words: str) -> str:
    # ETCDCTL_API: etcdctl of 3.4 takes 3 for granted, as Debian's has it, and so do all newer ones.
    # Our own user may do nothing but write the record; etcdctl asks for root's password.
    user = ["--user=root"] if facts.user is not None else []
    options = [f"--endpoints={shlex.quote(member.endpoint)}", *_tls(facts), *user]
    return " ".join(["etcdctl", *options, words])


def _tls(facts: ClusterFacts) -> list[str]:
    """Return the options that curl and etcdctl both have for TLS; curl wants a space before the value."""
    given = {"--cacert": facts.ca, "--cert": facts.certificate, "--key": facts.key}
    return [f"{option} {shlex.quote(path)}" for option, path in given.items() if path is not None]


def _shrinking(facts: ClusterFacts, member: Member) -> tuple[str, str]:
    compact = _etcdctl(facts, member, f"compact {member.revision}")
    return compact, _etcdctl(facts, member, "defrag")
