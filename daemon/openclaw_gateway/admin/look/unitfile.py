"""What stands in the files of a unit, each line with the file that it is from: who set what, and who took it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from openclaw_gateway.admin.look import files
from openclaw_gateway.admin.look.units import Unit


class Assignment(NamedTuple):
    """One ``Key=value`` line."""

    path: str
    section: str
    key: str
    value: str
    """Empty to take back what lines before it have listed. systemd.unit(5)."""


def assignments(unit: Unit, *keys: str) -> list[Assignment]:
    """
    Read the lines with certain keys, in the order in which systemd reads them.

    Args:
        unit: Its file and its drop-ins are asked of systemd, so those for all services are among them.
        keys: Such as ``LoadCredential``.

    Returns:
        Lines with their specifiers replaced, as far as they are the unit's names. Files that are not
        there or not ours to read have none.
    """
    found = []
    for path in filter(None, (unit.fragment_path, *unit.drop_ins)):
        try:
            text = files.read(path) or ""
        except PermissionError:
            continue
        found += [
            line._replace(value=_specified(line.value, unit.name))
            for line in parse(text, path)
            if line.key in keys
        ]
    return found


def parse(text: str, path: str) -> Iterator[Assignment]:
    """Read a unit's file; pure. A backslash at a line's end joins it to the next one. systemd.syntax(7)."""
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        words = line.strip()
        if words.startswith("[") and words.endswith("]"):
            section = words[1:-1]
        elif words and words[0] not in "#;":
            key, equals, value = words.partition("=")
            if equals:
                yield Assignment(path, section, key.strip(), value.strip())


def effective(lines: Sequence[Assignment]) -> list[Assignment]:
    """Return the lines of lists that count: those that no empty line after them took back."""
    kept: list[Assignment] = []
    for line in lines:
        if line.value:
            kept.append(line)
        else:
            kept = [other for other in kept if other.key != line.key]
    return kept


def _specified(value: str, name: str) -> str:
    """Replace the specifiers that stand for a unit's name. systemd.unit(5), "Specifiers"."""
    whole = name.rpartition(".")[0] or name
    prefix, _, instance = whole.partition("@")
    meanings = {"n": name, "N": whole, "p": prefix, "i": instance, "I": instance, "%": "%"}
    parts = value.split("%")
    done = parts[0]
    rest = iter(parts[1:])
    for part in rest:
        if not part:  # "%%" splits into an empty part, and what follows is text
            done += "%" + next(rest, "")
        else:
            done += meanings.get(part[0], f"%{part[0]}") + part[1:]
    return done
