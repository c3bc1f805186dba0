"""What a user has after ``apt install`` on a minimal system, and what it costs."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator

import pytest
from machine import LIVE, PORT, SERVICE, Machine, Unit

from openclaw_gateway import __version__
from openclaw_gateway.supervisor.events import Event
from testbed.package import Built

Record = Callable[[str, object], None]


def _installed_kilobytes(machine: Machine) -> dict[str, int]:
    listed = machine.run("dpkg-query -W -f '${Package} ${Installed-Size}\\n'").stdout
    return {
        name: int(size or 0)
        for name, _, size in (line.partition(" ") for line in listed.splitlines())
    }


@pytest.fixture(scope="module")
def sizes() -> dict[str, dict[str, int]]:
    return {}


@pytest.fixture(scope="module")
def minimal(release: str, built: Built, sizes: dict[str, dict[str, int]]) -> Iterator[Machine]:
    """A system without any tools, on which the package was just installed."""
    with Machine(release, kind="plain") as machine:
        before = _installed_kilobytes(machine)
        machine.install(built.deb)
        after = _installed_kilobytes(machine)
        sizes[release] = {name: after[name] for name in after.keys() - before.keys()}
        yield machine


@pytest.fixture
def service(minimal: Machine) -> Unit:
    return minimal.unit()


def test_service_is_active_and_enabled_at_once(service: Unit, record_property: Record) -> None:
    assert service.show("ActiveState") == "active"
    assert service.show("UnitFileState") == "enabled"
    assert service.show("NRestarts") == "0"
    began_s = int(service.show("InactiveExitTimestampMonotonic")) / 1_000_000
    record_property("start to READY, seconds", f"{service.ready_at_s - began_s:.2f}")


def test_health_answers_exactly(minimal: Machine) -> None:
    assert minimal.get("/healthz") == LIVE
    assert minimal.get("/health") == LIVE


def test_nothing_else_failed_or_complained(minimal: Machine) -> None:
    assert minimal.run(["systemctl", "list-units", "--failed", "--quiet", "--plain"]).stdout == ""
    assert minimal.journal("--priority=warning", f"--unit={SERVICE}") == []
    # An option that this systemd doesn't know is named at each reload of the manager.
    assert not [entry for entry in minimal.journal() if "Unknown " in str(entry["MESSAGE"])]


def test_journal_entry_of_the_start_has_fields(service: Unit) -> None:
    (entry,) = service.events(Event.STARTED)
    assert entry["PRIORITY"] == "5"
    assert entry["SYSLOG_IDENTIFIER"] == "openclaw-gateway"
    assert entry["OPENCLAW_PORT"] == str(PORT)
    assert entry["OPENCLAW_STATE_DIR"] == service.state_dir
    assert entry["OPENCLAW_CONFIG_PATH"] == service.config_path
    assert __version__ in entry["MESSAGE"]


def test_catalog_explains_the_start(minimal: Machine) -> None:
    matches = [f"_SYSTEMD_UNIT={SERVICE}", f"MESSAGE_ID={Event.STARTED.message_id}"]
    said = minimal.run(["journalctl", "--catalog", *matches]).stdout
    assert f"Subject: The gateway on port {PORT} is ready" in said
    assert "Defined-By: openclaw-gateway" in said


def test_token_was_made_and_its_path_logged(minimal: Machine, service: Unit) -> None:
    path = f"{service.state_dir}/gateway.token"
    mode, owner = minimal.run(["stat", "--format=%f %U", path]).stdout.split()
    assert stat.S_IMODE(int(mode, 16)) == 0o600
    assert owner == "openclaw-gateway"
    (entry,) = service.events(Event.TOKEN_CREATED)
    assert path in entry["MESSAGE"]


def test_installed_size(
    release: str, sizes: dict[str, dict[str, int]], minimal: Machine, record_property: Record
) -> None:
    new = sizes[release]
    assert new["openclaw-gateway"] < 2000
    record_property("package alone, kB", new["openclaw-gateway"])
    record_property("with all that it pulls into a minimal system, kB", sum(new.values()))
    record_property(
        "packages that it pulls in", ", ".join(sorted(new.keys() - {"openclaw-gateway"}))
    )
