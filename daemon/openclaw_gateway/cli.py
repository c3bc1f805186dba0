"""argv to verb to exit code; the only ``print`` and the only ``sys.exit`` beside the log."""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple, NoReturn

from openclaw_gateway import __version__, settings
from openclaw_gateway.errors import ExitCode, GatewayError

_SETTING_FLAGS = (
    ("--port", "PORT", "port to listen on (default 18789)"),
    ("--bind", "loopback|lan|custom", "addresses to listen on (default loopback)"),
    ("--host", "ADDRESS", "listen on this IP address; implies --bind custom"),
    ("--config", "FILE", "configuration file (default: openclaw.json in the state directory)"),
    ("--state-dir", "DIR", "state directory (default ~/.openclaw)"),
    ("--profile", "NAME", "use ~/.openclaw-NAME, for a second gateway on this machine"),
    ("--auth", "none|token|password", "what clients must present (default token)"),
    ("--token-file", "FILE", "read the token from FILE, mode 0600"),
    ("--password-file", "FILE", "read the password from FILE, mode 0600"),
    ("--lock-timeout", "SECONDS", "how long to wait for a lock (default 5)"),
    ("--health-timeout", "SECONDS", "how long an owner has to get healthy, under systemd (30)"),
    ("--log-level", "LEVEL", "error, warning, notice, info or debug (default info)"),
)


class _Verb(NamedTuple):
    """One verb: its name and help, its own arguments, and what it does."""

    name: str
    help: str
    run: Callable[[argparse.Namespace], ExitCode]
    configure: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def main(argv: Sequence[str] | None = None, *, prog: str = "openclaw-gateway") -> NoReturn:
    """Be ``openclaw-gateway``: parse ``argv`` (default: the process's own), do it, exit."""
    # A watchdog's SIGABRT then leaves the stack in the journal.
    faulthandler.enable()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "run")
    arguments = _parser(prog).parse_args(words)
    try:
        sys.exit(arguments.do(arguments))
    except GatewayError as error:
        print(f"openclaw-gateway: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)


def openclaw() -> NoReturn:
    """Be ``openclaw``, whose one verb is ``gateway``: what follows it is ``openclaw-gateway``'s."""
    words = sys.argv[1:]
    if words[:1] != ["gateway"]:
        print("usage: openclaw gateway [VERB] [OPTION]...", file=sys.stderr)
        sys.exit(ExitCode.USAGE)
    main(words[1:], prog="openclaw gateway")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="The OpenClaw gateway: exactly one healthy gateway per port.",
        epilog="Without a verb it runs the gateway. Manual: openclaw-gateway(8).",
    )
    parser.add_argument("--version", action="version", version=f"openclaw-gateway {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in _VERBS:
        adding = verbs.add_parser(
            verb.name, help=verb.help, description=verb.help, allow_abbrev=False
        )
        for flag, metavar, text in _SETTING_FLAGS:
            adding.add_argument(flag, metavar=metavar, help=text, dest=flag)
        verb.configure(adding)
        adding.set_defaults(do=verb.run)
    return parser


def _flags(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return what was given of the flags that ``settings.load`` knows."""
    return {flag: getattr(arguments, flag) for flag, _, _ in _SETTING_FLAGS}


def _run(arguments: argparse.Namespace) -> ExitCode:
    from openclaw_gateway import gateway

    flags, environ = _flags(arguments), os.environ
    return gateway.run(lambda: settings.load(flags, environ), environ)


def _config(arguments: argparse.Namespace) -> ExitCode:
    loaded = settings.load(_flags(arguments), os.environ)
    for warning in loaded.warnings:
        print(f"openclaw-gateway: warning: {warning}", file=sys.stderr)
    for field, origin in sorted(loaded.origins.items()):
        value = attrgetter(field)(loaded)
        shown = "set" if isinstance(value, settings.Secret) else value
        print(f"{field} = {shown}  ({origin})")
    return ExitCode.OK


_VERBS = (
    _Verb("run", "run the gateway in the foreground", _run),
    _Verb("config", "check the configuration; show each setting and where it came from", _config),
)
