"""Bash completion says what the command line takes."""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_gateway import cli

SCRIPT = Path(__file__).parents[2] / "packaging" / "completion.bash"


@pytest.fixture
def complete(tmp_path):
    """Return what bash offers for the last word of a command line."""
    for name, function in (("openclaw-gateway", "main"), ("openclaw", "openclaw")):
        command = tmp_path / name
        command.write_text(
            f"#!{sys.executable}\nfrom openclaw_gateway import cli\ncli.{function}()\n"
        )
        command.chmod(0o755)

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
        environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", script], env=environ, capture_output=True, text=True, check=True
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
    assert complete("openclaw-gateway run --auth ") == {"none", "token", "password"}
    assert complete("openclaw-gateway run --bind l") == {"loopback", "lan"}


def test_files_are_offered(complete, tmp_path):
    (tmp_path / "settings.json").touch()
    assert complete(f"openclaw-gateway run --config {tmp_path}/set") == {
        str(tmp_path / "settings.json")
    }
