"""``doctor`` on real state directories: what it finds, and the little that it mends."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conftest import CAP_S, Start, clean_environ, free_port, without_systemd
from node_like import NodeLike
from openclaw_gateway.admin.look.locks import remove_leftovers, survey

Doctor = Callable[..., dict[str, Any]]


@pytest.fixture
def doctor(port: int, state_dir: Path, tmp_path: Path) -> Doctor:
    """Return what ``doctor --json`` says of the test's gateway."""

    def look(*options: str, **more: Any) -> dict[str, Any]:
        place = ["--port", str(port), "--state-dir", str(state_dir)]
        said = subprocess.run(
            [sys.executable, "-m", "openclaw_gateway", "doctor", "--json", *place, *options],
            env=clean_environ(HOME=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=CAP_S,
            check=False,
            **more,
        )
        assert said.stderr == ""
        document: dict[str, Any] = json.loads(said.stdout)
        return document

    return look


def evidence(document: dict[str, Any], name: str) -> list[str]:
    (check,) = (check for check in document["checks"] if check["name"] == name)
    return [f"{found['severity']}: {found['evidence']}" for found in check["findings"]]


def ask_on_screen(port: int, state_dir: Path, home: Path) -> list[str]:
    place = ["--port", str(port), "--state-dir", str(state_dir)]
    said = subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", "doctor", *place],
        env=clean_environ(HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )
    return said.stdout.splitlines()


def lock_files(state_dir: Path) -> list[Path]:
    return sorted(state_dir.glob("tmp/*/gateway.*.lock"))


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in directory.rglob("*")
    }


@without_systemd
def test_healthy_gateway_has_no_leftovers(
    start: Start, doctor: Doctor, port: int, state_dir: Path, tmp_path: Path
) -> None:
    gateway = start().ready()
    document = doctor()
    assert document["schema"] == 1
    assert document["state"] == "unmanaged"
    held = [f"{path}: held by pid {gateway.pid}" for path in lock_files(state_dir)]
    assert len(held) == 2
    assert evidence(document, "lock-directory") == [f"ok: {sentence}" for sentence in held]
    assert {(one["path"], one["holder_pid"]) for one in document["locks"]} == {
        (str(path), gateway.pid) for path in lock_files(state_dir)
    }
    shown = ask_on_screen(port, state_dir, tmp_path)
    ok = next(at for at, line in enumerate(shown) if "locks are where they should be" in line)
    assert [line.split("  ")[-1].strip() for line in shown[ok + 1 : ok + 3]] == held
    assert evidence(document, "port-holders") == []
    assert evidence(document, "restart-policy") == ["unseen: no unit: systemd does not run here"]


def test_looking_changes_nothing(start: Start, doctor: Doctor, state_dir: Path) -> None:
    start().ready().kill()
    before = contents(state_dir)
    doctor()
    assert contents(state_dir) == before


def test_leftovers_of_a_crash_are_found_and_removed(
    start: Start, doctor: Doctor, state_dir: Path
) -> None:
    start().ready().kill()
    left = lock_files(state_dir)
    assert len(left) == 2
    assert len(evidence(doctor(), "lock-directory")) == 2
    mended = doctor("--fix")["mended"]
    assert mended == [f"{path}: removed" for path in left]
    assert lock_files(state_dir) == []
    assert doctor("--fix")["mended"] == []
    start().ready()


def test_files_of_a_running_gateway_stay(start: Start, doctor: Doctor, state_dir: Path) -> None:
    gateway = start().ready()
    before = contents(state_dir)
    assert doctor("--fix")["mended"] == []
    assert contents(state_dir) == before
    assert gateway.stop() == 0


@pytest.fixture
def node(state_dir: Path) -> Iterator[NodeLike]:
    """A process that locks the test's state as OpenClaw's own gateway does, when told to."""
    with closing(NodeLike(state_dir, state_dir / "openclaw.json", free_port())) as other:
        yield other


def test_nothing_is_left_over_beside_a_starting_gateway_of_openclaws(
    start: Start, node: NodeLike, doctor: Doctor, state_dir: Path
) -> None:
    """It holds its locks, and the records are still those of one that was killed."""
    start().ready().kill()
    node.does("lock")
    before = contents(state_dir)
    (held, *rest) = evidence(doctor("--fix"), "lock-directory")
    assert held.startswith("ok: ")
    assert f"held by pid {node.pid}, a gateway of OpenClaw's own" in held
    assert rest == []
    assert doctor("--fix")["mended"] == []
    assert contents(state_dir) == before


@pytest.mark.parametrize(
    "does", [("lock",), ("lock", "record"), ("record",)], ids=["locks", "locks, record", "record"]
)
def test_gateway_that_comes_between_looking_and_removing_keeps_its_records(
    start: Start, node: NodeLike, state_dir: Path, does: tuple[str, ...]
) -> None:
    start().ready().kill()
    seen = survey(str(state_dir))
    assert len([file for file in seen.files if file.is_leftover]) == 2
    node.does(*does)
    before = contents(state_dir)
    said = list(remove_leftovers(seen))
    assert len(said) == 2
    assert all(f"pid {node.pid}" in one and "left alone" in one for one in said)
    assert contents(state_dir) == before


def test_leftovers_of_another_user_are_removed_as_that_user(
    start: Start, doctor: Doctor, state_dir: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can act for another user")
    start().ready().kill()
    os.rename(state_dir / "tmp/openclaw-0", state_dir / "tmp/openclaw-65534")
    for path in (state_dir, *state_dir.rglob("*")):
        os.chown(path, 65534, 65534)
    # pytest's directories are closed to others; whoever owns the state can reach it in real life.
    for parent in state_dir.parents:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)
    assert len(doctor("--fix")["mended"]) == 2
    assert lock_files(state_dir) == []


def test_lock_directory_that_others_may_write_to_is_an_error(
    start: Start, doctor: Doctor, state_dir: Path
) -> None:
    start().ready().stop()
    (state_dir / "tmp").chmod(0o777)
    (fault,) = evidence(doctor(), "lock-directory")
    assert fault.startswith(f"error: {state_dir}/tmp: others may write to it (mode 0777)")


def test_token_that_others_may_read_is_an_error(doctor: Doctor, state_dir: Path) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "gateway.token").write_text("secret-of-the-test")
    (state_dir / "gateway.token").chmod(0o644)
    document = doctor()
    assert evidence(document, "secrets") == [
        f"error: {state_dir}/gateway.token holds a secret, and others may read it (mode 0644)"
    ]
    assert "secret-of-the-test" not in json.dumps(document)


def test_what_may_not_be_seen_is_not_called_well(
    start: Start, doctor: Doctor, state_dir: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    start().ready()
    document = doctor(user=65534, group=65534, extra_groups=[], cwd="/")
    assert evidence(document, "secrets")[0] == f"unseen: secrets in {state_dir}: Permission denied"
    assert evidence(document, "disk") == [f"unseen: {state_dir}: Permission denied"]


@without_systemd
def test_without_unit_and_directory_nothing_is_called_well(doctor: Doctor, state_dir: Path) -> None:
    document = doctor()
    assert evidence(document, "disk") == [f"unseen: {state_dir}: there is no such directory yet"]
    assert evidence(document, "linger") == ["unseen: no unit: systemd does not run here"]


def test_configuration_with_a_secret_that_everyone_may_read_is_an_error(
    doctor: Doctor, tmp_path: Path
) -> None:
    config = tmp_path / "open.json"
    config.write_text('{"gateway":{"auth":{"token":"secret-of-the-test"}}}')
    config.chmod(0o644)
    document = doctor("--config", str(config))
    assert evidence(document, "secrets") == [
        f"error: {config} holds a secret, and others may read it (mode 0644)"
    ]
    assert "secret-of-the-test" not in json.dumps(document)


def test_screen_numbers_the_checks(port: int, tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", "doctor", "--port", str(port)],
        env=clean_environ(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )
    assert said.returncode == 1
    numbers = [line[:2].strip() for line in said.stdout.splitlines() if line[:2].strip()]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert "error    stopped: nothing runs on port" in said.stdout
