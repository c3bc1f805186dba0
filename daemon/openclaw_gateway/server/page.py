"""The status page: its files, the request that means it, and what browsers are told of it.

The files are the same for everybody and hold no data: the script asks for those over the WebSocket, with
the secret. So they are served without one.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import NamedTuple

from openclaw_gateway.server.message import Request, Response

_FOLDER = os.path.join(os.path.dirname(__file__), "assets")

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
"""Path to file and media type."""

PATHS = frozenset(_FILES)

_SECURITY = {
    # Whatever got into the page could load, run, send and frame nothing that is not ours.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept, and asked for each time: after an upgrade no browser runs an old script.
    "Cache-Control": "no-cache",
}


class _File(NamedTuple):
    content: bytes
    headers: dict[str, str]


class Page:
    """The files of the page, read once, at the first request for one of them."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def answer(self, request: Request) -> Response:
        """
        Return one of the files, or that the browser has it already. RFC 9110, section 13.1.2.

        Raises:
            OSError: It can't be read: the package is not whole.
        """
        if request.method not in ("GET", "HEAD"):
            return Response(405, "method not allowed\n", {"Allow": "GET, HEAD"})
        if not self._files:
            self._files = {path: _read(*file) for path, file in _FILES.items()}
        file = self._files[request.path]
        known = request.headers.get("if-none-match", "")
        tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        status = 304 if tags & {file.headers["ETag"], "*"} else 200
        return Response(status, file.content, file.headers)


def is_wanted(request: Request) -> bool:
    """Whether a request for ``/`` is a browser's for the page: it takes HTML, and wants no WebSocket."""
    if "upgrade" in request.headers or request.method not in ("GET", "HEAD"):
        return False
    accepted = request.headers.get("accept", "").lower().split(",")
    return any(kind.partition(";")[0].strip() == "text/html" for kind in accepted)


def _read(name: str, media_type: str) -> _File:
    with open(os.path.join(_FOLDER, name), "rb") as file:
        content = file.read()
    tag = f'"{sha256(content).hexdigest()[:16]}"'
    headers = {"Content-Type": media_type, "ETag": tag, "Vary": "Accept", **_SECURITY}
    return _File(content, headers)
