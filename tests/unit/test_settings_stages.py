"""The stages between files and settings, one by one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.errors import ConfigurationError, ExitCode, UnreadableError
from openclaw_gateway.host.interfaces import first_tailnet, is_container, own_ipv4
from openclaw_gateway.settings.environment import Environment, parse_env, substitute
from openclaw_gateway.settings.includes import MISSING, look_up, merge, resolve
from openclaw_gateway.settings.location import locate
from openclaw_gateway.settings.model import Bind
from openclaw_gateway.settings.settle import Surroundings, addresses
from openclaw_gateway.settings.sources import read_text, refusal


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("K=V", {"K": "V"}),
        ("K = V", {"K": "V"}),
        ("K: V", {"K": "V"}),
        ("K:V", {}),
        ("export K=V", {"K": "V"}),
        ("K=", {"K": ""}),
        ("1K=V\nK-L=V\n=V\njunk", {}),
        ("K=a#b", {"K": "a"}),
        ("# K=a\nL=b", {"L": "b"}),
        ("K=' a # b ' # c", {"K": " a # b "}),
        ('K="a\nb"\nL=c', {"K": "a\nb", "L": "c"}),
        ("K=`a'b\"c`", {"K": "a'b\"c"}),
        (r'K="a\nb\tc"', {"K": "a\nb\\tc"}),
        (r"K='a\nb'", {"K": r"a\nb"}),
        ("K=$HOME", {"K": "$HOME"}),
        ("K=a\nK=b", {"K": "b"}),
        ("\ufeffK=a\r\nL=b\r\n", {"K": "a", "L": "b"}),
        ('K="never ends\nL=b', {"K": '"never ends', "L": "b"}),
    ],
)
def test_env_file_is_read_as_dotenv_does(text: str, values: dict[str, str]) -> None:
    assert {name: value for name, (value, _) in parse_env(text).items()} == values


def test_env_file_says_on_which_line() -> None:
    assert parse_env("\n# x\nA='1\n2'\nB=3") == {"A": ("1\n2", 3), "B": ("3", 5)}


@given(st.text(alphabet="K=: #'\"`\\\nexport", max_size=60))
def test_any_env_file_can_be_read(text: str) -> None:
    parse_env(text)


@pytest.mark.parametrize(
    ("text", "replaced", "unset"),
    [
        ("a${X}b", "a1b", ()),
        ("$${X}", "${X}", ()),
        ("$$${X}", "$${X}", ()),
        ("${x} ${X:-y} $X ${", "${x} ${X:-y} $X ${", ()),
        ("${NO}${X}", "${NO}1", ("NO",)),
        ("${EMPTY}", "${EMPTY}", ("EMPTY",)),
        ("${REF}", "${X}", ()),
    ],
)
def test_variables_are_replaced_once(text: str, replaced: str, unset: tuple[str, ...]) -> None:
    found = substitute(text, Environment({"X": "1", "EMPTY": " ", "REF": "${X}"}))
    assert (found.text, found.unset) == (replaced, unset)


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": [1]}, {"a": [2]}, {"a": [1, 2]}),
        ({"a": [1]}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": 1}),
    ],
)
def test_later_of_two_documents_wins(base: Any, over: Any, merged: Any) -> None:
    assert merge(base, over) == merged


def files(directory: Path, **texts: str) -> Any:
    for name, text in texts.items():
        (directory / f"{name}.json").write_text(text)
    text = read_text(str(directory / "top.json"), required=True)
    assert text is not None
    return resolve(text)


def test_eleventh_level_of_includes_is_refused(tmp_path: Path) -> None:
    levels = {f"i{n}": f'{{$include: "i{n + 1}.json"}}' for n in range(1, 11)}
    with pytest.raises(ConfigurationError, match="more than 10 levels"):
        files(tmp_path, top='{$include: "i1.json"}', i11="{}", **levels)


def test_includes_that_multiply_come_to_an_end(tmp_path: Path) -> None:
    levels = {f"i{n}": "{$include: [" + f'"i{n + 1}.json",' * 10 + "]}" for n in range(1, 10)}
    with pytest.raises(ConfigurationError, match="more than 1000 files"):
        files(tmp_path, top='{$include: "i1.json"}', i10="{}", **levels)


def test_depth_counts_across_files(tmp_path: Path) -> None:
    deep = "{a:" * 150 + '{$include: "%s.json"}' + "}" * 150
    with pytest.raises(ConfigurationError, match="nested more than 200 levels"):
        files(tmp_path, top=deep % "b", b="{a:" * 150 + "1" + "}" * 150)


def test_include_that_is_wrong_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        files(tmp_path, top='{\n a: {$include: "../x.json"}}')
    assert str(caught.value).startswith(f"{tmp_path}/top.json:2:6 a.$include: ")
    assert "OPENCLAW_INCLUDE_ROOTS" in caught.value.hint


def test_error_in_an_included_file_is_named_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        files(tmp_path, top='{$include: "b.json"}', b="{\n a b}")
    assert str(caught.value).startswith(f"{tmp_path}/b.json:2:4: not JSON5: ")


def test_value_is_found_in_the_file_that_won(tmp_path: Path) -> None:
    merged = files(
        tmp_path,
        top='{x: {$include: ["a.json", "b.json"], mine: 1}}',
        a="{p: 1, q: 1}",
        b="{\n q: 2}",
    )
    assert merged.value == {"x": {"p": 1, "q": 2, "mine": 1}}
    for name, place in (("p", "a.json:1:2"), ("q", "b.json:2:2"), ("mine", "top.json:1:38")):
        assert str(merged.origin(("x", name))) == f"{tmp_path}/{place} x.{name}"
    assert look_up(merged.value, ("x", "none")) is MISSING


AROUND = Surroundings(lambda: ("127.0.0.1", "10.0.0.1", "100.64.1.2"), lambda: False)


@pytest.mark.parametrize(
    ("bind", "host", "hosts"),
    [
        (Bind.LOOPBACK, None, ["127.0.0.1", "::1?"]),
        (Bind.AUTO, None, ["127.0.0.1", "::1?"]),
        (Bind.LAN, None, ["0.0.0.0"]),
        (Bind.TAILNET, None, ["100.64.1.2", "127.0.0.1"]),
        (Bind.CUSTOM, "10.0.0.1", ["10.0.0.1", "127.0.0.1"]),
        (Bind.CUSTOM, "127.0.0.1", ["127.0.0.1", "::1?"]),
        (Bind.CUSTOM, "0.0.0.0", ["0.0.0.0"]),
        (Bind.CUSTOM, "::", ["::"]),
    ],
)
def test_addresses_to_listen_on(bind: Bind, host: str | None, hosts: list[str]) -> None:
    found = addresses(bind, host, AROUND)
    assert [a.host + ("" if a.required else "?") for a in found] == hosts


def test_auto_is_everything_in_a_container() -> None:
    inside = Surroundings(lambda: (), lambda: True)
    assert [a.host for a in addresses(Bind.AUTO, None, inside)] == ["0.0.0.0"]


def test_kernel_knows_this_machines_addresses() -> None:
    assert "127.0.0.1" in own_ipv4()


@pytest.mark.parametrize(
    ("address", "is_one"),
    [("100.64.0.0", True), ("100.127.255.255", True), ("100.128.0.0", False), ("10.64.0.1", False)],
)
def test_tailnet_is_100_64_slash_10(address: str, is_one: bool) -> None:
    assert first_tailnet(("127.0.0.1", address)) == (address if is_one else None)


@pytest.mark.parametrize(
    ("file", "text", "inside"),
    [
        (".dockerenv", "", True),
        ("run/.containerenv", "", True),
        ("proc/1/cgroup", "0::/kubepods/x", True),
        ("proc/1/cgroup", "0::/init.scope", False),
    ],
)
def test_container_is_known_by_its_marks(
    tmp_path: Path, file: str, text: str, inside: bool
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert is_container(str(tmp_path)) is inside


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ENODEV, errno.ESTALE, errno.EREMOTEIO])
def test_mount_whose_server_is_gone_may_come_back(number: int) -> None:
    with pytest.raises(UnreadableError) as caught:
        refusal("/mnt/x.json", OSError(number, os.strerror(number)))
    assert caught.value.exit_code is ExitCode.FAILURE


def test_older_names_are_found_where_there_are_no_newer_ones(tmp_path: Path) -> None:
    (tmp_path / ".clawdbot").mkdir()
    (tmp_path / ".clawdbot/clawdbot.json").touch()
    found = locate({}, {"HOME": str(tmp_path)})
    assert found.config_path == f"{tmp_path}/.clawdbot/clawdbot.json"
    (tmp_path / ".openclaw").mkdir()
    assert locate({}, {"HOME": str(tmp_path)}).config_path == f"{tmp_path}/.openclaw/openclaw.json"


def test_profile_of_a_flag_leaves_the_former_profiles_directory(tmp_path: Path) -> None:
    own = str(tmp_path / ".openclaw")
    environ = {"HOME": str(tmp_path), "OPENCLAW_STATE_DIR": own}
    assert locate({"--profile": "work"}, environ).state_dir == f"{own}-work"
    assert locate({"--profile": "work"}, environ | {"OPENCLAW_STATE_DIR": "/x"}).state_dir == "/x"
