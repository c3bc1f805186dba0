"""What people write for OpenClaw's own ``gateway run`` and ours has no use for: taken, or refused; pure.

Command lines that were published for OpenClaw stand in units, containers and scripts. What is harmless
there starts our gateway as well, with one warning; what would not be done is refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from openclaw_gateway.errors import UsageError


class Flag(NamedTuple):
    """A flag of OpenClaw's that is none of ours."""

    name: str
    metavar: str | None = None
    """What its value is called; ``None`` for a switch."""
    warning: str = ""
    """Why it changes nothing, a sentence's end; empty where it does here what it does there."""
    values: tuple[str, ...] = ()
    """The values that it may have; empty for any."""


_LOGGING = (
    "changes nothing here: the log goes to the journal as it is; --log-level says how much of it"
)
_AGENTS = "changes nothing here: this gateway runs no channels and no agents"

TAKEN = (
    # An absent configuration is a start with defaults here, with this flag or without.
    Flag("--allow-unconfigured"),
    Flag("--token", "TEXT"),
    Flag("--password", "TEXT"),
    Flag("--verbose", None, _LOGGING),
    Flag("--ws-log", "STYLE", _LOGGING, ("auto", "full", "compact")),
    Flag("--compact", None, _LOGGING),
    Flag("--ambient-channels", None, _AGENTS),
    Flag("--dev-ambient-channels", None, _AGENTS),
    Flag("--cli-backend-logs", None, _AGENTS),
    Flag("--claude-cli-logs", None, _AGENTS),
    Flag("--raw-stream", None, _AGENTS),
    Flag("--raw-stream-path", "FILE", _AGENTS),
    Flag("--tailscale", "MODE"),
)
"""Those that ``run`` takes. ``settings.load`` knows the first three."""

SETTING_FLAGS = ("--allow-unconfigured", "--token", "--password")

_REFUSED = {
    "--force": (
        "it ends whoever listens on the port, and this gateway never signals a process that it did not start",
        "openclaw-gateway status names what is in the way, and a command that ends it",
    ),
    "--dev": (
        "it writes settings and a state directory of its own over what is there",
        "--profile NAME runs a second gateway beside the first one",
    ),
    "--reset": (
        "it deletes settings, credentials and sessions",
        "move the state directory away yourself, while the gateway is stopped",
    ),
}

_SYSTEMD = {
    verb: (
        f"systemd has that verb: systemctl {verb} openclaw-gateway",
        "for your own user unit: systemctl --user",
    )
    for verb in ("start", "stop", "restart")
}

_VERBS = {
    **_SYSTEMD,
    "health": (
        "it is asked in other words here",
        "openclaw-gateway probe for scripts, openclaw-gateway call health for the whole answer",
    ),
}

SWITCHES = frozenset({*(flag.name for flag in TAKEN if flag.metavar is None), *_REFUSED})
"""All that have no value."""


def refused() -> tuple[str, ...]:
    """Return the flags, all switches, that are known and never taken."""
    return tuple(_REFUSED)


def check_verb(verb: str) -> None:
    """Raise ``UsageError`` with the way out if this is a verb of OpenClaw's ``gateway`` that is none of ours."""
    if verb in _VERBS:
        raise UsageError(verb, *_VERBS[verb])


def check(given: Mapping[str, str]) -> list[str]:
    """
    Say what is odd about the flags of OpenClaw's that were given.

    Args:
        given: Flag to its value; a switch to any text. Flags of ours may stand among them.

    Returns:
        One warning for each that changes nothing. Never a value: it may be a secret.

    Raises:
        UsageError: One of them would have to do what we don't do, has a value that it can't have, or
            says the same as another.
    """
    for name, (reason, hint) in _REFUSED.items():
        if name in given:
            raise UsageError(name, reason, hint)
    for name in ("--token", "--password"):
        if name in given and f"{name}-file" in given:
            hint = f"keep {name}-file: a command line can be read by everyone"
            raise UsageError(name, f"{name}-file is given too, and says the same", hint)
    if given.get("--tailscale", "off") != "off":
        raise UsageError(
            "--tailscale",
            "no value but off is taken, since this gateway starts no tailscale",
            "tailscale serve 18789 does the same beside any gateway; see tailscale-serve",
        )
    for flag in TAKEN:
        if flag.values and given.get(flag.name, flag.values[0]) not in flag.values:
            raise UsageError(flag.name, f"it must be one of {', '.join(flag.values)}", "")
    return [
        f"flag {flag.name} {flag.warning}" for flag in TAKEN if flag.name in given and flag.warning
    ]
