"""Completion in bash, zsh and fish says what the command line takes."""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_gateway import cli

PACKAGING = Path(__file__).parents[2] / "packaging"
SCRIPT = PACKAGING / "completion.bash"


@pytest.fixture
def commands(tmp_path) -> dict[str, str]:
    """Return an environment in which the commands are found."""
    for name, function in (("openclaw-gateway", "main"), ("openclaw", "openclaw")):
        command = tmp_path / name
        command.write_text(
            f"#!{sys.executable}\nfrom openclaw_gateway import cli\ncli.{function}()\n"
        )
        command.chmod(0o755)
    return {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.fixture
def complete(commands):
    """Return what bash offers for the last word of a command line."""

    def complete(line: str) -> set[str]:
        words = shlex.split(line) + ([""] if line.endswith(" ") else [])
        script = (
            f". {shlex.quote(str(SCRIPT))}\n"
            f"COMP_WORDS=({' '.join(map(shlex.quote, words))}) COMP_CWORD={len(words) - 1}\n"
            # compopt works during a completion only
            "compopt() { :; }\n"
            "_openclaw_gateway\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            ["bash", "-c", script], env=commands, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return set(done.stdout.split())

    return complete


def flags_of(verb: str) -> set[str]:
    parser = cli.parser("openclaw-gateway")
    subparsers = next(action for action in parser._actions if action.choices)
    return {
        option
        for action in subparsers.choices[verb]._actions
        if action.help != argparse.SUPPRESS
        for option in action.option_strings
        if option.startswith("--")
    }


def values_of(verb: str, flag: str) -> set[str]:
    """Return the values that the help of a flag lists."""
    parser = cli.parser("openclaw-gateway")
    subparsers = next(action for action in parser._actions if action.choices)
    (action,) = (a for a in subparsers.choices[verb]._actions if flag in a.option_strings)
    return set(action.metavar.split("|"))


def test_first_word_is_a_verb(complete):
    assert complete("openclaw-gateway ") == {verb.name for verb in cli._VERBS}


@pytest.mark.parametrize("verb", [verb.name for verb in cli._VERBS])
def test_each_verb_has_its_own_options(complete, verb):
    assert complete(f"openclaw-gateway {verb} --") == flags_of(verb)


def test_openclaw_has_one_verb_and_then_the_gateways(complete):
    assert complete("openclaw ") == {"gateway"}
    assert complete("openclaw gateway ") == {verb.name for verb in cli._VERBS}
    assert complete("openclaw gateway probe --") == flags_of("probe")


def test_values_are_offered(complete):
    assert complete("openclaw-gateway run --auth ") == values_of("run", "--auth")
    assert complete("openclaw-gateway run --bind l") == {"loopback", "lan"}


def test_files_are_offered(complete, tmp_path):
    (tmp_path / "settings.json").touch()
    assert complete(f"openclaw-gateway run --config {tmp_path}/set") == {
        str(tmp_path / "settings.json")
    }


# What completes by itself only at a prompt: zsh's built-in function, which prints here what it is handed.
ZSH = """
compadd() { [[ $1 == -a ]] && print -l -- ${(P)2} }
_files() { print -l -- _files $@ }
words=("$@")
CURRENT=$#
completion() { source $SCRIPT }
completion
"""


def offered_by_zsh(words: list[str], environ: dict[str, str]) -> str:
    script = {**environ, "SCRIPT": str(PACKAGING / "completion.zsh")}
    return run(["zsh", "-f", "-c", ZSH, "zsh", *words], script)


def offered_by_fish(words: list[str], environ: dict[str, str]) -> str:
    source = f"source {shlex.quote(str(PACKAGING / 'completion.fish'))}"
    line = shlex.join(words[:-1]) + " " + words[-1]
    return run(["fish", "--no-config", "-c", f"{source}; complete -C {shlex.quote(line)}"], environ)


def run(words: list[str], environ: dict[str, str]) -> str:
    if shutil.which(words[0]) is None:
        pytest.skip(f"COMPLETION OF {words[0].upper()} LEFT OUT: {words[0]} is not installed")
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


SHELLS = pytest.mark.parametrize("offered", [offered_by_zsh, offered_by_fish])


@SHELLS
def test_other_shells_offer_verbs_first(commands, offered):
    verbs = {verb.name for verb in cli._VERBS}
    assert set(offered(["openclaw-gateway", ""], commands).split()) == verbs


@SHELLS
@pytest.mark.parametrize("verb", [verb.name for verb in cli._VERBS])
def test_other_shells_offer_each_verb_its_options(commands, offered, verb):
    assert set(offered(["openclaw-gateway", verb, "--"], commands).split()) == flags_of(verb)


@SHELLS
@pytest.mark.parametrize("flag", ["--auth", "--bind"])
def test_other_shells_offer_values(commands, offered, flag):
    words = ["openclaw-gateway", "run", flag, ""]
    assert set(offered(words, commands).split()) == values_of("run", flag)


def test_other_shells_offer_files(commands, tmp_path):
    (tmp_path / "settings.json").touch()
    words = ["openclaw-gateway", "run", "--config", f"{tmp_path}/set"]
    assert offered_by_fish(words, commands).split() == [f"{tmp_path}/settings.json"]
    assert offered_by_zsh(words, commands).split() == ["_files"]
    assert offered_by_zsh([*words[:2], "--state-dir", ""], commands).split() == ["_files", "-/"]
