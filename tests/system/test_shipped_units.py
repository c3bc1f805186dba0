"""The units as shipped: what systemd says of them, and whether their numbers fit together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from machine import SERVICE, Machine, Unit

Record = Callable[[str, object], None]


@pytest.fixture(params=[SERVICE, "openclaw-gateway@shipped.service"])
def unit(machine: Machine, request: pytest.FixtureRequest) -> Unit:
    """Each of the system units, active."""
    unit = machine.unit(request.param)
    unit.start()
    return unit


def test_systemd_finds_nothing_wrong(machine: Machine, unit: Unit) -> None:
    said = machine.run(["systemd-analyze", "verify", unit.name])
    assert said.stdout + said.stderr == ""


def test_exposure_is_low(machine: Machine, unit: Unit, record_property: Record) -> None:
    said = machine.run(["systemd-analyze", "security", "--threshold=15", unit.name]).stdout
    record_property("systemd-analyze security", said.splitlines()[-1].split(": ")[1])


def test_limits_are_what_the_manual_says(machine: Machine, unit: Unit) -> None:
    shown = {
        name: unit.show(name)
        for name in ("Type", "NotifyAccess", "Restart", "RestartPreventExitStatus", "KillMode")
    }
    assert shown == {
        "Type": "notify",
        "NotifyAccess": "main",
        "Restart": "always",
        "RestartPreventExitStatus": "2 78 203 217 218 226 238 243",
        "KillMode": "mixed",
    }


def test_start_limit_trips_even_for_the_slowest_failures(machine: Machine, unit: Unit) -> None:
    def seconds(name: str) -> float:
        said = machine.run(["systemd-analyze", "timespan", unit.show(name)]).stdout
        (microseconds,) = [line.split()[-1] for line in said.splitlines() if "s: " in line]
        return int(microseconds) / 1_000_000

    attempt_s = seconds("TimeoutStartUSec") + seconds("TimeoutStopUSec") + seconds("RestartUSec")
    burst = int(unit.show("StartLimitBurst"))
    assert seconds("StartLimitIntervalUSec") > burst * attempt_s
    assert seconds("WatchdogUSec") == 30


def test_socket_and_user_unit_are_there_but_not_enabled(machine: Machine) -> None:
    assert machine.unit("openclaw-gateway.socket").show("UnitFileState") == "disabled"
    everywhere = machine.run("find /etc/systemd/user -name '*openclaw*'").stdout
    assert everywhere == ""
    machine.run(["test", "-f", "/usr/lib/systemd/user/openclaw-gateway.service"])


def test_sandbox_is_in_force(machine: Machine) -> None:
    service = machine.unit()
    proc = f"/proc/{service.pid}"
    status = dict(line.split(":\t") for line in machine.read(f"{proc}/status").splitlines())
    assert "0" not in status["Uid"].split()
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "0" * 16
    }
    assert (status["NoNewPrivs"], status["Seccomp"], status["Umask"]) == ("1", "2", "0077")
    limits = machine.read(f"{proc}/limits")
    assert next(
        line.split()[:6] for line in limits.splitlines() if line.startswith("Max core")
    ) == ["Max", "core", "file", "size", "0", "0"]


def test_sandbox_lets_write_only_to_its_own_directories(machine: Machine) -> None:
    service, profile = machine.unit(), machine.profile("boxed")
    made_by_systemd = machine.unit("openclaw-gateway@unwritten.service")
    made_by_systemd.start()
    for unit in (service, profile, made_by_systemd):
        inside = ["nsenter", f"--target={unit.pid}", "--mount", "--"]
        user = ["setpriv", "--reuid=openclaw-gateway", "--regid=openclaw-gateway", "--clear-groups"]

        def writable(path: str, within: tuple[str, ...] = (*inside, *user)) -> bool:
            return machine.run([*within, "test", "-w", path], check=False).returncode == 0

        closed = "/ /etc /usr /var /var/lib /home /root /run /etc/openclaw-gateway".split()
        closed += [f"/etc/openclaw-gateway/{name}" for name in ("boxed", "unwritten")]
        assert [path for path in closed if writable(path)] == []
        assert writable(unit.state_dir)
        assert writable(f"/run/openclaw-gateway/{unit.profile}")
        # Not for root either: the mounts themselves are read-only.
        assert machine.run([*inside, "touch", "/usr/x"], check=False).returncode != 0


def test_no_profile_can_have_the_services_own_directories(machine: Machine) -> None:
    assert machine.unit("openclaw-gateway@default.service").start(check=False) != 0
    machine.run(["test", "-d", "/run/openclaw-gateway/default"])
    assert machine.is_live()


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (2, "ExecStart=\nExecStart=/usr/bin/openclaw-gateway run --prot 1"),
        (203, "ExecStart=\nExecStart=/usr/bin/openclaw-gatway run"),
        (217, "User=nobody-of-this-name"),
        (226, "BindReadOnlyPaths=/srv/not/there"),
        (238, "StateDirectory=not-a-directory"),
        (243, "LoadCredential=key:/srv/not/there"),
    ],
)
def test_what_no_restart_can_mend_is_not_restarted(
    machine: Machine, status: int, line: str
) -> None:
    machine.run("touch /var/lib/not-a-directory")
    unit = machine.profile(f"hopeless{status}", drop_in=f"[Service]\n{line}\n", start=False)
    assert unit.start(check=False) != 0
    assert unit.show("ActiveState") == "failed"
    assert (unit.show("ExecMainStatus"), unit.show("NRestarts")) == (str(status), "0")
