"""The life of a supervised process, whatever it serves: settings -> claim -> serve -> release.

What every service needs stands here: settings and signals, READY and the watchdog, reload, stop, and
every error's way out. What is served is handed in as a ``Service``. Small imports: the event loop is
loaded by ``Life.serve``, once the port is ours. A service that can do without one takes what it needs
from ``Life`` and never calls ``serve``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import TYPE_CHECKING, Any, Protocol

from openclaw_gateway import __version__
from openclaw_gateway.claim.claim import Claim
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.errors import (
    ConfigurationError,
    ExitCode,
    GatewayError,
    NotReadyError,
    ShortageError,
    StorageError,
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


class Service(Protocol):
    """What is served on a claimed port: our own server, or a child that is guarded."""

    async def start(self, claim: Claim) -> None:
        """Serve on what was claimed. Raises ``GatewayError`` if that can't be."""

    async def problem(self, *, timeout_s: float) -> str | None:
        """Say within ``timeout_s`` what is wrong; ``None`` earns ``READY=1`` and ``WATCHDOG=1``."""

    def ready(self) -> None:
        """Let clients in: the first answer of ``problem`` was ``None``."""

    def status(self) -> str:
        """Return one line for ``systemctl status``."""

    async def lost(self) -> GatewayError:
        """Wait for what nothing but another process mends, and return it; for ever if all is well."""

    def use(self, settings: Settings) -> None:
        """Work by these settings from now on, or raise and go on as before."""

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """Stop serving, also after half a start; within bounds, and at once when ``hurry`` is set."""


class _StopRequested(Exception):
    """A stop signal came before there was an event loop to take it."""


@contextmanager
def begun(environ: MutableMapping[str, str]) -> Iterator[Life]:
    """
    Begin a life, and see it to its end: whatever ends the block is logged, and becomes ``exit_code``.

    Args:
        environ: The process's environment; systemd's variables are taken out of it.
    """
    # Until the event loop takes them, signals wait: none may strike between a lock and its record.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    life = Life(Supervisor(environ), open_journal(environ))
    try:
        yield life
    except _StopRequested:
        pass
    except GatewayError as error:
        life.give_up(error)
        return
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            life.give_up(ShortageError(os.strerror(error.errno), errno=error.errno))
            return
        from traceback import format_exc

        life.journal.write(Event.FAILED, format_exc())
        life.exit_code = ExitCode.FAILURE
        return
    life.journal.write(Event.STOPPED, "stopped")


class Life:
    """
    One life, from its settings to its exit code.

    Attributes:
        supervisor: Who started us.
        journal: Where sentences go.
        exit_code: What to exit with, once the life is over.
    """

    def __init__(self, supervisor: Supervisor, journal: Journal) -> None:
        self.supervisor, self.journal = supervisor, journal
        self.exit_code = ExitCode.OK

    def settings(self, load: Callable[[], Settings]) -> Settings:
        """Read the settings for the first time, and log what is doubtful. Raises what ``load`` raises."""
        settings = load()
        self.journal.threshold = settings.log_level
        for warning in settings.warnings:
            self.journal.write(Event.CONFIG_DOUBTFUL, warning)
        return settings

    def pause(self, seconds: float) -> None:
        """Sleep, unless and until a stop signal comes, which ends the life. sigtimedwait(2)."""
        if signal.sigtimedwait(_STOP_SIGNALS, seconds):
            raise _StopRequested

    def serve(
        self, service: Service, claim: Claim, settings: Settings, *, load: Callable[[], Settings]
    ) -> None:
        """
        Serve on the claim until told to stop.

        Args:
            service: Not yet started; stopped when this returns or raises.
            claim: Ours.
            settings: By which the claim was made.
            load: Reads the settings anew for a reload, in a thread of its own.

        Raises:
            GatewayError: The service can't serve, or the claim was lost.
        """
        # Heavy imports wait until the port is ours.
        import asyncio

        asyncio.run(self._serve(service, claim, settings, load))

    def give_up(self, error: GatewayError) -> None:
        """Say in the journal and in ``systemctl status`` why the process ends."""
        hint = f"\nhint: {error.hint}" if error.hint else ""
        self.journal.write(
            error.event,
            f"{error}{hint}",
            EXIT_REASON=type(error).__name__,
            EXIT_CODE=int(error.exit_code),
            OWNER_PID=getattr(error, "owner_pid", None),
        )
        self.supervisor.failed(str(error), errno=error.errno)
        self.exit_code = error.exit_code

    async def _serve(
        self, service: Service, claim: Claim, settings: Settings, load: Callable[[], Settings]
    ) -> None:
        """Serve from the first signal that the loop takes to the last goodbye."""
        import asyncio

        stop, hurry, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        with _signals(stop, hurry, reload, self.journal):
            if claim.base_port is not None:
                asyncio.get_running_loop().add_reader(claim.base_port, claim.answer)
            try:
                await _first(
                    stop.wait(), self._watch(service, claim, settings, load=load, reload=reload)
                )
            finally:
                self.supervisor.stopping("stopping: saying goodbye to clients")
                # The record is a courtesy to readers, and no reason to hang up on clients.
                with suppress(StorageError):
                    claim.publish(Phase.DRAINING)
                await service.stop(hurry=hurry)

    async def _watch(
        self,
        service: Service,
        claim: Claim,
        settings: Settings,
        *,
        load: Callable[[], Settings],
        reload: asyncio.Event,
    ) -> None:
        """Start the service, say READY, then watch over it and take reloads until cancelled."""
        from openclaw_gateway.supervisor.watchdog import Watchdog

        await service.start(claim)
        problem = await service.problem(timeout_s=_SELF_CHECK_S)
        if problem:
            raise NotReadyError(problem)
        service.ready()
        claim.publish(Phase.READY)
        self.supervisor.ready(service.status())
        address = url(reachable(settings.host), settings.port)
        self.journal.write(
            Event.STARTED,
            f"openclaw-gateway {__version__} ready on {address} after {_age_s(claim):.2f} s, "
            f"state directory {claim.record.state_dir}",
            PORT=settings.port,
            STATE_DIR=claim.record.state_dir,
            CONFIG_PATH=settings.config_path,
            LOCK_PATH=claim.lock_paths[-1],
        )

        def look() -> None:
            for path in claim.verify():
                self.journal.write(
                    Event.LOCK_RESTORED,
                    f"lock file {path} had been removed; made anew",
                    LOCK_PATH=path,
                )

        watchdog = Watchdog(
            self.supervisor, self.journal, look=look, problem=service.problem, status=service.status
        )
        await _first(
            watchdog.run(),
            self._reloads(service, settings, load=load, wanted=reload),
            _raised(service.lost()),
        )

    async def _reloads(
        self,
        service: Service,
        settings: Settings,
        *,
        load: Callable[[], Settings],
        wanted: asyncio.Event,
    ) -> None:
        """Reload whenever that is wanted, one at a time, until cancelled."""
        while True:
            await wanted.wait()
            wanted.clear()
            self.supervisor.reloading()
            try:
                fresh = load()
                service.use(fresh)
            except (ConfigurationError, StorageError) as error:
                self.journal.write(
                    Event.RELOAD_REFUSED, f"reload refused, the old settings stay: {error}"
                )
            else:
                _report_reload(settings, fresh, self.journal)
            self.supervisor.ready(service.status())


@contextmanager
def _signals(
    stop: asyncio.Event, hurry: asyncio.Event, reload: asyncio.Event, journal: Journal
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
    loop.add_signal_handler(signal.SIGHUP, reload.set)
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


async def _raised(error: Coroutine[Any, Any, GatewayError]) -> None:
    """Raise an error once there is one."""
    raise await error


async def _first(*things: Coroutine[Any, Any, object]) -> None:
    """Wait until one is done, and stop the others; an error of one is ours."""
    import asyncio

    tasks = [asyncio.create_task(thing) for thing in things]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _age_s(claim: Claim) -> float:
    """Return the seconds since this process was started, to a clock tick."""
    started_s = (claim.record.start_ticks or 0) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
