"""HTTP as the server sees it: a request, a response, and what the head of no request may hold. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

MAX_HEAD_BYTES = 16 << 10
"""Bytes of a request line and its header fields together, the blank line included."""

MAX_HEADERS = 100

ROLE_PATHS = frozenset({"/primary", "/replica"})
"""What load balancers ask to find the active gateway of a cluster; Patroni's routes."""

HEALTH_PATHS = ROLE_PATHS | {"/healthz", "/health", "/startupz", "/startup", "/readyz", "/ready"}
"""What anybody may ask for, whoever they say they are; none of it takes a body."""

METRICS_PATHS = frozenset({"/metrics", "/api/diagnostics/prometheus"})
"""What a bearer of the secret may ask for: Prometheus' usual path, and OpenClaw's."""

WATCHED_PATHS = HEALTH_PATHS | METRICS_PATHS
"""What is answered beyond the limits too, and by whoever may serve nothing else: what tells how we are."""

# Beside Host, what the probes of curl, wget, Kubernetes, browsers and load balancers send. All of it
# changes nothing about the answer, so one expression decides that a probe needs no parser. What is
# not exactly this (a body, an upgrade, a proxy's words, a second Host) goes the long way.
_HARMLESS = (
    rb"(?:(?i:User-Agent|Accept|Accept-Encoding|Accept-Language):[ \t]*[\x21-\x7e \t]*\r\n)*"
)
PROBE = re.compile(
    rb"(?P<method>GET|HEAD) /health(?:z)? HTTP/1\.1\r\n"
    + _HARMLESS
    + rb"(?i:Host):[ \t]*[\x21-\x7e]+\r\n"
    + _HARMLESS
    + rb"(?:(?i:Connection):[ \t]*(?i:keep-alive|(?P<close>close))[ \t]*\r\n)?"
    + _HARMLESS
    + rb"\r\n"
)
"""A liveness probe that came whole, in one piece and without a body."""

# RFC 9112, sections 2.2 and 5.2, and RFC 9110, section 5.5, let a server repair these. Each has been
# read differently by two programs in a row, and so hidden one request inside another.
_ILLEGAL = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n|\r\n[ \t]|\r\n[^:\r\n]*[ \t]:"
)
_FRAMING = re.compile(
    rb"\r\n(content-length|transfer-encoding):[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE
)
_LENGTH = re.compile(rb"[0-9]{1,18}")


def head_problem(head: bytes) -> tuple[int, str] | None:
    """
    Say what is wrong with a request's head as it came, before anything reads it.

    Whatever two servers could read in two ways is refused rather than repaired: bare CR and LF,
    control characters, folded lines, spaces before a colon, and more than one word about a body's length.

    Args:
        head: From the request line to the blank line, both included.

    Returns:
        What to refuse it with: a status, and a sentence for the peer without any of its bytes;
        ``None`` if it may be read on.

    See Also:
        RFC 9112, sections 2.2, 5.1, 5.2, 6.1 and 11.2.
    """
    if _ILLEGAL.search(head):
        return 400, "a line of the request's head is malformed"
    if head.count(b"\r\n") > MAX_HEADERS + 2:
        return 431, f"more than {MAX_HEADERS} header fields"
    framing = _FRAMING.findall(head)
    if len(framing) > 1:
        return 400, "more than one Content-Length or Transfer-Encoding"
    for name, value in framing:
        if name.lower() == b"content-length" and not _LENGTH.fullmatch(value):
            return 400, "Content-Length is no number"
        if (
            name.lower() == b"transfer-encoding"
            and b" HTTP/1.0\r\n" in head[: head.index(b"\r\n") + 2]
        ):
            return 400, "Transfer-Encoding in HTTP/1.0"
    return None


class Headers(Mapping[str, str]):
    """
    Header fields by name, whatever its case; a field that came several times is joined by ``, ``.

    RFC 9110, section 5.3.
    """

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            known = self._fields.get(key)
            self._fields[key] = value if known is None else f"{known}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:  # values may be secrets
        return f"<Headers {', '.join(self._fields)}>"


_NO_PARAMETERS: Mapping[str, str] = {}


class Request(NamedTuple):
    """
    One request.

    Attributes:
        method: ``GET``, ``POST``, …
        path: As it came: from the root, percent-encoded, without the query.
        query_string: What stands behind the ``?``, percent-encoded.
        headers: Header fields by name, in any case.
        body: All of it, as it came: no ``Content-Encoding`` is undone.
        parameters: What the names in braces of a route's path stand for, decoded.
        address: The client's IP literal; a trusted proxy's client is its client, not the proxy.
        fencing_token: Of the tenure in which it came: higher than in any tenure before, on any host of
            the cluster. ``None`` without a cluster.
    """

    method: str
    path: str
    query_string: str
    headers: Headers
    body: bytes = b""
    parameters: Mapping[str, str] = _NO_PARAMETERS
    address: str = ""
    fencing_token: int | None = None

    @property
    def query(self) -> dict[str, str]:
        """The query's fields, decoded; of one that came several times the first."""
        fields = parse_qs(self.query_string, keep_blank_values=True, max_num_fields=MAX_HEADERS)
        return {name: values[0] for name, values in fields.items()}

    @property
    def text(self) -> str:
        """The body as UTF-8, with what is none replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the body read as JSON. Raises ``ValueError`` if it is none."""
        return json.loads(self.body)


class Response(NamedTuple):
    """
    What to answer.

    Attributes:
        status: RFC 9110, section 15; 200 to 599.
        body: Text goes out as UTF-8.
        headers: Beside those that the server sets: length, date, connection and security.
            Without a ``Content-Type`` text is ``text/plain``, and bytes are ``application/octet-stream``;
            without a ``Cache-Control`` nobody may keep the answer.
        close: Whether to close the connection after it.
    """

    status: int = 200
    body: bytes | str = b""
    headers: Mapping[str, str] = _NO_PARAMETERS
    close: bool = False

    @classmethod
    def json(cls, value: object, *, status: int = 200) -> Response:
        """Return an answer in JSON. Raises ``TypeError`` or ``ValueError`` for what is none."""
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        return cls(status, text, {"Content-Type": "application/json"})


def split_target(target: str, host: str) -> tuple[str, str, str] | None:
    """
    Return path, query and host of a request's target. RFC 9112, section 3.2.

    Args:
        target: As in the request line.
        host: The ``Host`` field, which an absolute target overrules.

    Returns:
        ``None`` for a target that names nothing here: an authority, an asterisk, another scheme.
    """
    if not target.startswith("/"):
        try:
            parts = urlsplit(target)
        except ValueError:
            return None
        if parts.scheme.lower() not in ("http", "https") or not parts.netloc:
            return None
        return parts.path or "/", parts.query, parts.netloc
    path, _, query = target.partition("?")
    return path, query.partition("#")[0], host


class Pattern:
    """
    A route's path, in which ``{name}`` matches one part: ``/weather/{city}``.

    Raises:
        ValueError: It does not begin with a slash, or a name in braces is none or stands there twice.
    """

    def __init__(self, path: str) -> None:
        if not path.startswith("/"):
            raise ValueError(f"path {path!r} does not begin with a slash")
        names = re.findall(r"\{([^{}]*)\}", path)
        rest = re.sub(r"\{[^{}]*\}", "", path)
        if not all(name.isidentifier() for name in names) or len(set(names)) != len(names):
            raise ValueError(
                f"path {path!r} has a name in braces that is none, or stands there twice"
            )
        if re.search(r"[{}?#\s]", rest):
            raise ValueError(f"path {path!r} has a character that can't stand there")
        parts = re.split(r"(\{[^{}]*\})", path)
        self._names = names
        self._expression = re.compile(
            "".join("([^/]+)" if part.startswith("{") else re.escape(part) for part in parts)
        )

    def match(self, path: str) -> dict[str, str] | None:
        """Return what the names stand for, decoded; ``None`` if it is another path."""
        found = self._expression.fullmatch(path)
        if found is None:
            return None
        return dict(zip(self._names, map(unquote, found.groups()), strict=True))
