"""What a unit's gateway is started with: by its files, its process and its credentials, not by our shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from gateways import unit

from openclaw_gateway.admin.look.environment import Startup, of_unit, parse
from openclaw_gateway.admin.look.place import configured, place_of
from openclaw_gateway.admin.look.units import Manager, Unit

IDLE: dict[str, Any] = {
    "active_state": "inactive",
    "main_pid": None,
    "environment": {},
    "environment_files": (),
    "argv": (),
    "fragment_path": "",
    "drop_ins": (),
    "user": "root",
}


def idle(**changes: Any) -> Unit:
    """Return a unit that does not run and says nothing of its environment, changed."""
    return unit(**(IDLE | changes))


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("A=1\nB=two words\n", {"A": "1", "B": "two words"}),
        ("# A=1\n; A=2\n\n  C = 3 \n", {"C": "3"}),
        ("A=\"a b\"\nB='c \\ d'\nC=e\\ f\n", {"A": "a b", "B": "c \\ d", "C": "e f"}),
        ("A=one\\\ntwo\nno assignment\n1A=x\n=y\n", {"A": "onetwo"}),
        ("A=1\nA=\n", {"A": ""}),
    ],
)
def test_environment_file(text: str, environ: dict[str, str]) -> None:
    assert parse(text) == environ


def test_files_come_after_the_units_own_lines_and_the_last_one_wins(tmp_path: Path) -> None:
    (tmp_path / "1.env").write_text("A=first\nB=first\n")
    (tmp_path / "2.env").write_text("B=second\n")
    files = (str(tmp_path / "*.env"), str(tmp_path / "missing"))
    given = of_unit(idle(environment={"A": "unit", "C": "unit"}, environment_files=files), None)
    assert {name: given.environ[name] for name in "ABC"} == {
        "A": "first",
        "B": "second",
        "C": "unit",
    }
    assert given.unread == ()


def proc_of(tmp_path: Path, pid: int, **environ: str) -> str:
    (tmp_path / str(pid)).mkdir()
    text = "".join(f"{name}={value}\0" for name, value in environ.items())
    (tmp_path / str(pid) / "environ").write_text(text)
    return str(tmp_path)


def test_process_adds_what_others_gave_it_but_no_setting_that_the_unit_has_dropped(
    tmp_path: Path,
) -> None:
    proc = proc_of(tmp_path, 812, OPENCLAW_GATEWAY_PORT="7", FROM_MANAGER="x", A="old")
    given = of_unit(idle(main_pid=812, environment={"A": "new"}), None, proc=proc)
    assert given.environ["FROM_MANAGER"] == "x"
    assert given.environ["A"] == "new"
    assert "OPENCLAW_GATEWAY_PORT" not in given.environ


def test_managers_of_users_add_settings_as_well(tmp_path: Path) -> None:
    proc = proc_of(tmp_path, 812, OPENCLAW_GATEWAY_PORT="7")
    given = of_unit(unit(Manager(0), **(IDLE | {"main_pid": 812})), None, proc=proc)
    assert given.environ["OPENCLAW_GATEWAY_PORT"] == "7"


def settings_file(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "openclaw.json").write_text(text)
    return {"OPENCLAW_CONFIG_PATH": str(tmp_path / "openclaw.json")}


TOKEN_BY_VARIABLE = '{"gateway": {"port": 19000, "auth": {"token": "$GATEWAY_TOKEN"}}}'


def test_variable_of_an_environment_file_is_found(tmp_path: Path) -> None:
    environ = settings_file(tmp_path, TOKEN_BY_VARIABLE)
    (tmp_path / "env").write_text("GATEWAY_TOKEN=0123456789abcdef0123456789abcdef\n")
    found = place_of(idle(environment=environ, environment_files=(str(tmp_path / "env"),)), None)
    assert (found.port, found.problem) == (19000, None)


def test_value_that_can_not_be_resolved_throws_away_no_other(tmp_path: Path) -> None:
    found = configured({}, settings_file(tmp_path, TOKEN_BY_VARIABLE))
    assert "GATEWAY_TOKEN" in (found.problem or "")
    assert (found.port, found.is_port_known, found.is_readable) == (19000, True, True)


def test_what_may_not_be_read_is_named_and_blames_nobody(tmp_path: Path) -> None:
    environ = settings_file(tmp_path, TOKEN_BY_VARIABLE)
    found = configured({}, environ, unread=["/etc/gateway.env"])
    assert "not seen: /etc/gateway.env" in (found.problem or "")
    assert not found.is_readable


@pytest.mark.parametrize(
    "text", ["{", '{"gateway": {"port": "x"}}', '{"gateway": {"port": "${NOT_SET}"}}']
)
def test_port_that_can_not_be_told_is_not_known(tmp_path: Path, text: str) -> None:
    found = configured({}, settings_file(tmp_path, text))
    assert (found.port, found.is_port_known) == (18789, False)


def test_settings_that_are_no_file_hold_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "openclaw.json")
    found = configured({}, {"OPENCLAW_CONFIG_PATH": str(tmp_path / "openclaw.json")})
    assert found.problem == f"{tmp_path}/openclaw.json: it is no regular file"
    assert (found.config_path, found.is_port_known) == (str(tmp_path / "openclaw.json"), False)


def test_port_of_a_flag_is_known_whatever_the_file_says(tmp_path: Path) -> None:
    found = configured({"--port": "7"}, settings_file(tmp_path, "{"))
    assert (found.port, found.is_port_known) == (7, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="what credentials lie ready is for root to see")
def test_password_that_will_come_by_credential_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    (tmp_path / "unit").write_text(
        f"[Service]\nLoadCredential=openclaw-gateway.password:{tmp_path}/password\n"
    )
    environ = settings_file(tmp_path, '{"gateway": {"auth": {"mode": "password"}}}')
    service = idle(environment=environ, fragment_path=str(tmp_path / "unit"))
    assert of_unit(service, None).to_come == ("openclaw-gateway.password",)
    assert place_of(service, None).problem is None
    (tmp_path / "password").unlink()
    assert "none is given" in (place_of(service, None).problem or "")


def test_flags_for_secrets_are_left_out_where_files_stay_unread() -> None:
    given = Startup({"--port": "7", "--token-file": "/t"}, {})
    assert given.public_flags == {"--port": "7"}


def test_switch_on_a_units_command_line_takes_no_value() -> None:
    argv = ("openclaw-gateway", "run", "--verbose", "--port", "19000", "--force", "--bind=lan")
    flags = of_unit(idle(argv=argv), None).flags
    assert (flags["--port"], flags["--bind"]) == ("19000", "lan")
