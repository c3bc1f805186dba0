"""Settings change under a running gateway, for better or worse."""

from __future__ import annotations

import json

from machine import Machine

from openclaw_gateway.supervisor.events import Event


def test_reload_takes_good_settings_without_a_restart(machine: Machine) -> None:
    gateway = machine.profile("good")
    pid = gateway.pid
    machine.write(gateway.config_path, '{"logging": {"level": "debug"}}')
    machine.systemctl("reload", gateway.name)
    machine.until(f"journalctl -q _PID={pid} MESSAGE_ID={Event.RELOADED.message_id} | grep -q .")
    assert (gateway.pid, gateway.show("ActiveState")) == (pid, "active")


def test_reload_of_a_profile_has_its_units_environment_and_credentials(machine: Machine) -> None:
    """Who checks the settings first is another process than the gateway, and is given both by systemd, too."""
    machine.write("/etc/reload.env", "RELOAD_LEVEL=debug\n", mode=0o600)
    machine.write("/etc/credstore/openclaw-gateway.given.password", "0123456789abcdef", mode=0o600)
    gateway = machine.profile(
        "given",
        drop_in="[Service]\nEnvironmentFile=/etc/reload.env\n",
        port=20004,
        auth={"mode": "password"},
    )
    pid = gateway.pid
    settings = {
        "gateway": {"port": 20004, "auth": {"mode": "password"}},
        "logging": {"level": "${RELOAD_LEVEL}"},
    }
    machine.write(gateway.config_path, json.dumps(settings))
    machine.systemctl("reload", gateway.name)
    machine.until(f"journalctl -q _PID={pid} MESSAGE_ID={Event.RELOADED.message_id} | grep -q .")
    assert (gateway.pid, gateway.show("ActiveState")) == (pid, "active")
    assert machine.is_live(20004)
    gateway.stop()


def test_reload_fails_on_bad_settings_and_the_gateway_lives_on(machine: Machine) -> None:
    gateway = machine.profile("bad")
    pid = gateway.pid
    port = int(gateway.events(Event.STARTED)[0]["OPENCLAW_PORT"])
    machine.write(gateway.config_path, '{"gateway": {"port": "many"}}')
    assert machine.systemctl("reload", gateway.name, check=False) != 0
    assert (gateway.pid, gateway.show("ActiveState")) == (pid, "active")
    assert machine.is_live(port)
    assert f"{gateway.config_path}:1:14 gateway.port: must be a port" in gateway.says()


def test_routine_is_no_news_to_logcheck(machine: Machine) -> None:
    gateway = machine.profile("routine")
    machine.systemctl("reload", gateway.name)
    machine.until(
        f"journalctl -q -u {gateway.name} MESSAGE_ID={Event.RELOADED.message_id} | grep -q ."
    )
    gateway.restart()
    gateway.stop()
    machine.run(["journalctl", "--sync"])
    of_its_own = f"journalctl --quiet _SYSTEMD_UNIT={gateway.name}"
    rules = "/etc/logcheck/ignore.d.server/openclaw-gateway"
    for style in ("short", "short-iso-precise"):
        # The token that it made at its first start is news, once.
        said = machine.run(
            f"{of_its_own} -o {style} | grep -Evf {rules} | grep -v gateway.token || :; "
            f"test $({of_its_own} | wc -l) -gt 6"
        )
        assert said.stdout == ""


def test_sighup_with_bad_settings_changes_nothing(machine: Machine) -> None:
    gateway = machine.profile("hangup")
    pid = gateway.pid
    machine.write(gateway.config_path, "{")
    gateway.kill("HUP")
    machine.until(
        f"journalctl -q _PID={pid} MESSAGE_ID={Event.RELOAD_REFUSED.message_id} | grep -q ."
    )
    assert (gateway.pid, gateway.show("ActiveState")) == (pid, "active")


def test_bad_settings_at_the_start_park_the_unit_with_the_reason(machine: Machine) -> None:
    gateway = machine.profile("refused", start=False, port="many")
    assert gateway.start(check=False) != 0
    assert gateway.show("ActiveState") == "failed"
    assert gateway.show("ExecMainStatus") == "78"
    assert gateway.show("NRestarts") == "0"
    status = machine.run(["systemctl", "status", gateway.name], check=False).stdout
    assert "78/CONFIG" in status
    assert f"{gateway.config_path}:1:14 gateway.port: must be a port" in status
    (entry,) = gateway.events(Event.CONFIG_INVALID)
    assert entry["PRIORITY"] == "3"
