"""Tokens come from where they should, and go nowhere else."""

from __future__ import annotations

from machine import PORT, Machine, Unit

CANARY = "canary-5e1f0c7d9b2a4468"


def _assert_shown_nowhere(machine: Machine, token: str, *, kept_in: list[str]) -> None:
    """
    Look for a token in the journal, in all that systemd tells, in procfs and in every file.

    The searches get it from a file in memory that is theirs alone, not in their arguments.
    """
    pattern = "/dev/shm/token-pattern"
    machine.write(pattern, token, mode=0o600)
    found = f"grep -qaFf {pattern} && echo"
    searches = [
        f"journalctl --output=export --all | {found} journal || :",
        f"systemctl show --all '*' | {found} properties || :",
        f"systemctl status --all --lines=1000 | {found} status || :",
        f"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | {found} procfs || :",
    ]
    for search in searches:
        assert machine.run(search).stdout == ""
    within = "/etc /opt /root /home /run /srv /tmp /usr /var /dev/shm"
    files = machine.run(
        f"grep -rlaFf {pattern} --devices=skip {within} || [ $? -le 2 ]", timeout_s=120
    ).stdout.split()
    assert sorted(files) == sorted([pattern, *kept_in])


def _is_accepted(machine: Machine, token_file: str, *, port: int = PORT) -> bool:
    """Whether a client gets in with the token in a file of root's."""
    call = ["openclaw-gateway", "call", f"--port={port}", f"--token-file={token_file}", "health"]
    return machine.run(call, check=False).returncode == 0


def test_generated_token_is_in_its_file_only(machine: Machine) -> None:
    service = machine.unit()
    machine.write(service.config_path, '{"logging": {"level": "debug"}}')
    service.restart()
    path = f"{service.state_dir}/gateway.token"
    token = machine.read(path).strip()
    assert len(token) >= 32
    almost = "/root/almost"
    machine.write(almost, f"{token}x", mode=0o600)
    assert _is_accepted(machine, path)
    assert not _is_accepted(machine, almost)
    machine.run(["rm", almost])
    _assert_shown_nowhere(machine, token, kept_in=[path])


def test_generated_token_outlives_a_restart(machine: Machine) -> None:
    service = machine.unit()
    path = f"{service.state_dir}/gateway.token"
    token = machine.read(path)
    service.restart()
    assert machine.read(path) == token


def test_credential_takes_the_place_of_a_generated_token(machine: Machine) -> None:
    machine.run("install -d -m 700 /etc/credstore")
    stored = "/etc/credstore/openclaw-gateway.vault.token"
    machine.write(stored, CANARY, mode=0o600)
    gateway = machine.profile("vault", port=20401)
    assert _is_accepted(machine, stored, port=20401)
    machine.run(["test", "!", "-e", f"{gateway.state_dir}/gateway.token"])
    handed_over = f"/run/credentials/{gateway.name}/openclaw-gateway.token"
    _assert_shown_nowhere(machine, CANARY, kept_in=[stored, handed_over])


def test_credential_of_a_drop_in_takes_the_place_of_the_units(machine: Machine) -> None:
    kept = "/root/token"
    machine.write(kept, CANARY, mode=0o600)
    drop_in = f"[Service]\nLoadCredential=openclaw-gateway.token:{kept}\n"
    machine.profile("kept", drop_in=drop_in, port=20402)
    assert _is_accepted(machine, kept, port=20402)


def test_missing_credential_of_a_drop_in_is_not_tried_again(machine: Machine) -> None:
    drop_in = "[Service]\nLoadCredential=openclaw-gateway.token:/etc/credstore/nothing\n"
    gateway: Unit = machine.profile("keyless", drop_in=drop_in, start=False)
    assert gateway.start(check=False) != 0
    assert gateway.show("SubState") == "failed"
    assert gateway.show("NRestarts") == "0"
