"""The package's life on a system: built, upgraded, reinstalled, removed, purged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from machine import SERVICE, Machine, Unit, booted_with_package

from openclaw_gateway.supervisor.events import Event
from testbed import package
from testbed.package import Built

Record = Callable[[str, object], None]

_CONF = "/etc/openclaw-gateway/openclaw.json"
_NEWER = "/var/tmp/newer.deb"
_REPACK = f"""
dpkg-deb --raw-extract "$1" /var/tmp/newer
sed -i 's/^Version: .*/&+newer/' /var/tmp/newer/DEBIAN/control
dpkg-deb --build --root-owner-group /var/tmp/newer {_NEWER}
rm -r /var/tmp/newer
"""


@pytest.fixture
def machine(release: str) -> Iterator[Machine]:
    """A system of this test's own, with the package."""
    with booted_with_package(release) as machine:
        yield machine


def _apt(machine: Machine, *arguments: str) -> str:
    return machine.run(["apt-get", "-q", "-y", *arguments], timeout_s=300).stdout


@pytest.fixture
def upgrade(machine: Machine, built: Built) -> Callable[[], None]:
    """Do an upgrade from the package that is installed to one with a higher version."""
    machine.copy_in(built.deb, "/var/tmp/this.deb")
    machine.run(["sh", "-euc", _REPACK, "sh", "/var/tmp/this.deb"])

    def upgrade() -> None:
        _apt(machine, "install", _NEWER)
        version = machine.run("dpkg-query -W -f '${Version}' openclaw-gateway").stdout
        assert version.endswith("+newer")

    return upgrade


def test_lintian_has_no_error_and_no_warning(built: Built, record_property: Record) -> None:
    assert built.lint_ok, built.lintian
    record_property("lintian", built.lintian.strip() or "nothing to say")


def test_second_build_elsewhere_is_identical(release: str, built: Built, tmp_path: Path) -> None:
    again = package.build_again(release, tmp_path / "again")
    for one, other in ((again.deb, built.deb), (again.command_deb, built.command_deb)):
        assert sha256(one.read_bytes()).digest() == sha256(other.read_bytes()).digest()


def test_service_starts_at_boot(machine: Machine) -> None:
    assert machine.state == "running"
    assert machine.is_live()


def test_upgrade_restarts_what_runs_exactly_once(
    machine: Machine, upgrade: Callable[[], None]
) -> None:
    running, resting = machine.profile("running"), machine.profile("resting")
    resting.stop()
    units = [machine.unit(), running]
    before = [(unit.pid, len(unit.events(Event.STARTED))) for unit in units]
    upgrade()
    for unit, (pid, starts) in zip(units, before, strict=True):
        unit.wait_for_another(pid)
        assert len(unit.events(Event.STARTED)) == starts + 1
        assert unit.show("NRestarts") == "0"
    assert resting.show("ActiveState") == "inactive"
    assert machine.is_live()


def test_upgrade_leaves_stopped_and_masked_units_alone(
    machine: Machine, upgrade: Callable[[], None]
) -> None:
    service = machine.unit()
    service.stop()
    machine.systemctl("mask", SERVICE)
    upgrade()
    assert service.show("ActiveState") == "inactive"
    assert service.show("LoadState") == "masked"
    machine.systemctl("unmask", SERVICE)
    _apt(machine, "install", "--reinstall", _NEWER)
    assert service.show("ActiveState") == "inactive"


def test_upgrade_keeps_what_the_administrator_changed(
    machine: Machine, upgrade: Callable[[], None]
) -> None:
    drop_in = "/etc/systemd/system/openclaw-gateway.service.d/override.conf"
    texts = {drop_in: "[Service]\nWatchdogSec=77\n", _CONF: "{ /* mine */ }\n"}
    for path, text in texts.items():
        machine.write(path, text)
    upgrade()
    assert {path: machine.read(path) for path in texts} == texts
    assert machine.unit().show("WatchdogUSec") == "1min 17s"


def test_reinstalling_restarts_once(machine: Machine, built: Built) -> None:
    service = machine.unit()
    pid, starts = service.pid, len(service.events(Event.STARTED))
    machine.copy_in(built.deb, "/var/tmp/this.deb")
    _apt(machine, "install", "--reinstall", "/var/tmp/this.deb")
    service.wait_for_another(pid)
    assert len(service.events(Event.STARTED)) == starts + 1


def _guarded(machine: Machine) -> Unit:
    """Return a guard's unit, enabled and active; what it guards is a web server of Python's."""
    machine.run(["useradd", "--create-home", "ada"])
    guard = machine.unit("openclaw-guard@ada.service")
    guard.drop_in(
        "[Service]\nExecStart=\nExecStart=/usr/bin/openclaw-gateway guard --port 8000 --health-path / "
        "--startup-path none -- python3 -m http.server 8000 --bind 127.0.0.1\n"
    )
    machine.systemctl("enable", "--now", guard.name)
    return guard


def test_upgrade_leaves_guards_to_what_they_are_at(
    machine: Machine, upgrade: Callable[[], None]
) -> None:
    guard = _guarded(machine)
    pid = guard.pid
    upgrade()
    assert (guard.show("ActiveState"), guard.pid) == ("active", pid)


def test_removing_stops_all_and_keeps_settings_and_state(machine: Machine, built: Built) -> None:
    service, profile, guard = machine.unit(), machine.profile("work"), _guarded(machine)
    _apt(machine, "remove", "openclaw-gateway")
    for unit in (service, profile, guard):
        assert unit.show("ActiveState") == "inactive"
        assert unit.pid == 0
    for unit in (service, profile):
        assert unit.show("LoadState") == "not-found"
        machine.run(["test", "-f", unit.config_path, "-a", "-d", unit.state_dir])
    machine.install(built.deb)
    assert service.show("ActiveState") == "active"


def test_purging_leaves_no_file(machine: Machine) -> None:
    machine.profile("work")
    machine.systemctl("enable", "openclaw-guard@ada.service")
    _apt(machine, "purge", "openclaw-gateway")
    machine.run("rm -f /var/tmp/openclaw-gateway*")  # the downloaded package itself
    left = machine.run("find / -xdev -name '*openclaw*' -not -path '/proc/*'").stdout
    assert left == ""
    # What systemd remembers of a unit that it has not forgotten yet is not ours.
    left = machine.run("find /run -name '*openclaw*' -not -path '/run/systemd/units/*'").stdout
    assert left == ""
    units = ["systemctl", "list-units", "--all", "--quiet", "openclaw-gateway*"]
    assert machine.run(units).stdout == ""
