"""Where settings come from, which source wins, and what a wrong one is told."""

from __future__ import annotations

import json
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
    assert (from_file.port, str(from_file.origins["port"])) == (1111, f"{home.file} gateway.port")
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
        (
            {},
            {"OPENCLAW_GATEWAY_PORT": "x"},
            {},
            'variable OPENCLAW_GATEWAY_PORT: must be a port, 1 to 65535, not "x"',
        ),
        ({}, {}, {"gateway": {"port": True}}, "gateway.port: must be a port, 1 to 65535, not true"),
        ({}, {}, {"gateway": {"port": 70000}}, "gateway.port: must be a port"),
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
            'must be "loopback" or "lan" or "custom", not "loopbak"; did you mean "loopback"?',
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
        (
            {},
            {},
            {"gateway": {"auth": {"token": "${NOPE}"}}},
            "refers to ${NOPE}, which is not set",
        ),
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


def test_unknown_key_is_a_warning_with_a_suggestion(home: Home) -> None:
    home.write({"gatway": {}, "gateway": {"prt": 1, "auth": {"tokn": "x"}}, "agents": {}})
    warnings = home.load().warnings
    assert [warning.removeprefix(f"{home.file}: ") for warning in warnings] == [
        'unknown key gatway; did you mean "gateway"?',
        'unknown key gateway.prt; did you mean "port"?',
        'unknown key gateway.auth.tokn; did you mean "token"?',
    ]


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
    home.write({"gateway": {"auth": {"token": " s3cret "}}})
    with pytest.raises(ConfigurationError) as caught:
        home.load()
    assert "s3cret" not in str(caught.value)


def test_one_wrong_value_throws_away_no_other(home: Home) -> None:
    home.write(
        {"gateway": {"port": 19000, "auth": {"token": "${NOPE}"}, "limits": {"maxInFlight": 0}}}
    )
    found = examine({"--log-level": "debug"}, {"HOME": str(home.path)})
    assert found.settings is None
    assert [problem.key for problem in found.problems] == [
        "gateway.auth.token",
        "gateway.limits.maxInFlight",
    ]
    assert (found.values["port"], found.values["log_level"]) == (19000, Priority.DEBUG)
    assert found.values["limits.max_in_flight"] == 64
    assert found.location.config_path == str(home.file)


def test_document_that_cannot_be_read_leaves_flags_and_variables(home: Home) -> None:
    home.write("{")
    found = examine({}, {"HOME": str(home.path), "OPENCLAW_GATEWAY_PORT": "2222"})
    assert [problem.source for problem in found.problems] == [str(home.file)]
    assert found.values["port"] == 2222
