"""One call of a method: what a handler is told, and what comes of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from openclaw_gateway.protocol.frames import ErrorCode
from openclaw_gateway.protocol.schema import Schema


class Call(NamedTuple):
    """What a handler is told: the checked params, and who calls."""

    params: Any
    """As the method's schema has them; ``{}`` if the client sent none."""
    conn_id: str = ""
    scopes: frozenset[str] = frozenset()
    fencing_token: int | None = None
    """
    Of the tenure in which it was made: higher than in any tenure before, on any host of the cluster.
    A resource that refuses lower ones than it has seen is safe from a gateway that was the active one.
    ``None`` without a cluster.
    """


class CallError(Exception):
    """
    Raised by a handler to answer with an error of its choice.

    Attributes:
        message: A sentence for the caller.
        code: ``INVALID_REQUEST`` unless it isn't the caller's fault.
        details: More, for programs; JSON.
    """

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode = ErrorCode.INVALID_REQUEST,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.details = message, code, details


Handler = Callable[[Call], Any]
"""Takes the call; returns JSON, or a coroutine that does."""


class Method(NamedTuple):
    """One RPC method."""

    name: str
    handler: Handler
    scope: str | None
    """What a client must have been granted; ``None`` for every client."""
    params: Schema | None
    """``None`` if params are not looked at."""
    instant: bool
    """
    Whether the handler is ours, waits for nothing, and so is called right on the event loop. It may return
    an ``Answer`` that it has at hand.
    """

    without_params: str = ""
    """What is wrong with a request that has no params, found out once; ``""`` if nothing is, as for most."""


class Answer(NamedTuple):
    """A call's payload, JSON already."""

    payload: str


class Failure(NamedTuple):
    """A call's error, as ``frames.error`` makes them."""

    error: Mapping[str, object]


Outcome = Answer | Failure
