"""The straight line: settings -> claim -> serve -> shutdown, and every error's way out."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import TYPE_CHECKING, Any

from openclaw_gateway import __version__
from openclaw_gateway.claim import claim
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.errors import (
    ClaimLostError,
    ConfigurationError,
    ExitCode,
    GatewayError,
    GatewayLockError,
    ShortageError,
    StorageError,
    UnreadableError,
)
from openclaw_gateway.host.address import reachable, url
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal, open_journal
from openclaw_gateway.supervisor.notify import Supervisor

if TYPE_CHECKING:
    import asyncio

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_STOP_SIGNALS, signal.SIGHUP)
_SHORTAGES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)
_SELF_CHECK_S = 10.0


class _StopRequested(Exception):
    """A stop signal came before there was an event loop to take it."""


def run(load: Callable[[], Settings], environ: MutableMapping[str, str]) -> ExitCode:
    """
    Be the gateway until told to stop.

    Args:
        load: Reads the settings; called again on each reload.
        environ: The process's environment; systemd's variables are taken out of it.

    Returns:
        What to exit with. Whatever happened is logged.
    """
    # Until the event loop takes them, signals wait: none may strike between a lock and its record.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    supervisor = Supervisor(environ)
    journal = open_journal(environ)
    try:
        settings = load()
        journal.threshold = settings.log_level
        for warning in settings.warnings:
            journal.write(Event.CONFIG_DOUBTFUL, warning)
        with claim.acquire(settings, supervisor, journal, environ=environ, pause=_pause) as held:
            # Heavy imports wait until the port is ours.
            import asyncio

            asyncio.run(_serve(settings, held, supervisor, journal, load))
    except _StopRequested:
        pass
    except GatewayError as error:
        return _give_up(error, supervisor, journal)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            return _give_up(
                ShortageError(os.strerror(error.errno), errno=error.errno), supervisor, journal
            )
        from traceback import format_exc

        journal.write(Event.FAILED, format_exc())
        return ExitCode.FAILURE
    journal.write(Event.STOPPED, "stopped")
    return ExitCode.OK


def _pause(seconds: float) -> None:
    """Sleep, unless and until a stop signal comes. sigtimedwait(2)."""
    if signal.sigtimedwait(_STOP_SIGNALS, seconds):
        raise _StopRequested


def _give_up(error: GatewayError, supervisor: Supervisor, journal: Journal) -> ExitCode:
    """Say in the journal and in ``systemctl status`` why the process ends."""
    match error:
        case GatewayLockError(exit_code=ExitCode.CONFIG):
            event = Event.DUPLICATE
        case GatewayLockError():
            event = Event.LOCK_FAILED
        case UnreadableError(exit_code=ExitCode.FAILURE):
            event = Event.FAILED
        case UnreadableError():
            event = Event.STORAGE_UNUSABLE
        case ConfigurationError():
            event = Event.CONFIG_INVALID
        case StorageError():
            event = Event.STORAGE_UNUSABLE
        case ClaimLostError():
            event = Event.CLAIM_LOST
        case _:
            event = Event.FAILED
    hint = f"\nhint: {error.hint}" if error.hint else ""
    journal.write(
        event,
        f"{error}{hint}",
        EXIT_REASON=type(error).__name__,
        EXIT_CODE=int(error.exit_code),
        OWNER_PID=getattr(error, "owner_pid", None),
    )
    supervisor.failed(str(error), errno=error.errno)
    return error.exit_code


async def _serve(
    settings: Settings,
    held: claim.Claim,
    supervisor: Supervisor,
    journal: Journal,
    load: Callable[[], Settings],
) -> None:
    """Serve on the claimed sockets from READY to the last goodbye."""
    import asyncio

    from openclaw_gateway.server.auth import resolve_token
    from openclaw_gateway.server.http import Server
    from openclaw_gateway.supervisor.watchdog import Watchdog, answers

    host, port = reachable(settings.host), settings.port
    address = url(settings.host, port)
    settings = resolve_token(settings, settings.state_dir, journal)
    server = Server(settings, held.record, journal, failing=lambda: _failing(settings.state_dir))

    def status() -> str:
        return f"ready on {address}, {len(server.clients)} clients"

    stop, hurry = asyncio.Event(), asyncio.Event()

    def reload() -> None:
        if stop.is_set():  # READY=1 would contradict STOPPING=1
            return
        supervisor.reloading()
        try:
            fresh = resolve_token(load(), settings.state_dir, journal)
        except (ConfigurationError, StorageError) as error:
            journal.write(Event.RELOAD_REFUSED, f"reload refused, the old settings stay: {error}")
        else:
            server.use(fresh)
            _report_reload(settings, fresh, journal)
        supervisor.ready(status())

    with _signals(stop, hurry, reload, journal):
        if held.base_port is not None:
            asyncio.get_running_loop().add_reader(held.base_port, held.answer)
        await server.start(held.sockets)
        if not await answers(host, port, timeout_s=_SELF_CHECK_S):
            raise GatewayError(f"our own {address}/healthz did not answer in {_SELF_CHECK_S:g} s")
        server.phase = Phase.READY
        held.publish(Phase.READY)
        supervisor.ready(status())
        journal.write(
            Event.STARTED,
            f"openclaw-gateway {__version__} ready on {address} after {_age_s(held):.2f} s, "
            f"state directory {held.record.state_dir}",
            PORT=port,
            STATE_DIR=held.record.state_dir,
            CONFIG_PATH=settings.config_path,
            LOCK_PATH=held.lock_paths[-1],
        )
        watchdog = Watchdog(held, supervisor, journal, status=status)
        try:
            await _first(stop.wait(), watchdog.run(host, port))
        finally:
            supervisor.stopping("stopping: saying goodbye to clients")
            # The record is a courtesy to readers, and no reason to hang up on clients.
            with suppress(StorageError):
                held.publish(Phase.DRAINING)
            await server.stop(hurry=hurry)


@contextmanager
def _signals(
    stop: asyncio.Event, hurry: asyncio.Event, reload: Callable[[], None], journal: Journal
) -> Iterator[None]:
    """
    Have the loop take the signals that waited: the first one stops, a second one hurries.

    Once the loop is left they wait again: a third one must not keep the locks from being released.
    """
    import asyncio

    def on_stop(name: str) -> None:
        if stop.is_set():
            hurry.set()
            return
        journal.write(Event.STOPPING, f"stopping on {name}")
        stop.set()

    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_stop, number.name)
    loop.add_signal_handler(signal.SIGHUP, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _report_reload(settings: Settings, fresh: Settings, journal: Journal) -> None:
    """Log a reload, and what of it can't change in a running gateway."""
    journal.threshold = fresh.log_level
    waiting = [
        name
        for name in ("port", "host", "state_dir", "config_path")
        if getattr(fresh, name) != getattr(settings, name)
    ]
    note = f"; a change of {', '.join(waiting)} waits for a restart" if waiting else ""
    journal.write(Event.RELOADED, f"settings reloaded from {fresh.config_path}{note}")


async def _first(*things: Coroutine[Any, Any, object]) -> None:
    """Wait until one is done, and stop the others; an error of one is ours."""
    import asyncio

    tasks = [asyncio.create_task(thing) for thing in things]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


def _failing(state_dir: str) -> list[str]:
    """Return what keeps us from doing our work: a state directory that takes no data."""
    try:
        space = os.statvfs(state_dir)
    except OSError:
        return ["state-directory"]
    full = space.f_bavail == 0 or (space.f_files and space.f_favail == 0)
    return ["state-directory"] if full or not os.access(state_dir, os.W_OK) else []


def _age_s(held: claim.Claim) -> float:
    """Return the seconds since this process was started, to a clock tick."""
    started_s = (held.record.start_ticks or 0) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
