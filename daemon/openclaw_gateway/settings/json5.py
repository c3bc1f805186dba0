"""JSON5 as its reference parser (npm's json5 2.2) reads it, quick, bounded, and with the place of every value.

Plain JSON goes through the standard library's parser at once; what that refuses comes here. Text is
cut into tokens by one compiled pattern, and the tokens are put together without recursion, so that
no depth of nesting can end the interpreter. https://spec.json5.org
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_DEPTH = 200
"""Levels of nesting. What works on a document later may use recursion, which Python ends at 1000 calls."""
MAX_VALUES = 500_000
"""Values in a text that is not plain JSON: some seconds of work on a slow machine."""

Keys = tuple[str | int, ...]
"""A way into a document: names of members and indices of elements."""


class Place(NamedTuple):
    """Where something stands in a text; both count from 1, the column in characters."""

    line: int
    column: int


class SyntaxProblem(ValueError):
    """
    A text is not JSON5.

    Attributes:
        problem: What is wrong, without the place.
        place: Where.
    """

    def __init__(self, problem: str, place: Place) -> None:
        super().__init__(f"{problem} at line {place.line}, column {place.column}")
        self.problem, self.place = problem, place


_SPACE = "\t\v\f \xa0\ufeff\n\r\u2028\u2029\u1680\u2000-\u200a\u202f\u205f\u3000"

# Compiled where they are used: most files are plain JSON and need none of it, and a start is short.
# Written so that each text matches in one way only: going back over it then finds nothing else, and
# takes no longer than going forth. (Possessive quantifiers would say so, but Python 3.11.2, which is
# Debian 12's, loses its place where one fails inside of another.)
_SKIPPED = rf"""
    (?: [{_SPACE}]+ (?![{_SPACE}])
      | // [^\n\r\u2028\u2029]* (?: [\n\r\u2028\u2029] | \Z )
      | /\* [^*]* (?: \*(?!/) [^*]* )* \*/ )*
"""
_TOKEN = rf"""
    {_SKIPPED}
    (?:
      ( [{{}}\[\]:,] )
    | ( "[^"\\\n\r]* (?: \\(?:\r\n|(?s:.)) [^"\\\n\r]* )*"
      | '[^'\\\n\r]* (?: \\(?:\r\n|(?s:.)) [^'\\\n\r]* )*' )
    | ( [+-]? (?: 0[xX][0-9a-fA-F]+
                | (?: (?:0|[1-9][0-9]*) (?:\.[0-9]*)? | \.[0-9]+ ) (?:[eE][+-]?[0-9]+)?
                | (?:Infinity|NaN) (?! [A-Za-z0-9_$\\] | [^\x00-\x7f{_SPACE}] ) ) )
    | ( (?: [A-Za-z0-9_$] | \\u[0-9a-fA-F]{{4}} | [^\x00-\x7f{_SPACE}] )+ )
    | ( \Z )
    )
"""
_PUNCTUATOR, _STRING, _NUMBER, _WORD, _END = range(1, 6)

_ESCAPE = r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(0(?![0-9])|\r\n|[^0-9ux]))"
_PLAIN_ESCAPES = {
    "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0",
    "\n": "", "\r": "", "\r\n": "", "\u2028": "", "\u2029": "",
}  # fmt: skip
_WORDS = {"null": None, "true": True, "false": False}
_SURROGATE = "[\ud800-\udfff]"
_EXACT = 1 << 53
"""Up to here a double holds every integer."""


def parse(text: str) -> Any:
    """
    Return what a JSON or JSON5 text says.

    Of members with the same name the last one counts, as a whole. Numbers are doubles, as they are
    for OpenClaw: those without a fraction come as ``int`` as far as a double is exact, and the
    infinities and NaN as ``float``. A lone surrogate that was written as an escape stays in the string.

    Raises:
        SyntaxProblem: It is neither, is nested more than ``MAX_DEPTH`` levels, or has more than
            ``MAX_VALUES`` values and is not plain JSON.
    """
    try:
        value = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_constant)
    except (ValueError, RecursionError):
        return _Reader(text).read()
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth_exceeds(value, MAX_DEPTH):
        return _Reader(text).read()  # which says where
    return value


def places(text: str) -> dict[Keys, Place]:
    """
    Return where each value of a valid text stands, by the way to it; of a member, where its name begins.

    Raises:
        SyntaxProblem: As ``parse``.
    """
    offsets: dict[Keys, int] = {}
    _Reader(text, offsets).read()
    lines = _line_starts(text)
    return {keys: _place(lines, offset) for keys, offset in offsets.items()}


def _number(text: str) -> int | float:
    """Read a decimal number as a double."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) <= _EXACT else number


def _constant(text: str) -> float:
    """Read ``NaN`` or an infinity."""
    return float(text)


def _depth_exceeds(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        inner: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                inner.extend(node.values())
            elif isinstance(node, list):
                inner.extend(node)
        level = [node for node in inner if isinstance(node, dict | list)]
        if not level:
            return False
    return True


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer("\n|\r\n?|[\u2028\u2029]", text))]


def _place(starts: list[int], offset: int) -> Place:
    from bisect import bisect_right

    line = bisect_right(starts, offset)
    return Place(line, offset - starts[line - 1] + 1)


class _Reader:
    """One text on its way to a value."""

    def __init__(self, text: str, offsets: dict[Keys, int] | None = None) -> None:
        self._text = text
        self._offsets = offsets

    def read(self) -> Any:  # noqa: PLR0912, PLR0915 - one loop, as a call for each value would double the time
        """Return the text's value; note the offset of each if that was asked for."""
        token, at = self._tokens()
        offsets = self._offsets
        stack: list[tuple[Any, str | int]] = []
        """The open objects and arrays around ``container``, each with where in it the next one is."""
        container: Any = None
        """The innermost open object or array; ``None`` outside of all."""
        key: str | int = 0
        """Where in it the next value belongs."""
        keys: Keys = ()
        count = 0

        kind, word = token()
        while True:
            # Here a value begins, or an array or object that was just opened ends.
            count += 1
            if count > MAX_VALUES:
                raise self._problem(f"more than {MAX_VALUES} values", at())
            if offsets is not None and type(container) is list:
                offsets[(*keys, key)] = at()
            if kind == _PUNCTUATOR and word in "[{":
                if offsets is not None and container is None:
                    offsets[()] = at()
                if len(stack) + (container is not None) >= MAX_DEPTH:
                    raise self._problem(f"nested more than {MAX_DEPTH} levels", at())
                if container is not None:
                    stack.append((container, key))
                    if offsets is not None:
                        keys = (*keys, key)
                container, key = ([], 0) if word == "[" else ({}, "")
                kind, word = token()
                opened = True
            else:
                value = self._scalar(kind, word, at())
                if container is None:
                    if offsets is not None:
                        offsets[()] = at()
                    return self._ended(token, at, value)
                if type(container) is list:
                    container.append(value)
                else:
                    container[key] = value
                kind, word = token()
                opened = False
            # Close what ends here, and find the place of the next value.
            while True:
                closing = "]" if type(container) is list else "}"
                if kind == _PUNCTUATOR and word == closing:
                    value = container
                    if not stack:
                        return self._ended(token, at, value)
                    container, key = stack.pop()
                    if offsets is not None:
                        keys = keys[:-1]
                    if type(container) is list:
                        container.append(value)
                    else:
                        container[key] = value
                    kind, word = token()
                    opened = False
                    continue
                if not opened:
                    if kind != _PUNCTUATOR or word != ",":
                        raise self._unexpected(kind, word, at(), f'"," or "{closing}"')
                    kind, word = token()
                    opened = True
                    continue  # a trailing comma
                break
            if type(container) is list:
                key = len(container)
            else:
                key = self._name(kind, word, at())
                if offsets is not None:
                    offsets[(*keys, key)] = at()
                kind, word = token()
                if kind != _PUNCTUATOR or word != ":":
                    raise self._unexpected(kind, word, at(), '":"')
                kind, word = token()

    def _tokens(self) -> tuple[Callable[[], tuple[int, str]], Callable[[], int]]:
        """Return what gives the next token, its kind and text, and what gives the offset of the last one."""
        match, text = re.compile(_TOKEN, re.VERBOSE).match, self._text
        found: re.Match[str] | None = None
        position = 0

        def token() -> tuple[int, str]:
            nonlocal found, position
            found = match(text, position)
            if found is None or found.lastindex is None:
                raise self._unreadable(position)
            position = found.end()
            return found.lastindex, found[found.lastindex]

        def at() -> int:
            return found.start(found.lastindex) if found and found.lastindex else 0

        return token, at

    def _ended(
        self, token: Callable[[], tuple[int, str]], at: Callable[[], int], value: Any
    ) -> Any:
        kind, word = token()
        if kind != _END:
            raise self._unexpected(kind, word, at(), "the end")
        return value

    def _scalar(self, kind: int, word: str, offset: int) -> Any:
        if kind == _STRING:
            return self._string(word, offset)
        if kind == _NUMBER:
            return _json5_number(word)
        if kind == _WORD and word in _WORDS:
            return _WORDS[word]
        raise self._unexpected(kind, word, offset, "a value")

    def _name(self, kind: int, word: str, offset: int) -> str:
        if kind == _STRING:
            return self._string(word, offset)
        if kind == _NUMBER and word in ("Infinity", "NaN"):
            return word
        if kind != _WORD:
            raise self._unexpected(kind, word, offset, "a name")
        if word.isascii() and "\\" not in word:
            if word[0].isdigit():
                raise self._unexpected(kind, word, offset, "a name")
            return word
        name = re.sub(r"\\u(....)", lambda match: chr(int(match[1], 16)), word)
        if not _is_identifier(name):
            raise self._problem("a name with other than letters and digits needs quotes", offset)
        return name

    def _string(self, word: str, offset: int) -> str:
        """Decode a string with its quotes. ECMA-262 5.1, section 7.8.4."""
        inner = word[1:-1]
        if "\\" not in inner:
            return inner
        match = re.compile(_ESCAPE, re.DOTALL).match
        pieces: list[str] = []
        position = 0
        while (found := inner.find("\\", position)) >= 0:
            pieces.append(inner[position:found])
            escape = match(inner, found)
            if escape is None:
                raise self._problem("an escape that there is not", offset + 1 + found)
            code = escape[1] or escape[2]
            other = escape[3]
            pieces.append(chr(int(code, 16)) if code else _PLAIN_ESCAPES.get(other, other))
            position = escape.end()
        decoded = "".join(pieces) + inner[position:]
        if re.search(_SURROGATE, decoded):
            # Two halves that were written one by one are one character, as in UTF-16.
            decoded = decoded.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return decoded

    def _unreadable(self, position: int) -> SyntaxProblem:
        """Return what is wrong where no token begins."""
        skipped = re.compile(_SKIPPED, re.VERBOSE).match(self._text, position)
        offset = skipped.end() if skipped else position
        rest = self._text[offset : offset + 2]
        if rest == "/*":
            return self._problem("a comment that does not end", offset)
        if rest[:1] in ("'", '"'):
            return self._problem("a string that does not end on its line", offset)
        return self._problem(f"{_shown(rest[:1])} is not expected", offset)

    def _unexpected(self, kind: int, word: str, offset: int, wanted: str) -> SyntaxProblem:
        if kind == _END:
            return self._problem(f"it ends where {wanted} should be", offset)
        # Strings and words may be secrets: only what surrounds them is shown.
        kinds = {_STRING: "a string", _NUMBER: "a number", _WORD: "a word"}
        shown = kinds.get(kind) or f'"{word}"'
        return self._problem(f"{shown} where {wanted} should be", offset)

    def _problem(self, problem: str, offset: int) -> SyntaxProblem:
        return SyntaxProblem(problem, _place(_line_starts(self._text), offset))


def _shown(character: str) -> str:
    return f'"{character}"' if character.isprintable() else f"U+{ord(character):04X}"


def _json5_number(word: str) -> int | float:
    digits = word.lstrip("+-")
    if digits[:2] in ("0x", "0X"):
        # Beyond any double float() would fail where JavaScript has Infinity.
        number = float(int(digits, 16)) if len(digits) < 250 else _wide(digits)
        value: int | float = int(number) if number <= _EXACT else number
    elif digits in ("Infinity", "NaN"):
        value = float(digits)
    else:
        value = _number(digits)
    return -value if word[0] == "-" else value


def _wide(digits: str) -> float:
    significant = digits[2:].lstrip("0")
    return float(int(significant or "0", 16)) if len(significant) < 250 else float("inf")


_ID_START = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Nl"})
_ID_CONTINUE = _ID_START | {"Mn", "Mc", "Nd", "Pc"}
# UAX 31's Other_ID_Start and Other_ID_Continue.
_ALSO_START = frozenset("$_\u1885\u1886\u2118\u212e\u309b\u309c")
_ALSO_CONTINUE = frozenset("\u200c\u200d\xb7\u0387\u19da") | {chr(n) for n in range(0x1369, 0x1372)}


def _is_identifier(name: str) -> bool:
    """Whether a name may stand without quotes. ECMA-262 5.1, section 7.6."""
    from unicodedata import category

    def starts(character: str) -> bool:
        return character in _ALSO_START or category(character) in _ID_START

    def continues(character: str) -> bool:
        return (
            starts(character) or character in _ALSO_CONTINUE or category(character) in _ID_CONTINUE
        )

    return starts(name[0]) and all(map(continues, name[1:]))
