"""What every answer carries: the date, the security headers, the reason; and probes' answers, made beforehand."""

from __future__ import annotations

import time
from http import HTTPStatus

from openclaw_gateway.client.answer import LIVE

SECURITY = (
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
)
"""Header fields of every answer; what answers may set another ``Cache-Control``."""


def reason(status: int) -> bytes:
    """Return the words behind a status. RFC 9112, section 4."""
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown"


_DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


class Stamps:
    """What changes once a second, and is made no more often: the date, and the answers to probes."""

    def __init__(self) -> None:
        self._now_s = -1
        self._date = b""
        self._live: dict[tuple[bool, bool], bytes] = {}
        self._marks: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def marks(self) -> tuple[tuple[bytes, bytes], ...]:
        """Header fields of every answer from now on, beside those that never change."""
        return self._marks

    @marks.setter
    def marks(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        self._marks = fields
        self._live.clear()

    def date(self) -> bytes:
        """Return a ``Date``, in English whatever the locale. RFC 9110, sections 5.6.7 and 6.6.1."""
        now_s = int(time.time())
        if now_s != self._now_s:
            at = time.gmtime(now_s)
            self._now_s = now_s
            self._live.clear()
            self._date = (
                f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year} "
                f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
            ).encode("ascii")
        return self._date

    def live(self, is_head: bool, close: bool) -> bytes:
        """Return the answer to a liveness probe."""
        date = self.date()
        made = self._live.get((is_head, close))
        if made is None:
            fields = (
                (b"Content-Type", b"application/json; charset=utf-8"),
                (b"Content-Length", b"%d" % len(LIVE)),
                (b"Date", date),
                *SECURITY,
                *self._marks,
                *(((b"Connection", b"close"),) if close else ()),
            )
            lines = b"".join(b"%b: %b\r\n" % field for field in fields)
            made = b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (lines, b"" if is_head else LIVE)
            self._live[is_head, close] = made
        return made
