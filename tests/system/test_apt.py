"""What apt does, and says, where something is in the way: OpenClaw's own command, a taken port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machine import PORT, SERVICE, Machine

from testbed.package import Built

_COMMAND = "/usr/bin/openclaw"
_NPMS = "../lib/node_modules/openclaw/openclaw.mjs"
_NPM_INSTALL = f"""
mkdir -p /usr/lib/node_modules/openclaw /usr/local/lib
echo '#!/usr/bin/env node' >/usr/lib/node_modules/openclaw/openclaw.mjs
ln -sfn /usr/lib/node_modules /usr/local/lib/node_modules
ln -sf {_NPMS} "$1"
"""
# What version 0.1.0 had and the package of today doesn't: the command, its page and its completion.
_REPACK_AS_0_1_0 = f"""
dpkg-deb --raw-extract "$1" /var/tmp/older
cd /var/tmp/older
sed -i 's/^Version: .*/Version: 0.1.0/; /^Suggests:/d' DEBIAN/control
cat >.{_COMMAND} <<'E'
#!/usr/bin/python3
# -*- coding: utf-8 -*-
import re
import sys
from openclaw_gateway.cli import openclaw
if __name__ == "__main__":
    sys.exit(openclaw())
E
chmod 755 .{_COMMAND}
mkdir -p usr/share/man/man1
ln -s ../man8/openclaw-gateway.8.gz usr/share/man/man1/openclaw.1.gz
ln -s openclaw-gateway usr/share/bash-completion/completions/openclaw
dpkg-deb --build --root-owner-group . /var/tmp/older.deb
"""


@pytest.fixture
def bare(release: str, built: Built) -> Iterator[Machine]:
    """A system of this test's own without the packages, which lie in /var/tmp."""
    with Machine(release) as machine:
        for deb in (built.deb, built.command_deb):
            machine.copy_in(deb, f"/var/tmp/{deb.name}")
        yield machine


@pytest.fixture
def main(built: Built) -> str:
    """Where the gateway's package lies."""
    return f"/var/tmp/{built.deb.name}"


@pytest.fixture
def command(built: Built) -> str:
    """Where the command's package lies."""
    return f"/var/tmp/{built.command_deb.name}"


def _apt(machine: Machine, *arguments: str, fails: bool = False) -> str:
    """Return all that apt and dpkg print."""
    command = ["apt-get", "-q", "-y", "--no-install-recommends", *arguments]
    said = machine.run(command, timeout_s=300, check=False)
    text = said.stdout + said.stderr
    assert (said.returncode != 0) == fails, text
    assert machine.run("dpkg --audit").stdout == "" or fails, text
    return text


def _npm_install(machine: Machine, path: str = _COMMAND) -> None:
    """Put there what npm puts there."""
    machine.run(["sh", "-euc", _NPM_INSTALL, "sh", path])


def _npm_has(machine: Machine, path: str = _COMMAND) -> bool:
    return machine.run(["readlink", path], check=False).stdout.strip() == _NPMS


def _named_openclaw(machine: Machine) -> list[str]:
    """Return the files of the command, its manual and its completion, and what was put aside."""
    find = (
        "find /usr/bin /usr/local/bin /usr/share "
        "-name openclaw -o -name 'openclaw.[0-9]*' -o -name '*.aside'"
    )
    return machine.run(find).stdout.split()


def _completed(machine: Machine, name: str) -> list[str]:
    """Return the commands that bash completes after it has looked for the completion of one."""
    script = f". /usr/share/bash-completion/completions/{name}; complete -p"
    return [line.split()[-1] for line in machine.run(["bash", "-c", script]).stdout.splitlines()]


def test_gateway_lives_beside_openclaw_and_says_what_they_share(bare: Machine, main: str) -> None:
    _npm_install(bare)
    (line,) = [line for line in _apt(bare, "install", main).splitlines() if "OpenClaw's" in line]
    assert line.startswith(f"openclaw-gateway: {_COMMAND} is OpenClaw's own")
    assert "README.Debian" in line
    assert _npm_has(bare)
    # Once: it is no news on an upgrade.
    assert "OpenClaw's" not in _apt(bare, "install", "--reinstall", main)
    _apt(bare, "purge", "openclaw-gateway")
    assert _npm_has(bare)


def test_gateways_package_has_none_of_openclaws_names(bare: Machine, main: str) -> None:
    assert "OpenClaw's" not in _apt(bare, "install", main)
    assert _named_openclaw(bare) == []
    assert _completed(bare, "openclaw-gateway") == ["openclaw-gateway"]


def test_command_package_brings_the_pages_command(bare: Machine, main: str, command: str) -> None:
    _apt(bare, "install", main, command)
    assert bare.run("openclaw gateway --version").stdout.startswith("openclaw-gateway ")
    assert "openclaw-gateway(8)" in bare.run("man --pager=cat openclaw").stdout
    assert set(_completed(bare, "openclaw")) == {"openclaw-gateway", "openclaw"}
    _apt(bare, "install", "--reinstall", command)
    _apt(bare, "purge", "openclaw-gateway-command")
    assert _named_openclaw(bare) == []
    assert bare.is_live()


@pytest.mark.parametrize("path", [_COMMAND, "/usr/local/bin/openclaw"])
def test_command_package_refuses_where_openclaw_is(
    bare: Machine, main: str, command: str, path: str
) -> None:
    _apt(bare, "install", main)
    _npm_install(bare, path)
    said = _apt(bare, "install", command, fails=True)
    assert f"openclaw-gateway-command: {path} (a link to {_NPMS}) is there already" in said
    assert '"openclaw-gateway" does all that "openclaw gateway" would' in said
    assert _npm_has(bare, path)
    assert bare.is_live()
    assert bare.run("dpkg --audit").stdout == ""


def test_command_that_npm_took_over_is_neither_replaced_nor_removed(
    bare: Machine, main: str, command: str
) -> None:
    _apt(bare, "install", main, command)
    _npm_install(bare)
    said = _apt(bare, "install", "--reinstall", command, fails=True)
    assert f"{_COMMAND} (a link to {_NPMS}) is there already" in said
    assert '"apt-get remove openclaw-gateway-command" leaves it there' in said
    assert _npm_has(bare)
    _apt(bare, "remove", "openclaw-gateway-command")
    assert _npm_has(bare)
    assert _named_openclaw(bare) == [_COMMAND]


def test_command_package_leaves_a_diversion_to_the_administrator(
    bare: Machine, main: str, command: str
) -> None:
    _npm_install(bare)
    bare.run(f"dpkg-divert --local --no-rename --divert {_COMMAND}.python --add {_COMMAND}")
    _apt(bare, "install", main, command)
    assert _npm_has(bare)
    bare.run("openclaw.python gateway --version")
    _apt(bare, "remove", "openclaw-gateway-command")
    assert _npm_has(bare)


@pytest.fixture
def with_0_1_0(bare: Machine, main: str) -> Machine:
    """A system with the package as it was when it owned the command."""
    bare.run(["sh", "-euc", _REPACK_AS_0_1_0, "sh", main])
    _apt(bare, "install", "/var/tmp/older.deb")
    bare.run("openclaw gateway --version")
    return bare


def test_upgrade_takes_the_old_command_away(with_0_1_0: Machine, main: str) -> None:
    _apt(with_0_1_0, "install", main)
    assert _named_openclaw(with_0_1_0) == []


def test_upgrade_to_both_packages_hands_the_command_over(
    with_0_1_0: Machine, main: str, command: str
) -> None:
    _apt(with_0_1_0, "install", main, command)
    with_0_1_0.run("openclaw gateway --version")
    owner = with_0_1_0.run(["dpkg", "--search", _COMMAND]).stdout
    assert owner.startswith("openclaw-gateway-command:")


def test_upgrade_leaves_what_npm_put_in_the_old_commands_place(
    with_0_1_0: Machine, main: str
) -> None:
    _npm_install(with_0_1_0)
    assert f"{_COMMAND} is OpenClaw's own" in _apt(with_0_1_0, "install", main)
    assert _npm_has(with_0_1_0)
    assert _named_openclaw(with_0_1_0) == [_COMMAND]


def test_diverted_unit_frees_the_name_and_is_not_missed(bare: Machine, main: str) -> None:
    # The way out that README.Debian describes.
    _apt(bare, "install", main)
    path = bare.unit().show("FragmentPath")
    bare.systemctl("disable", "--now", SERVICE)
    bare.run(["dpkg-divert", "--local", "--rename", "--add", path])
    bare.systemctl("daemon-reload")
    assert bare.unit().show("LoadState") == "not-found"
    profile = bare.profile("instead", port=PORT)
    pid = profile.pid
    said = _apt(bare, "install", "--reinstall", main)
    assert "deb-systemd-invoke" not in said
    profile.wait_for_another(pid)
    assert bare.unit().show("LoadState") == "not-found"
    assert "deb-systemd-invoke" not in _apt(bare, "purge", "openclaw-gateway")
    assert not bare.is_live()


def test_taken_port_is_said_and_is_no_failure(bare: Machine, main: str) -> None:
    bare.run(f"systemd-run --unit=stranger python3 -m http.server --bind 127.0.0.1 {PORT}")
    bare.until(f"ss -Hltn 'sport = {PORT}' | grep -q .")
    said = _apt(bare, "install", main)
    assert "deb-systemd-invoke" not in said
    assert f"pid {bare.unit('stranger.service').pid}" in said
    assert "gateway.port in /etc/openclaw-gateway/openclaw.json" in said
    # What it says helps.
    bare.write("/etc/openclaw-gateway/openclaw.json", '{"gateway": {"port": 19000}}')
    bare.systemctl("restart", SERVICE)
    assert bare.is_live(19000)


def test_upgrade_says_why_the_gateway_does_not_come_back(bare: Machine, main: str) -> None:
    _apt(bare, "install", main)
    bare.write("/etc/openclaw-gateway/openclaw.json", '{"gateway": {"port": "high"}}')
    said = _apt(bare, "install", "--reinstall", main)
    assert "deb-systemd-invoke" not in said
    assert "gateway.port" in said
