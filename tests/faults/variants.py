"""Copies of the product with a part taken out: what a test of that part must fail with."""

from __future__ import annotations

import shutil
from pathlib import Path

import openclaw_gateway

LOCKFILE = "claim/lockfile.py"
NO_FLOCKS = (
    (LOCKFILE, "            if not _try_flock(self.fd, self.path):\n", "            if False:\n"),
    (LOCKFILE, "            if not _try_flock(fd, self.path):\n", "            if False:\n"),
    (LOCKFILE, "            if _try_flock(rival, self.path):\n", "            if False:\n"),
)
"""Nothing is locked on the file system: not the state directory, not a file in it."""


def without(directory: Path, *parts: tuple[str, str, str]) -> str:
    """
    Copy the product's package and replace text in its source.

    Args:
        directory: Where to put the copy.
        *parts: Module (``claim/lockfile.py``), the text there, which must stand there once, and what
            to write in its place.

    Returns:
        What to put on ``PYTHONPATH`` to run the copy.
    """
    source = Path(openclaw_gateway.__file__).parent
    package = directory / source.name
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    for module, old, new in parts:
        text = (package / module).read_text()
        assert text.count(old) == 1, f"{module} has {text.count(old)} times: {old}"
        (package / module).write_text(text.replace(old, new))
    return str(directory)
