"""``$include``: one document out of several files, and from which of them each value is.

Each file becomes a layer. Of two layers the later one wins, as in the merge itself, so that where a
value stands is found by asking the layers from last to first. Reads files; nothing else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.settings.json5 import MAX_DEPTH, Keys
from openclaw_gateway.settings.location import Origin
from openclaw_gateway.settings.sources import Text, read_text

KEY = "$include"
ROOTS_VARIABLE = "OPENCLAW_INCLUDE_ROOTS"
_MAX_LEVELS = 10
_MAX_BYTES = 2 << 20
_MAX_FILES = 1000
"""In all: lists that include lists would multiply otherwise."""
_MAX_PATH = 4096
MISSING: Any = object()
"""What stands where nothing does; ``None`` is JSON's null."""


class Layer(NamedTuple):
    """One file's part in a document."""

    mount: Keys
    """Where in the document its content is."""
    text: Text


class Merged(NamedTuple):
    """A document whose includes are resolved."""

    value: Any
    layers: tuple[Layer, ...]
    """In the order in which they were merged."""

    def origin(self, keys: Keys) -> Origin:
        """Return the file and key that a value comes from."""
        for layer in reversed(self.layers):
            size = len(layer.mount)
            if keys[:size] == layer.mount:
                rest = keys[size:]
                if look_up(layer.text.document, rest) is not MISSING:
                    return _origin(layer.text, rest, keys)
        # Not from one value of one file: a list that was joined, or an object that was merged.
        top = self.layers[-1]
        return _origin(top.text, keys, keys)

    @property
    def included(self) -> tuple[str, ...]:
        """The files that were included, in the order of the merge."""
        return tuple(layer.text.path for layer in self.layers[:-1])


def _origin(text: Text, keys: Keys, name: Keys) -> Origin:
    return Origin(text.path, dotted(name), find=lambda: text.place(keys))


def dotted(keys: Keys) -> str:
    """Return a way into a document as people write it, whatever characters are in it."""
    import json

    names = (str(key) for key in keys)
    # A path is one line of printable characters, in a terminal and in the log.
    return ".".join(name if name.isprintable() else json.dumps(name)[:80] for name in names)


def look_up(document: Any, keys: Keys) -> Any:
    """Return what stands at a way into a document, ``MISSING`` if nothing does."""
    node = document
    for key in keys:
        in_object = isinstance(node, dict) and key in node
        if not in_object and not (isinstance(node, list) and key in range(len(node))):
            return MISSING
        node = node[key]
    return node


def resolve(text: Text, *, roots: Sequence[str] = ()) -> Merged:
    """
    Put a file and all that it includes together.

    Args:
        text: The file that was asked for. Others may be beside and below it.
        roots: Absolute paths of more directories that files may be included from.

    Raises:
        ConfigurationError: An include that may not be, names the file, line and key.
        UnreadableError: A disk fails, or the system is short of something.
    """
    directory = os.path.dirname(os.path.abspath(text.path))
    work = _Work(tuple(os.path.normpath(root) for root in (directory, *roots)))
    value = work.expand(text, text.document, (), (), (text.path,))
    work.layers.append(Layer((), text))
    return Merged(value, tuple(work.layers))


class _Work:
    """One document on its way."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self._roots = roots
        self._real_roots = tuple(os.path.realpath(root) for root in roots)
        self._files = 0
        self.layers: list[Layer] = []

    def expand(self, text: Text, node: Any, mount: Keys, keys: Keys, chain: tuple[str, ...]) -> Any:
        """
        Return a copy of a node without includes.

        Args:
            text: The file it is in.
            node: It.
            mount: Where in the document the file's content goes.
            keys: Where in the file the node is.
            chain: The files that led here, the last one being this.
        """
        if len(mount) + len(keys) > MAX_DEPTH:
            raise _error(text, keys, mount, f"nested more than {MAX_DEPTH} levels")
        if isinstance(node, list):
            return [
                self.expand(text, item, mount, (*keys, index), chain)
                for index, item in enumerate(node)
            ]
        if not isinstance(node, dict):
            return node
        included = MISSING
        if KEY in node:
            included = self._included(text, node[KEY], mount, keys, chain)
        own = {
            name: self.expand(text, item, mount, (*keys, name), chain)
            for name, item in node.items()
            # "__proto__" is a property of JavaScript's objects, and no member to it.
            if name not in (KEY, "__proto__")
        }
        if included is MISSING:
            return own
        if not own:
            return included
        if not isinstance(included, dict):
            problem = "what is included is no object, so nothing may stand beside it"
            raise _error(text, (*keys, KEY), mount, problem)
        return merge(included, own)

    def _included(
        self, text: Text, value: Any, mount: Keys, keys: Keys, chain: tuple[str, ...]
    ) -> Any:
        at = (*keys, KEY)
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in names):
            raise _error(text, at, mount, "must be a path or a list of paths")
        results = []
        for name in names:
            found = self._read(text, name, at, mount, chain)
            place = (*mount, *keys)
            results.append(self.expand(found, found.document, place, (), (*chain, found.path)))
            self.layers.append(Layer(place, found))
        if not isinstance(value, list):
            return results[0]
        merged: Any = {}
        for result in results:
            merged = merge(merged, result)
        return merged

    def _read(self, text: Text, name: str, at: Keys, mount: Keys, chain: tuple[str, ...]) -> Text:
        """Read one file, if it may be included. What OpenClaw's "include" refuses is refused."""

        def fail(problem: str, hint: str = "") -> ConfigurationError:
            return _error(text, at, mount, problem, hint)

        if not name or len(name) >= _MAX_PATH or "\0" in name:
            raise fail("is no path")
        # As named: where the including file is a link, relative to the link's directory.
        path = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(text.path)), name))
        shown = dotted((path,))
        if not any(_is_below(path, root) for root in self._roots):
            raise fail(
                f"{shown} is outside {self._roots[0]}",
                f"move it there, or name its directory in {ROOTS_VARIABLE}",
            )
        try:
            real = os.path.realpath(path)
        except ValueError:
            raise fail(f"cannot read {shown}: no such file") from None
        if os.path.lexists(path) and not any(_is_below(real, root) for root in self._real_roots):
            raise fail(f"{shown} is a link that leads out, to {dotted((real,))}")
        if path in chain:
            raise fail(f"{shown} includes itself")
        if len(chain) > _MAX_LEVELS:
            raise fail(f"more than {_MAX_LEVELS} levels of files that include files")
        self._files += 1
        if self._files > _MAX_FILES:
            raise fail(f"more than {_MAX_FILES} files")
        try:
            found = read_text(path, required=True)
        except ConfigurationError as error:
            if error.source != path or type(error) is not ConfigurationError:
                raise
            if error.place:
                raise  # it names the place in the file itself
            raise fail(f"cannot read {shown}: {error.problem}", error.hint) from None
        assert found is not None  # it was required
        if found.info.st_size > _MAX_BYTES or len(found.text) > _MAX_BYTES:
            raise fail(f"{shown} is longer than {_MAX_BYTES >> 20} MiB")
        if found.info.st_nlink > 1 and stat.S_ISREG(found.info.st_mode):
            raise fail(
                f"{shown} has {found.info.st_nlink} hard links, so it may be somebody else's",
                "copy it",
            )
        return found


def _error(text: Text, keys: Keys, mount: Keys, problem: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(
        text.path, dotted((*mount, *keys)), problem, hint=hint, place=text.place(keys)
    )


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def merge(base: Any, over: Any) -> Any:
    """Return two values as one: objects member by member, lists joined, else ``over``, also if it is null."""
    if isinstance(base, dict) and isinstance(over, dict):
        result = dict(base)
        for name, value in over.items():
            result[name] = merge(base[name], value) if name in base else value
        return result
    if isinstance(base, list) and isinstance(over, list):
        return [*base, *over]
    return over
