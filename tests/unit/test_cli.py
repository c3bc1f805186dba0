"""What the command line says of what it was given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openclaw_gateway import cli


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
    (line,) = (line for line in shown.splitlines() if line.startswith("log_level "))
    level = line.split()[2]
    assert said(capsys, "config", "--log-level", level)[1] == shown
    assert name in (level, "fatal")


def test_profile_and_shared_settings_are_shown_with_their_origins(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, shown, _ = said(capsys, "config")
    assert "profile = None  (default)" in shown
    assert "allow_multiple = False  (default)" in shown
    monkeypatch.setenv("OPENCLAW_ALLOW_MULTI_GATEWAY", "1")
    _, shown, _ = said(capsys, "config", "--profile", "work")
    assert "profile = work  (flag --profile)" in shown
    assert "allow_multiple = True  (variable OPENCLAW_ALLOW_MULTI_GATEWAY)" in shown


def test_secret_is_shown_to_be_set_and_no_more(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home / ".openclaw").mkdir()
    document = {"gateway": {"auth": {"token": "s3cret"}}}
    (home / ".openclaw/openclaw.json").write_text(json.dumps(document))
    code, shown, warned = said(capsys, "config")
    assert (code, "s3cret" in shown + warned) == (0, False)
    assert "token = set" in shown
