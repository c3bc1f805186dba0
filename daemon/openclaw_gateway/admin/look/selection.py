"""Which gateway is meant, in the caller's words: made once from the command line, and handed through."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from openclaw_gateway.settings.location import Location, locate

SECRET_FLAGS = ("--token-file", "--password-file")
SECRET_VARIABLES = ("OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD")
PORT_VARIABLE = "OPENCLAW_GATEWAY_PORT"
_FILE_VARIABLES = ("OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH")


class Scope(StrEnum):
    """Which manager's unit is meant."""

    ANY = "any"
    SYSTEM = "system"
    USER = "user"


class Selection(NamedTuple):
    """What was said about the gateway that is meant; made by ``select``. ``None`` is "nothing was said"."""

    environ: Mapping[str, str]
    """The caller's environment, which may name it too."""
    scope: Scope
    profile: str | None
    port: str | None
    state_dir: str | None
    config: str | None
    settings: Mapping[str, str]
    """Other settings that were given for this call: flag to text, without those for secrets."""
    secret_files: Mapping[str, str]
    """``--token-file`` and ``--password-file``, as far as given."""
    where: Location
    """The profile, and the files that the caller's own gateway would have."""
    guard: str | None = None
    """The account whose gateway is guarded by the system's unit that is meant."""

    @property
    def flags(self) -> dict[str, str]:
        """What was given, as ``settings.load`` takes it; secrets are left out, and so unread."""
        place = {
            "--profile": self.profile,
            "--port": self.port,
            "--state-dir": self.state_dir,
            "--config": self.config,
        }
        return {flag: text for flag, text in place.items() if text} | dict(self.settings)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What to say on our own command line to mean the same gateway, quoted for a shell."""
        given = [
            f"{flag}={shlex.quote(text)}"
            for flag, text in self.flags.items()
            if flag not in self.settings
        ]
        if self.guard:
            return (*given, f"--guard={shlex.quote(self.guard)}")
        return (*given, *([] if self.scope is Scope.ANY else [f"--{self.scope.value}"]))

    @property
    def is_placed(self) -> bool:
        """Whether a port, a directory or a file was named, by flag or by variable: that may be any gateway's."""
        return bool(self.port or self.environ.get(PORT_VARIABLE) or self.names_files)

    @property
    def names_files(self) -> bool:
        """Whether the gateway's own files were named."""
        named = (self.environ.get(name) for name in _FILE_VARIABLES)
        return bool(self.state_dir or self.config) or any(named)

    @property
    def names_state(self) -> bool:
        """Whether flags, or without a port among them the environment, lead to one state directory."""
        if self.profile or self.state_dir:
            return True
        if self.port:
            return False
        return self.names_files or bool(self.environ.get("OPENCLAW_PROFILE"))

    @property
    def names_state_dir(self) -> bool:
        """Whether the state directory itself was named."""
        return bool(self.state_dir or self.environ.get("OPENCLAW_STATE_DIR"))

    def at_port(self, port: int) -> Selection:
        """Return the same, at a certain port."""
        return self._replace(port=str(port))


def select(
    environ: Mapping[str, str],
    *,
    scope: Scope = Scope.ANY,
    flags: Mapping[str, str | None] | None = None,
    guard: str | None = None,
) -> Selection:
    """
    Note which gateway is meant, and find its files once.

    Args:
        environ: The caller's environment.
        scope: Whose unit is meant, if that was said.
        flags: The settings' flags of the command line, ``None`` for those not given.
        guard: The account whose guard is meant, which is a unit of the system's.

    Raises:
        ConfigurationError: The profile's name is none.
    """
    given = {flag: text for flag, text in (flags or {}).items() if text is not None}
    where = locate(given, environ)
    return Selection(
        environ=environ,
        scope=Scope.SYSTEM if guard else scope,
        profile=given.pop("--profile", None),
        port=given.pop("--port", None),
        state_dir=given.pop("--state-dir", None),
        config=given.pop("--config", None),
        secret_files={flag: given.pop(flag) for flag in SECRET_FLAGS if flag in given},
        settings=given,
        where=where,
        guard=guard,
    )
