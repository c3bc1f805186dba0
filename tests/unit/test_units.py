"""What the unit files promise each other and the code."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from openclaw_gateway.errors import ExitCode
from openclaw_gateway.settings import load as settings
from openclaw_gateway.settings.keys import SECRETS, credential

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = UNITS / "openclaw-gateway.service"
TEMPLATE = UNITS / "openclaw-gateway@.service"
USER = UNITS / "user" / "openclaw-gateway.service"
GUARD = UNITS / "openclaw-guard@.service"

STOPPING_S = 5.0
"""The longest that goodbyes to clients take."""


def directives(path: Path) -> dict[str, list[str]]:
    """Return each directive's values in order, by ``Section.Name``. systemd.syntax(7)."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            found[f"{section}.{name}"].append(value)
    return dict(found)


def seconds(value: str) -> float:
    """Read the time spans that our units use. systemd.time(7)."""
    number, unit = re.fullmatch(r"(\d+)(|s|ms)", value).groups()
    return int(number) / (1000 if unit == "ms" else 1)


def longest_failure_s(unit: dict[str, list[str]]) -> float:
    """Return the seconds of a start that uses up both time-outs."""
    return seconds(unit["Service.TimeoutStartSec"][0]) + seconds(unit["Service.TimeoutStopSec"][0])


@pytest.mark.parametrize("path", [SERVICE, TEMPLATE, USER], ids=lambda path: str(path.name))
def test_start_limit_trips_for_the_slowest_failure(path):
    unit = directives(path)
    burst = int(unit["Unit.StartLimitBurst"][0])
    window_s = seconds(unit["Unit.StartLimitIntervalSec"][0])
    delays_s = burst * seconds(unit["Service.RestartSec"][0])
    assert burst * longest_failure_s(unit) + delays_s < window_s


@pytest.mark.parametrize("unit_name", [SERVICE.name, TEMPLATE.name])
def test_start_limit_trips_with_growing_delays_too(unit_name):
    dropin = UNITS / "from-254" / f"{unit_name}.d" / "00-254.conf"
    unit, growing = directives(SERVICE), directives(dropin)
    burst = int(unit["Unit.StartLimitBurst"][0])
    steps = int(growing["Service.RestartSteps"][0])
    first_s = seconds(unit["Service.RestartSec"][0])
    longest_s = seconds(growing["Service.RestartMaxDelaySec"][0])
    # systemd.service(5): delays grow exponentially from the first to the longest.
    delays_s = [first_s * (longest_s / first_s) ** (min(n, steps) / steps) for n in range(burst)]
    window_s = seconds(unit["Unit.StartLimitIntervalSec"][0])
    assert burst * longest_failure_s(unit) + sum(delays_s) < window_s


@pytest.mark.parametrize("path", [SERVICE, TEMPLATE, USER], ids=lambda path: str(path.name))
def test_at_most_12_starts_in_10_minutes(path):
    unit = directives(path)
    # A window may end full and the next one begin full: ratelimit(3)-like counting has fixed windows.
    assert seconds(unit["Unit.StartLimitIntervalSec"][0]) >= 600
    assert 2 * int(unit["Unit.StartLimitBurst"][0]) <= 12


@pytest.mark.parametrize("path", [SERVICE, TEMPLATE, USER], ids=lambda path: str(path.name))
def test_time_outs_leave_room_for_what_the_gateway_does(path):
    unit = directives(path)
    waiting_s = settings.load({}, {"HOME": "/nonexistent"}).health_timeout_s
    assert seconds(unit["Service.TimeoutStartSec"][0]) >= 1.5 * waiting_s
    assert seconds(unit["Service.TimeoutStopSec"][0]) >= 2 * STOPPING_S


@pytest.mark.parametrize("path", [SERVICE, TEMPLATE, USER, GUARD], ids=lambda path: str(path.name))
def test_what_no_restart_can_mend_is_not_restarted(path):
    unit = directives(path)
    assert unit["Service.Restart"] == ["always"]
    # Ours, then systemd's: EXEC, USER, CAPABILITIES, NAMESPACE, STATE_DIRECTORY, CREDENTIALS.
    ends = [int(word) for word in unit["Service.RestartPreventExitStatus"][0].split()]
    assert ends == [ExitCode.USAGE, ExitCode.CONFIG, 203, 217, 218, 226, 238, 243]


def test_template_differs_from_the_service_only_in_what_names_the_instance():
    service, template = directives(SERVICE), directives(TEMPLATE)
    named = {
        "Unit.Description",
        "Service.ExecStart",
        "Service.ExecReload",
        "Service.StateDirectory",
        "Service.RuntimeDirectory",
        "Service.ConfigurationDirectory",
        "Service.ConfigurationDirectoryMode",
        "Service.ReadOnlyPaths",
        "Service.LoadCredential",
    }
    added = {"Unit.PartOf", "Unit.Wants", "Service.LogExtraFields"}
    assert set(template) - set(service) == added
    assert {name for name in service if service[name] != template[name]} == named


def test_no_instance_directory_lies_below_the_services():
    service, template = directives(SERVICE), directives(TEMPLATE)
    for name in ("Service.StateDirectory", "Service.RuntimeDirectory"):
        assert service[name] == ["openclaw-gateway/default"]
        assert template[name] == ["openclaw-gateway/%i"]


def test_user_unit_has_nothing_that_a_user_manager_refuses_or_ignores():
    refused = """
        User Group StateDirectory CapabilityBoundingSet AmbientCapabilities PrivateDevices
        ProtectSystem ProtectHome PrivateTmp PrivateMounts ProtectProc LimitNOFILE
        ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectClock
        ProtectHostname ProtectControlGroups DevicePolicy
    """.split()
    unit = directives(USER)
    assert not {f"Service.{name}" for name in refused} & set(unit)
    assert "Unit.After" not in unit, "network targets don't exist there"


def test_nothing_that_systemd_252_misreads():
    newer = """
        RestartSteps RestartMaxDelaySec RestartMode ImportCredential MemoryPressureWatch OpenFile
        FileDescriptorStorePreserve ReloadSignal
    """.split()
    for path in (SERVICE, TEMPLATE, USER):
        unit = directives(path)
        assert unit["Service.Type"] == ["notify"]
        assert not {f"Service.{name}" for name in newer} & set(unit)


def test_sockets_are_kept_for_the_next_start_but_not_for_a_guard():
    for path in (SERVICE, TEMPLATE, USER):
        unit = directives(path)
        assert unit["Service.FileDescriptorStoreMax"] == ["8"]
        assert "Service.FileDescriptorStorePreserve" not in unit, "a stop closes the port"
    # What listens there is the guard's child.
    assert "Service.FileDescriptorStoreMax" not in directives(GUARD)


def test_credentials_are_those_that_the_code_reads():
    passed = {value.partition(":")[0] for value in directives(TEMPLATE)["Service.LoadCredential"]}
    assert passed == {credential(key.field) for key in SECRETS}
    assert passed == set(directives(SERVICE)["Service.LoadCredential"])


@pytest.mark.parametrize(
    ("path", "dropin"),
    [
        (SERVICE, "from-254/openclaw-gateway.service.d/00-254.conf"),
        (TEMPLATE, "from-257/openclaw-gateway@.service.d/00-257.conf"),
    ],
)
def test_newer_systemds_import_what_older_ones_load(path, dropin):
    # LoadCredential=ID:NAME, ImportCredential=NAME:ID; systemd.exec(5)
    loaded = [value.split(":") for value in directives(path)["Service.LoadCredential"]]
    imported = directives(UNITS / dropin)
    assert [value.split(":")[::-1] for value in imported["Service.ImportCredential"]] == loaded
    assert imported["Service.LoadCredential"] == [""], "takes back those of the unit"
