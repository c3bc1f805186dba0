"""Values as they stand in a file, a variable or a flag: read, checked, and turned into what we work with.

Each reader returns the value or raises ``UnfitError`` with what it must be instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, NoReturn

from openclaw_gateway.settings.environment import refers
from openclaw_gateway.settings.sources import Secret
from openclaw_gateway.supervisor.events import Priority


class UnfitError(ValueError):
    """
    A value is not what it must be.

    Attributes:
        expected: What that is.
        suggestion: ``; did you mean "x"?``, or empty.
        is_secret: Whether the value is not to be shown, whatever it is.
    """

    def __init__(self, expected: str, suggestion: str = "", *, is_secret: bool = False) -> None:
        super().__init__(expected, suggestion)
        self.expected, self.suggestion, self.is_secret = expected, suggestion, is_secret

    def about(self, shown: str | None) -> str:
        """Return the sentence about a value as it is to be shown; ``None`` for a secret."""
        instead = "" if shown is None or self.is_secret else f", not {shown[:80]}"
        return f"must be {self.expected}{instead}{self.suggestion}"

    def __str__(self) -> str:
        return self.about(None)


def _fail(expected: str, suggestion: str = "") -> NoReturn:
    raise UnfitError(expected, suggestion)


def port_number(value: object) -> int:
    """Read a port, 1 to 65535: digits, or a number."""
    text = value.strip() if isinstance(value, str) else ""
    if text.isascii() and text.isdecimal():
        value = int(text) if len(text) < 20 else None
    number = _integer(value)
    return number if number is not None and 0 < number < 65536 else _fail("a port, 1 to 65535")


def port_in_variable(text: str) -> int | None:
    """Read the port of ``digits``, ``host:digits`` or ``[address]:digits``; anything else is ``None``, as for OpenClaw."""
    import re

    match = re.fullmatch(r"(?:\[[^\]]*\]:|[^:\[\]]*:)?([0-9]{1,5})", text.strip())
    port = int(match[1]) if match else 0
    return port if 0 < port < 65536 else None


def port_in_file(value: object) -> int | None:
    """Read a port of the settings; ``None`` if it is an integer beyond all ports, which OpenClaw drops."""
    number = _integer(value)
    if number is None:
        return _fail("a port, 1 to 65535")
    return number if 0 < number < 65536 else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def seconds(value: object) -> float:
    """Read seconds, at most an hour."""
    try:
        number = float(value) if isinstance(value, str | int | float) else -1.0
    except ValueError:
        number = -1.0
    return number if 0 <= number <= 3600 else _fail("a number of seconds, 0 to 3600")


def milliseconds(value: object) -> float:
    """Read milliseconds, at most an hour; return seconds."""
    number = _integer(value)
    if number is None or not 0 <= number <= 3_600_000:
        return _fail("milliseconds, 0 to 3600000")
    return number / 1000


def count(low: int, high: int) -> Callable[[object], int]:
    """Return the reader of an integer from ``low`` to ``high``."""

    def parse(value: object) -> int:
        number = _integer(value)
        valid = number is not None and low <= number <= high
        return number if valid and number is not None else _fail(f"a number, {low} to {high}")

    return parse


def interval(low_ms: int) -> Callable[[object], float]:
    """Return the reader of milliseconds, at least ``low_ms`` and at most an hour, as seconds."""

    def parse(value: object) -> float:
        interval_s = milliseconds(value)
        valid = interval_s * 1000 >= low_ms
        return interval_s if valid else _fail(f"milliseconds, {low_ms} to 3600000")

    return parse


def one_of(names: type[StrEnum]) -> Callable[[object], Any]:
    """Return the reader of one of the names."""

    def parse(value: object) -> StrEnum:
        if isinstance(value, str) and value in set(names):
            return names(value)
        return _fail(" or ".join(f'"{name}"' for name in names), suggest(value, names))

    return parse


def ip_address(value: object) -> str:
    """Read an IPv4 or IPv6 address in digits; return it in its usual form. inet_pton(3)."""

    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, str(value)))
        except (OSError, ValueError):  # ValueError: NUL, or half a character
            continue
    return _fail("an IP address in digits, such as 192.168.1.5 or ::1")


_PLACEHOLDERS = frozenset(
    {
        "undefined",
        "null",
        "change-me-now",
        "change-me-to-a-long-random-token",
        "change-me-to-a-strong-password",
        "__OPENCLAW_REDACTED__",
    }
)


def secret(value: object) -> Secret:
    """Read a secret that stands there in full; the space around it does not belong to it."""
    if not isinstance(value, str):
        _fail("a string")
    text = value.strip()
    if not text:
        _fail("a string that is not empty")
    if text in _PLACEHOLDERS:
        _fail("a secret of your own, and is a text of examples")
    if refers(text):
        _fail("a secret, and refers to a variable still: no client could get in with it")
    return Secret(whole(text))


def whole(text: str) -> str:
    """Return a text if it can be written as UTF-8: escapes can leave half a character, and variables bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        _fail("text of whole characters")
    return text


def duration_ms(seconds: float) -> int:
    """Return seconds in the unit of the files."""
    return round(seconds * 1000)


_LEVELS = {
    "silent": Priority.CRIT,
    "fatal": Priority.CRIT,
    "error": Priority.ERROR,
    "warning": Priority.WARNING,
    "warn": Priority.WARNING,
    "notice": Priority.NOTICE,
    "info": Priority.INFO,
    "debug": Priority.DEBUG,
    "trace": Priority.DEBUG,
}


def level(value: object) -> Priority:
    """Read a log level, by OpenClaw's name or syslog's."""
    if isinstance(value, str) and value in _LEVELS:
        return _LEVELS[value]
    return _fail(f"one of {', '.join(_LEVELS)}")


def level_name(priority: Priority) -> str:
    """Return the name by which ``level`` knows a priority: syslog's, where it has that."""
    own = priority.name.lower()
    return own if own in _LEVELS else next(n for n, known in _LEVELS.items() if known is priority)


def truth(value: object) -> bool:
    """Read ``true`` or ``false``."""
    return value if isinstance(value, bool) else _fail("true or false")


def switched_on(value: object) -> bool:
    """Read a flag that takes no value: where it is given, that is on."""
    return True


def strings(value: object) -> tuple[str, ...]:
    """Read a list of strings."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(map(whole, value))
    return _fail("a list of strings")


def hosts(value: object) -> tuple[str, ...]:
    """Read a list of host names; return them in lower case, without a last dot."""
    return tuple(name.lower().rstrip(".") for name in strings(value))


def suggest(value: object, known: Any) -> str:
    """Return ``; did you mean "x"?`` if one of ``known`` is close to ``value``, else ``""``."""
    close = nearest(str(value), [str(name) for name in known])
    return f'; did you mean "{close}"?' if close else ""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the one of ``known`` that a name is most like, ``None`` if it is like none."""
    from difflib import get_close_matches

    # Comparing takes time by the product of the lengths: nobody misspells a name into a long text.
    close = get_close_matches(name[:80], sorted(known), n=1, cutoff=cutoff)
    return close[0] if close else None


def text(value: object) -> str:
    """Read a string that is not empty."""
    if not isinstance(value, str) or not value or "\0" in value:
        return _fail("a string that is not empty")
    return whole(value)


def http_url(value: object) -> str:
    """Read a URL of HTTP without a path: scheme, host, and a port if it is not the scheme's own."""
    from urllib.parse import urlsplit

    written = value if isinstance(value, str) else ""
    if "@" in written:
        raise UnfitError("a URL without a user and password in it", is_secret=True)
    # No dialects: what one reader takes for a host, another may take for something else.
    fits = written.isascii() and written.isprintable() and not set(written) & set(' \\"<>?#%')
    try:
        parts = urlsplit(written) if fits else None
        host, port = (parts.hostname, parts.port) if parts else (None, None)
    except ValueError:  # brackets that hold no address, or a port that is none
        parts, host, port = None, None, None
    if (
        not parts
        or parts.scheme not in ("http", "https")
        or parts.path not in ("", "/")
        or port == 0
    ):
        host = None
    if not parts or not host:
        _fail('a URL such as "https://gateway-a.example.org:18789", without a path')
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")


ETCD_PORT = 2379
"""Where etcd serves its clients unless told otherwise."""


def endpoints(value: object) -> tuple[str, ...]:
    """Read etcd's client URLs; return each once, with its port."""
    from urllib.parse import urlsplit

    found: dict[str, None] = {}
    for one in strings(value):
        try:
            endpoint = http_url(one)
        except UnfitError as error:
            expected = 'a list of URLs such as "https://etcd-a.example.org:2379", without paths, users and passwords'
            raise UnfitError(expected, is_secret=error.is_secret) from None
        found[endpoint if urlsplit(endpoint).port else f"{endpoint}:{ETCD_PORT}"] = None
    return tuple(found)


def key_name(value: object) -> str:
    """Read a name that can be part of a key, a file's name and a label."""
    text = value if isinstance(value, str) else ""
    fits = text.isascii() and all(c.isalnum() or c in "._-" for c in text)
    if not fits or not 0 < len(text) <= 64 or not text[0].isalnum():
        _fail("letters, digits, ., _ and -, at most 64 of them, a letter or digit first")
    return text
