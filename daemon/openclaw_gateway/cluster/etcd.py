"""A client of etcd's v3 JSON gateway, as small as one record needs; ``requests`` is loaded by the first call.

One object is one thread's at a time. Every method waits no longer than about ``timeout_s`` in all.

See Also:
    https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/: keys and values are base64, int64 are strings, what is
    false or zero is left out.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from openclaw_gateway.cluster.record import Record, Seen, encode, parse
from openclaw_gateway.errors import EtcdError
from openclaw_gateway.settings.model import Cluster

if TYPE_CHECKING:
    import requests

PREFIX = "openclaw/gateway/"

_INVALID_ARGUMENT, _UNAUTHENTICATED = 3, 16
"""gRPC's codes: no token, or one of an older auth revision, is the first; a token that is not known the second."""

_QUOTA = "etcd_server_quota_backend_bytes"
_COMPACTED = "etcd_debugging_mvcc_compact_revision"
"""Gauges of etcd's /metrics."""

_MAX_ANSWER_BYTES = 1 << 20
_NOT_ETCD = "it answers, and not as etcd does"
_LEAST_S = 0.2
"""Seconds that an endpoint has at least, however many there are."""

Json = dict[str, Any]


class Swap(NamedTuple):
    """What came of one write by comparison."""

    succeeded: bool
    """Whether this very request wrote."""
    seen: Seen
    """What stands there now: what was written, or what stood in the way."""


class Member(NamedTuple):
    """What one endpoint says of itself."""

    endpoint: str
    version: str = ""
    db_size_bytes: int = 0
    """Size of its database's file."""
    db_in_use_bytes: int = 0
    """What of it would be left after a defragmentation; 0 if it does not say."""
    has_leader: bool = False
    """Whether it knows a leader: without one nothing can be read or written."""
    errors: tuple[str, ...] = ()
    """What it complains of itself, such as an alarm for a full database."""
    problem: str = ""
    """Why it could not be asked; then nothing else is known."""
    cluster_id: str = ""
    """Of the etcd cluster that it belongs to."""
    revision: int = 0
    """Of the last write of anybody's."""
    quota_bytes: int | None = None
    """Size of its database's file at which it takes no more writes; ``None`` if it does not say."""
    compacted: int | None = None
    """The last revision whose history was dropped, 0 if none ever was; ``None`` if it does not say."""


class Etcd:
    """
    The record of one cluster.

    Attributes:
        cluster: Where and how.
        key: The record's key, as etcd has it.
        timeout_s: Seconds that one call may take, over all endpoints.
    """

    def __init__(self, cluster: Cluster, *, timeout_s: float) -> None:
        """
        Connect to nothing yet.

        Args:
            cluster: Endpoints in the order in which they are tried; the last one that answered comes first.
            timeout_s: Seconds that one call may take, over all endpoints.
        """
        self.cluster = cluster
        self.key = PREFIX + cluster.name
        self._epoch = f"{self.key}/epoch"
        self.timeout_s = timeout_s
        self._at = 0
        self._session: requests.Session | None = None
        self._token: str | None = None
        self._lease = ""

    def anew(self) -> Etcd:
        """Return another client that knows what this one learned, for when a call of this one hangs."""
        fresh = Etcd(self.cluster, timeout_s=self.timeout_s)
        # Maybe the endpoint is what hangs.
        fresh._at = (self._at + 1) % len(self.cluster.endpoints)
        return fresh

    def again(self) -> Etcd:
        """Return another client that begins where this one is, for another thread."""
        fresh = Etcd(self.cluster, timeout_s=self.timeout_s)
        fresh._at, fresh._token = self._at, self._token
        return fresh

    def read(self) -> Seen | None:
        """
        Read the record, linearizably: no write that was acknowledged before is missed.

        Returns:
            What was found; ``None`` if there is no record, and never was one that left its epoch.

        Raises:
            EtcdError: No endpoint answered, or etcd refused.
        """
        seen = self._seen(self._txn(compare=[], success=self._reads()))
        return seen if seen.revision or seen.token else None

    def acquire(self, record: Record, *, over: int) -> Swap:
        """
        Take the record, and write the epoch with it, in one transaction.

        Args:
            record: What to write.
            over: The revision that stands there; 0 for none. Nothing is written if it is another.

        Raises:
            EtcdError: No endpoint answered, or etcd refused. It may have been written all the same, or yet be.
        """
        return self._swap(record, over, with_epoch=True)

    def renew(self, record: Record, *, over: int) -> Swap:
        """Write the record and no epoch, as for a renewal or a release; otherwise as ``acquire``."""
        return self._swap(record, over, with_epoch=False)

    def announce(self, record: Record, *, ttl_s: float) -> None:
        """
        Say that we stand by, until ``withdraw`` or for so long after the last call.

        With an etcd lease, which may end too early or too late: nobody decides anything by this.

        Args:
            record: Who we are.
            ttl_s: Seconds; call again well within them.

        Raises:
            EtcdError: No endpoint answered, or etcd refused.
        """
        if self._lease:
            said = self._call("/v3/lease/keepalive", {"ID": self._lease}).get("result")
            if isinstance(said, dict) and _int(said.get("TTL")) > 0:
                return
            # It is over, and what was written with it is gone: 200 without a TTL.
            self._lease = ""
        granted = self._call("/v3/lease/grant", {"TTL": str(max(round(ttl_s), 1))}).get("ID")
        if not isinstance(granted, str):
            raise EtcdError(self.cluster.endpoints[self._at], _NOT_ETCD)
        key = f"{self.key}/standby/{record.holder}"
        asked = {"key": _b64(key), "value": _b64(encode(record)), "lease": granted}
        self._call("/v3/kv/put", asked)
        self._lease = granted

    def withdraw(self) -> None:
        """Take back what ``announce`` said. Raises ``EtcdError`` as that does."""
        if self._lease:
            lease, self._lease = self._lease, ""
            self._call("/v3/lease/revoke", {"ID": lease})

    def standbys(self) -> list[Record]:
        """Return who says that it stands by, ordered by host. Raises ``EtcdError`` as ``read`` does."""
        prefix = f"{self.key}/standby/"
        end = prefix[:-1] + chr(ord("/") + 1)
        said = self._call("/v3/kv/range", {"key": _b64(prefix), "range_end": _b64(end)})
        try:
            found = [parse(b64decode(kv.get("value", ""))) for kv in said.get("kvs") or ()]
        except (AttributeError, TypeError, ValueError) as error:
            raise EtcdError(self.cluster.endpoints[self._at], _NOT_ETCD) from error
        return sorted((one for one in found if one), key=lambda one: (one.host, one.holder))

    def watch(self, *, after: int, timeout_s: float) -> None:
        """
        Wait until the record changes after a revision, or something else happens: a reason to read, and no more.

        What a watch says comes late when etcd's nodes are apart, and from a compacted revision it says nothing at
        all: only a read tells what is so.

        Args:
            after: The revision that is known.
            timeout_s: Seconds of silence after which it is given up.

        Raises:
            EtcdError: It could not be begun.
        """
        asked = {"create_request": {"key": _b64(self.key), "start_revision": str(after + 1)}}
        if self.cluster.user is not None and self._token is None:
            self.read()
        with self._post(
            self._at, "/v3/watch", asked, (self._share_s, timeout_s), token=self._token
        ) as said:
            for line in said.iter_lines():
                if b'"created"' not in line:  # the first says that, and that alone
                    return

    def status(self) -> list[Member]:
        """Ask each endpoint how it is; raises nothing. Needs a user with the role root where auth is on."""
        members = []
        for at, endpoint in enumerate(self.cluster.endpoints):
            try:
                said = self._ask_with_token(
                    at, "/v3/maintenance/status", {}, time.monotonic() + self._share_s
                )
            except EtcdError as error:
                members.append(Member(endpoint, problem=error.problem))
                continue
            header, gauges = said.get("header") or {}, self._gauges(endpoint)
            quota, compacted = (gauges.get(name) for name in (_QUOTA, _COMPACTED))
            members.append(
                Member(
                    endpoint,
                    version=str(said.get("version", "")),
                    db_size_bytes=_int(said.get("dbSize")),
                    db_in_use_bytes=_int(said.get("dbSizeInUse")),
                    has_leader=_int(said.get("leader")) != 0,
                    errors=tuple(map(str, said.get("errors") or ())),
                    cluster_id=str(header.get("cluster_id", "")),
                    revision=_int(header.get("revision")),
                    quota_bytes=None if quota is None else int(quota),
                    compacted=None if compacted is None else max(int(compacted), 0),
                )
            )
        return members

    def _gauges(self, endpoint: str) -> dict[str, float]:
        """
        Return what an endpoint tells monitoring systems, as far as we want it; empty if it tells nothing.

        No call of the API says what the quota is, or whether history is ever dropped; and ``/metrics``
        asks for no user.
        """
        import requests
        from urllib3.exceptions import HTTPError

        try:
            with self._opened().get(
                f"{endpoint}/metrics", timeout=self._share_s, allow_redirects=False, stream=True
            ) as response:
                body = response.raw.read(_MAX_ANSWER_BYTES, decode_content=True)
        except (requests.RequestException, HTTPError, OSError):
            return {}
        found = {}
        for line in body.decode("utf-8", "replace").splitlines():
            name, _, value = line.partition(" ")
            if name in (_QUOTA, _COMPACTED):
                with suppress(ValueError, OverflowError):
                    found[name] = float(value)
        return found

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            self._session.close()
            self._session = None

    @property
    def _share_s(self) -> float:
        return max(self.timeout_s / len(self.cluster.endpoints), _LEAST_S)

    def _swap(self, record: Record, over: int, *, with_epoch: bool) -> Swap:
        puts = [{"request_put": {"key": _b64(self.key), "value": _b64(encode(record))}}]
        if with_epoch:
            puts.append({"request_put": {"key": _b64(self._epoch), "value": ""}})
        compare = {
            "key": _b64(self.key),
            "target": "MOD",
            "result": "EQUAL",
            "mod_revision": str(over),
        }
        said = self._txn(compare=[compare], success=puts, failure=self._reads())
        if not said.get("succeeded"):  # left out when it is false
            return Swap(False, self._seen(said))
        revision = _int(said["header"].get("revision"))
        return Swap(True, Seen(record, revision, revision if with_epoch else 0))

    def _seen(self, said: Json) -> Seen:
        """Return what the two ``_reads`` of a transaction found."""
        try:
            record, epoch = (_first(response) for response in said["responses"])
            value = b64decode(record.get("value", ""))
            return Seen(
                parse(value), _int(record.get("mod_revision")), _int(epoch.get("mod_revision"))
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EtcdError(self.cluster.endpoints[self._at], _NOT_ETCD) from error

    def _reads(self) -> list[Json]:
        return [{"request_range": {"key": _b64(key)}} for key in (self.key, self._epoch)]

    def _txn(
        self, *, compare: list[Json], success: list[Json], failure: list[Json] | None = None
    ) -> Json:
        asked = {"compare": compare, "success": success, "failure": failure or []}
        said = self._call("/v3/kv/txn", asked)
        # A gateway of something else may say 200 as well.
        if not isinstance(said.get("responses"), list) or not isinstance(said.get("header"), dict):
            raise EtcdError(self.cluster.endpoints[self._at], _NOT_ETCD)
        return said

    def _call(self, path: str, asked: Json) -> Json:
        """
        Ask the endpoints one after the other, the last good one first, until one answers.

        A refusal is an answer as well, unless another endpoint may know better (no leader, too busy).
        """
        deadline_s = time.monotonic() + self.timeout_s
        count = len(self.cluster.endpoints)
        failure: EtcdError | None = None
        for at in [(self._at + step) % count for step in range(count)]:
            now_s = time.monotonic()
            if failure is not None and deadline_s - now_s < _LEAST_S / 2:
                # Those that there was no time for come first the next time.
                self._at = at
                break
            try:
                said = self._ask_with_token(at, path, asked, now_s + self._share_s)
            except EtcdError as error:
                failure = error
                continue
            self._at = at
            return said
        assert failure is not None
        raise failure

    def _ask_with_token(self, at: int, path: str, asked: Json, deadline_s: float) -> Json:
        """Ask one endpoint, with a token where there is a user; a token that died is renewed once."""
        cluster = self.cluster
        if cluster.user is None:
            return self._ask(at, path, asked, deadline_s)
        if self._token is not None:
            try:
                return self._ask(at, path, asked, deadline_s, token=self._token)
            except EtcdError as error:
                if error.code not in (_INVALID_ARGUMENT, _UNAUTHENTICATED):
                    raise
        self._token = None
        login = {"name": cluster.user, "password": cluster.password or ""}
        token = self._ask(at, "/v3/auth/authenticate", login, deadline_s).get("token")
        if not isinstance(token, str):
            raise EtcdError(cluster.endpoints[at], "it gave no token for the user and password")
        self._token = token
        return self._ask(at, path, asked, deadline_s, token=token)

    def _ask(
        self, at: int, path: str, asked: Json, deadline_s: float, *, token: str | None = None
    ) -> Json:
        """Ask once. Raises ``EtcdError`` for everything but an answer."""
        timeout_s = max(deadline_s - time.monotonic(), _LEAST_S)
        with self._post(at, path, asked, (timeout_s, timeout_s), token=token) as response:
            body = response.raw.read(_MAX_ANSWER_BYTES, decode_content=True)
            status = response.status_code
        return _answer(self.cluster.endpoints[at], status, body)

    @contextmanager
    def _post(
        self,
        at: int,
        path: str,
        asked: Json,
        timeouts_s: tuple[float, float],
        *,
        token: str | None,
    ) -> Iterator[requests.Response]:
        """
        POST once to one endpoint, and read the answer in the block.

        Args:
            at: The endpoint's place in the list.
            path: What to call.
            asked: Its arguments.
            timeouts_s: Seconds to connect, and to wait for each part of the answer.
            token: From an earlier login.

        Raises:
            EtcdError: No answer, or it broke off.
        """
        import requests
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        endpoint = self.cluster.endpoints[at]
        headers: Mapping[str, str] = {"Authorization": token} if token is not None else {}
        try:
            with self._opened().post(
                endpoint.rstrip("/") + path,
                data=json.dumps(asked),
                headers={"Content-Type": "application/json", **headers},
                timeout=timeouts_s,
                allow_redirects=False,
                stream=True,
            ) as response:
                yield response
        except (requests.Timeout, ReadTimeoutError):
            raise EtcdError(endpoint, f"no answer within {timeouts_s[1]:.1f} s") from None
        except requests.exceptions.SSLError as error:
            raise EtcdError(endpoint, f"TLS failed: {_cause(error)}") from error
        except requests.ConnectionError as error:
            raise EtcdError(endpoint, f"can't be reached: {_cause(error)}") from error
        except (requests.RequestException, HTTPError, OSError) as error:
            # HTTPError: urllib3's, for what ends in the middle. OSError: a certificate's file that is not there.
            raise EtcdError(endpoint, f"can't be asked: {_cause(error)}") from error

    def _opened(self) -> requests.Session:
        """Return the session, which keeps its connections: a call takes 1 ms instead of a TLS handshake."""
        if self._session is None:
            import requests

            session = requests.Session()
            session.trust_env = False  # neither a proxy nor a .netrc comes between us and etcd
            cluster = self.cluster
            session.verify = cluster.ca_path or True
            if cluster.certificate_path is not None:
                key = cluster.key_path or cluster.certificate_path
                session.cert = (cluster.certificate_path, key)
            self._session = session
        return self._session


def _answer(endpoint: str, status: int, body: bytes) -> Json:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise EtcdError(endpoint, f"it answers with status {status}, and not as etcd does")
    if status != 200 or "error" in said:
        code = said.get("code")
        text = str(said.get("message") or said.get("error") or f"status {status}")
        # One line, and no longer than a journal likes: it is a peer's text.
        shown = "".join(c if c.isprintable() else " " for c in text)[:200]
        raise EtcdError(endpoint, shown, code=code if isinstance(code, int) else None)
    return said


def _first(response: Json) -> Json:
    found = response.get("response_range", {}).get("kvs")
    return found[0] if found else {}


def _b64(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode("ascii")


def _int(value: object) -> int:
    """Read an int64, which JSON has as a string; absent is 0."""
    return int(value) if isinstance(value, (str, int)) else 0


def _cause(error: BaseException) -> str:
    """Return the kernel's or OpenSSL's word, from under what urllib3 and requests wrapped around it."""
    seen = error
    while True:
        inner = seen.__cause__ or seen.__context__
        reason = getattr(seen, "reason", None)
        if isinstance(reason, BaseException):
            inner = reason
        if inner is None or inner is seen:
            break
        seen = inner
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return f"{type(seen).__name__}: {seen}"[:200]
