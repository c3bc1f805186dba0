"""230 inputs and what OpenClaw 2026.9.6 made of them; ours makes the same of them, or differs for a reason given here.

``settings-cases.json`` was recorded with the real program. Paths are relative to the state directory;
``{home}``, ``{state}`` and ``{cwd}`` stand for directories; ``secret`` "(generated)" is a random one,
"(none accepted)" lets nobody in; ``refused`` are secrets that must not do; ``warning`` is whether a line
about the settings was logged. What only a listener can tell is worked out from the addresses wanted.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import Start
from openclaw_gateway.errors import ConfigurationError, ExitCode
from openclaw_gateway.settings.load import Examined, examine
from openclaw_gateway.settings.settle import Surroundings
from wire import dialled

CASES = {
    case["name"]: case
    for case in json.loads(Path(__file__).with_name("settings-cases.json").read_text())
}

NOBODY_GETS_IN = (
    {"rc": 78},
    "OpenClaw starts and admits nobody: a secret that holds ${NAME} is refused",
)
NO_MODE = (
    {"rc": None, "port": 18789, "auth": "token"},
    "no file, or one without a mode, starts with defaults",
)
OURS_STAYS = "the user's file is never replaced by its .bak"
UNKNOWN = (
    {"rc": None, "port": 19445, "auth": "token"},
    "an unknown key that is like no other is a warning",
)
OLD_KEY = (
    {"rc": None, "port": 19445, "auth": "token"},
    "retired keys are read with their present meaning, file or include",
)

# Where section 10 of the facts decides otherwise: what comes out instead, and why.
DIFFERENCES: dict[str, tuple[dict[str, Any], str]] = {
    "sub-escape": NOBODY_GETS_IN,
    "sub-escape-embedded": NOBODY_GETS_IN,
    "sub-twice": NOBODY_GETS_IN,
    "profile-env": ({"rc": None, "port": 41984, "auth": "token", "warning": False}, NO_MODE[1]),
    "empty-object": ({**NO_MODE[0], "warning": False}, NO_MODE[1]),
    "mode-missing": ({**NO_MODE[0], "port": 19445, "warning": False}, NO_MODE[1]),
    "bak-restore": ({"port": 19446, "warning": False}, OURS_STAYS),
    "bak-meta": ({"port": 19445, "warning": False}, OURS_STAYS),
    "unk-gateway": UNKNOWN,
    "unk-root": UNKNOWN,
    "leg-enabled": UNKNOWN,
    "leg-env-include": OLD_KEY,
    "leg-bind-include": ({**OLD_KEY[0], "bind": ["0.0.0.0"]}, OLD_KEY[1]),
    "leg-bind-readonly": ({**OLD_KEY[0], "bind": ["0.0.0.0"]}, OLD_KEY[1]),
    "bind-lan-notoken": ({"rc": None, "port": 19445, "auth": "token", "bind": ["0.0.0.0"], "secret": "(generated)", "warning": False},
                         "without a token one is made once and kept: nothing is open"),
    "bind-custom-v6": ({"rc": None, "port": 19445, "auth": "token", "bind": ["127.0.0.1", "[::1]"], "warning": False},
                       "IPv6 addresses work here"),
    "shellenv": ({"rc": 78}, "we start no shell"),
    "ref-exec": ({"rc": 78}, "we start no program for a secret"),
    "mode-remote-allow": ({"rc": 78}, "a mode of remote is 78"),
    "auth-nothing": ({"warning": False}, "the token that is made and kept is told in the log when it is made"),
    "auth-none": ({"warning": False}, "the mode was asked for, and is refused beyond loopback"),
    "auth-flag-mode": ({"warning": False}, "the same"),
    "ref-unused-mode": ({"warning": False}, "the same"),
    "auth-flag-token": ({"warning": True}, "a secret in argv is warned of"),
    "world-readable": ({"warning": True}, "a secret that everyone may read is warned of"),
    "allow-dangling": ({"warning": True}, "a secret in argv is warned of"),
    "allow-nofile": ({"warning": True}, "a secret in argv is warned of"),
}  # fmt: skip

COMMAND_LINE = {
    "dev-root": "--dev is refused by name",
    "dev-sub": "--dev is refused by name",
    "flag-unknown": "refused",
    "flag-extra": "refused",
    "flag-wslog": "refused",
    "flag-reset": "refused by name",
    "flag-ts": "refused by name",
    "flag-pw-both": "refused",
}
"""Cases of the command line alone, which settings never see; test_cli has them."""

_HARMLESS = {"--verbose", "--compact", "--ambient-channels", "--allow-unconfigured"}
_WITH_WORD = {"--ws-log"}


class Place(NamedTuple):
    """The directories of one case."""

    home: Path
    state: Path
    cwd: Path

    def filled(self, text: str) -> str:
        for name, path in self._asdict().items():
            text = text.replace(f"{{{name}}}", str(path))
        return text


@contextmanager
def laid_out(case: dict[str, Any]) -> Iterator[Place]:
    """Make the case's files, and be who and where it says."""
    # Of its own: what is above pytest's directories is closed to other accounts.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        home = Path(directory)
        state = Path(case.get("state", "{home}/.openclaw").replace("{home}", str(home)))
        place = Place(home, state, home / "cwd")
        place.cwd.mkdir()
        if case.get("state") != "{home}/unused":
            state.mkdir(parents=True, exist_ok=True)
        uid = case.get("uid")
        for name, content in case["files"].items():
            path = Path(os.path.normpath(state / name))
            path.parent.mkdir(parents=True, exist_ok=True)
            data = (
                bytes.fromhex(content["hex"])
                if isinstance(content, dict)
                else place.filled(content).encode()
            )
            path.write_bytes(data)
            path.chmod(0o600)
            if uid:
                os.chown(path, uid, uid)
        for step in case.get("setup", ()):
            set_up(place, *step)
        before = os.getcwd()
        os.chdir(place.cwd)
        if uid:
            os.setresuid(uid, uid, 0)
        try:
            yield place
        finally:
            if uid:
                os.setresuid(0, 0, 0)
            os.chdir(before)


def set_up(place: Place, what: str, *words: str) -> None:
    target = Path(os.path.normpath(place.state / words[-1]))
    match what:
        case "symlink":
            target.symlink_to(place.filled(words[0]))
        case "hardlink":
            target.hardlink_to(os.path.normpath(place.state / words[0]))
        case "mkdir":
            target.mkdir(parents=True)
        case "chmod":
            target.chmod(int(words[0], 8))
        case "chown":
            os.chown(target, int(words[0]), int(words[0]))
        case "pad":
            target.write_bytes(target.read_bytes().ljust(int(words[0])))
        case "occupy":
            pass  # for the listener; see listening
        case _:
            raise AssertionError(what)


def flags_of(argv: list[str], place: Place) -> dict[str, str | None]:
    flags: dict[str, str | None] = {}
    words = iter(place.filled(word) for word in argv)
    for word in words:
        if word in _HARMLESS:
            flags[word] = "yes"
        elif word in _WITH_WORD:
            next(words)
        elif word.startswith("--"):
            flags[word] = next(words)
    return flags


def examined(case: dict[str, Any], place: Place) -> Examined:
    environ = {"HOME": str(place.home), "PATH": os.environ.get("PATH", "")}
    for name, value in case["env"].items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = place.filled(value)
    around = Surroundings(
        lambda: ("127.0.0.1", *case.get("interfaces", {}).values()),
        lambda: bool(case.get("container")),
    )
    return examine(flags_of(case["argv"], place), environ, around=around)


def listening(found: Examined, case: dict[str, Any]) -> list[str] | None:
    """Return where a listener would be that takes each address or fails for want of a required one."""
    own = {"127.0.0.1", "127.0.0.2", "0.0.0.0", "::", *case.get("interfaces", {}).values()}
    if case["name"] != "noipv6":
        own.add("::1")
    taken = {step[1].rpartition(":")[0] for step in case.get("setup", ()) if step[0] == "occupy"}
    hosts = []
    for address in found.values["addresses"]:
        if address.host in own and address.host not in taken:
            hosts.append(f"[{address.host}]" if ":" in address.host else address.host)
        elif address.required:
            return None
    return sorted(hosts)


@pytest.mark.parametrize("name", [name for name in CASES if name not in COMMAND_LINE])
def test_comes_out_as_with_openclaw(name: str) -> None:
    case = CASES[name]
    if os.getuid() and ("uid" in case or any(step[0] == "chown" for step in case.get("setup", ()))):
        pytest.skip("needs root, to be somebody else")
    expected = {"bind": ["127.0.0.1", "[::1]"], "tls": False, **case["expect"]}
    expected |= DIFFERENCES.get(name, ({}, ""))[0]
    with laid_out(case) as place:
        try:
            found = examined(case, place)
        except ConfigurationError as error:
            # Not even which gateway is meant.
            assert (expected.get("rc") is not None, error.exit_code) == (True, ExitCode.CONFIG)
            return
    problems = list(found.problems)
    said = [str(problem) for problem in problems]
    if expected.get("rc") is not None:
        if found.values["tls"] and not problems and name.startswith("tls-"):
            return  # what is in the certificate's files is the listener's to say: test_tls.py
        assert problems or listening(found, case) is None, found.values
        assert all(problem.exit_code is ExitCode.CONFIG for problem in problems), said
        return
    assert said == []
    values = found.values
    assert values["port"] == expected["port"], str(found.origins["port"])
    assert listening(found, case) == sorted(expected["bind"])
    assert (values["tls"] is not None) is expected["tls"]
    assert values["auth_mode"] == expected["auth"]
    chosen = values.get(values["auth_mode"].value)
    match expected.get("secret", "(any)"):
        case "(generated)" | None:
            assert chosen is None
        case "(any)" | "(none accepted)":
            pass
        case secret:
            assert chosen == secret
    assert chosen not in expected.get("refused", ())
    assert bool(found.warnings) is expected["warning"] or expected.get("secret") == "(generated)", (
        found.warnings
    )


def test_each_difference_is_of_a_case() -> None:
    assert set(DIFFERENCES) | set(COMMAND_LINE) <= set(CASES)
    assert len(CASES) == 230


LIVE = (
    "inc-string",
    "inc-roots-dotenv",
    "dotenv-state",
    "env-vars",
    "env-configpath-in-config",
    "sub-embedded",
    "sub-dollarvar",
    "ref-file",
    "port-hex",
    "auth-both-mode",
    "auth-cfgtoken-envpw",
    "auth-env-vs-config",
)
"""A sample that a real gateway is started with: it listens there, lets the secret in, and no other."""


@pytest.mark.parametrize("name", LIVE)
def test_gateway_comes_up_as_the_case_says(name: str, start: Start, port: int) -> None:
    # Each case has its port in its files; here others run too.
    text = json.dumps(CASES[name]).replace("19445", str(port)).replace("0x4bf5", hex(port))
    case = json.loads(text)
    with laid_out(case) as place:
        variables = {name: place.filled(value) for name, value in case["env"].items()}
        cleared = dict.fromkeys(("OPENCLAW_GATEWAY_PORT", "OPENCLAW_GATEWAY_TOKEN"), "")
        environ = cleared | {"HOME": str(place.home), "OPENCLAW_STATE_DIR": str(place.state)}
        # ".env" files count an empty variable as set.
        start(**(environ | variables)).ready()
        mode, secret = case["expect"]["auth"], case["expect"]["secret"]
        assert is_let_in(port, mode, secret)
        for wrong in case["expect"].get("refused", ()):
            assert not is_let_in(port, mode, wrong)


def is_let_in(port: int, mode: str, secret: str) -> bool:
    async def visit() -> bool:
        async with dialled(port) as wire:
            return bool((await wire.connect(token=None, auth={mode: secret}))["ok"])

    return asyncio.run(visit())
