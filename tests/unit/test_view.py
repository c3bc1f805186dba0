"""Whose settings ``config`` shows: a unit's, or the caller's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateways import unit

from openclaw_gateway.admin import config
from openclaw_gateway.admin.look import view
from openclaw_gateway.admin.look.selection import Scope, select
from openclaw_gateway.admin.look.units import Reply
from openclaw_gateway.errors import NothingToShowError
from openclaw_gateway.settings.load import examine

UNUSED: dict[str, Any] = {
    "name": "openclaw-gateway@work.service",
    "active_state": "inactive",
    "enabled": "disabled",
    "main_pid": None,
    "environment": {"OPENCLAW_GATEWAY_PORT": "19999"},
    "argv": ("/usr/bin/openclaw-gateway", "run", "--bind", "lan"),
}


def seen(
    home: Path,
    scope: Scope = Scope.ANY,
    *,
    flags: dict[str, str | None] | None = None,
    found: bool = True,
    **changes: Any,
) -> view.View | None:
    reply = Reply((unit(**(UNUSED | changes)),) if found else ())
    selection = select({"HOME": str(home)}, scope=scope, flags=flags or {"--profile": "work"})
    return view.of_unit(selection, shown=reply)


@pytest.mark.parametrize(
    "used", [{"enabled": "enabled"}, {"active_state": "active"}, {"active_state": "failed"}]
)
def test_profile_alone_means_its_unit_if_that_is_in_use(
    tmp_path: Path, used: dict[str, str]
) -> None:
    found = seen(tmp_path, **used)
    assert found is not None
    assert (found.environ["OPENCLAW_GATEWAY_PORT"], found.flags["--bind"]) == ("19999", "lan")
    assert found.flags["--profile"] == "work"


def test_profile_alone_means_the_callers_own_if_its_unit_is_but_a_template(tmp_path: Path) -> None:
    assert seen(tmp_path) is None
    assert seen(tmp_path, found=False) is None


@pytest.mark.parametrize("flag", ["--state-dir", "--config"])
def test_files_that_were_named_are_the_callers_own(tmp_path: Path, flag: str) -> None:
    flags = {"--profile": "work", flag: str(tmp_path / "named")}
    assert seen(tmp_path, flags=flags, enabled="enabled") is None


@pytest.mark.parametrize("name", ["STATE_DIRECTORY", "CONFIGURATION_DIRECTORY"])
def test_reload_of_a_unit_reads_what_systemd_gave_it(tmp_path: Path, name: str) -> None:
    """``ExecReload=`` runs ``config --profile %i`` with the unit's environment and credentials."""
    environ = {"HOME": str(tmp_path), name: str(tmp_path)}
    selection = select(environ, flags={"--profile": "work"})
    reply = Reply((unit(**(UNUSED | {"active_state": "active"})),))
    assert view.of_unit(selection, shown=reply) is None
    asked_for = select(environ, scope=Scope.SYSTEM, flags={"--profile": "work"})
    assert view.of_unit(asked_for, shown=reply) is not None


def test_scope_means_the_unit_whether_it_is_in_use_or_not(tmp_path: Path) -> None:
    assert seen(tmp_path, Scope.SYSTEM) is not None
    with pytest.raises(NothingToShowError, match="no such unit"):
        seen(tmp_path, Scope.SYSTEM, found=False)


def test_flags_given_here_are_stronger_than_the_units(tmp_path: Path) -> None:
    flags: dict[str, str | None] = {"--profile": "work", "--bind": "loopback"}
    found = seen(tmp_path, flags=flags, enabled="enabled")
    assert found is not None and found.flags["--bind"] == "loopback"


def test_report_says_whose_settings_they_are(tmp_path: Path) -> None:
    found = seen(tmp_path, enabled="enabled")
    assert found is not None
    examined = examine(found.flags, found.environ)
    text = config.report(examined, found, as_json=False).lines
    assert text[0] == "# as read by openclaw-gateway@work.service (system) at its next start"
    told = json.loads("\n".join(config.report(examined, found, as_json=True).lines))
    assert told["view"] == {"unit": "openclaw-gateway@work.service", "manager": "system"}
    assert told["settings"]["gateway.port"]["value"] == 19999
    own = config.report(examined, None, as_json=False).lines
    assert own[0] == "# as read by a gateway that is started from here"
    (verdict,) = config.check(examined, found).lines
    assert verdict.endswith(f", as read by {found}")
