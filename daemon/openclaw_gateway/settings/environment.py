"""Variables that settings may use: the process's, those of ``.env`` files, those of ``env.vars``; and ``${NAME}``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from openclaw_gateway.settings.includes import MISSING, Merged, look_up
from openclaw_gateway.settings.json5 import Keys
from openclaw_gateway.settings.location import Location, Origin
from openclaw_gateway.settings.sources import read_bounded

_MAX_ENV_BYTES = 1 << 20
_LOADERS = (
    r"(?i:(LD_|DYLD_|NODE_|PYTHON|PERL|RUBY|BASH_|GIT_|JAVA_).*"
    r"|ENV|IFS|PATH|SHELL|SHELLOPTS|PS4|HOME)"
)
"""Names that change how programs are found and loaded: never taken from a file."""
_NOT_FROM_HERE = r"(?i:(OPENCLAW|CLAWDBOT|MOLTBOT)_.*|.*_API_KEY|.*_PROXY)"
"""Names beside these that the working directory's file may not give: anyone's directory it may be."""
_REFERENCE = r"\$(\$\{[A-Z_][A-Z0-9_]*\})|\$\{([A-Z_][A-Z0-9_]*)\}"
_UNRESOLVED = r"\$\{[A-Z_][A-Z0-9_]*\}"


def refers(text: str) -> bool:
    """Whether a text still refers to a variable."""
    return re.search(_UNRESOLVED, text) is not None


class Variable(NamedTuple):
    """One variable's value, and where it was set."""

    value: str
    origin: Origin


class Environment:
    """The process's variables, and those that files add where it has none."""

    def __init__(self, process: Mapping[str, str]) -> None:
        self._process = process
        self._added: dict[str, Variable] = {}

    def add(self, name: str, variable: Variable, *, replaces_empty: bool = False) -> None:
        """Set a variable unless it is set; one that is empty counts as set, unless ``replaces_empty``."""
        known = self._process.get(name)
        if known is None and name in self._added:
            known = self._added[name].value
        if known is None or (replaces_empty and not known.strip()):
            self._added[name] = variable

    def get(self, name: str) -> Variable | None:
        """Return a variable that is not blank."""
        added = self._added.get(name)
        if added is not None:
            return added if added.value.strip() else None
        value = self._process.get(name, "")
        return Variable(value, Origin("variable", name)) if value.strip() else None

    def text(self, name: str) -> str:
        """Return a variable's value, empty if there is none."""
        variable = self.get(name)
        return variable.value if variable else ""

    def with_added(self, names: tuple[str, ...]) -> dict[str, str]:
        """Return the process's variables, with these as files set them."""
        added = {name: self._added[name].value for name in names if name in self._added}
        return {**self._process, **added}


def add_env_files(environment: Environment, where: Location, *, working_dir: str) -> None:
    """
    Add the variables of the ``.env`` files: working directory, state directory, beside the configuration, the user's.

    One that can't be read is passed over, as OpenClaw does.
    """
    config_dir = os.path.dirname(where.config_path)
    paths = [os.path.join(working_dir, ".env"), os.path.join(where.state_dir, ".env")]
    if config_dir != where.state_dir:
        paths.append(os.path.join(config_dir, ".env"))
    if where.home and where.state_dir == os.path.join(where.home, ".openclaw"):
        paths.append(os.path.join(where.home, ".config/openclaw/gateway.env"))
    for index, path in enumerate(paths):
        found = read_bounded(path, _MAX_ENV_BYTES)
        if isinstance(found, str):
            continue
        foreign = index == 0 and path not in paths[1:]
        for name, (value, line) in parse_env(found[0].decode("utf-8", "replace")).items():
            if re.fullmatch(_LOADERS, name) or (foreign and re.fullmatch(_NOT_FROM_HERE, name)):
                continue
            origin = Origin(path, name, find=lambda line=line: (line, 1))  # type: ignore[misc]
            environment.add(name, Variable(value, origin))


# As npm's dotenv has it, but line by line: "K=V", "K = V", "K: V", also after "export".
_ASSIGNMENT = r"[^\S\n]*(?:export[^\S\n]+)?([A-Za-z_][A-Za-z0-9_]*)(?:[^\S\n]*=|:[^\S\n])[^\S\n]*"
_QUOTED = r"""
    (?: '([^']*)' | "((?:[^"\\]|\\[^"]|\\")*)" | `([^`]*)` ) [^\S\n]* (?:\#[^\n]*)? (?=\n|\Z)
"""
_BARE = r"[^#\n]*"


def parse_env(text: str) -> dict[str, tuple[str, int]]:
    """Return the variables of a ``.env`` file, each with its line; of two with one name the last counts."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found: dict[str, tuple[str, int]] = {}
    assignments, quotes = re.compile(_ASSIGNMENT), re.compile(_QUOTED, re.VERBOSE)
    bares = re.compile(_BARE)
    position, line = 0, 1
    while position < len(text):
        assignment = assignments.match(text, position)
        end = position
        if assignment:
            quoted = quotes.match(text, assignment.end())
            if quoted:
                value = quoted[1] or quoted[3] or ""
                if quoted[2]:
                    value = quoted[2].replace("\\n", "\n").replace("\\r", "\r")
                end = quoted.end()
            else:
                bare = bares.match(text, assignment.end())
                value = bare[0].strip() if bare else ""
            found[assignment[1]] = (value, line)
        newline = text.find("\n", end)
        following = len(text) if newline < 0 else newline + 1
        line += text.count("\n", position, following)
        position = following
    return found


def add_config_variables(environment: Environment, merged: Merged) -> list[str]:
    """
    Add the variables of the document's ``env`` block; return warnings.

    Raises:
        ConfigurationError: The block is not what it must be.
    """
    block = look_up(merged.value, ("env",))
    if block is MISSING:
        return []
    if not isinstance(block, dict):
        raise merged.origin(("env",)).error("must be an object")
    named = block.get("vars", {})
    if not isinstance(named, dict):
        raise merged.origin(("env", "vars")).error("must be an object")
    warnings = []
    entries: list[tuple[Keys, Any]] = [(("env", "vars", name), named[name]) for name in named]
    for name, value in block.items():
        if name in ("vars", "shellEnv"):
            continue
        if isinstance(value, str):
            warnings.append(f"{merged.origin(('env', name))}: write env.vars.{name} instead")
        entries.append((("env", name), value))
    for keys, value in entries:
        name, origin = str(keys[-1]), merged.origin(keys)
        if not isinstance(value, str):
            raise origin.error("must be a string")
        if not value.strip() or re.fullmatch(_LOADERS, name):
            continue
        for match in re.finditer(_UNRESOLVED, value):
            if environment.get(match[0][2:-1]):
                raise origin.error(
                    f"refers to {match[0]}: variables of the settings can't be made of others",
                    hint="write the value itself",
                )
        environment.add(name, Variable(value, origin), replaces_empty=True)
    return warnings


class Substituted(NamedTuple):
    """A string of the settings whose variables are replaced."""

    text: str
    unset: tuple[str, ...]
    """Variables that it refers to and that are not set: these references stay."""
    through: str
    """The variables that it took values from, for people: ``${TOK}``; empty if none."""


def substitute(text: str, environment: Environment) -> Substituted:
    """
    Replace ``${NAME}`` by the variable's value, once; ``$${NAME}`` stands for the text ``${NAME}``.

    Names are capital letters, digits and _; anything else in braces is text.
    """
    if "${" not in text:
        return Substituted(text, (), "")
    unset: list[str] = []
    used: list[str] = []

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        variable = environment.get(match[2])
        if variable is None:
            unset.append(match[2])
            return match[0]
        file = "" if variable.origin.source == "variable" else f" of {variable.origin.source}"
        used.append(f"${{{match[2]}}}{file}")
        return variable.value

    replaced = re.sub(_REFERENCE, replace, text)
    through = f"by {', '.join(used)}" if used else ""
    return Substituted(replaced, tuple(unset), through)


_MAX_WARNINGS = 20


def unset_references(merged: Merged, environment: Environment) -> list[str]:
    """Return a warning for each reference to a variable that is not set, with key and variable."""
    warnings: list[str] = []

    def walk(node: Any, keys: Keys) -> None:
        if len(warnings) > _MAX_WARNINGS:
            return
        if isinstance(node, str) and "${" in node:
            warnings.extend(
                f"{merged.origin(keys)}: refers to ${{{name}}}, which is not set"
                for name in substitute(node, environment).unset
            )
        elif isinstance(node, dict):
            for name, item in node.items():
                walk(item, (*keys, name))
        elif isinstance(node, list):
            for index, item in enumerate(node):
                walk(item, (*keys, index))

    walk(merged.value, ())
    return warnings[:_MAX_WARNINGS]
