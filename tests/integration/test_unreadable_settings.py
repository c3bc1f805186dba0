"""What a start makes of settings that it can't read: 78 only where no restart could mend it."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Start
from openclaw_gateway.errors import ConfigurationError, ExitCode, UnreadableError
from openclaw_gateway.settings import load as settings


def test_disk_that_fails_is_tried_again(start: Start) -> None:
    daemon = start("--config", "/proc/self/mem", NOTIFY_SOCKET="/nonexistent")
    assert daemon.finish() == 1
    assert "cannot read /proc/self/mem: Input/output error" in "\n".join(daemon.log)


def test_secret_on_a_disk_that_fails_is_tried_again(start: Start) -> None:
    daemon = start("--token-file", "/proc/self/mem")
    assert daemon.finish() == 1
    assert "cannot read /proc/self/mem: Input/output error" in "\n".join(daemon.log)


def test_directory_in_place_of_the_settings_is_not_tried_again(
    start: Start, tmp_path: Path
) -> None:
    daemon = start("--config", str(tmp_path))
    assert daemon.finish() == 78
    assert f"{tmp_path}: it is a directory" in "\n".join(daemon.log)


@pytest.mark.parametrize("below", [".", "deeper/state"])
def test_file_in_place_of_the_state_directory_is_told_as_such(
    start: Start, tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").touch()
    daemon = start(OPENCLAW_STATE_DIR=str(tmp_path / "file" / below))
    assert daemon.finish() == 73


@pytest.fixture
def forbidden(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Root's state directory with root's settings, while we have the rights of nobody."""
    # Of its own: what is above pytest's directories is closed to others.
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o755)
        state_dir = Path(home, "state")
        state_dir.mkdir()
        (state_dir / "openclaw.json").touch(0o600)
        state_dir.chmod(request.param)
        os.seteuid(65534)
        yield state_dir
        os.seteuid(0)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize(("forbidden", "code"), [(0o700, 77), (0o755, 78)], indirect=["forbidden"])
def test_forbidden_directory_is_77_and_a_forbidden_file_78(forbidden: Path, code: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.load({"--state-dir": str(forbidden)}, {})
    assert (caught.value.exit_code, caught.value.hint != "") == (code, True)


def test_want_of_descriptors_is_a_shortage(tmp_path: Path) -> None:
    taken = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(tmp_path / "last", "w") as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), taken[1]))
        try:
            with pytest.raises(UnreadableError) as caught:
                settings.load({"--state-dir": str(tmp_path)}, {})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, taken)
    assert caught.value.exit_code is ExitCode.FAILURE
    assert "LimitNOFILE" in caught.value.hint
