"""The guard: our claim in front, and a program of somebody else's as what is served."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from openclaw_gateway import lifecycle, standby
from openclaw_gateway.claim import claim as claims
from openclaw_gateway.claim.claim import Claim, Start, Step
from openclaw_gateway.claim.decision import Obstacle
from openclaw_gateway.claim.lockfile import Contended
from openclaw_gateway.claim.record import Phase as RecordPhase
from openclaw_gateway.errors import ChildEndedError, ExitCode
from openclaw_gateway.guard import turn
from openclaw_gateway.guard.child import Child, environment
from openclaw_gateway.guard.inspection import Expectation
from openclaw_gateway.guard.question import Route
from openclaw_gateway.guard.rule import Ending, Phase, after_exit
from openclaw_gateway.guard.textfile import Textfile
from openclaw_gateway.guard.watch import Ended, Watch
from openclaw_gateway.host import process, signals
from openclaw_gateway.host.address import url
from openclaw_gateway.host.ports import listening
from openclaw_gateway.settings.load import Settings
from openclaw_gateway.supervisor.events import Event

if TYPE_CHECKING:
    from openclaw_gateway.cluster.tenure import Keeper

_RECORD_PHASE = {
    Phase.STARTING: RecordPhase.STARTING,
    Phase.READY: RecordPhase.READY,
    Phase.STOPPING: RecordPhase.DRAINING,
}


class Options(NamedTuple):
    """What to guard, and how to tell that it is well."""

    command: Sequence[str]
    """The program and its arguments; empty for OpenClaw's gateway."""
    health: Route
    startup: Route | None
    ready_timeout_s: float
    stop_signal: signal.Signals
    metrics: str | None
    """Where to write metrics; ``None`` for none."""


def nobody_listens(start: Start) -> None:
    """
    Make sure that nobody listens on the port, on whatever address, before the child is to.

    Our own gateway finds that out by binding; a child would need seconds and hundreds of megabytes to.
    """
    port = start.settings.port
    while found := listening(port):
        address = found[0].host, port
        start.policy.settle(Contended(Obstacle.LISTENER, address=address))


GUARD: Sequence[Step] = (claims.state_directory, claims.no_node, claims.base_port, nobody_listens)
"""What a guard takes: lock files and listener are the child's, and it takes them itself."""


def run(
    load: Callable[[], Settings], environ: MutableMapping[str, str], *, options: Options
) -> int:
    """
    Start a program behind our claim and watch over it until it ends.

    Args:
        load: Reads the settings.
        environ: The process's environment; systemd's variables are taken out of it.
        options: What to guard.

    Returns:
        What to exit with: as the child did, see ``rule.after_exit``. Whatever happened is logged.
    """
    with (
        lifecycle.begun(environ) as life,
        standby.claimed(life, load, steps=GUARD) as (settings, held),
        _textfile(options, settings, life) as textfile,
        turn.taken(settings.cluster, held, life, textfile) as keeper,
    ):
        guard = _Guard(settings, held, life, options)
        ended = guard.watch(environ, keeper=keeper, textfile=textfile)
        if keeper is not None and (lost := keeper.error()) is not None:
            raise lost
        guard.conclude(ended)
    return life.exit_code


@contextmanager
def _textfile(options: Options, settings: Settings, life: lifecycle.Life) -> Iterator[Textfile]:
    """Keep the file with the guard's metrics up to date until the block is left."""
    textfile = Textfile(
        options.metrics, port=settings.port, vitals=life.supervisor.vitals, journal=life.journal
    )
    with textfile.kept():
        yield textfile


class _Guard:
    """A claim, and the one program that is started behind it."""

    def __init__(
        self, settings: Settings, held: Claim, life: lifecycle.Life, options: Options
    ) -> None:
        self._settings, self._held, self._life, self._options = settings, held, life, options
        openclaw = ("openclaw", "gateway", "run", "--port", str(settings.port))
        self._command = options.command or openclaw
        self._name = os.path.basename(self._command[0])

    def watch(
        self, environ: Mapping[str, str], *, keeper: Keeper | None, textfile: Textfile
    ) -> Ended:
        """Start the program, and see it to its end."""
        settings, options, life = self._settings, self._options, self._life
        child = self._start(environ, fencing_token=keeper.token if keeper is not None else None)
        textfile.started()

        def on_phase(phase: Phase, after_s: float) -> None:
            self._held.publish(_RECORD_PHASE[phase])
            textfile.entered(phase)
            if phase is Phase.READY:
                self._tell_ready(child, after_s)

        watch = Watch(
            child,
            Expectation(
                settings.port,
                options.health,
                options.startup,
                options.ready_timeout_s,
                options.stop_signal,
            ),
            life.supervisor,
            life.journal,
            name=self._name,
            on_phase=on_phase,
            hold=self._held.base_port,
            answer=self._held.answer,
            keeper=keeper,
            textfile=textfile,
        )
        try:
            return watch.until_end()
        except BaseException:
            child.stop()
            raise

    def _start(self, environ: Mapping[str, str], *, fencing_token: int | None) -> Child:
        """Start the child, and let the log and whoever asks for the port's holder know of it."""
        settings, held = self._settings, self._held
        child = Child(
            self._command,
            environment(
                environ,
                port=settings.port,
                state_dir=held.state.path,
                config_path=settings.config_path,
                unit=held.record.unit,
                fencing_token=fencing_token,
            ),
        )
        # Its arguments are left out: a person may have written a secret there.
        self._life.journal.write(
            Event.CHILD_STARTED,
            f"started pid {child.pid} ({self._name}), which is to serve port {settings.port}",
            CHILD_PID=child.pid,
            PORT=settings.port,
            STATE_DIR=held.state.path,
        )
        held.record = held.record._replace(child_pid=child.pid)
        return child

    def _tell_ready(self, child: Child, after_s: float) -> None:
        port, state_dir = self._settings.port, self._held.state.path
        self._life.journal.write(
            Event.CHILD_READY,
            f"pid {child.pid} ({self._name}) is ready on {url('127.0.0.1', port)} "
            f"after {after_s:.2f} s, state directory {state_dir}",
            PORT=port,
            STATE_DIR=state_dir,
            CONFIG_PATH=self._settings.config_path,
            CHILD_PID=child.pid,
        )

    def conclude(self, ended: Ended) -> None:
        """
        End as the child did.

        Raises:
            GatewayLockError: It left for somebody else.
            ChildEndedError: It ended otherwise than by a stop that was asked for.
        """
        port, life = self._settings.port, self._life
        start = claims.begin(
            self._settings, self._held, life.supervisor, life.journal, pause=life.pause
        )
        contended = claims.node_lock(start) is not None or bool(listening(port))
        ending = after_exit(
            ended.phase,
            ended.exit,
            stop_signal=self._options.stop_signal,
            gave_up=ended.gave_up,
            contended=contended,
        )
        if ending is None:
            # Each of these leaves as any start does that finds somebody in its way, or waits for them to go.
            claims.no_node(start)
            nobody_listens(start)
            gone = "exited with 78 for a gateway that has gone since"
            ending = Ending(ExitCode.TEMPORARY, gone)
        stopped = ended.phase is Phase.STOPPING and ending.exit_code == ExitCode.OK
        if not stopped:
            raise ChildEndedError(ending.exit_code, ending.reason, hint=_hint(ended, ending, port))
        if ended.stopped_by is not None:
            life.exit_code = signals.status(ended.stopped_by)


def _hint(ended: Ended, ending: Ending, port: int) -> str:
    """
    Return what a person would look for, ``""`` if nothing helps: a program that is missing, or who has the port now.

    For the latter: a gateway of OpenClaw's that its own service starts ends whoever listens on its port. Nothing that
    we hold keeps it from that.
    """
    if ending.exit_code == ExitCode.CONFIG and ended.exit.code != ExitCode.CONFIG:
        return "its own last line says which: put its directory on the unit's PATH"
    if ended.phase is Phase.STOPPING:
        return ""
    ender = "" if ended.exit.signal is None else "a signal from elsewhere ended it, and "
    for found in listening(port):
        _, who = process.describe_socket(found.inode, uid=found.uid)
        return f"{ender}port {port} is now held by {who}"
    return ""
