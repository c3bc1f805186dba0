"""Where settings come from, which source wins, and what a wrong one is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway.errors import ConfigurationError, ExitCode
from openclaw_gateway.settings.load import AuthMode, Bind, Settings, examine, load
from openclaw_gateway.settings.location import profile_port
from openclaw_gateway.settings.sources import read_secret
from openclaw_gateway.supervisor.events import Priority


class Home:
    """A home directory with a configuration file in it."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path / ".openclaw/openclaw.json"

    def write(self, document: Any) -> None:
        self.file.parent.mkdir(exist_ok=True)
        text = document if isinstance(document, str) else json.dumps(document)
        self.file.write_text(text)
        self.file.chmod(0o600)

    def load(self, flags: dict[str, str | None] | None = None, **environ: str) -> Settings:
        return load(flags or {}, {"HOME": str(self.path)} | environ)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_defaults(home: Home) -> None:
    settings = home.load()
    assert (settings.port, settings.bind, settings.host) == (18789, Bind.LOOPBACK, "127.0.0.1")
    assert settings.auth_mode is AuthMode.TOKEN
    assert settings.state_dir == str(home.path / ".openclaw")
    assert settings.config_path == str(home.path / ".openclaw/openclaw.json")
    assert (settings.lock_timeout_s, settings.health_timeout_s) == (5.0, 30.0)
    assert settings.warnings == ()


def test_file_beats_default_environment_beats_file_flag_beats_environment(home: Home) -> None:
    home.write({"gateway": {"port": 1111}})
    from_file = home.load()
    assert (from_file.port, str(from_file.origins["port"])) == (
        1111,
        f"{home.file}:1:14 gateway.port",
    )
    from_variable = home.load(OPENCLAW_GATEWAY_PORT="2222")
    assert from_variable.port == 2222
    assert str(from_variable.origins["port"]) == "variable OPENCLAW_GATEWAY_PORT"
    from_flag = home.load({"--port": "3333"}, OPENCLAW_GATEWAY_PORT="2222")
    assert (from_flag.port, str(from_flag.origins["port"])) == (3333, "flag --port")


def test_json5_is_read(home: Home) -> None:
    home.write("// mine\n{gateway: {port: 0x1234, bind: 'loopback',},}")
    assert home.load().port == 0x1234


def test_profile_has_a_home_and_a_port_of_its_own(home: Home) -> None:
    settings = home.load({"--profile": "work"})
    assert settings.state_dir == str(home.path / ".openclaw-work")
    assert settings.port == profile_port("work")
    assert str(settings.origins["port"]) == "profile work"


def test_profile_port_is_fnv_1a() -> None:
    assert profile_port("a") == 20000 + 0xE40C292C % 40000  # the hash's published test vector


def test_profile_does_not_override_a_port_that_was_given(home: Home) -> None:
    assert home.load({"--profile": "work", "--port": "4444"}).port == 4444


def test_systemd_directories_are_used(home: Home) -> None:
    directory = home.path / "etc"
    directory.mkdir()
    (directory / "openclaw.json").write_text('{"gateway": {"port": 5555}}')
    settings = home.load(
        STATE_DIRECTORY="/var/lib/x:/var/lib/y", CONFIGURATION_DIRECTORY=str(directory)
    )
    assert (settings.state_dir, settings.port) == ("/var/lib/x", 5555)


def test_milliseconds_in_the_file_are_seconds_inside(home: Home) -> None:
    home.write({"gateway": {"lockTimeoutMs": 1500}, "logging": {"level": "warn"}})
    settings = home.load()
    assert (settings.lock_timeout_s, settings.log_level) == (1.5, Priority.WARNING)


def test_variables_in_strings_of_the_file_are_replaced(home: Home) -> None:
    home.write({"gateway": {"auth": {"token": "${TOK}"}}})
    assert home.load(TOK="s3cret").token == "s3cret"


@pytest.mark.parametrize(
    ("flags", "variables", "document", "text"),
    [
        ({"--port": "0"}, {}, {}, 'flag --port: must be a port, 1 to 65535, not "0"'),
        ({"--port": "١"}, {}, {}, "flag --port: must be a port, 1 to 65535"),
        ({}, {}, {"gateway": {"port": True}}, "gateway.port: must be a port, 1 to 65535, not true"),
        (
            {},
            {},
            {"gateway": {"port": "19445"}},
            'gateway.port: must be a port, 1 to 65535, not "19445"',
        ),
        ({}, {}, {"gateway": {"port": None}}, "gateway.port: must be a port, 1 to 65535, not null"),
        ({}, {}, {"gateway": []}, "gateway: must be an object"),
        ({}, {}, {"gateway": {"auth": 1}}, "gateway.auth: must be an object"),
        ({}, {}, [], "must be one object"),
        ({}, {}, "{gateway: ", "not JSON5"),
        ({}, {}, "{gateway:\n  {port 1}}", ":2:9: not JSON5: a number where"),
        ({}, {}, "[" * 100000, "nested more than 200 levels"),
        ({}, {}, f'{{"gateway": {{"port": {"9" * 5000}}}}}', "must be a port"),
        ({}, {}, f"{{gateway: {{port: 0x{'F' * 5000}}}}}", "must be a port"),
        (
            {"--bind": "loopbak"},
            {},
            {},
            'must be "loopback" or "lan" or "tailnet" or "auto" or "custom", not "loopbak"; did you mean "loopback"?',
        ),
        ({"--bind": "custom"}, {}, {}, "no address is given"),
        ({"--host": "localhost"}, {}, {}, "an IP address in digits"),
        ({"--auth": "none", "--bind": "lan"}, {}, {}, "beyond this machine"),
        ({"--auth": "password"}, {}, {}, "but none is given"),
        ({"--profile": "../x"}, {}, {}, "flag --profile: must be letters"),
        ({"--config": "/does/not/exist"}, {}, {}, "/does/not/exist: no such file"),
        ({"--lock-timeout": "nan"}, {}, {}, "a number of seconds"),
        ({"--log-level": "loud"}, {}, {}, "one of silent"),
        (
            {},
            {},
            {"gateway": {"auth": {"token": {"source": "env"}}}},
            "gateway.auth.token: must be",
        ),
        ({}, {}, {"gateway": {"prot": 1}}, 'prot: is no setting; did you mean "gateway.port"?'),
        ({}, {}, {"gateway": {"token": "x"}}, 'did you mean "gateway.auth.token"?'),
        ({}, {}, {"gateway": {"auth": {"tokn": "x"}}}, 'did you mean "gateway.auth.token"?'),
        ({}, {}, {"gateway": {"mode": "remote"}}, "to use a gateway elsewhere"),
        ({}, {}, {"gateway": {"customBindHost": "\0"}}, "an IP address in digits"),
        ({}, {}, {"gateway": {"customBindHost": "\ud800"}}, "an IP address in digits"),
        ({}, {}, {"gateway": {"auth": {"token": "\ud800"}}}, "text of whole characters"),
        ({}, {"OPENCLAW_GATEWAY_TOKEN": "\udcff"}, {}, "text of whole characters"),
        ({}, {}, {"$include": "\0"}, "$include: is no path"),
        ({}, {}, {"$include": "x\ud800"}, "$include: cannot read "),
    ],
)
def test_wrong_value_is_named_with_its_place_and_what_would_be_right(
    home: Home, flags: dict[str, str | None], variables: dict[str, str], document: Any, text: str
) -> None:
    home.write(document)
    with pytest.raises(ConfigurationError) as caught:
        home.load(flags, **variables)
    assert text in str(caught.value)
    assert caught.value.exit_code is ExitCode.CONFIG


def test_custom_host_implies_custom_bind(home: Home) -> None:
    settings = home.load({"--host": "127.0.0.2"})
    assert (settings.bind, settings.host) == (Bind.CUSTOM, "127.0.0.2")


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_auth_none_is_fine_on_loopback(home: Home, host: str) -> None:
    assert home.load({"--host": host, "--auth": "none"}).auth_mode is AuthMode.NONE


def test_unknown_key_that_is_like_no_other_is_a_warning(home: Home) -> None:
    home.write({"gatway": {}, "gateway": {"nope": 1}, "agents": {}})
    warnings = home.load().warnings
    assert [warning.removeprefix(f"{home.file}:") for warning in warnings] == [
        '1:2 gatway: unknown key; did you mean "gateway"?',
        "1:28 gateway.nope: unknown key",
    ]


def test_variable_that_is_not_set_is_a_warning_and_no_token(home: Home) -> None:
    home.write({"gateway": {"auth": {"token": "${NOPE}"}}})
    settings = home.load()
    assert settings.token is None
    (warning,) = settings.warnings
    assert warning.endswith("gateway.auth.token: refers to ${NOPE}, which is not set")


def test_port_in_a_variable_that_is_none_is_passed_over(home: Home) -> None:
    assert home.load(OPENCLAW_GATEWAY_PORT="x").port == 18789
    assert home.load(OPENCLAW_GATEWAY_PORT="[::1]:2222").port == 2222


def test_our_own_settings_have_a_file_of_their_own(home: Home) -> None:
    home.write({"gateway": {"lockTimeoutMs": 1000, "limits": {"maxInFlight": 2}}})
    (home.file.parent / "openclaw-gateway.json").write_text(
        "{lockTimeoutMs: 2000, limits: {maxInFligt: 3}}"
    )
    found = examine({}, {"HOME": str(home.path)})
    (problem,) = found.problems
    assert 'limits.maxInFligt: is no setting; did you mean "limits.maxInFlight"?' in str(problem)
    assert (found.values["lock_timeout_s"], found.values["limits.max_in_flight"]) == (2.0, 2)
    (warning,) = found.warnings
    assert "gateway.limits.maxInFlight: belongs into" in warning


def test_value_says_where_it_came_from_through_includes_and_variables(home: Home) -> None:
    home.write('{gateway: {$include: "g.json",\n bind: "loopback"}}')
    (home.file.parent / "g.json").write_text('{\n port: 1234, auth: {token: "${TOK}"}}')
    (home.file.parent / ".env").write_text("# mine\nTOK = s3cret\n")
    settings = home.load()
    there = home.file.parent
    assert str(settings.origins["port"]) == f"{there}/g.json:2:2 gateway.port"
    assert str(settings.origins["bind"]) == f"{home.file}:2:2 gateway.bind"
    assert str(settings.origins["token"]) == (
        f"{there}/g.json:2:21 gateway.auth.token, by ${{TOK}} of {there}/.env"
    )


def test_pipe_in_place_of_the_settings_is_refused_at_once(home: Home) -> None:
    os.mkfifo(home.path / "pipe")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        home.load({"--config": str(home.path / "pipe")})


def test_secret_comes_through_a_pipe(home: Home) -> None:
    read, write = os.pipe()
    os.write(write, b"s3cret\n")
    os.close(write)
    assert home.load({"--token-file": f"/proc/self/fd/{read}"}).token == "s3cret"
    os.close(read)


def test_secret_from_a_private_file(home: Home) -> None:
    file = home.path / "token"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    settings = home.load({"--token-file": str(file)})
    assert settings.token == "s3cret"
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(("mode", "content"), [(0o644, "s3cret"), (0o600, ""), (0o640, "s3cret")])
def test_secret_file_that_is_open_or_empty_is_refused(home: Home, mode: int, content: str) -> None:
    file = home.path / "token"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        home.load({"--token-file": str(file)})
    assert "s3cret" not in str(caught.value)


def test_secret_of_somebody_else_is_refused(home: Home) -> None:
    file = home.path / "token"
    file.write_text("s3cret")
    file.chmod(0o600)
    own_uid = file.stat().st_uid
    assert read_secret("file", "x", str(file), private=True, owner_uid=own_uid) == "s3cret"
    with pytest.raises(ConfigurationError, match="belongs to uid"):
        read_secret("file", "x", str(file), private=True, owner_uid=own_uid + 1)


def test_credential_of_systemd_beats_the_file_and_loses_to_the_flag(home: Home) -> None:
    home.write({"gateway": {"auth": {"token": "from file"}}})
    credential = home.path / "openclaw-gateway.token"
    credential.write_text("from systemd")
    credential.chmod(0o440)
    assert home.load(CREDENTIALS_DIRECTORY=str(home.path)).token == "from systemd"
    flag = home.path / "flag"
    flag.write_text("from flag")
    flag.chmod(0o600)
    both = home.load({"--token-file": str(flag)}, CREDENTIALS_DIRECTORY=str(home.path))
    assert both.token == "from flag"


def test_secret_in_a_file_that_everyone_may_read_is_warned_of(home: Home) -> None:
    home.write({"gateway": {"auth": {"token": "s3cret"}}})
    home.file.chmod(0o644)
    (warning,) = home.load().warnings
    assert "everyone may read gateway.auth.token" in warning
    assert "s3cret" not in warning


def test_wrong_secret_is_not_repeated_in_the_error(home: Home) -> None:
    home.write({"gateway": {"auth": {"token": ["s3cret"]}}})
    with pytest.raises(ConfigurationError) as caught:
        home.load()
    assert "s3cret" not in str(caught.value)


def test_one_wrong_value_throws_away_no_other(home: Home) -> None:
    home.write(
        {"gateway": {"port": 19000, "auth": {"token": "$NOPE"}, "limits": {"maxInFlight": 0}}}
    )
    found = examine({"--log-level": "debug"}, {"HOME": str(home.path)})
    assert found.settings is None
    assert [problem.key for problem in found.problems] == [
        "gateway.limits.maxInFlight",
        "gateway.auth.token",
    ]
    assert (found.values["port"], found.values["log_level"]) == (19000, Priority.DEBUG)
    assert found.values["limits.max_in_flight"] == 64
    assert found.location.config_path == str(home.file)


def test_document_that_cannot_be_read_leaves_flags_and_variables(home: Home) -> None:
    home.write("{")
    found = examine({}, {"HOME": str(home.path), "OPENCLAW_GATEWAY_PORT": "2222"})
    assert [problem.source for problem in found.problems] == [str(home.file)]
    assert found.values["port"] == 2222


def test_how_a_guarded_gateway_admits_clients_is_its_own_business(home: Home) -> None:
    document = {
        "tls": {"enabled": True},
        "auth": {"token": {"source": "exec"}},
        "port": 19000,
        "prot": 1,
    }
    home.write({"gateway": document})
    settings = load({}, {"HOME": str(home.path)}, serves=False)
    assert (settings.port, settings.token, settings.tls is None) == (19000, None, False)
