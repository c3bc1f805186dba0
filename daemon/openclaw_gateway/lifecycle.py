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
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from openclaw_gateway import __version__
from openclaw_gateway.claim.claim import Claim
from openclaw_gateway.claim.listener import STORED, Passed
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.errors import (
    ExitCode,
    GatewayError,
    NotReadyError,
    ReloadError,
    ShortageError,
    StorageError,
)
from openclaw_gateway.host import process, signals, thread
from openclaw_gateway.host.address import reachable, url
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import Journal, open_journal
from openclaw_gateway.supervisor.notify import Supervisor

if TYPE_CHECKING:
    import asyncio

    from openclaw_gateway.client.neighbours import Neighbours

T = TypeVar("T")

_SIGNALS = (*signals.ENDINGS, signal.SIGHUP)
_SHORTAGES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)
_SELF_CHECK_S = 10.0
_JOB_S = 0.1
"""Seconds that systemd has to say whether a stop is for a restart; clients wait for their goodbye."""

_RELOAD_S = 30.0
"""Seconds that reading the settings anew may take."""

_COMM = "claw-gateway"
"""
The process's name in ps(1), 15 bytes at most. Not ``openclaw-gateway``: OpenClaw's own gateway ends
every listener on its port whose name contains "openclaw", a healthy one of ours among them.
"""


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

    async def stop(self, *, hurry: asyncio.Event, back_in_s: float | None) -> None:
        """
        Stop serving, also after half a start; within bounds, and at once when ``hurry`` is set.

        ``back_in_s`` is when we are expected to serve again, if this is known to be a restart.
        """


class StopRequested(Exception):
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
    life = Life(Supervisor(environ), open_journal(environ), Passed(environ))
    try:
        # Before any thread is started: each inherits the name of the one that starts it.
        process.take_name(_COMM)
        yield life
    except StopRequested:
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
    finally:
        life.supervisor.finish()
    life.journal.write(Event.STOPPED, "stopped")


class Life:
    """
    One life, from its settings to its exit code.

    Attributes:
        supervisor: Who started us.
        journal: Where sentences go.
        passed: The sockets that systemd handed over, until the claim adopts them.
        exit_code: What to exit with, once the life is over.
        began_s: Since when we come for the port, ``CLOCK_BOOTTIME``: our exec, or for a standby the
            end of the owner that it stood behind.
    """

    def __init__(self, supervisor: Supervisor, journal: Journal, passed: Passed) -> None:
        self.supervisor, self.journal, self.passed = supervisor, journal, passed
        self.exit_code: int = ExitCode.OK
        own = process.facts(os.getpid())
        # To a tick of the kernel's clock.
        self.began_s = (own.start_ticks if own else 0) / os.sysconf("SC_CLK_TCK")
        supervisor.complain = lambda sentence: journal.write(Event.UNHEARD, sentence)

    def settings(self, load: Callable[[], Settings]) -> Settings:
        """Read the settings for the first time, and log what is doubtful. Raises what ``load`` raises."""
        settings = load()
        self.journal.threshold = settings.log_level
        for warning in settings.warnings:
            self.journal.write(Event.CONFIG_DOUBTFUL, warning)
        return settings

    def pause(self, seconds: float) -> None:
        """Sleep, unless and until a stop signal comes, which ends the life. sigtimedwait(2)."""
        came = signal.sigtimedwait(signals.ENDINGS, seconds)
        if came:
            self.stop_on(came.si_signo)
            raise StopRequested

    def stop_on(self, number: int) -> None:
        """Note that a signal ends the life, and with which status."""
        self.exit_code = signals.status(number)
        self.journal.write(Event.STOPPING, f"stopping on {signals.name(number)}")

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
        from openclaw_gateway.supervisor import loop

        serving = _Serving(self, service, claim, settings, load)
        loop.run(serving.run(), delay=self.supervisor.vitals.loop_delay)

    def give_up(self, error: GatewayError) -> None:
        """Say in the journal and in ``systemctl status`` why the process ends."""
        hint = f"\nhint: {error.hint}" if error.hint else ""
        self.journal.write(
            error.event,
            f"{error}{hint}",
            EXIT_REASON=type(error).__name__,
            EXIT_CODE=int(error.exit_code),
            OWNER_PID=getattr(error, "owner_pid", None),
            CLUSTER=getattr(error, "cluster", None),
            FENCING_TOKEN=getattr(error, "fencing_token", None),
        )
        self.supervisor.failed(str(error), errno=error.errno)
        self.exit_code = error.exit_code
        if error.exit_code == ExitCode.CONFIG:
            self.passed.turn_away()


class _Serving:
    """A service on a claimed port, from the first signal that the loop takes to the last goodbye."""

    def __init__(
        self,
        life: Life,
        service: Service,
        claim: Claim,
        settings: Settings,
        load: Callable[[], Settings],
    ) -> None:
        self._supervisor, self._journal, self._life = life.supervisor, life.journal, life
        self._service, self._claim = service, claim
        self._settings, self._load = settings, load
        self._reading = False
        self._started_in_s: float | None = None
        self._neighbours: Neighbours | None = None

    async def run(self) -> None:
        """Serve until told to stop. Raises ``GatewayError`` if that can't be, or no longer."""
        import asyncio

        stop, hurry, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        with _signals(stop, hurry, reload, self._life.stop_on):
            asyncio.get_running_loop().add_reader(self._claim.base_port, self._claim.answer)
            try:
                await _first(stop.wait(), self._live(reload))
            finally:
                self._supervisor.stopping("stopping: saying goodbye to clients")
                # The record is a courtesy to readers, and no reason to hang up on clients.
                with suppress(StorageError):
                    self._claim.publish(Phase.DRAINING)
                back_in_s = await self._back_in_s() if stop.is_set() else None
                await self._service.stop(hurry=hurry, back_in_s=back_in_s)

    async def _back_in_s(self) -> float | None:
        """
        Ask systemd whether a stop is for a restart, and return when we may be expected back.

        That is as long as our own start took; ``None`` if we are not to come back, or nobody told us
        within a moment. Clients are served while we ask.
        """
        unit = self._claim.record.unit
        if unit is None or self._started_in_s is None:
            return None
        from openclaw_gateway.supervisor.job import is_restart

        of_user = process.user_manager_of("self") is not None
        ask = partial(is_restart, unit, of_user=of_user, timeout_s=_JOB_S)
        try:
            restarts = await _in_thread(ask, name="job", timeout_s=_JOB_S)
        except TimeoutError:
            return None
        return self._started_in_s if restarts else None

    async def _live(self, reload: asyncio.Event) -> None:
        """Start the service, say READY, then watch over it and take reloads until cancelled."""
        from openclaw_gateway.client.neighbours import Neighbours
        from openclaw_gateway.supervisor.watchdog import Watchdog

        service, claim, settings = self._service, self._claim, self._settings
        self._keep_listeners()
        await service.start(claim)
        problem = await service.problem(timeout_s=_SELF_CHECK_S)
        if problem:
            raise NotReadyError(problem)
        # Before it is so, for a moment: a service that knows better, as a standby does, has the last word.
        claim.publish(Phase.READY)
        service.ready()
        self._started_in_s = self._age_s()
        self._supervisor.ready(self._status())
        address = url(reachable(settings.host), settings.port, tls=settings.tls is not None)
        self._journal.write(
            Event.STARTED,
            f"openclaw-gateway {__version__} ready on {address} after {self._started_in_s:.2f} s, "
            f"state directory {claim.record.state_dir}",
            PORT=settings.port,
            STATE_DIR=claim.record.state_dir,
            CONFIG_PATH=settings.config_path,
            LOCK_PATH=claim.lock_paths[-1],
        )
        if claim.sockets:  # else whoever listens on our port is our own child
            self._neighbours = Neighbours(settings.port, self._journal, own=self._own_inodes)
        watchdog = Watchdog(
            self._supervisor,
            self._journal,
            look=self._look,
            problem=service.problem,
            status=self._status,
        )
        await _first(watchdog.run(), self._reloads(reload), _raised(service.lost()))

    def _age_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._life.began_s

    def _look(self) -> None:
        """See that the claim is still ours, and who else came to our port. Raises ``ClaimLostError``."""
        for path in self._claim.verify():
            self._supervisor.vitals.locks_restored += 1
            self._journal.write(
                Event.LOCK_RESTORED,
                f"lock file {path} had been removed; made anew",
                LOCK_PATH=path,
            )
        self._keep_listeners()
        if self._neighbours is not None:
            self._neighbours.look()

    def _keep_listeners(self) -> None:
        """
        Have systemd keep our listening sockets for our next start.

        Not if a standby is to take the port when we end: systemd's copies would keep it from that.
        """
        if not self._settings.standby:
            self._supervisor.keep(STORED, self._claim.own_sockets)

    def _own_inodes(self) -> list[int]:
        return [os.fstat(listener.fileno()).st_ino for listener in self._claim.sockets]

    def _status(self) -> str:
        beside = self._neighbours.status() if self._neighbours is not None else ""
        return self._service.status() + beside

    async def _reloads(self, wanted: asyncio.Event) -> None:
        """Reload whenever that is wanted, one at a time, until cancelled."""
        while True:
            await wanted.wait()
            wanted.clear()  # a signal that comes from here on asks for one more
            self._supervisor.reloading()
            try:
                fresh = await self._read()
                self._service.use(fresh)
            except Exception as error:  # READY must follow, whatever a reader stumbles over
                self._journal.write(
                    Event.RELOAD_REFUSED,
                    f"reload refused, the old settings stay: {reason(error)}",
                )
            else:
                _report_reload(self._settings, fresh, self._journal)
            self._supervisor.ready(self._status())

    async def _read(self) -> Settings:
        """
        Read the settings in a thread, so that a slow disk or a huge file holds up nobody.

        Raises:
            ReloadError: It takes too long. The thread is left to itself, as nothing can end it.
            Exception: Whatever reading raised.
        """
        if self._reading:
            raise ReloadError("they are still being read for an earlier reload")

        def read() -> Settings | BaseException:
            try:
                return self._load()
            except BaseException as error:
                return error
            finally:
                self._reading = False

        self._reading = True
        try:
            found = await _in_thread(read, name="reload", timeout_s=_RELOAD_S)
        except TimeoutError:
            raise ReloadError(f"they could not be read within {_RELOAD_S:g} s") from None
        if isinstance(found, BaseException):
            raise ReloadError(reason(found)) from found
        return found


@contextmanager
def _signals(
    stop: asyncio.Event,
    hurry: asyncio.Event,
    reload: asyncio.Event,
    stop_on: Callable[[int], None],
) -> Iterator[None]:
    """
    Have the loop take the signals that waited: the first one stops, a second one hurries.

    Once the loop is left they are ignored: a third one must not keep the locks from being released.
    """
    import asyncio

    def on_stop(number: int) -> None:
        if stop.is_set():
            hurry.set()
            return
        stop_on(number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in signals.ENDINGS:
        loop.add_signal_handler(number, on_stop, number)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        # Threads of extensions may not block them: the kernel would give them one, to die of.
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


async def _in_thread(run: Callable[[], T], *, name: str, timeout_s: float) -> T:
    """
    Run a function, which must see to its own errors, in a thread of its own, and return its result.

    Raises:
        TimeoutError: It takes too long. The thread is left to itself, as nothing can end it.
    """
    import asyncio

    return await asyncio.wait_for(thread.result(run, name=name), timeout_s)


def reason(error: BaseException | None) -> str:
    """Say why something failed; of what was not foreseen, its kind too."""
    if isinstance(error, GatewayError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    # Not its repr: that of an encoding error shows all the text that it was about, secrets included.
    return f"{type(error).__name__}: {error}"


def _report_reload(settings: Settings, fresh: Settings, journal: Journal) -> None:
    """Log a reload, and what of it can't change in a running gateway."""
    journal.threshold = fresh.log_level
    waiting = [
        name
        for name in ("port", "addresses", "state_dir", "config_path", "cluster")
        if getattr(fresh, name) != getattr(settings, name)
    ]
    # Another certificate is shown at once; whether TLS is spoken at all is settled at the start.
    if (fresh.tls is None) != (settings.tls is None):
        waiting.append("tls")
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
