"""Facts about gateways to judge: a healthy system unit, and ways to differ from it."""

from __future__ import annotations

import shlex
from typing import Any

from openclaw_gateway import cli
from openclaw_gateway.admin.look.facts import Facts, ListenerFact, LockFact, ProcessDetails, Rival
from openclaw_gateway.admin.look.place import Place
from openclaw_gateway.admin.look.selection import Scope, select
from openclaw_gateway.admin.look.subject import Subject
from openclaw_gateway.admin.look.units import SYSTEM, Manager, Unit, parse
from openclaw_gateway.claim.record import LockRecord, Phase
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import HealthFact
from openclaw_gateway.host.ports import Connections

PORT = 18789
SELECTIONS = (
    select({}),
    select({}, scope=Scope.USER, flags={"--profile": "work"}),
    select(
        {}, scope=Scope.SYSTEM, flags={"--port": "18789", "--state-dir": "/s", "--config": "/a b"}
    ),
)
"""What may have named a gateway on our own command line."""
PID = 812

RUNNING = """\
Id=openclaw-gateway.service
LoadState=loaded
ActiveState=active
SubState=running
Result=success
UnitFileState=enabled
FragmentPath=/lib/systemd/system/openclaw-gateway.service
DropInPaths=/etc/systemd/system/openclaw-gateway.service.d/10-port.conf
NeedDaemonReload=no
MainPID=812
ExecMainCode=0
ExecMainStatus=0
NRestarts=0
StatusText=ready on ws://127.0.0.1:18789, 0 clients
InvocationID=0f6e8a5d3a6b4e0e8a1f0c9b2d7e4f11
ControlGroup=/system.slice/openclaw-gateway.service
Restart=always
RestartUSec=2s
RestartPreventExitStatus=78 243
KillMode=mixed
TimeoutStartUSec=1min 30s
TimeoutStopUSec=30s
StartLimitIntervalUSec=10min
StartLimitBurst=5
WatchdogUSec=1min
WatchdogTimestampMonotonic=996000000
ActiveEnterTimestampMonotonic=500310000
InactiveExitTimestampMonotonic=500000000
InactiveEnterTimestampMonotonic=0
ExecMainStartTimestampMonotonic=500000000
ExecMainExitTimestampMonotonic=0
User=openclaw
StateDirectory=openclaw-gateway/default
ConfigurationDirectory=openclaw-gateway
NFileDescriptorStore=2
Environment=A=1 "B=two words"
EnvironmentFiles=/etc/one (ignore_errors=yes)
EnvironmentFiles=/etc/two (ignore_errors=no)
ExecStart={ path=/usr/bin/openclaw-gateway ; argv[]=/usr/bin/openclaw-gateway run --port 18789 ; ignore_errors=no ; start_time=[n/a] ; pid=0 }
"""


def unit(manager: Manager = SYSTEM, **changes: Any) -> Unit:
    """Return the running unit, changed."""
    return parse(RUNNING, manager, now_s=1000.0)[0]._replace(**changes)


def failed_unit(exit_status: int, **changes: Any) -> Unit:
    """Return the unit after its main process exited for good."""
    failed = {
        "active_state": "failed",
        "sub_state": "failed",
        "result": "exit-code",
        "main_pid": None,
        "exit_kind": 1,
        "exit_status": exit_status,
        "active_age_s": None,
        "changed_age_s": 5.0,
        "status_text": "",
    }
    return unit(**(failed | changes))


def process(pid: int = PID, **changes: Any) -> ProcessDetails:
    """Return the gateway's process, changed."""
    made = ProcessDetails(
        pid=pid,
        command="openclaw-gateway",
        user="openclaw",
        unit="openclaw-gateway.service",
        manager=SYSTEM,
        age_s=500.0,
        is_stopped=False,
        memory_bytes=24_000_000,
        threads=1,
        descriptors=31,
        descriptor_limit=65536,
        oom_kills=0,
        same_network=True,
    )
    return made._replace(**changes)


def record(**changes: Any) -> LockRecord:
    """Return the gateway's lock record, changed."""
    made = LockRecord(
        pid=PID,
        port=PORT,
        start_ticks=1,
        state_dir="/var/lib/openclaw-gateway/default",
        host="127.0.0.1",
        phase=Phase.READY,
        boot_id="b",
        unit="openclaw-gateway.service",
        version="0.1.0",
    )
    return made._replace(**changes)


def answer(health: Health, **changes: Any) -> HealthFact:
    """Return what /healthz said."""
    return HealthFact("127.0.0.1", PORT, health, 0.002)._replace(**changes)


STATE_DIR = "/var/lib/openclaw-gateway/default"
PLACE = Place(
    port=PORT,
    host="127.0.0.1",
    state_dir=STATE_DIR,
    config_path="/etc/openclaw-gateway/o.json",
    auth="token",
    health_timeout_s=30.0,
)


def running(**changes: Any) -> Facts:
    """Return the facts of a healthy system unit, changed; the subject's own parts are given like the others."""
    parts = {name: changes.pop(name) for name in Subject._fields if name in changes}
    subject = Subject(
        selection=SELECTIONS[0],
        manager=SYSTEM,
        unit=unit(),
        unit_problem=None,
        socket=None,
        place=PLACE,
        configured_port=PORT,
        others=(),
    )
    made = Facts(
        subject=subject._replace(**parts),
        process=process(),
        owner=process(),
        guarded=None,
        lock=LockFact(PID, 990, STATE_DIR, PID, record(), True, None),
        listeners=(ListenerFact("127.0.0.1", PORT, 990, PID, 0, 512),),
        strangers=(),
        connections=Connections(0, 0),
        health=answer(Health.HEALTHY, ready=True),
        parked_behind=None,
        last_exit=None,
        rivals=(),
        unseen=(),
        viewer_uid=0,
        cli_version="0.1.0",
    )
    return made._replace(**changes)


def nobody(**changes: Any) -> Facts:
    """Return the facts of a port where nothing is, and a unit that is as given."""
    empty = {
        "unit": unit(active_state="inactive", sub_state="dead", main_pid=None),
        "process": None,
        "owner": None,
        "lock": LockFact(None, None, "/var/lib/openclaw-gateway/default", None, None, None, None),
        "listeners": (),
        "health": answer(Health.REFUSED),
    }
    return running(**(empty | changes))


ALICE = Manager(4000000, "alice")


def user_serves(**changes: Any) -> Facts:
    """Return the facts of a system unit that is inactive, and disabled unless changed, while a user's has the port."""
    theirs = process(640, user="alice", manager=ALICE)
    idle = {
        "active_state": "inactive",
        "main_pid": None,
        "enabled": "disabled",
        "result": "success",
    }
    return running(
        unit=unit(**(idle | changes)),
        process=theirs,
        owner=theirs,
        rivals=(Rival("openclaw-gateway.service", ALICE, PORT, False),),
        lock=LockFact(640, 4000000, "/home/alice/.openclaw", 640, record(pid=640), True, None),
        listeners=(ListenerFact("127.0.0.1", PORT, 4000000, 640, 0, 512),),
    )


def stranger(**changes: Any) -> Facts:
    """Return the facts of a port that a program has which is no gateway."""
    other = process(4242, command="python3", user="bob", unit="session-1.scope")
    held = {
        "listeners": (ListenerFact("127.0.0.1", PORT, 1001, 4242, 0, 512),),
        "strangers": (other,),
        "health": answer(Health.FOREIGN),
    }
    return nobody(**(held | changes))


def foreign_words(line: str) -> list[list[str]]:
    """Return the commands of a line that are not ours; ours are parsed, and must be right."""
    found = []
    for command in line.split(" && "):
        words = shlex.split(command.removeprefix("sudo "))
        if words[:1] == ["nsenter"]:
            words = words[4:]
        if words[:1] == ["openclaw-gateway"]:
            cli.parser("openclaw-gateway").parse_args(words[1:])
        else:
            found.append(words)
    return found
