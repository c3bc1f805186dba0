"""
Debian's Prometheus scrapes the gateway by the shipped example, and the shipped alerts fire.

The example is set up by the commands that stand in it. Only its times are made shorter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from machine import PORT, SERVICE, Machine, Unit

import monitoring
from testbed.package import Built

CONFIGURATION = "/etc/prometheus/prometheus.yml"
EXAMPLES = "/usr/share/doc/openclaw-gateway/examples/prometheus"
_API = "http://127.0.0.1:9090/api/v1"
_SHORTER = r"""
sed -i 's/: 15s/: 1s/' /etc/prometheus/prometheus.yml
sed -i 's/ for: .*/ for: 2s/; s/_seconds > 300/_seconds > 30/' /etc/prometheus/openclaw-gateway.rules.yml
"""
# As in the configuration that Debian's Prometheus comes with.
_NODE = """
  - job_name: node
    static_configs:
      - targets: ["localhost:9100"]
"""
_GUARD = "openclaw-guard@ada.service"
_GUARDED = """[Service]
ExecStart=
ExecStart=/usr/bin/openclaw-gateway guard --metrics %t/openclaw-guard/%i/metrics.prom --port 8000 \
    --health-path / --startup-path none -- python3 -m http.server 8000 --bind 127.0.0.1
WatchdogSec=6
Restart=no
"""


@pytest.fixture(scope="module")
def watched(release: str, built: Built) -> Iterator[Machine]:
    """A system with the package and Prometheus, set up as the example's own text says."""
    with Machine(release, kind="watched") as machine:
        # A Debian that was installed, and not made by debootstrap, knows this name.
        machine.write("/etc/hosts", "127.0.0.1 localhost\n")
        machine.install(built.deb)
        for command in _commands(machine.read(f"{EXAMPLES}/prometheus.yml")):
            machine.run(command)
        machine.write(CONFIGURATION, machine.read(f"{EXAMPLES}/prometheus.yml") + _NODE)
        machine.run(_SHORTER)
        machine.run(["promtool", "check", "config", CONFIGURATION])
        machine.systemctl("reload", "prometheus")
        yield machine


def _commands(example: str) -> list[str]:
    """Return what the example says to type, but for the installation: there is no network."""
    lines = [line[4:] for line in example.splitlines() if line.startswith("#   ")]
    text = "\n".join(lines).replace("\\\n", " ").replace("sudo ", "")
    place = re.search(r"^cd .*", text, re.MULTILINE)
    assert place is not None
    copies = [line for line in text.splitlines() if line.startswith(("install", "cp"))]
    assert len(copies) == 2
    return [f"{place[0]}\n{line}" for line in copies]


def asked(machine: Machine, expression: str) -> list[dict[str, Any]]:
    """Return what Prometheus answers to an expression, now."""
    said = machine.run(["curl", "-sS", f"{_API}/query?query={quote(expression)}"]).stdout
    answer = json.loads(said)
    assert answer["status"] == "success", said
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def until(machine: Machine, expression: str) -> None:
    """Wait until an expression is true of something."""
    url = f"{_API}/query?query={quote(expression)}"
    try:
        machine.until(f"curl -sS '{url}' | grep -q '\"value\":'")
    except Exception as error:
        error.add_note(machine.run(["curl", "-sS", f"{_API}/alerts"]).stdout)
        error.add_note(machine.run(["curl", "-sS", f"{_API}/targets"]).stdout)
        raise


def fires(machine: Machine, alert: str) -> None:
    until(machine, f'ALERTS{{alertname="{alert}",alertstate="firing"}}')


@contextmanager
def without_restart(machine: Machine) -> Iterator[None]:
    """Have systemd leave a dead gateway dead, as it does after too many starts."""
    drop_in = f"/run/systemd/system/{SERVICE}.d/10-test.conf"
    machine.unit().drop_in("[Service]\nRestart=no\n")
    try:
        yield
    finally:
        machine.run(["rm", drop_in])
        machine.systemctl("daemon-reload")
        machine.unit().restart()


@pytest.fixture
def up(watched: Machine) -> Machine:
    """The same, with the gateway up and scraped, and no alert from the test before."""
    watched.systemctl("reset-failed", check=False)
    watched.unit().start()
    until(watched, 'up{job="openclaw-gateway"} == 1')
    return watched


def test_prometheus_scrapes_by_the_shipped_example(up: Machine) -> None:
    (found,) = asked(up, "openclaw_gateway_ready")
    assert found["metric"]["instance"] == f"localhost:{PORT}"
    assert found["value"][1] == "1"
    # The unit is watched, and its pings are seen.
    assert asked(up, "time() - openclaw_gateway_watchdog_last_ping_timestamp_seconds < 60")
    # /proc is the unit's own view of it, and the sandbox leaves enough of it.
    (started,) = asked(up, "time() - process_start_time_seconds{job='openclaw-gateway'}")
    assert 0 <= float(started["value"][1]) < 3600
    until(up, "increase(openclaw_gateway_http_requests_total[1m]) > 0")


def test_dashboard_shows_something_in_each_panel(up: Machine) -> None:
    until(up, "increase(openclaw_gateway_http_requests_total[1m]) > 0")
    up.run(["openclaw-gateway", "call", "health"])
    until(up, "increase(openclaw_gateway_rpc_handler_seconds_count[1m]) > 0")
    empty = [text for text in monitoring.expressions() if not asked(up, text)]
    # Nothing was limited, nothing is in a cluster or guarded, and nothing was restarted just now, or maybe it was.
    assert [
        text for text in empty if not re.search(r"cluster|guard|limit_reached|changes", text)
    ] == []


def test_scrape_by_another_name_needs_the_token_and_no_more(up: Machine) -> None:
    token = "$(cat /etc/prometheus/openclaw-gateway.token)"
    ask = f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{PORT}/metrics"
    named = f"{ask} -H 'Host: gateway.example.org'"
    assert up.run(f'{named} -H "Authorization: Bearer {token}"').stdout == "200"
    assert up.run(named).stdout == "401"


def test_without_the_library_the_answer_names_the_package_that_brings_it(up: Machine) -> None:
    package = "python3-prometheus-client"
    version = up.run(["dpkg-query", "-Wf", "${Version}", package]).stdout
    ask = (
        f'curl -s -w "%{{http_code}}" http://127.0.0.1:{PORT}/metrics '
        '-H "Authorization: Bearer $(cat /etc/prometheus/openclaw-gateway.token)"'
    )
    up.run(["dpkg", "--remove", package])
    try:
        up.unit().restart()  # what is loaded stays
        said = up.run(ask).stdout
        assert f"apt install {package}" in said and said.endswith("501")
    finally:
        up.run(["apt-get", "-q", "-y", "install", f"{package}={version}"], timeout_s=300)
    assert up.run(ask).stdout.endswith("200")


def test_killed_gateway_is_told(up: Machine) -> None:
    with without_restart(up):
        up.unit().kill("KILL")
        fires(up, "OpenClawGatewayDown")
    until(up, 'absent(ALERTS{alertname="OpenClawGatewayDown"})')


def test_gateway_that_dies_again_and_again_is_told(up: Machine) -> None:
    seen = 'changes(process_start_time_seconds{job="openclaw-gateway"}[15m])'
    before = float(asked(up, seen)[0]["value"][1])
    for deaths in range(1, 4):
        pid = up.unit().pid
        up.unit().kill("KILL")
        up.unit().wait_for_another(pid)
        # It lives long enough to be seen.
        until(up, f"{seen} >= {before + deaths}")
    fires(up, "OpenClawGatewayRestarting")


def test_gateway_that_hangs_is_told(up: Machine) -> None:
    pid = up.unit().pid
    up.unit().kill("STOP")
    try:
        fires(up, "OpenClawGatewayDown")
    finally:
        up.run(["kill", "-CONT", str(pid)], check=False)


def test_degraded_gateway_is_told_and_why(up: Machine) -> None:
    directory = up.unit().state_dir
    up.run(["chmod", "u-w", directory])
    try:
        fires(up, "OpenClawGatewayDegraded")
        said = up.run(["curl", "-sS", f"{_API}/alerts"]).stdout
        assert "A check fails (state-directory)" in said
    finally:
        up.run(["chmod", "u+w", directory])
    until(up, "openclaw_gateway_ready == 1")
    until(up, 'absent(ALERTS{alertname="OpenClawGatewayDegraded"})')


@pytest.fixture
def guarded(watched: Machine) -> Iterator[Unit]:
    """A guarded web server, with its metrics made known as the manual says."""
    watched.run("id ada >/dev/null 2>&1 || useradd --create-home ada; mkdir -p /home/ada/.openclaw")
    watched.run("chown ada: /home/ada/.openclaw")
    unit = watched.unit(_GUARD)
    unit.drop_in(_GUARDED)
    page = watched.run("man --pager=cat openclaw-guard", environ={"MANWIDTH": "200"}).stdout
    command = re.search(r"ln -s /run/openclaw-guard/ada/metrics.prom \\\s+(\S+)", page)
    assert command is not None
    watched.run(["ln", "-sfn", "/run/openclaw-guard/ada/metrics.prom", command[1]])
    unit.start()
    until(watched, 'openclaw_guard_ready{port="8000"} == 1')
    yield unit
    unit.stop()
    watched.systemctl("reset-failed", _GUARD, check=False)


def test_guard_is_watched_through_node_exporter(watched: Machine, guarded: Unit) -> None:
    until(watched, "time() - openclaw_guard_watchdog_last_ping_timestamp_seconds < 60")
    watched.run(
        ["runuser", "-u", "prometheus", "--", "cat", "/run/openclaw-guard/ada/metrics.prom"]
    )
    watched.run(["pkill", "--full", "-KILL", "^python3 -m http.server 8000"])
    guarded.wait_for("ActiveState", "failed")
    fires(watched, "OpenClawGuardedEnded")


def test_killed_guard_is_told_though_its_file_stays(watched: Machine, guarded: Unit) -> None:
    guarded.kill("KILL")
    guarded.wait_for("ActiveState", "failed")
    fires(watched, "OpenClawGuardSilent")


def test_stopped_guard_leaves_no_metrics(watched: Machine, guarded: Unit) -> None:
    guarded.stop()
    until(watched, "absent(openclaw_guard_ready)")


def test_all_who_tell_how_the_service_is_use_the_same_word(up: Machine) -> None:
    """As ``tests/integration/test_readers_agree.py`` has it, here with a unit that runs the gateway."""

    def words() -> tuple[str, str, str, bool, float, float]:
        verb = json.loads(up.run(["openclaw-gateway", "status", "--json"], check=False).stdout)
        terminal = up.run(["openclaw-gateway", "status"], check=False).stdout
        method = json.loads(up.run(["openclaw-gateway", "call", "status"]).stdout)
        assert (verb["reason"], verb["unit_name"]) == (method["reason"], method["unit"])
        (ready,) = asked(up, "openclaw_gateway_ready")
        (degraded,) = asked(up, "openclaw_gateway_degraded")
        return (
            verb["state"],
            method["state"],
            terminal.split()[1].removesuffix(":").lower(),
            method["ready"],
            float(ready["value"][1]),
            float(degraded["value"][1]),
        )

    until(up, "openclaw_gateway_ready == 1")
    assert words() == ("running", "running", "running", True, 1, 0)
    directory = up.unit().state_dir
    up.run(["chmod", "u-w", directory])
    try:
        until(up, "openclaw_gateway_ready == 0")
        assert words() == ("degraded", "degraded", "degraded", False, 0, 1)
    finally:
        up.run(["chmod", "u+w", directory])
    until(up, "openclaw_gateway_ready == 1")
