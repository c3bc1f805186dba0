"""argv to verb to exit code; the only ``print`` and the only ``sys.exit`` beside the log."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from errno import EBADF
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from openclaw_gateway import __version__
from openclaw_gateway.errors import ExitCode, GatewayError, UsageError
from openclaw_gateway.settings import foreign
from openclaw_gateway.settings import load as settings
from openclaw_gateway.supervisor.events import Priority

if TYPE_CHECKING:
    from openclaw_gateway.admin.look.selection import Selection
    from openclaw_gateway.admin.report import Report

_SETTING_FLAGS: tuple[tuple[str, str | None, str], ...] = (
    ("--port", "PORT", "port to listen on (default 18789)"),
    ("--bind", "loopback|lan|tailnet|auto|custom", "addresses to listen on (default loopback)"),
    ("--host", "ADDRESS", "listen on this IP address; implies --bind custom"),
    ("--config", "FILE", "configuration file (default: openclaw.json in the state directory)"),
    ("--state-dir", "DIR", "state directory (default ~/.openclaw)"),
    ("--profile", "NAME", "use ~/.openclaw-NAME, for a second gateway on this machine"),
    ("--auth", "none|token|password|trusted-proxy", "what clients must present (default token)"),
    ("--token-file", "FILE", "read the token from FILE, mode 0600"),
    ("--password-file", "FILE", "read the password from FILE, mode 0600"),
    ("--lock-timeout", "SECONDS", "how long to wait for a lock (default 5)"),
    ("--health-timeout", "SECONDS", "how long an owner has to get healthy, under systemd (30)"),
    ("--log-level", "LEVEL", "error, warning, notice, info or debug (default info)"),
    ("--standby", None, "wait behind whoever has the port, and take over when it ends"),
)

_ALL_FLAGS = tuple(flag for flag, _, _ in _SETTING_FLAGS)
_NAMING_FLAGS = ("--port", "--config", "--state-dir", "--profile")
"""Those that say which gateway is meant."""

_READER_LEFT = 141
"""What a shell says of a program that SIGPIPE ended: 128 and its number. signal(7)."""


class _Verb(NamedTuple):
    """One verb: its name and help, its own arguments, and what it does."""

    name: str
    help: str
    run: Callable[[argparse.Namespace], int]
    configure: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    flags: Sequence[str] = _ALL_FLAGS
    """Which of the settings' flags it takes."""


def main(argv: Sequence[str] | None = None, *, prog: str = "openclaw-gateway") -> NoReturn:
    """Be ``openclaw-gateway``: parse ``argv`` (default: the process's own), do it, exit."""
    _open_standard_descriptors()
    # A watchdog's SIGABRT then leaves the stack in the journal.
    faulthandler.enable()
    profile, words = _leading_profile(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "run")
    words[1:1] = profile
    try:
        code = _do(words, prog)
        sys.stdout.flush()
    except BrokenPipeError:
        if words[0] == "run":
            raise
        # Who read us, head(1) say, has seen enough; what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _READER_LEFT
    sys.exit(code)


def _do(words: Sequence[str], prog: str) -> int:
    """Do what the words say; return what to exit with."""
    words, guarded = _split(words)
    try:
        foreign.check_verb(words[0])
        if words[1:2] and words[1] in foreign.refused():
            foreign.check({words[1]: ""})  # before a verb, as OpenClaw has "--dev gateway"
        arguments = parser(prog).parse_args(words, argparse.Namespace(command=guarded))
        return int(arguments.do(arguments))
    except SystemExit as end:  # after --help, --version or a usage error, with a number
        return int(end.code or 0)
    except GatewayError as error:
        print(f"openclaw-gateway: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return int(error.exit_code)


def _leading_profile(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cut off ``--profile NAME`` in front of everything else, where OpenClaw has it."""
    match words:
        case ["--profile", name, *rest]:
            return ["--profile", name], rest
        case [word, *rest] if word.startswith("--profile="):
            return [word], rest
    return [], list(words)


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Cut off the program that is to be guarded, which goes through as it is: all behind the first ``--``."""
    if words[0] != "guard" or "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _open_standard_descriptors() -> None:
    """
    Put ``/dev/null`` where one of the descriptors 0 to 2 is closed.

    Else the next lock or socket would be given its number, and messages written into it. POSIX lets
    an implementation do this at each execve(2); Linux does it for set-user-ID programs only.
    """
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno != EBADF:
                raise
            # The lowest free number, so this one: those below it are open by now. open(2).
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def openclaw() -> NoReturn:
    """Be ``openclaw``, whose one verb is ``gateway``: what follows it is ``openclaw-gateway``'s."""
    profile, words = _leading_profile(sys.argv[1:])
    if words[:1] != ["gateway"]:
        print(
            "usage: openclaw [--profile NAME] gateway [VERB] [OPTION]...\n"
            "openclaw: error: this command has the verb gateway only",
            file=sys.stderr,
        )
        sys.exit(ExitCode.USAGE)
    main([*profile, *words[1:]], prog="openclaw gateway")


def openclaw_guard() -> NoReturn:
    """
    Be ``openclaw-guard``: the guard, in the words that OpenClaw puts behind a wrapper of its own.

    ``openclaw gateway install --wrapper PATH`` writes ``ExecStart=PATH gateway --port PORT``.
    """
    match sys.argv[1:]:
        case ["gateway", *options]:
            main(["guard", *options], prog="openclaw-guard")
        case words:
            main(["guard", *words], prog="openclaw-guard")


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the whole command line; ``do`` of what it returns is the verb."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="The OpenClaw gateway: exactly one healthy gateway per port.",
        epilog="Without a verb it runs the gateway. Manual: openclaw-gateway(8).",
    )
    parser.add_argument("--version", action="version", version=f"openclaw-gateway {__version__}")
    # Without a name argparse lays out a usage line to find it, and loads shutil, bz2 and lzma for that.
    verbs = parser.add_subparsers(metavar="VERB", required=True, prog=prog)
    for verb in _VERBS:
        adding = verbs.add_parser(
            verb.name, help=verb.help, description=verb.help, allow_abbrev=False
        )
        for flag, metavar, text in _SETTING_FLAGS:
            if flag not in verb.flags:
                continue
            if metavar is None:
                adding.add_argument(flag, action="store_const", const="yes", help=text, dest=flag)
            else:
                adding.add_argument(flag, metavar=metavar, help=text, dest=flag)
        verb.configure(adding)
        adding.set_defaults(do=verb.run)
    return parser


def _flags(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return what was given of the flags that ``settings.load`` knows."""
    return {flag: getattr(arguments, flag, None) for flag, _, _ in _SETTING_FLAGS}


def _selection(arguments: argparse.Namespace) -> Selection:
    """Return which gateway is meant. Raises ``ConfigurationError`` if the profile's name is none."""
    from openclaw_gateway.admin.look.selection import Scope, select

    return select(
        os.environ,
        scope=Scope(arguments.scope),
        flags=_flags(arguments),
        guard=getattr(arguments, "guard", None),
    )


def _run(arguments: argparse.Namespace) -> int:
    known = (*(flag.name for flag in foreign.TAKEN), *foreign.refused())
    peers = {name: text for name in known if (text := getattr(arguments, name)) is not None}
    own = {name: text for name, text in _flags(arguments).items() if text is not None}
    warnings = foreign.check(own | peers)
    flags = _flags(arguments) | {
        name: text for name, text in peers.items() if name in foreign.SETTING_FLAGS
    }
    environ = os.environ

    def load() -> settings.Settings:
        loaded = settings.load(flags, environ)
        return loaded._replace(warnings=(*warnings, *loaded.warnings))

    from openclaw_gateway import gateway

    return gateway.run(load, environ)


def _guard(arguments: argparse.Namespace) -> int:
    from openclaw_gateway.guard import guard, question

    health = question.OPENCLAW_HEALTH
    if arguments.health_path or arguments.health_body:
        health = question.expecting(arguments.health_path or health.path, arguments.health_body)
    startup: question.Route | None = question.OPENCLAW_STARTUP
    if arguments.startup_path == "none":
        startup = None
    elif arguments.startup_path:
        startup = question.expecting(arguments.startup_path, None)
    options = guard.Options(
        arguments.command,
        health,
        startup,
        arguments.ready_timeout,
        arguments.stop_signal,
        arguments.metrics,
    )
    flags, environ = _flags(arguments), os.environ
    return guard.run(lambda: settings.load(flags, environ, serves=False), environ, options=options)


def _config(arguments: argparse.Namespace) -> ExitCode:
    from openclaw_gateway.admin import config
    from openclaw_gateway.admin.look import view

    flags: Mapping[str, str | None] = _flags(arguments)
    environ: Mapping[str, str] = os.environ
    seen_by = view.of_unit(_selection(arguments))
    if seen_by is not None:
        flags, environ = seen_by.flags, seen_by.environ
        for what in seen_by.unread:
            print(f"openclaw-gateway: warning: not seen: {what}", file=sys.stderr)
    if arguments.check is not None:
        flags = {**flags, "--config": arguments.check}
    found = settings.examine(flags, environ)
    printed = config.report(found, seen_by, as_json=arguments.json)
    if arguments.check is not None and not arguments.json:
        printed = config.check(found, seen_by)
    for line in printed.complaints:
        print(f"{'' if line.startswith('hint: ') else 'openclaw-gateway: '}{line}", file=sys.stderr)
    print("\n".join(printed.lines))
    return ExitCode(printed.exit_code)


def _show(report: Report) -> int:
    """Print what a verb has to say; return what to exit with."""
    print("\n".join(report.lines))
    return report.exit_code


def _status(arguments: argparse.Namespace) -> int:
    from openclaw_gateway.admin import status
    from openclaw_gateway.admin.render import Paint, wants_colour

    paint = Paint(coloured=wants_colour(sys.stdout, os.environ))
    if arguments.cluster:
        from openclaw_gateway.admin import cluster

        report = cluster.report(
            _selection(arguments), wait_s=arguments.wait, as_json=arguments.json, paint=paint
        )
    elif arguments.all:
        report = status.report_all(os.environ, as_json=arguments.json, paint=paint)
    else:
        report = status.report(
            _selection(arguments),
            wait_s=arguments.wait,
            as_json=arguments.json,
            paint=paint,
        )
    return _show(report)


def _probe(arguments: argparse.Namespace) -> int:
    from openclaw_gateway.admin import probe

    report = probe.report(
        _selection(arguments),
        address=arguments.url,
        timeout_s=arguments.timeout,
        as_json=arguments.json,
    )
    return _show(report)


def _doctor(arguments: argparse.Namespace) -> int:
    from openclaw_gateway.admin import doctor
    from openclaw_gateway.admin.render import Paint, wants_colour

    report = doctor.report(
        _selection(arguments),
        as_json=arguments.json,
        fix=arguments.fix,
        paint=Paint(coloured=wants_colour(sys.stdout, os.environ)),
    )
    return _show(report)


def _logs(arguments: argparse.Namespace) -> int:
    from datetime import datetime

    from openclaw_gateway.admin import logs

    if arguments.json and arguments.catalog:
        raise UsageError("--catalog", "with --json there is no text that it could be added to")
    now = datetime.now().astimezone()
    wanted = logs.Wanted(
        _selection(arguments),
        since=logs.parse_since(arguments.since, now=now) if arguments.since else None,
        lines=arguments.lines,
        priority=arguments.priority,
        follow=arguments.follow,
    )
    log = logs.open_log(wanted)
    if not arguments.json:
        # Python ignores SIGPIPE, and a program that is executed inherits that: "logs | head" would not end.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        cursor = logs.first_cursor(log, wanted)
        command = logs.command(log, wanted, explain=arguments.catalog, cursor=cursor)
        os.execvp(command[0], command)
    try:
        for entry in logs.entries(log, wanted):
            print(logs.document(entry), flush=arguments.follow)
    except KeyboardInterrupt:
        return ExitCode.OK
    return ExitCode.OK


def _call(arguments: argparse.Namespace) -> int:
    from openclaw_gateway.admin import call

    report = call.report(
        _selection(arguments),
        method=arguments.method,
        params=arguments.params,
        address=arguments.url,
        fingerprint=arguments.tls_fingerprint,
        timeout_s=arguments.timeout,
        as_json=arguments.json,
    )
    return _show(report)


def _configure_run(parser: argparse.ArgumentParser) -> None:
    """Take the flags that stand in command lines for OpenClaw; --help is about ours only."""
    for flag in foreign.TAKEN:
        if flag.metavar:
            parser.add_argument(flag.name, dest=flag.name, help=argparse.SUPPRESS)
    for name in sorted(foreign.SWITCHES):
        parser.add_argument(
            name, dest=name, action="store_const", const="yes", help=argparse.SUPPRESS
        )


def _configure_guard(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [OPTION]... [-- COMMAND [ARGUMENT]...]"
    parser.add_argument(
        "--ready-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=300.0,
        help="how long the program has to get ready (300)",
    )
    parser.add_argument(
        "--health-path", metavar="PATH", type=_path, help="what to ask it for (/healthz)"
    )
    parser.add_argument(
        "--health-body",
        metavar="TEXT",
        help="what must stand in the answer beside status 200 (OpenClaw's; with --health-path anything)",
    )
    parser.add_argument(
        "--startup-path",
        metavar="PATH",
        type=_path,
        help='what to ask it for until it is ready, or "none" (/startupz)',
    )
    parser.add_argument(
        "--stop-signal",
        metavar="SIGNAL",
        type=_signal,
        default=signal.SIGTERM,
        help="how it is asked to stop (TERM)",
    )
    parser.add_argument(
        "--metrics",
        metavar="FILE",
        type=_textfile,
        help="where to write metrics for node_exporter's textfile collector (nowhere)",
    )
    # As "run" has them: somebody will try.
    parser.add_argument("--host", "--bind", type=_programs_own, help=argparse.SUPPRESS)


def _install_units(arguments: argparse.Namespace) -> int:
    from openclaw_gateway.admin import install

    of_system = arguments.scope == "system" or (arguments.scope == "any" and os.geteuid() == 0)
    print("\n".join(install.report(of_system=of_system, dry_run=arguments.dry_run).lines))
    return ExitCode.OK


def _configure_install(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    for scope, text in (("system", "for the system (root's default)"), ("user", "for yourself")):
        group.add_argument(f"--{scope}", dest="scope", action="store_const", const=scope, help=text)
    parser.set_defaults(scope="any")
    parser.add_argument("--dry-run", action="store_true", help="print the files, write none")


def _configure_scope(parser: argparse.ArgumentParser, *, guards: bool = False) -> None:
    group = parser.add_mutually_exclusive_group()
    for scope, text in (("system", "the system's unit"), ("user", "your own user unit")):
        group.add_argument(
            f"--{scope}", dest="scope", action="store_const", const=scope, help=f"ask about {text}"
        )
    if guards:
        group.add_argument(
            "--guard",
            metavar="ACCOUNT",
            type=_account,
            help="ask about the system's guard of this account's gateway",
        )
    parser.set_defaults(scope="any")


def _configure_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _configure_config(parser: argparse.ArgumentParser) -> None:
    _configure_scope(parser)
    _configure_json(parser)
    parser.add_argument(
        "--check", metavar="FILE", help="only say whether a gateway would start with FILE"
    )


def _configure_status(parser: argparse.ArgumentParser) -> None:
    _configure_scope(parser, guards=True)
    _configure_json(parser)
    parser.add_argument(
        "--wait", metavar="SECONDS", type=_seconds, default=0.0, help="wait until it is healthy"
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--all", action="store_true", help="list every gateway on this host")
    group.add_argument(
        "--cluster",
        action="store_true",
        help="show who is active in its cluster, and who stands by",
    )


def _configure_probe(parser: argparse.ArgumentParser) -> None:
    _configure_scope(parser)
    _configure_json(parser)
    parser.add_argument(
        "--url", metavar="URL", help="ask this address: ws://HOST:PORT or wss://HOST:PORT"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=2.0, help="for the whole of it (2)"
    )


def _configure_doctor(parser: argparse.ArgumentParser) -> None:
    _configure_scope(parser, guards=True)
    _configure_json(parser)
    parser.add_argument(
        "--fix", action="store_true", help="remove lock files that are proven to be left over"
    )


def _configure_logs(parser: argparse.ArgumentParser) -> None:
    _configure_scope(parser, guards=True)
    _configure_json(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("--since", metavar="WHEN", help='from then on: "10min", "09:12", "today"')
    parser.add_argument(
        "-n", "--lines", metavar="COUNT", type=_count, help="the last so many (100 without --since)"
    )
    parser.add_argument(
        "-p", "--priority", metavar="LEVEL", type=_priority, help="this important and more: warning"
    )
    parser.add_argument(
        "-x", "--catalog", action="store_true", help="explain each entry that can be explained"
    )


def _configure_call(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help="such as health, status, logs.tail")
    _configure_scope(parser)
    parser.add_argument("--params", metavar="JSON", help="what to hand to the method")
    parser.add_argument(
        "--url", metavar="URL", help="gateway elsewhere, ws://ADDRESS:PORT or wss://"
    )
    parser.add_argument(
        "--tls-fingerprint",
        metavar="SHA256",
        type=_fingerprint,
        help="the certificate that it must show",
    )
    _configure_json(parser)
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=30.0, help="for the whole of it (30)"
    )


_MAX_LINES = 1_000_000
_DAY_S = 86400


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
    if not 0 < number <= _MAX_LINES:
        raise argparse.ArgumentTypeError(f"must be a number, 1 to {_MAX_LINES}, not {text[:80]!r}")
    return number


def _priority(text: str) -> Priority:
    """Read a priority as journalctl takes it, by number or name, or as --log-level does."""
    named = {level.name.lower(): level for level in Priority} | {"err": Priority.ERROR}
    named |= {str(int(level)): level for level in Priority}
    if text.lower() not in named:
        raise argparse.ArgumentTypeError(
            f"must be error, warning, notice, info or debug, not {text[:80]!r}"
        )
    return named[text.lower()]


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= _DAY_S:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds, 0 to {_DAY_S}, not {text[:80]!r}"
        )
    return number


def _fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if len(digits) == 64 and set(digits) <= set("0123456789abcdef"):
        return digits
    raise argparse.ArgumentTypeError(f"must be 64 hexadecimal digits, not {text[:80]!r}")


def _path(text: str) -> str:
    if text == "none" or (text.startswith("/") and text.isascii() and text.isprintable()):
        return text
    raise argparse.ArgumentTypeError(f"must begin with a slash, not {text[:80]!r}")


def _programs_own(text: str) -> str:
    raise argparse.ArgumentTypeError(
        f'say {text[:80]!r} to the program, behind "--": it listens by itself, and is asked where it does'
    )


def _account(text: str) -> str:
    if text and text[0] != "-" and all(sign.isalnum() or sign in "._-" for sign in text):
        return text
    raise argparse.ArgumentTypeError(f"must be the name of an account, not {text[:80]!r}")


def _textfile(text: str) -> str:
    if text.endswith(".prom") and "\0" not in text:
        return os.path.abspath(text)
    raise argparse.ArgumentTypeError(
        f"must end with .prom, or node_exporter does not read it, not {text[:80]!r}"
    )


def _signal(text: str) -> signal.Signals:
    name = f"SIG{text.upper().removeprefix('SIG')}"
    if name not in signal.Signals.__members__:
        raise argparse.ArgumentTypeError(
            f"must be the name of a signal, such as TERM or QUIT, not {text[:80]!r}"
        )
    return signal.Signals[name]


_VERBS = (
    _Verb("run", "run the gateway in the foreground", _run, _configure_run),
    _Verb(
        "config",
        "check the configuration; show each setting and where it came from",
        _config,
        _configure_config,
    ),
    _Verb(
        "status",
        "show how the gateway is, and what to do about it",
        _status,
        _configure_status,
        _NAMING_FLAGS,
    ),
    _Verb(
        "doctor",
        "check what is known to go wrong, and name a command for each",
        _doctor,
        _configure_doctor,
        _NAMING_FLAGS,
    ),
    _Verb(
        "logs", "show what the journal has of the gateway", _logs, _configure_logs, ("--profile",)
    ),
    _Verb(
        "probe",
        "ask whether a healthy gateway answers; for scripts",
        _probe,
        _configure_probe,
        (*_NAMING_FLAGS, "--host", "--bind"),
    ),
    _Verb("call", "call one method of the running gateway", _call, _configure_call),
    _Verb(
        "guard",
        "run a gateway that somebody else wrote behind our claim: OpenClaw's own, by default",
        _guard,
        _configure_guard,
        (*_NAMING_FLAGS, "--lock-timeout", "--health-timeout", "--log-level", "--standby"),
    ),
    _Verb(
        "install-units",
        "install the units of systemd for a gateway that pip installed",
        _install_units,
        _configure_install,
        (),
    ),
)
