"""Is there a healthy gateway at an address? One GET of ``/healthz``, bounded in every way.

A probe explains why a port is busy; it never decides that it is. Imports ``requests`` when called,
0.1 s that a start on a free port does not spend.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING, Any

from openclaw_gateway.client.answer import MAX_BODY_BYTES, Health, judge

if TYPE_CHECKING:
    from requests import Session

TIMEOUT_S = 2.0


def probe(host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> Health:
    """
    Ask ``http://host:port/healthz`` once.

    No redirect is followed and no proxy used; the whole exchange, connect included, ends after
    ``timeout_s`` even if the other side sends a byte a second; at most 4 KiB of an answer are read.

    Args:
        host: IP literal; loopback rather than a wildcard.
        port: 1 to 65535.
        timeout_s: Seconds for everything.

    Returns:
        ``HEALTHY`` for status 200 and exactly ``{"ok": true, "status": "live"}``. ``MUTE`` if nothing
        came within the time, ``REFUSED`` if nobody listens, ``STARTING`` for a gateway's 503,
        ``FOREIGN`` for any other answer, ``UNKNOWN`` if we could not ask.
    """
    import requests
    from urllib3.exceptions import HTTPError

    conversation = _Conversation(time.monotonic() + timeout_s)
    bracketed = f"[{host}]" if ":" in host else host
    with _session(conversation) as session:
        try:
            with session.get(
                f"http://{bracketed}:{port}/healthz",
                timeout=timeout_s,
                allow_redirects=False,
                stream=True,
                headers={"Accept": "application/json", "Connection": "close"},
            ) as response:
                body = response.raw.read(MAX_BODY_BYTES + 1, decode_content=False)
                return judge(response.status_code, body)
        except (requests.RequestException, HTTPError, OSError, ValueError):
            return conversation.failure()


class _Conversation:
    """What came of one connection: its deadline, and why it ended if it failed."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.connect_errno: int | None = None
        self.connected = False
        self.heard = False

    def remaining_s(self) -> float:
        """Return the seconds left, never 0, which would mean a non-blocking socket."""
        return max(self.deadline_s - time.monotonic(), 0.001)

    def failure(self) -> Health:
        if not self.connected:
            # A stopped process whose backlog is full lets a connect time out.
            named = {errno.ECONNREFUSED: Health.REFUSED, errno.ETIMEDOUT: Health.MUTE}
            return named.get(self.connect_errno or 0, Health.UNKNOWN)
        late = time.monotonic() >= self.deadline_s
        return Health.MUTE if late and not self.heard else Health.FOREIGN


class _DeadlineSocket(socket.socket):
    """A socket whose every read ends at one deadline, so that a trickle can't stretch it."""

    conversation: _Conversation

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        left = self.conversation.deadline_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("the probe's time is up")
        self.settimeout(left)
        count = super().recv_into(*args, **kwargs)
        self.conversation.heard |= count > 0
        return count


def _session(conversation: _Conversation) -> Session:
    """Return a session whose one connection is ours from ``connect`` on."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.exceptions import NewConnectionError
    from urllib3.poolmanager import PoolManager

    class Connection(HTTPConnection):
        def connect(self) -> None:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            sock = _DeadlineSocket(family, socket.SOCK_STREAM)
            sock.conversation = conversation
            sock.settimeout(conversation.remaining_s())
            try:
                sock.connect((self.host, self.port))
                # A port in the ephemeral range can be connected to itself; tcp(7) allows it.
                if sock.getsockname() == sock.getpeername():
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
            except OSError as error:
                timed_out = isinstance(error, TimeoutError)
                conversation.connect_errno = errno.ETIMEDOUT if timed_out else error.errno
                sock.close()
                # A listener that goes away resets who waits in its backlog. urllib3 takes a bare
                # ECONNRESET for one of the request, and reads an answer from a socket that isn't there.
                raise NewConnectionError(self, "not connected") from error
            conversation.connected = True
            self.sock = sock

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, connections: int, maxsize: int, *_: Any, **__: Any) -> None:
            self.poolmanager = PoolManager(num_pools=connections, maxsize=maxsize)
            self.poolmanager.pool_classes_by_scheme = {"http": Pool}

    session = requests.Session()
    session.trust_env = False
    session.mount("http://", Adapter(max_retries=0))
    return session
