"""Is there a healthy gateway at an address? The one client that asks, bounded in every way.

A probe explains why a port is busy; it never decides that it is. Plain sockets: an HTTP library
would cost the start of a duplicate more time than everything else together. ``ssl`` is loaded only
for a listener that wants TLS, ``requests`` only for a URL that a person gives.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from openclaw_gateway.client.answer import (
    HEALTH_PATH,
    MAX_BODY_BYTES,
    READY_PATH,
    Exchange,
    Health,
    judge,
    readiness,
)
from openclaw_gateway.protocol.role import Role

if TYPE_CHECKING:
    import ssl

TIMEOUT_S = 2.0
_CHUNK_BYTES = 8192


class HealthFact(NamedTuple):
    """What one address answered."""

    host: str
    port: int
    health: Health
    took_s: float
    """Until the answer to /healthz was complete, or the attempt over."""
    ready: bool | None = None
    """What /readyz says; ``None`` if it was not asked or gave no gateway's answer."""
    failing: tuple[str, ...] = ()
    """What keeps it from being ready; told to local callers only."""
    role: Role | None = None
    """Its part in a cluster; likewise."""
    scheme: str | None = None
    """``http`` or ``https``, whichever a gateway answered over; ``None`` if none did."""


class _Answer(NamedTuple):
    """What came of one question."""

    health: Health
    """``REFUSED``, ``MUTE`` or ``UNKNOWN`` if there was no answer, ``FOREIGN`` if it was cut off; else what /healthz' means."""
    status: int | None = None
    body: bytes = b""
    wants_tls: bool = False


def probe(
    host: str, port: int, *, timeout_s: float = TIMEOUT_S, certificate: bytes | None = None
) -> Health:
    """
    Ask ``/healthz`` of whoever listens at ``host:port``, in plain HTTP and then, if it wants that, over TLS.

    No redirect is followed and no proxy used; everything together, connects included, ends after
    ``timeout_s`` even if the other side sends a byte a second; at most 4 KiB of a body are read.

    Args:
        host: IP literal; loopback rather than a wildcard.
        port: 1 to 65535.
        timeout_s: Seconds for everything.
        certificate: The one that the listener must have, in DER; then TLS is all that is spoken.
            Without it no certificate is looked at: nothing secret is sent, and nobody trusted.

    Returns:
        ``HEALTHY`` for status 200 and what ``LIVE`` means. ``MUTE`` if nothing came within the time,
        ``REFUSED`` if nobody listens, ``STARTING`` for a gateway's 503, ``FOREIGN`` for any other
        answer, ``UNKNOWN`` if we could not ask. Raises nothing.
    """
    deadline_s = time.monotonic() + timeout_s
    return _find(host, port, deadline_s=deadline_s, certificate=certificate)[0].health


def check(
    host: str, port: int, *, timeout_s: float = TIMEOUT_S, certificate: bytes | None = None
) -> HealthFact:
    """Do as ``probe`` does, and ask for ``/readyz`` too if all is well, within the same time."""
    began_s = time.monotonic()
    deadline_s = began_s + timeout_s
    answer, scheme = _find(host, port, deadline_s=deadline_s, certificate=certificate)
    took_s = time.monotonic() - began_s
    gateway = answer.health in (Health.HEALTHY, Health.STARTING)
    fact = HealthFact(host, port, answer.health, took_s, scheme=scheme if gateway else None)
    if answer.health is not Health.HEALTHY:
        return fact
    tls = trusting_context() if scheme == "https" else None
    ready = _ask(host, port, READY_PATH, deadline_s=deadline_s, tls=tls, certificate=certificate)
    found = readiness(ready.status, ready.body) if ready.status is not None else None
    return fact._replace(**found._asdict()) if found else fact


def _find(
    host: str, port: int, *, deadline_s: float, certificate: bytes | None
) -> tuple[_Answer, str]:
    """Return the answer that counts, and the scheme that it came over."""

    def securely() -> _Answer:
        return _ask(
            host,
            port,
            HEALTH_PATH,
            deadline_s=deadline_s,
            tls=trusting_context(),
            certificate=certificate,
        )

    if certificate is not None:
        return securely(), "https"
    plain = _ask(host, port, HEALTH_PATH, deadline_s=deadline_s)
    if plain.wants_tls:
        secure = securely()
        # A listener that speaks neither closes both: the first answer says it better.
        if secure.status is not None:
            return secure, "https"
    return plain, "http"


def _ask(
    host: str,
    port: int,
    path: str,
    *,
    deadline_s: float,
    tls: ssl.SSLContext | None = None,
    certificate: bytes | None = None,
) -> _Answer:
    """Ask once, over one connection. Raises nothing."""
    exchange = Exchange(host, port, path)
    connected = False
    try:
        with _connected(host, port, deadline_s=deadline_s) as plain:
            connected = True
            connection = plain
            if tls is not None:
                connection = tls.wrap_socket(plain, do_handshake_on_connect=False)
                connection.settimeout(_left_s(deadline_s))
                connection.do_handshake()
                if certificate not in (None, connection.getpeercert(binary_form=True)):
                    return _Answer(Health.FOREIGN)
            with connection:
                connection.settimeout(_left_s(deadline_s))
                connection.sendall(exchange.request)
                whole = False
                while not whole:
                    connection.settimeout(_left_s(deadline_s))
                    whole = exchange.feed(connection.recv(_CHUNK_BYTES))
    except ConnectionRefusedError:
        return _Answer(Health.REFUSED)
    except TimeoutError:
        # A stopped process whose backlog is full lets a connect time out.
        return _Answer(Health.FOREIGN if exchange.heard else Health.MUTE)
    except OSError:
        # Reset by the peer, a handshake that failed; or, before: no route, no descriptor left.
        if not connected:
            return _Answer(Health.UNKNOWN)
    return _answer(exchange, wants_tls=tls is None and exchange.speaks_tls)


async def probe_on_loop(
    host: str, port: int, *, timeout_s: float, certificate: bytes | None = None
) -> Health:
    """
    Do as ``probe`` does without holding up the event loop; TLS is spoken only if ``certificate`` is given.

    For a listener that is known, such as our own: nobody's protocol is guessed.
    """
    import asyncio

    exchange = Exchange(host, port, HEALTH_PATH)
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            tls = None if certificate is None else trusting_context()
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            if writer.get_extra_info("sockname") == writer.get_extra_info("peername"):
                return Health.REFUSED
            if certificate is not None:
                peer = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                if peer != certificate:
                    return Health.FOREIGN
            writer.write(exchange.request)
            whole = False
            while not whole:
                whole = exchange.feed(await reader.read(_CHUNK_BYTES))
    except ConnectionRefusedError:
        return Health.REFUSED
    except TimeoutError:
        return Health.FOREIGN if exchange.heard else Health.MUTE
    except OSError:
        if writer is None:
            return Health.UNKNOWN
    finally:
        if writer is not None:
            writer.transport.abort()
    return _answer(exchange).health


def _answer(exchange: Exchange, *, wants_tls: bool = False) -> _Answer:
    if exchange.status is None:  # cut off, too long, or no HTTP
        return _Answer(Health.FOREIGN, wants_tls=wants_tls)
    health = judge(exchange.status, exchange.body)
    return _Answer(health, exchange.status, exchange.body, wants_tls)


@contextmanager
def _connected(host: str, port: int, *, deadline_s: float) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(_left_s(deadline_s))
        connection.connect((host, port))
        # A port in the ephemeral range can be connected to itself; tcp(7) allows it.
        if connection.getsockname() == connection.getpeername():
            raise ConnectionRefusedError("connected to itself")
        yield connection


def _left_s(deadline_s: float) -> float:
    """Return the seconds left. Raises ``TimeoutError`` rather than return 0, which would mean not to wait."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def trusting_context() -> ssl.SSLContext:
    """Return a TLS client that trusts everyone: who it is decides whoever calls, by the certificate."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_url(base: str, *, timeout_s: float = TIMEOUT_S) -> HealthFact:
    """
    Do as ``check`` does for a URL that a person gave: names are looked up, certificates verified.

    No redirect is followed and no proxy used. Looking up a name can't be cut short, so a thread asks,
    and is left to itself when the time is over.

    Args:
        base: ``http://HOST[:PORT][/PATH]`` or ``https://…``; ``/healthz`` is asked for below it.
        timeout_s: Seconds for everything.
    """
    from threading import Thread
    from urllib.parse import urlsplit

    parts = urlsplit(base)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    fact = HealthFact(host, port, Health.MUTE, timeout_s)
    found: list[HealthFact] = []

    def ask() -> None:
        began_s = time.monotonic()
        answer = _request(base.rstrip("/") + HEALTH_PATH, timeout_s=timeout_s)
        asked = fact._replace(health=answer.health, took_s=time.monotonic() - began_s)
        if answer.health in (Health.HEALTHY, Health.STARTING):
            asked = asked._replace(scheme=parts.scheme)
        found.append(asked)
        if answer.health is Health.HEALTHY:
            second = _request(base.rstrip("/") + READY_PATH, timeout_s=timeout_s)
            told = readiness(second.status, second.body) if second.status is not None else None
            if told:
                found.append(asked._replace(**told._asdict()))

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout_s)
    return found[-1] if found else fact


def _request(address: str, *, timeout_s: float) -> _Answer:
    import requests
    from urllib3.exceptions import HTTPError

    with requests.Session() as session:
        session.trust_env = False
        try:
            with session.get(
                address,
                timeout=timeout_s,
                allow_redirects=False,
                stream=True,
                headers={"Accept": "application/json", "Connection": "close"},
            ) as response:
                body = response.raw.read(MAX_BODY_BYTES + 1, decode_content=False)
                if len(body) <= MAX_BODY_BYTES and response.raw.length_remaining:
                    return _Answer(Health.FOREIGN)  # cut off
                return _Answer(judge(response.status_code, body), response.status_code, body)
        except requests.Timeout:
            return _Answer(Health.MUTE)
        except (requests.RequestException, HTTPError, OSError, ValueError) as failure:
            causes = list(_causes(failure))
            if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
                return _Answer(Health.REFUSED)
            # A certificate that nobody vouches for, a name that nobody knows, no route: we couldn't ask.
            untrusted = isinstance(failure, requests.exceptions.SSLError)
            unasked = untrusted or any(
                type(cause) in (OSError, socket.gaierror) for cause in causes
            )
            return _Answer(Health.UNKNOWN if unasked else Health.FOREIGN)


def _causes(failure: BaseException | None) -> Iterator[BaseException]:
    while failure is not None:
        yield failure
        failure = failure.__cause__ or failure.__context__
