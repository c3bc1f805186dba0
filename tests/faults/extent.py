"""How far the tests go: a sample by default, everything under ``make faults``; each number has a variable of its own."""

from __future__ import annotations

import os


def extent(variable: str, sample: int, full: int) -> int:
    """Return the number that ``variable`` gives, else ``full`` if ``FAULTS_FULL`` is set, else ``sample``."""
    return int(os.environ.get(variable) or (full if os.environ.get("FAULTS_FULL") else sample))
