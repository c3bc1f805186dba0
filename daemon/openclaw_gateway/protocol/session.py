"""One client's state, pure: frame in, effects out. Clock, nonce and ids are arguments; nothing raises."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from openclaw_gateway.protocol import frames
from openclaw_gateway.protocol.calls import Answer, Call, Method, Outcome
from openclaw_gateway.protocol.frames import ErrorCode, Event, Malformed, Request, error
from openclaw_gateway.protocol.schema import problems
from openclaw_gateway.protocol.scopes import ADMIN, KNOWN_SCOPES, satisfies

# RFC 6455, section 7.4.1, and IANA's registry of close codes.
PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

ROLES = ("operator", "node")

BURST_S = 2
"""A client that was quiet may make as many requests at once as it may make in this many seconds."""

RESTART_RETRY_MS = 1000


class Limits(Protocol):
    """What a session must know of the settings' limits; ``settings.load.Limits`` is one."""

    @property
    def max_preauth_bytes(self) -> int:
        """Bytes of a frame before the hello."""

    @property
    def max_payload_bytes(self) -> int:
        """Bytes of a frame after the hello, and of an answer."""

    @property
    def max_buffered_bytes(self) -> int:
        """Bytes that wait for the client to read them."""

    @property
    def max_in_flight(self) -> int:
        """Requests that wait for their answers."""

    @property
    def requests_per_second(self) -> int:
        """Requests on average; ``BURST_S`` says how many may come at once."""

    @property
    def tick_interval_s(self) -> float:
        """Seconds between two signs of life."""


class Send(NamedTuple):
    """Send one text frame."""

    text: str


class Close(NamedTuple):
    """Close the connection. RFC 6455, section 7.4."""

    code: int
    reason: str


class Authenticate(NamedTuple):
    """Look at the credentials of a ``connect``, then call ``welcome`` or ``refuse``."""

    connect: Connect


class Invoke(NamedTuple):
    """Make a call, then hand its outcome to ``settle``."""

    request_id: str
    method: Method
    call: Call


class Limited(NamedTuple):
    """Count that a limit was reached. ``limit`` is a field of ``Limits``."""

    limit: str


class Refused(NamedTuple):
    """Count a request that is answered without a call. ``method`` is ``""`` if it is none of ours."""

    method: str
    code: str


Effect = Send | Close | Authenticate | Invoke | Limited | Refused


class Connect(NamedTuple):
    """A ``connect`` that is in order, but for its credentials."""

    request_id: str
    client: Mapping[str, Any]
    """``id``, ``version``, ``platform``, ``mode``, and what else the client says of itself."""
    role: str
    scopes: tuple[str, ...]
    """Those asked for that exist."""
    token: str | None
    password: str | None


class Refusal(NamedTuple):
    """Why a ``connect`` gets no hello: the error to answer with and the code to close with."""

    error: Mapping[str, object]
    close_code: int = POLICY_VIOLATION


STARTING = Refusal(
    error(
        ErrorCode.UNAVAILABLE,
        "gateway starting; retry shortly",
        details={"reason": "startup-sidecars"},
        retry_after_ms=500,
    ),
    TRY_AGAIN_LATER,
)
"""Clients know this ``reason`` and try again by themselves."""

DRAINING = Refusal(
    error(
        ErrorCode.UNAVAILABLE,
        "connect unavailable during gateway restart",
        details={"method": "connect", "reason": "gateway-restarting"},
        retry_after_ms=RESTART_RETRY_MS,
    ),
    TRY_AGAIN_LATER,
)


_TOKEN_CHARACTERS = 4 << 10
"""So much of a frame costs as much as a small request."""


class _State(Enum):
    GREETING = auto()
    """The challenge is out; the one thing to take is ``connect``."""
    AUTHENTICATING = auto()
    OPEN = auto()
    CLOSED = auto()


class Session:
    """
    What we know of one WebSocket client.

    Attributes:
        conn_id: Our name for the connection.
        connect: What the client said of itself; ``None`` before its hello.
        in_flight: Requests taken and not answered.
    """

    def __init__(self, conn_id: str, *, methods: Mapping[str, Method], limits: Limits) -> None:
        """
        Begin with nothing known.

        Args:
            conn_id: Unique among the connections of this gateway.
            methods: What can be called, by name.
            limits: Those that this connection lives by to its end.
        """
        self.conn_id, self._methods, self.limits = conn_id, methods, limits
        self.connect: Connect | None = None
        self.in_flight = 0
        self._state = _State.GREETING
        self._scopes: frozenset[str] = frozenset()
        self._seq = 0
        self._budget = Budget(limits.requests_per_second, burst_s=BURST_S)

    @property
    def is_open(self) -> bool:
        """Whether the client got its hello, and nothing has ended it."""
        return self._state is _State.OPEN

    def open(self, *, nonce: str, now_ms: int) -> list[Effect]:
        """Greet: the client must answer the challenge with ``connect``."""
        return [Send(frames.challenge(nonce=nonce, now_ms=now_ms))]

    def receive(self, text: str, *, now_s: float) -> list[Effect]:
        """
        Take one text frame, whatever it holds.

        Args:
            text: The frame.
            now_s: Monotonic clock.

        Returns:
            At least one effect, unless the session is closed or busy authenticating.
        """
        match self._state:
            case _State.GREETING:
                return self._greet(text)
            case _State.OPEN:
                return self._serve(text, now_s)
            case _:
                return []

    def receive_binary(self) -> list[Effect]:
        """Take a binary frame: the protocol has none."""
        return self._close(UNSUPPORTED_DATA, "text frames only")

    def expire(self) -> list[Effect]:
        """End a handshake that took too long; nothing if it is over."""
        if self._state in (_State.OPEN, _State.CLOSED):
            return []
        return self._close(POLICY_VIOLATION, "handshake timeout")

    def overflow(self) -> list[Effect]:
        """End a handshake whose frames are too big."""
        if self._state is _State.CLOSED:
            return []
        close = self._close(MESSAGE_TOO_BIG, "too big before the handshake")
        return [Limited("max_preauth_bytes"), *close]

    def welcome(
        self,
        *,
        connect: Connect,
        server: Mapping[str, object],
        events: list[str],
        snapshot: Mapping[str, object],
    ) -> list[Effect]:
        """
        Let an authenticated client in.

        Args:
            connect: What it asked for; it is granted all of it.
            server: Our ``version`` and ids.
            events: Names of the events that there are.
            snapshot: How things stand, for this client's eyes.
        """
        if self._state is not _State.AUTHENTICATING:
            return []
        self._state, self.connect = _State.OPEN, connect
        self._scopes = frozenset(connect.scopes)
        hello = {
            "type": "hello-ok",
            "protocol": frames.PROTOCOL,
            "server": {**server, "connId": self.conn_id},
            "features": {"methods": sorted(self._methods), "events": events},
            "snapshot": snapshot,
            "auth": {"role": connect.role, "scopes": list(connect.scopes)},
            "policy": {
                "maxPayload": self.limits.max_payload_bytes,
                "maxBufferedBytes": self.limits.max_buffered_bytes,
                "tickIntervalMs": round(self.limits.tick_interval_s * 1000),
            },
        }
        return [Send(frames.answer(connect.request_id, frames.encode(hello)))]

    def refuse(self, request_id: str, refusal: Refusal) -> list[Effect]:
        """Answer a ``connect`` with an error, and close; nothing if its time was up meanwhile."""
        if self._state is _State.CLOSED:
            return []
        answer = Send(frames.refusal(request_id, refusal.error))
        return [answer, *self._close(refusal.close_code, str(refusal.error["message"]))]

    def settle(self, request_id: str, outcome: Outcome) -> list[Effect]:
        """Answer a request with what came of its call; nothing if the session has ended meanwhile."""
        self.in_flight -= 1
        if self._state is not _State.OPEN:
            return []
        if isinstance(outcome, Answer):
            return [Send(frames.answer(request_id, outcome.payload))]
        return [Send(frames.refusal(request_id, outcome.error))]

    def notify(self, event: Event) -> list[Effect]:
        """Tell the client of an event, if it is one for its ears."""
        if self._state is not _State.OPEN or not satisfies(self._scopes, event.scope):
            return []
        self._seq += 1
        return [Send(event.numbered(self._seq))]

    def shut_down(self, event: Event) -> list[Effect]:
        """Say goodbye, with the reason to those who got a hello."""
        return [*self.notify(event), *self._close(SERVICE_RESTART, "service restart")]

    def _close(self, code: int, reason: str) -> list[Effect]:
        if self._state is _State.CLOSED:
            return []
        self._state = _State.CLOSED
        return [Close(code, frames.close_reason(reason))]

    def _greet(self, text: str) -> list[Effect]:
        if len(text.encode("utf-8", "replace")) > self.limits.max_preauth_bytes:
            return self.overflow()
        request = frames.parse(text)
        if isinstance(request, Malformed):
            return self._close(POLICY_VIOLATION, "invalid request frame")
        if request.method != "connect":
            return self._refuse(request, "invalid handshake: first request must be connect")
        return self._negotiate(request)

    def _negotiate(self, request: Request) -> list[Effect]:
        params = {} if request.params is None else request.params
        problem = problems(params, frames.CONNECT_PARAMS)
        if problem:
            return self._refuse(request, f"invalid connect params: {problem}")
        if not _speaks_with(params):
            details = {
                "code": "PROTOCOL_MISMATCH",
                "clientMinProtocol": params["minProtocol"],
                "clientMaxProtocol": params["maxProtocol"],
                "expectedProtocol": frames.PROTOCOL,
                "minimumProbeProtocol": frames.MIN_PROBE_PROTOCOL,
            }
            mismatch = error(ErrorCode.INVALID_REQUEST, "protocol mismatch", details=details)
            return self.refuse(request.id, Refusal(mismatch, PROTOCOL_ERROR))
        role = params.get("role", "operator")
        if role not in ROLES:
            return self._refuse(request, "invalid role")
        self._state = _State.AUTHENTICATING
        auth = params.get("auth", {})
        scopes = tuple(dict.fromkeys(s for s in params.get("scopes", ()) if s in KNOWN_SCOPES))
        return [
            Authenticate(
                Connect(
                    request.id,
                    params["client"],
                    role,
                    scopes,
                    token=auth.get("token"),
                    password=auth.get("password"),
                )
            )
        ]

    def _refuse(self, request: Request, message: str) -> list[Effect]:
        return self.refuse(request.id, Refusal(error(ErrorCode.INVALID_REQUEST, message)))

    def _serve(self, text: str, now_s: float) -> list[Effect]:
        # Before the text is parsed: that is what a big frame costs, and everybody waits for it.
        wait_s = self._budget.spend(now_s, tokens=len(text) // _TOKEN_CHARACTERS + 1)
        if wait_s:
            request_id = frames.glimpse_id(text)
            limit = f"{self.limits.requests_per_second} per 1s"
            return self._fail(
                request_id,
                "",
                "requests_per_second",
                f"rate limit exceeded; retry after {wait_s:.1f}s",
                details={"limit": limit},
                retry_after_ms=round(wait_s * 1000) + 1,
            )
        request = frames.parse(text)
        request_id = request.id
        if isinstance(request, Malformed):
            problem = f"invalid request frame: {request.problem}"
            return self._answer_error(request_id, "", error(ErrorCode.INVALID_REQUEST, problem))
        method = self._methods.get(request.method)
        refused = self._refused(request, method)
        if refused is not None or method is None:
            return self._answer_error(request_id, method.name if method else "", refused or {})
        if self.in_flight >= self.limits.max_in_flight:
            return self._fail(
                request_id,
                method.name,
                "max_in_flight",
                f"more than {self.limits.max_in_flight} requests in flight; wait for answers",
                details={"limit": f"{self.limits.max_in_flight} in flight"},
                retry_after_ms=100,
            )
        self.in_flight += 1
        params = {} if request.params is None else request.params
        return [Invoke(request_id, method, Call(params, self.conn_id, self._scopes))]

    def _refused(self, request: Request, method: Method | None) -> dict[str, object] | None:
        """Return the error of a request that can't be called, ``None`` if it can."""
        scope = method.scope if method else ADMIN
        if self.connect is not None and self.connect.role != "operator" and scope is not None:
            return error(ErrorCode.INVALID_REQUEST, f"unauthorized role: {self.connect.role}")
        if not satisfies(self._scopes, scope):
            details = {"code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope]}
            return error(ErrorCode.FORBIDDEN, f"missing scope: {scope}", details=details)
        if method is None:
            shown = request.method[:100]
            problem = (
                "connect is only valid as the first request"
                if shown == "connect"
                else f"unknown method: {shown}"
            )
            return error(ErrorCode.INVALID_REQUEST, problem)
        if method.params is not None:
            given = request.params is not None
            problem = problems(request.params, method.params) if given else method.without_params
            if problem:
                message = f"invalid {method.name} params: {problem}"
                return error(ErrorCode.INVALID_REQUEST, message)
        return None

    def _fail(
        self,
        request_id: str,
        method: str,
        limit: str,
        message: str,
        *,
        details: Mapping[str, object],
        retry_after_ms: int,
    ) -> list[Effect]:
        shape = error(
            ErrorCode.UNAVAILABLE, message, details=details, retry_after_ms=retry_after_ms
        )
        return [Limited(limit), *self._answer_error(request_id, method, shape)]

    def _answer_error(
        self, request_id: str, method: str, error: Mapping[str, object]
    ) -> list[Effect]:
        return [Send(frames.refusal(request_id, error)), Refused(method, str(error.get("code")))]


def _speaks_with(params: Mapping[str, Any]) -> bool:
    """Whether we have a version in common with a client."""
    low, high = params["minProtocol"], params["maxProtocol"]
    newest = frames.MIN_PROBE_PROTOCOL if params["client"]["mode"] == "probe" else frames.PROTOCOL
    return bool(low <= high and low <= frames.PROTOCOL and high >= newest)


class Budget:
    """
    A token bucket: so many in a second on average, and more at once after a pause.

    Who has a token left may spend more than there are, and then waits until the debt is paid: a frame
    of any size that is allowed at all comes through.
    """

    def __init__(self, per_second: int, *, burst_s: int = 1) -> None:
        """``burst_s`` is how many seconds' worth of tokens a full bucket holds."""
        self._rate = float(per_second)
        self._capacity = self._left = self._rate * burst_s
        self._at_s: float | None = None

    def spend(self, now_s: float, *, tokens: int = 1) -> float:
        """Take so many; returns 0, or the seconds until there will be one."""
        if self._at_s is not None:
            filled = self._left + max(now_s - self._at_s, 0) * self._rate
            self._left = min(self._capacity, filled)
        self._at_s = now_s
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= tokens
        return 0.0
