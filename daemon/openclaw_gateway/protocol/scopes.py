"""What a client may be granted, and what that lets it do. Pure."""

from __future__ import annotations

READ, WRITE, ADMIN = "operator.read", "operator.write", "operator.admin"


KNOWN_SCOPES = frozenset(
    {READ, WRITE, ADMIN}
    | {f"operator.{name}" for name in ("approvals", "questions", "pairing", "talk", "talk.secrets")}
    | {"operator.sessions.read", "operator.sessions.write"}
)


_IMPLIED = {
    WRITE: {READ, "operator.talk", "operator.sessions.read", "operator.sessions.write"},
    "operator.sessions.write": {"operator.sessions.read"},
}


def satisfies(granted: frozenset[str], scope: str | None) -> bool:
    """Whether a client with these scopes may do what needs ``scope``; ``None`` needs nothing."""
    if scope is None or scope in granted or ADMIN in granted:
        return True
    return any(scope in _IMPLIED.get(own, ()) for own in granted)
