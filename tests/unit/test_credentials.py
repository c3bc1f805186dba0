"""Which credentials should come to a unit, and which came."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gateways import unit

from openclaw_gateway.admin.look.credentials import Credential, of_unit
from openclaw_gateway.admin.look.unitfile import Assignment, effective, parse

TOKEN, PASSWORD = "openclaw-gateway.token", "openclaw-gateway.password"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a token in it, and beside it where systemd would hand credentials over."""
    directory = tmp_path / "credstore"
    directory.mkdir()
    (directory / TOKEN).write_text("secret")
    return directory


def look(
    store: Path, fragment: str, *drop_ins: str, name: str = "x.service"
) -> tuple[Credential, ...]:
    """Look at a running unit with these files."""
    paths = []
    for number, text in enumerate((fragment, *drop_ins)):
        path = store.parent / f"{number}.conf"
        path.write_text(f"[Service]\n{text}\n")
        paths.append(str(path))
    service = unit(name=name, fragment_path=paths[0], drop_ins=tuple(paths[1:]))
    seen_by_it = store.parent / "proc/812"
    seen_by_it.mkdir(parents=True)
    (seen_by_it / "root").symlink_to("/")
    run, proc = str(store.parent / "run"), str(store.parent / "proc")
    return of_unit(service, stores=[str(store)], root=run, proc=proc)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what came is for root to see")


@as_root
def test_credential_that_lies_ready_and_did_not_come(store: Path) -> None:
    assert look(store, f"LoadCredential={TOKEN}\nLoadCredential={PASSWORD}") == (
        Credential(TOKEN, str(store / TOKEN), True, None, False),
        Credential(PASSWORD, None, True, None, False),
    )


@as_root
def test_credential_that_came(store: Path) -> None:
    handed_over = store.parent / "run/x.service"
    handed_over.mkdir(parents=True)
    (handed_over / TOKEN).write_text("secret")
    (found,) = look(store, f"LoadCredential={TOKEN}")
    assert found.came is True


def test_drop_in_that_empties_the_list_is_named(store: Path) -> None:
    # As images of LXC and Incus have it for all services.
    (found,) = look(store, f"LoadCredential={TOKEN}", "LoadCredential=")
    assert (found.is_asked_for, found.taken_back_by) == (False, str(store.parent / "1.conf"))


def test_credential_that_is_asked_for_again_is_asked_for(store: Path) -> None:
    (found,) = look(
        store, f"LoadCredential={TOKEN}", f"LoadCredential=\nLoadCredential={TOKEN}:{store}/{TOKEN}"
    )
    assert (found.is_asked_for, found.taken_back_by) == (True, None)
    assert found.source == str(store / TOKEN)


def test_profile_has_a_file_of_its_own(store: Path) -> None:
    (store / "openclaw-gateway.work.token").write_text("secret")
    line = f"LoadCredential={TOKEN}:openclaw-gateway.%i.token"
    (found,) = look(store, line, name="openclaw-gateway@work.service")
    assert (found.name, found.source) == (TOKEN, f"{store}/openclaw-gateway.work.token")


def test_import_takes_what_matches(store: Path) -> None:
    (store / "other").write_text("x")
    (found,) = look(store, "ImportCredential=openclaw-gateway.*")
    assert (found.name, found.source) == (TOKEN, str(store / TOKEN))


@pytest.mark.parametrize(
    "line",
    ["openclaw-gateway.%i.token:openclaw-gateway.token", "openclaw-gateway.%i.*:openclaw-gateway."],
)
def test_import_may_rename(store: Path, line: str) -> None:
    (store / "openclaw-gateway.work.token").write_text("secret")
    load = f"LoadCredential={TOKEN}:openclaw-gateway.%i.token"
    rename = f"LoadCredential=\nImportCredential={line}"
    (found,) = look(store, load, rename, name="openclaw-gateway@work.service")
    assert (found.name, found.source) == (TOKEN, f"{store}/openclaw-gateway.work.token")
    assert (found.is_asked_for, found.taken_back_by) == (True, None)


def test_unit_file_is_read_as_systemd_reads_it() -> None:
    text = "[Unit]\nA=1\n# B=2\n[Service]\n; C=3\nD = 4 \\\n  5\nnonsense\n"
    assert list(parse(text, "f")) == [
        Assignment("f", "Unit", "A", "1"),
        Assignment("f", "Service", "D", "4    5"),
    ]


def test_empty_line_takes_back_those_of_its_key_only() -> None:
    lines = list(parse("[S]\nA=1\nB=1\nA=\nA=2\n", "f"))
    assert [(line.key, line.value) for line in effective(lines)] == [("B", "1"), ("A", "2")]
