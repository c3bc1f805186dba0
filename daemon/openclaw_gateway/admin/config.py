"""The verb ``config``: every setting by the key it has in its file, in that file's units, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from openclaw_gateway.admin.look.view import View
from openclaw_gateway.admin.report import document
from openclaw_gateway.errors import ConfigurationError, ExitCode
from openclaw_gateway.settings.keys import KEYS, SECRETS, shown
from openclaw_gateway.settings.load import Examined
from openclaw_gateway.settings.location import Origin

_PLACES = (
    ("configFile", "config_path"),
    ("ownFile", "own_path"),
    ("stateDir", "state_dir"),
    ("profile", "profile"),
    ("allowMultiple", "allow_multiple"),
    ("listen", "addresses"),
)
"""What stands in no file, by a name of ours."""


class Printed(NamedTuple):
    """What goes to standard output, what to standard error, and what the verb exits with."""

    lines: Sequence[str]
    complaints: Sequence[str]
    exit_code: int


def report(found: Examined, view: View | None, *, as_json: bool) -> Printed:
    """
    Return every setting, and what is wrong or odd about any.

    Args:
        found: The settings.
        view: Whose they are; ``None`` if they are those of a gateway that is started from here.
        as_json: Whether to return one document.
    """
    settings = list(_settings(found))
    exit_code = found.problems[0].exit_code if found.problems else ExitCode.OK
    if as_json:
        values = {name: {"value": value, "origin": _origin(o)} for name, value, o in settings}
        problems = [_problem(problem) for problem in found.problems]
        told: dict[str, object] = {
            "valid": not found.problems,
            "view": _view(view),
            "settings": values,
            "problems": problems,
            "warnings": list(found.warnings),
        }
        return Printed(document(told), (), exit_code)
    lines = [f"# as read by {view or 'a gateway that is started from here'}"]
    lines += [f"{name} = {json.dumps(value)}  ({origin})" for name, value, origin in settings]
    return Printed(lines, complaints(found), exit_code)


def check(found: Examined, view: View | None) -> Printed:
    """Return what is wrong or odd, and no setting. Arguments as for ``report``."""
    exit_code = found.problems[0].exit_code if found.problems else ExitCode.OK
    verdict = "refused" if found.problems else "fine"
    whose = f", as read by {view}" if view else ""
    return Printed(
        [f"{found.location.config_path}: {verdict}{whose}"], complaints(found), exit_code
    )


def complaints(found: Examined) -> list[str]:
    """Return a line for each problem, one for its hint, and one for each warning."""
    lines = []
    for problem in found.problems:
        lines.append(str(problem))
        if problem.hint:
            lines.append(f"hint: {problem.hint}")
    return lines + [f"warning: {warning}" for warning in found.warnings]


def _settings(found: Examined) -> Iterator[tuple[str, Any, Origin]]:
    for name, field in _PLACES:
        value = found.values[field]
        if field == "addresses":
            value = [address.host for address in value]
        yield name, value, found.origins[field]
    for key in sorted((*KEYS, *SECRETS), key=lambda key: key.name):
        yield key.name, shown(key, found.values[key.field]), found.origins[key.field]


def _view(view: View | None) -> dict[str, str | None]:
    if view is None:
        return {"unit": None, "manager": None}
    return {"unit": view.unit.name, "manager": str(view.unit.manager)}


def _origin(origin: Origin) -> dict[str, object]:
    line, column = origin.place or (None, None)
    return {
        "source": origin.source,
        "name": origin.name or None,
        "line": line,
        "column": column,
        "through": origin.through or None,
    }


def _problem(problem: ConfigurationError) -> dict[str, object]:
    line, column = problem.place or (None, None)
    return {
        "source": problem.source,
        "key": problem.key or None,
        "line": line,
        "column": column,
        "problem": problem.problem,
        "hint": problem.hint or None,
    }
