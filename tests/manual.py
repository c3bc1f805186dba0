"""What the manual tells its readers to type, so that a test does exactly that."""

from __future__ import annotations

import re
from pathlib import Path

PAGES = Path(__file__).parents[1] / "packaging" / "man"


def displays(page: str, section: str) -> list[str]:
    """
    Return the literal displays of one section, as a reader sees them. mdoc(7), ``Bd``.

    Args:
        page: File name of the page.
        section: Its heading, as it stands in the source.
    """
    body = _section(page, section)
    found = re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", body, re.MULTILINE | re.DOTALL)
    assert not any(line.startswith(".") for shown in found for line in shown.splitlines()), found
    return [shown.replace("\\e", "\\").replace("\\-", "-") for shown in found]


def commands(page: str, section: str) -> list[str]:
    """Return the commands of one section that have a line of their own, in order. mdoc(7), ``Dl``."""
    found = re.findall(r"^\.Dl (.*)$", _section(page, section), re.MULTILINE)
    return [line.replace("\\(dq", '"').replace("\\-", "-") for line in found]


def _section(page: str, section: str) -> str:
    text = (PAGES / page).read_text()
    (body,) = re.findall(
        rf"^\.Sh {re.escape(section)}\n(.*?)(?=^\.Sh )", text, re.MULTILINE | re.DOTALL
    )
    return str(body)
