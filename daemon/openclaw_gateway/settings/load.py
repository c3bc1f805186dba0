"""
All settings, from their files, the environment and flags, into one immutable value that says where each part came from.

``examine`` is the way there, stage by stage: location, documents with their includes, variables, values,
secrets, and what follows from them. A stage that finds something wrong says so and goes on.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.host import interfaces
from openclaw_gateway.settings import keys as known_keys
from openclaw_gateway.settings import references
from openclaw_gateway.settings.cluster import settle_cluster
from openclaw_gateway.settings.environment import (
    Environment,
    add_config_variables,
    add_env_files,
    refers,
    substitute,
    unset_references,
)
from openclaw_gateway.settings.includes import (
    MISSING,
    ROOTS_VARIABLE,
    Merged,
    look_up,
    resolve,
)
from openclaw_gateway.settings.keys import (
    CLIENT_SECRETS,
    KEYS,
    LIMIT_NAMES,
    SECRETS,
    Key,
    bind_alias,
    credential,
)
from openclaw_gateway.settings.location import (
    DEFAULT,
    Location,
    Origin,
    absolute,
    locate,
    profile_port,
)
from openclaw_gateway.settings.model import Address, AuthMode, Bind, Cluster, Limits, Settings, Tls
from openclaw_gateway.settings.settle import (
    Candidate,
    Surroundings,
    settle_addresses,
    settle_auth,
    settle_tls,
)
from openclaw_gateway.settings.sources import (
    Secret,
    Text,
    as_object,
    read_secret,
    read_text,
)
from openclaw_gateway.settings.values import UnfitError, port_in_variable, secret

__all__ = [
    "LIMIT_NAMES", "TOKEN_FILE", "Address", "AuthMode", "Bind", "Cluster", "Examined", "Limits",
    "Settings", "Tls", "examine", "load",
]  # fmt: skip

TOKEN_FILE = "gateway.token"
"""In the state directory: the token that is made at the first start if none is configured."""

CLUSTER_VARIABLE = "OPENCLAW_GATEWAY_CLUSTER_PASSWORD"
_MULTIPLE = "OPENCLAW_ALLOW_MULTI_GATEWAY"
_CONFIG_VARIABLE = "OPENCLAW_CONFIG_PATH"
_SHELL_VARIABLE = "OPENCLAW_LOAD_SHELL_ENV"
_YEAR = 2026
"""Of the release of OpenClaw whose settings these are."""
_MAX_REDIRECTIONS = 4

AROUND = Surroundings(interfaces.own_ipv4, interfaces.is_container)


class Examined(NamedTuple):
    """What is known of a gateway's settings, right or wrong: one that is wrong throws away no other."""

    settings: Settings | None
    """All of them, if a gateway would start with them."""
    values: Mapping[str, Any]
    """Every field of ``Settings``, of ``Limits`` as ``limits.<field>``: as it is, or its default if it is wrong."""
    origins: Mapping[str, Origin]
    """By the same names."""
    problems: tuple[ConfigurationError, ...]
    """Why a gateway would not start, the weightiest first."""
    warnings: tuple[str, ...]
    location: Location


def load(
    flags: Mapping[str, str | None], environ: Mapping[str, str], *, serves: bool = True
) -> Settings:
    """
    Read and check every setting.

    Args:
        flags: Flag (``--port``) to the text given; absent or ``None`` if not given. Besides those of
            single settings: ``--config``, ``--state-dir``, ``--profile``, ``--token-file``, ``--password-file``.
        environ: The process's environment.
        serves: See ``examine``.

    Returns:
        Checked settings.

    Raises:
        ConfigurationError: Something is wrong; names the file with line, column and key, the flag or the variable.
        UnreadableError: A file can't be read for a reason that is not its own.
    """
    found = examine(flags, environ, serves=serves)
    if found.settings is None:
        raise found.problems[0]
    return found.settings


def examine(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    serves: bool = True,
    around: Surroundings = AROUND,
    working_dir: str | None = None,
) -> Examined:
    """
    Read and check every setting, and go on where one is wrong.

    Args:
        flags: As for ``load``.
        environ: The environment of the gateway's process.
        serves: Whether the listener will be ours. If not, as of a gateway that is guarded, how it
            admits clients is its own business: secrets, TLS and unknown keys are neither read nor judged.
        around: The machine's addresses, and whether it is a container.
        working_dir: Where a ``.env`` file may be; ``None`` is the process's working directory.

    Raises:
        ConfigurationError: The profile's name is none, or there is no home directory and one is needed, so
            that nothing says which gateway is meant.
    """
    given = {flag: text for flag, text in flags.items() if text}
    work = _Examination(given, environ, around, working_dir or _working_dir())
    work.read(serves=serves)
    work.settle(serves=serves)
    return work.result()


def _working_dir() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return "/"


class _Examination:
    """Settings on their way, stage by stage."""

    def __init__(
        self,
        flags: Mapping[str, str],
        environ: Mapping[str, str],
        around: Surroundings,
        working_dir: str,
    ) -> None:
        self._flags, self._around = flags, around
        self._environ = environ
        self.where = locate(flags, environ)
        self._problems: list[ConfigurationError] = []
        self._warnings: list[str] = list(self.where.warnings)
        self._environment = Environment(environ)
        add_env_files(self._environment, self.where, working_dir=working_dir)
        self._values: dict[str, Any] = {}
        self._origins: dict[str, Origin] = {}
        self._document = self._own = Merged({}, ())

    # Stage: documents, variables

    def read(self, *, serves: bool) -> None:
        """Read both files, with what they include and the variables that they set."""
        tried: set[str] = set()
        redirected = self._environment.with_added((_CONFIG_VARIABLE,))
        for _ in range(_MAX_REDIRECTIONS):
            # A .env file may name another configuration file, and so may that file's env.vars.
            self.where = locate(self._flags, redirected)
            tried.add(self.where.config_path)
            self._document = self._read_document()
            redirected = self._environment.with_added((_CONFIG_VARIABLE,))
            if locate(self._flags, redirected).config_path in tried:
                break
        self._own = self._read_own()
        for finding in self._oddities() if serves else ():
            if isinstance(finding, ConfigurationError):
                self._problems.append(finding)
            else:
                self._warnings.append(finding)

    def _read_document(self) -> Merged:
        where = self.where
        # With the flag no file is fine, and a link to nothing is no file.
        unconfigured = "--allow-unconfigured" in self._flags and not os.path.exists(
            where.config_path
        )
        document = Merged({}, ())
        with self._noting():
            text = None
            if not unconfigured:
                text = read_text(
                    where.config_path, required=where.config_required, state_dir=where.state_dir
                )
            if text is not None:
                as_object(text)
                roots = self._environment.get(ROOTS_VARIABLE)
                paths = roots.value.split(":") if roots else []
                document = resolve(
                    text,
                    roots=[
                        absolute(path, where.home, roots.origin) for path in paths if path and roots
                    ],
                )
                if not isinstance(document.value, dict):
                    as_object(Text(text.path, b"null", text.info))
        with self._noting():
            self._warnings += add_config_variables(self._environment, document)
        return document

    def _read_own(self) -> Merged:
        with self._noting():
            text = read_text(self.where.own_path, required=False)
            if text is not None:
                as_object(text)
                return resolve(text)
        return Merged({}, ())

    def _oddities(self) -> Iterable[ConfigurationError | str]:
        """Yield what is wrong with the documents as such, apart from single values."""
        document = self._document
        if document.layers:
            yield from known_keys.document_problems(document)
        if self._own.layers:
            yield from known_keys.own_document_problems(self._own)
        yield from unset_references(document, self._environment)
        for keys in (("gateway", "mode"),):
            mode = look_up(document.value, keys)
            if mode == "remote":
                yield document.origin(keys).error(
                    'is "remote": this machine is to use a gateway elsewhere, and not to run one',
                    hint='set it to "local" to run one',
                )
            elif mode is not MISSING and mode != "local":
                yield document.origin(keys).error('must be "local" or "remote"')
        yield from self._newer()
        yield from self._readable_secrets()

    def _newer(self) -> Iterable[ConfigurationError]:
        """Refuse a file of a release that may mean other things by the same keys; OpenClaw does from the next release on."""
        keys = ("meta", "lastTouchedVersion")
        version = look_up(self._document.value, keys)
        year = version.partition(".")[0] if isinstance(version, str) else ""
        if year.isascii() and year.isdecimal() and len(year) < 9 and int(year) > _YEAR:
            yield self._document.origin(keys).error(
                f"the file was written by OpenClaw {version[:20]}, and this gateway knows those of {_YEAR}",
                hint="install a newer openclaw-gateway, or name a file of its own with --config",
            )

    def _readable_secrets(self) -> Iterable[str]:
        """Warn of a secret written into a file that everyone may read."""
        for merged, keys in (
            (self._document, ("gateway", "auth", "token")),
            (self._document, ("gateway", "auth", "password")),
            (self._document, ("gateway", "cluster", "password")),
            (self._own, ("cluster", "password")),
        ):
            value = look_up(merged.value, keys)
            if not isinstance(value, str) or refers(value):
                continue
            if substitute(value, self._environment).through or references.is_reference(value):
                continue
            origin = merged.origin(keys)
            for layer in merged.layers:
                mode = stat.S_IMODE(layer.text.info.st_mode)
                if origin.source == layer.text.path and mode & stat.S_IROTH:
                    yield (
                        f"{layer.text.path}: everyone may read {origin.name} in it "
                        f"(mode {mode:04o}): chmod 600"
                    )

    # Stage: values

    def settle(self, *, serves: bool) -> None:
        """Read every value, and draw the conclusions."""
        values, origins = self._values, self._origins
        multiple = self._environ.get(_MULTIPLE) == "1"
        where = self.where
        for field, value, origin in (
            ("profile", where.profile, where.profile_origin),
            ("state_dir", where.state_dir, where.state_origin),
            ("config_path", where.config_path, where.config_origin),
            ("own_path", where.own_path, where.config_origin),
            ("allow_multiple", multiple, Origin("variable", _MULTIPLE) if multiple else DEFAULT),
        ):
            values[field], origins[field] = value, origin
        for key in KEYS:
            values[key.field], origins[key.field] = key.default, DEFAULT
            with self._noting():
                values[key.field], origins[key.field] = self._value(key)
        self._settle_port()
        for key in SECRETS:
            values[key.field], origins[key.field] = None, DEFAULT
        with self._noting():
            settle_addresses(values, origins, self._around)
        with self._noting():
            settle_tls(values, origins, where)
        values["cluster"], origins["cluster"] = None, DEFAULT
        with self._noting():
            self._settle_cluster()
        if not serves:
            values["auth_mode"] = values["auth_mode"] or AuthMode.TOKEN
            return
        with self._noting():
            settle_auth(
                values,
                origins,
                self._candidates(),
                mode_in_file=look_up(self._document.value, ("gateway", "auth", "mode"))
                is not MISSING,
                shell_lends=self._shell_lends(),
            )

    def _value(self, key: Key) -> tuple[Any, Origin]:
        """Take one setting from the strongest source that has it, and say which that was."""
        if key.flag and key.flag in self._flags:
            origin = Origin("flag", key.flag)
            return _parsed(key.parse, self._flags[key.flag], origin), origin
        if key.own_path:
            keys = tuple(key.own_path.split("."))
            value = look_up(self._own.value, keys)
            if value is not MISSING:
                origin = self._own.origin(keys)
                return _parsed(key.parse_file or key.parse, value, origin), origin
        keys = tuple(key.path.split(".")) if key.path else ()
        value = look_up(self._document.value, keys)
        if value is MISSING or not keys:
            return key.default, DEFAULT
        origin = self._document.origin(keys)
        if key.own_path:
            self._warnings.append(
                f"{origin}: belongs into {self.where.own_path}, as {key.own_path}: "
                "OpenClaw does not start with it"
            )
        if isinstance(value, str):
            replaced = substitute(value, self._environment)
            value = replaced.text
            origin = self._document.origin(keys)
            origin.through = replaced.through
        if key.field == "bind" and bind_alias(value):
            instead = bind_alias(value)
            self._warnings.append(f'{origin}: write "{instead}" instead of {json.dumps(value)}')
        return _parsed(key.parse_file or key.parse, value, origin), origin

    def _settle_port(self) -> None:
        """Let a variable go before the file, and a profile's own port before the default."""
        values, origins = self._values, self._origins
        if origins["port"].source == "flag":
            return
        variable = self._environment.get("OPENCLAW_GATEWAY_PORT")
        port = port_in_variable(variable.value) if variable else None
        if variable and port:
            values["port"], origins["port"] = port, variable.origin
            return
        if values["port"] is None:
            self._warnings.append(
                f"{origins['port']}: no port, 1 to 65535, and passed over: the default counts"
            )
            values["port"], origins["port"] = 18789, DEFAULT
        if origins["port"] == DEFAULT and self.where.profile:
            values["port"] = profile_port(self.where.profile)
            origins["port"] = Origin("profile", self.where.profile)

    def _settle_cluster(self) -> None:
        """Settle what stands in ``cluster``, if there is such an object in either file."""
        asked_for = next(
            (
                merged.origin(keys)
                for merged, keys in (
                    (self._own, ("cluster",)),
                    (self._document, ("gateway", "cluster")),
                )
                if look_up(merged.value, keys) is not MISSING
            ),
            None,
        )
        if asked_for is None or any(self._is_about(p, "cluster") for p in self._problems):
            return
        self._warnings += settle_cluster(
            self._values,
            self._origins,
            asked_for=asked_for,
            password=self._cluster_password,
            absolute=lambda path, origin: absolute(path, self.where.home, origin),
            host_name=self._around.host_name(),
        )

    def _is_about(self, problem: ConfigurationError, section: str) -> bool:
        """Whether a value is wrong that is of a section, so that its default stands for it."""
        return f"{problem.key}.".removeprefix("gateway.").startswith(f"{section}.")

    def _cluster_password(self) -> tuple[Secret, Origin] | None:
        """Return etcd's password: a credential before a file, the settings and the variable."""
        path = self._values["cluster.password_path"]
        origin = self._origins["cluster.password_path"]
        for candidate in self._handed_over("cluster.password"):
            return candidate.read()
        if path:
            path = absolute(path, self.where.home, origin)
            secret = read_secret(origin.source, origin.name, path, private=True)
            return secret, origin.by_way_of(f"file {path}")
        for merged, keys in (
            (self._own, ("cluster", "password")),
            (self._document, ("gateway", "cluster", "password")),
        ):
            for candidate in self._written(keys, merged):
                return candidate.read()
        for candidate in self._from_variable(CLUSTER_VARIABLE):
            return candidate.read()
        return None

    # Stage: secrets

    def _candidates(self) -> dict[str, list[Candidate]]:
        """Return for each kind of secret what there is, the strongest first; nothing is read but what is at hand."""
        found: dict[str, list[Candidate]] = {}
        for key in CLIENT_SECRETS:
            kind = key.field
            found[kind] = [
                *self._given(kind),
                *self._written(("gateway", "auth", kind), self._document),
                *self._from_variable(f"OPENCLAW_GATEWAY_{kind.upper()}"),
                *self._written(("gateway", "remote", kind), self._document),
            ]
        return found

    def _given(self, kind: str) -> Iterable[Candidate]:
        """Yield what flags and systemd's credentials give."""
        flag = f"--{kind}"
        if self._flags.get(flag, "").strip():
            self._warnings.append(
                f"flag {flag}: every account can read it in the list of processes; use {flag}-file"
            )
            yield _ready(self._flags[flag], Origin("flag", flag))
        if f"{flag}-file" in self._flags:
            yield _in_file(
                self._flags[f"{flag}-file"], Origin("flag", f"{flag}-file"), private=True
            )
        yield from self._handed_over(kind)

    def _handed_over(self, field: str) -> Iterable[Candidate]:
        """Yield systemd's credential for a secret, if there is one."""
        directory = self._environ.get("CREDENTIALS_DIRECTORY")
        name = credential(field)
        path = os.path.join(directory, name) if directory else ""
        if path and os.path.exists(path):
            # systemd guards that directory itself: mode 0400, or 0440 with an access list from 257 on.
            yield _in_file(path, Origin("credential", name), private=False)

    def _from_variable(self, name: str) -> Iterable[Candidate]:
        variable = self._environment.get(name)
        if variable:
            yield _ready(variable.value, variable.origin)

    def _written(self, keys: tuple[str, ...], document: Merged) -> Iterable[Candidate]:
        """Yield the secret that stands in a document, or what it refers to."""
        environment = self._environment
        value = look_up(document.value, keys)
        if value is MISSING:
            return
        origin = document.origin(keys)
        in_document = keys[1] == "auth"
        unset: tuple[str, ...] = ()
        if isinstance(value, str):
            replaced = substitute(value, environment)
            value, unset, origin.through = replaced.text, replaced.unset, replaced.through
        if references.is_reference(value):
            with self._noting():
                references.check(value, origin)
                yield Candidate(origin, lambda: self._followed(value, origin), in_document, unset)
            return
        if not isinstance(value, str):
            self._problems.append(origin.error("must be a string, or an object that refers to one"))
            return
        yield _ready(value, origin)._replace(in_document=in_document, unset=unset)

    def _followed(self, value: Any, origin: Origin) -> tuple[Secret, Origin]:
        text, found = references.follow(
            value, origin, self._document, self._environment, home=self.where.home
        )
        return _parsed(secret, text, found), found

    def _shell_lends(self) -> Origin | None:
        """Return where it says that the login shell's variables are to be used."""
        keys = ("env", "shellEnv", "enabled")
        if look_up(self._document.value, keys) is True:
            return self._document.origin(keys)
        variable = self._environment.get(_SHELL_VARIABLE)
        if variable and variable.value.strip().lower() in ("1", "true", "yes", "on"):
            return variable.origin
        return None

    # The end

    def _noting(self) -> _Noting:
        return _Noting(self._problems)

    def result(self) -> Examined:
        """Return what was found."""
        settings = None
        if not self._problems:
            limits = {field: self._values[f"limits.{field}"] for field in Limits._fields}
            rest = {
                field: self._values[field]
                for field in Settings._fields
                if field not in ("limits", "origins", "warnings")
            }
            settings = Settings(
                **rest,
                limits=Limits(**limits),
                origins=self._origins,
                warnings=tuple(self._warnings),
            )
        return Examined(
            settings,
            self._values,
            self._origins,
            tuple(self._problems),
            tuple(self._warnings),
            self.where,
        )


class _Noting:
    """Notes an error of the settings that ends the block, and goes on after it."""

    def __init__(self, problems: list[ConfigurationError]) -> None:
        self._problems = problems

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, ConfigurationError):
            return False
        self._problems.append(error)
        return True


def _ready(text: str, origin: Origin) -> Candidate:
    """Return a secret that is at hand."""
    return Candidate(origin, lambda: (_parsed(secret, text, origin), origin))


def _in_file(path: str, origin: Origin, *, private: bool) -> Candidate:
    """Return a secret that is the whole of a file."""
    return Candidate(
        origin, lambda: (read_secret(origin.source, origin.name, path, private=private), origin)
    )


def _parsed(parse: Callable[[object], Any], value: object, origin: Origin) -> Any:
    try:
        return parse(value)
    except UnfitError as error:
        shown = None if parse is secret else json.dumps(value, default=str)
        raise origin.error(error.about(shown)) from None
