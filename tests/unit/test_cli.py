"""What the command line says of what it was given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_gateway import cli
from openclaw_gateway.errors import ExitCode
from openclaw_gateway.settings import foreign
from openclaw_gateway.settings import load as settings


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of one command line."""
    code = cli._do(words, "openclaw-gateway")
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("status", "--wait", "x"), "must be a number of seconds, 0 to 86400, not 'x'"),
        (("status", "--wait", "nan"), "must be a number of seconds, 0 to 86400, not 'nan'"),
        (("probe", "--timeout", "-1"), "must be a number of seconds, 0 to 86400, not '-1'"),
        (("logs", "-n", "0"), "must be a number, 1 to 1000000, not '0'"),
        (("logs", "-n", "x"), "must be a number, 1 to 1000000, not 'x'"),
        (("logs", "-p", "loud"), "must be error, warning, notice, info or debug, not 'loud'"),
        (("logs", "--json", "-x"), "--catalog is not taken: with --json there is no text"),
    ],
)
def test_number_out_of_range_is_told_the_range(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    code, _, error = said(capsys, *words)
    assert code == 2
    assert text in error


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("OPENCLAW_PROFILE", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["error", "warning", "notice", "info", "debug", "fatal"])
def test_log_level_is_shown_by_a_name_that_the_flag_takes(
    capsys: pytest.CaptureFixture[str], home: Path, name: str
) -> None:
    _, shown, _ = said(capsys, "config", "--log-level", name)
    (line,) = (line for line in shown.splitlines() if line.startswith("logging.level "))
    level = json.loads(line.split()[2])
    assert said(capsys, "config", "--log-level", level)[1] == shown
    assert name in (level, "fatal")


def test_profile_and_shared_settings_are_shown_with_their_origins(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, shown, _ = said(capsys, "config")
    assert "profile = null  (default)" in shown
    assert "allowMultiple = false  (default)" in shown
    monkeypatch.setenv("OPENCLAW_ALLOW_MULTI_GATEWAY", "1")
    _, shown, _ = said(capsys, "config", "--profile", "work")
    assert 'profile = "work"  (flag --profile)' in shown
    assert "allowMultiple = true  (variable OPENCLAW_ALLOW_MULTI_GATEWAY)" in shown


def test_secret_is_shown_to_be_set_and_no_more(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home / ".openclaw").mkdir()
    document = {"gateway": {"auth": {"token": "s3cret"}}}
    (home / ".openclaw/openclaw.json").write_text(json.dumps(document))
    code, shown, warned = said(capsys, "config")
    assert (code, "s3cret" in shown + warned) == (0, False)
    assert 'gateway.auth.token = "(set)"  (' in shown


@pytest.mark.parametrize(
    ("words", "text", "hint"),
    [
        (("--force",), "--force is not taken: it ends whoever listens on the port", "status"),
        (("--dev",), "--dev is not taken: it writes settings and a state directory", "--profile"),
        (("--reset",), "--reset is not taken: it deletes settings", "state directory"),
        (("--tailscale", "serve"), "--tailscale is not taken: no value but off", "tailscale"),
        (("--tailscale=funnel",), "--tailscale is not taken: no value but off", "tailscale"),
        (("--ws-log", "x"), "--ws-log is not taken: it must be one of auto, full, compact", ""),
        (("--token", "s3cret", "--force"), "--force is not taken", "status"),
    ],
)
def test_flag_of_openclaw_that_would_do_harm_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str, hint: str
) -> None:
    code, _, error = said(capsys, "run", *words)
    assert code == 2
    assert error.startswith(f"openclaw-gateway: {text}")
    assert not hint or hint in error.partition("\nhint: ")[2]
    assert "s3cret" not in error


@pytest.mark.parametrize("flag", ["--host", "--bind"])
def test_guard_is_told_no_address_and_says_who_is(
    capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    code, _, error = said(capsys, "guard", flag, "0.0.0.0", "--", "true")
    assert code == 2
    assert "say '0.0.0.0' to the program, behind \"--\"" in error


@pytest.mark.parametrize("flag", foreign.TAKEN, ids=lambda flag: flag.name)
def test_harmless_flag_of_openclaw_is_taken_with_one_warning(flag: foreign.Flag) -> None:
    value = {"--tailscale": "off", "--ws-log": "full"}.get(flag.name, "s3cret")
    words = [flag.name, *([value] if flag.metavar else [])]
    arguments = cli.parser("openclaw-gateway").parse_args(["run", "--port", "1", *words])
    assert getattr(arguments, "--port") == "1"
    warnings = foreign.check({flag.name: getattr(arguments, flag.name)})
    assert warnings == ([f"flag {flag.name} {flag.warning}"] if flag.warning else [])


@pytest.mark.parametrize("kind", ["token", "password"])
def test_secret_on_the_command_line_counts_and_is_warned_of(home: Path, kind: str) -> None:
    flag = f"--{kind}"
    loaded = settings.load({flag: "s3cret-s3cret", "--auth": kind}, {"HOME": str(home)})
    assert getattr(loaded, kind) == "s3cret-s3cret"
    (warning,) = loaded.warnings
    assert f"{flag}-file" in warning and "s3cret" not in warning


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "health"])
def test_verb_of_openclaw_has_a_way_out(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, _, error = said(capsys, verb)
    assert code == 2
    assert error.startswith(f"openclaw-gateway: {verb} is not taken: ") and "\nhint: " in error


@pytest.mark.parametrize(
    "words",
    [
        ("--profile", "work", "config"),
        ("--profile=work", "config"),
        ("config", "--profile", "work"),
        ("--profile", "home", "config", "--profile", "work"),
    ],
)
@pytest.mark.parametrize("command", ["openclaw-gateway", "openclaw"])
def test_profile_stands_before_the_verb_or_behind_it(
    command: str, words: tuple[str, ...], home: Path
) -> None:
    function = {"openclaw-gateway": "main", "openclaw": "openclaw"}[command]
    if command == "openclaw":  # openclaw --profile work gateway config
        place = next(at for at, word in enumerate(words) if word == "config")
        words = (*words[:place], "gateway", *words[place:])
    done = subprocess.run(
        [sys.executable, "-c", f"from openclaw_gateway import cli; cli.{function}()", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'profile = "work"  (flag --profile)' in done.stdout


def test_config_is_told_by_the_keys_of_its_files_and_in_their_units(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home / ".openclaw").mkdir()
    file = home / ".openclaw/openclaw.json"
    file.write_text("{gateway: {port: 19000, auth: {rateLimit: {windowMs: 1500}}}}")
    (home / ".openclaw/openclaw-gateway.json").write_text("{lockTimeoutMs: 250}")
    _, shown, _ = said(capsys, "config")
    assert f"gateway.port = 19000  ({file}:1:12 gateway.port)" in shown
    assert f"gateway.auth.rateLimit.windowMs = 1500  ({file}:1:" in shown
    assert "lockTimeoutMs = 250  (" in shown
    assert "limits.tickIntervalMs = 30000  (default)" in shown


def test_config_shows_what_is_right_beside_every_problem(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    file = home / "other.json"
    file.write_text('{\n gateway: {prot: 1, port: 19000, bind: "LAN"}}')
    code, shown, warned = said(capsys, "config", "--config", str(file))
    assert code == 78
    assert "gateway.port = 19000" in shown
    assert f'{file}:2:12 gateway.prot: is no setting; did you mean "gateway.port"?' in warned
    assert f"{file}:2:34 gateway.bind: must be" in warned
    code, shown, _ = said(capsys, "config", "--json", "--config", str(file))
    told = json.loads(shown)
    assert (code, told["valid"]) == (78, False)
    assert [(p["key"], p["line"], p["column"]) for p in told["problems"]] == [
        ("gateway.prot", 2, 12),
        ("gateway.bind", 2, 34),
    ]
    assert told["settings"]["gateway.port"]["value"] == 19000


def test_config_checks_a_file(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    file = home / "other.json"
    file.write_text("{gateway: {port: 19000}}")
    assert said(capsys, "config", "--check", str(file)) == (0, f"{file}: fine\n", "")
    file.write_text("{gateway: {port 19000}}")
    code, shown, warned = said(capsys, "config", "--check", str(file))
    assert (code, shown) == (78, f"{file}: refused\n")
    assert warned.startswith(f"openclaw-gateway: {file}:1:17: not JSON5: ")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["run", "--dev", "run"], "--dev"),  # what is made of "--dev run"
        (["run", "--dev"], "--dev"),
        (["run", "--reset"], "--reset"),
        (["run", "--password", "a", "--password-file", "/f"], "--password"),
        (["run", "--token", "a", "--token-file", "/f"], "--token"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli._do(words, "openclaw-gateway") == ExitCode.USAGE
    assert f"openclaw-gateway: {name} is not taken: " in capsys.readouterr().err
