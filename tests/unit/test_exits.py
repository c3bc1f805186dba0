"""What exit statuses say, and that systemd has the same names for them."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from openclaw_gateway.admin.judge import exits
from openclaw_gateway.admin.look.history import Exit
from openclaw_gateway.errors import ExitCode


def test_status_has_systemds_own_name() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    table = subprocess.run(
        ["systemd-analyze", "exit-status"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in table.splitlines()]
    theirs = {int(status): name for name, status, *of in rows if of == ["systemd"]}
    theirs.pop(255, None)  # what systemd's own helpers end with after an exception
    if theirs.get(245) is None:
        theirs[245] = "KSM"  # since systemd 254
    assert {status: name for status, (name, _) in exits.SYSTEMD.items()} == theirs


@pytest.mark.parametrize(
    "status", [*exits.SYSTEMD, *(set(ExitCode) - {ExitCode.OK, ExitCode.FAILURE})]
)
def test_status_without_a_last_word_speaks_for_itself(status: int) -> None:
    sentence = exits.meaning(status)
    assert sentence and "\n" not in sentence and not sentence.endswith(".")
    assert exits.told(status, "") == f"{exits.named(status)}: {sentence}"


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (1, "", "1"),
        (0, "", "0"),
        (42, "", "42"),
        (142, "", "142: SIGALRM ended it"),
        (75, "another gateway instance", "75: another gateway instance"),
        (203, "", "203/EXEC: systemd could not execute the program in ExecStart=; is it there, and executable?"),
        (226, "no room", "226/NAMESPACE: no room"),
    ],
)  # fmt: skip
def test_last_word_of_the_gateway_goes_first(status: int, said: str, told: str) -> None:
    assert exits.told(status, said) == told


@pytest.mark.parametrize(
    ("kind", "status", "cause", "words"),
    [
        ("exited", "238", "", ("238/STATE_DIRECTORY", exits.meaning(238))),
        ("exited", "78", "port taken", ("78", "port taken")),
        ("killed", "9", "", ("SIGKILL", "")),
        ("dumped", "40", "no answer", ("signal 40", "no answer")),
        ("stopped", "", "asked to", ("", "asked to")),
    ],
)
def test_end_in_the_journal(kind: str, status: str, cause: str, words: tuple[str, str]) -> None:
    assert exits.of_exit(Exit(datetime.now(UTC), kind, status, cause)) == words
