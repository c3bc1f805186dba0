"""Files that others name: none holds up whoever looks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openclaw_gateway.admin.look.files import read


def test_text_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("abc")
    assert read(str(tmp_path / "f")) == "abc"
    assert read(str(tmp_path / "f"), limit_bytes=2) == "ab"


@pytest.mark.parametrize("name", ["fifo", "directory", "missing", "loop", "zero", "missing/below"])
def test_what_has_no_text(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert read(str(tmp_path / name)) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_is_not_ours_to_read_is_no_empty_file(tmp_path: Path) -> None:
    (tmp_path / "closed").touch(mode=0)
    with pytest.raises(PermissionError):
        read(str(tmp_path / "closed"))
