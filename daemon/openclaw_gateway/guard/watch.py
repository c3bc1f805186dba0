"""
The guard's loop: one poll(2) over what can happen, and a look at the child whenever one is due.

No event loop and no second thread: a child that is to die with us must be started by a thread that
lives as long as we do, and a guard is to cost little beside what it guards.
"""

from __future__ import annotations

import math
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from openclaw_gateway.client.answer import Health
from openclaw_gateway.guard.child import Child
from openclaw_gateway.guard.inspection import Expectation, Inspector, Neighbours
from openclaw_gateway.guard.rule import Action, Exit, Look, Phase, after_look
from openclaw_gateway.guard.textfile import Textfile
from openclaw_gateway.host import signals
from openclaw_gateway.host.address import url
from openclaw_gateway.supervisor.events import DEGRADED_STATUS, Event
from openclaw_gateway.supervisor.journal import Journal
from openclaw_gateway.supervisor.notify import Supervisor

_STARTING_PAUSE_S = 0.25
"""Seconds between two looks at a child that is not ready: a look costs 2 ms while nothing listens."""
_DEGRADED_PAUSE_S = 5.0
_UNWATCHED_PAUSE_S = 20.0
"""Seconds between two looks where systemd watches nothing."""
_EXTEND_EVERY_S = 5.0
_EXTENSION_S = 15.0
"""What systemd is asked for each time: three times as long as until we ask again."""
_STARTING_ANSWER_S = 2.0
_READY_ANSWER_S = 10.0
"""Seconds that a probe waits. A busy gateway is asked again rather than waited for."""

_SIGNALS = (*signals.ENDINGS, signal.SIGHUP, signal.SIGCHLD)
"""The first of these stop the child, by its own stop signal. OpenClaw's gateway would open a debugger on SIGUSR1."""


class Turn(Protocol):
    """The host's tenure in its cluster, without which the child may not run."""

    @property
    def due_s(self) -> float:
        """Return when to ``advance``, on CLOCK_MONOTONIC."""

    @property
    def hurry_in_s(self) -> float:
        """Return the seconds until a child that still runs must be ended at once."""

    def advance(self) -> None:
        """Do what is due; may wait for some seconds."""

    def fade(self) -> None:
        """Take note that a stop was asked for."""

    def error(self) -> Exception | None:
        """Return why the child may not go on; ``None`` while it may."""


class Asked(Protocol):
    """The hold on the base port, which answers whoever asks for its holder."""

    def fileno(self) -> int:
        """Return the descriptor, readable when someone asks."""


class Ended(NamedTuple):
    """How it all ended."""

    phase: Phase
    """Where the child was."""
    exit: Exit
    gave_up: bool
    """Whether we stopped it, as it was not ready in time."""
    stopped_by: int | None = None
    """The signal that had us stop it; ``None`` if none had."""


class Watch:
    """The life of one child, from its start to its end."""

    def __init__(
        self,
        child: Child,
        expectation: Expectation,
        supervisor: Supervisor,
        journal: Journal,
        *,
        name: str,
        on_phase: Callable[[Phase, float], None],
        hold: Asked,
        answer: Callable[[], None],
        textfile: Textfile,
        keeper: Turn | None = None,
    ) -> None:
        """
        Begin.

        Args:
            child: What was started.
            expectation: What it must show.
            supervisor: Told of readiness, pings and states.
            journal: Told of what a person should know.
            name: The child's command, for people.
            on_phase: Called with each new phase, and the seconds since the child was started.
            hold: The base port's.
            answer: Answers those who ask for the base port's holder.
            textfile: Shows what each look found.
            keeper: Keeps the tenure; ``None`` without a cluster. With one, READY has been said by the standby.
        """
        self._child, self._expectation = child, expectation
        self._supervisor, self._journal = supervisor, journal
        self._name, self._on_phase = f"pid {child.pid} ({name})", on_phase
        self._hold, self._answer = hold, answer
        self._textfile, self._keeper = textfile, keeper
        self._phase = Phase.STARTING
        self._gave_up = False
        self._stopped_by: int | None = None
        self._degraded = False
        watched_s = supervisor.watchdog_s
        self._pause_s = watched_s / 3 if watched_s else _UNWATCHED_PAUSE_S
        self._began_s = time.monotonic()
        self._look_due_s = self._began_s
        self._extend_due_s = self._began_s
        self._neighbours = Neighbours(journal)
        self._inspector = Inspector(child, expectation, self._neighbours)
        self._found = Look(listens=False)

    @property
    def _address(self) -> str:
        return url("127.0.0.1", self._expectation.port)

    def until_end(self) -> Ended:
        """Watch until the child has ended, and say how."""
        with signals.through_descriptor(_SIGNALS) as woken:
            while True:
                for fd in self._poll(woken):
                    if fd == woken:
                        self._take_signals(woken)
                    elif fd == self._hold.fileno():
                        self._answer()
                    elif (question := self._inspector.question) and fd == question.fileno():
                        question.advance()
                exit = self._child.reap()
                if exit is not None:
                    self._inspector.drop()
                    return Ended(self._phase, exit, self._gave_up, self._stopped_by)
                self._go_on()

    def _poll(self, woken: int) -> Iterator[int]:
        """Wait until something happens or is due; yield the descriptors that it happened on."""
        poll = select.poll()
        for fd in (woken, self._child.pidfd, self._hold.fileno()):
            poll.register(fd, select.POLLIN)
        if question := self._inspector.question:
            poll.register(question.fileno(), question.events)
        now_s = time.monotonic()
        due_s = self._due_s(now_s)
        # poll(2) rounds down to whole milliseconds: a wake-up too early would spin until it is time.
        left_ms = None if due_s == math.inf else max((due_s - now_s) * 1000, 0) + 1
        for fd, _ in poll.poll(left_ms):
            yield fd

    def _due_s(self, now_s: float) -> float:
        """Return when something is to be done though nothing happens, on the monotonic clock; infinity for never."""
        question = self._inspector.question
        match self._phase:
            case Phase.STOPPING:
                due_s = math.inf  # how long that takes is between the child and systemd
            case Phase.STARTING:
                look_due_s = question.deadline_s if question else self._look_due_s
                due_s = min(look_due_s, self._extend_due_s)
            case Phase.READY:
                due_s = question.deadline_s if question else self._look_due_s
        if self._keeper is not None:
            due_s = min(due_s, self._keeper.due_s, now_s + self._keeper.hurry_in_s)
        return due_s

    def _take_signals(self, woken: int) -> None:
        for number in signals.arrived(woken):
            self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        if number in signals.ENDINGS:
            if self._keeper is not None:
                self._keeper.fade()
            self._stopped_by = self._stopped_by or number
            self._stop(f"stopping on {signals.name(number)}")
        elif number == signal.SIGHUP:
            # The child would die of it. Its settings it reads again by itself.
            self._journal.write(
                Event.RELOADED, f"{signals.name(number)}: nothing of a guard's to read again"
            )

    def _stop(self, why: str) -> None:
        """Ask the child to stop, once; how long it takes is between it and ``TimeoutStopSec=``."""
        if self._phase is Phase.STOPPING:
            return
        self._enter(Phase.STOPPING)
        self._inspector.drop()
        self._journal.write(Event.STOPPING, f"{why}: {self._name}")
        self._supervisor.stopping(f"stopping {self._name}")
        self._child.signal(self._expectation.stop_signal)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._on_phase(phase, time.monotonic() - self._began_s)

    def _go_on(self) -> None:
        """Do what is due."""
        self._keep_turn()
        now_s = time.monotonic()
        if self._phase is Phase.STARTING and now_s >= self._extend_due_s:
            self._extend_due_s = now_s + _EXTEND_EVERY_S
            self._supervisor.extend_start(_EXTENSION_S)
            self._supervisor.status(
                f"starting for {now_s - self._began_s:.0f} s: {self._finding()}"
            )
        if self._inspector.question is not None:
            look = self._inspector.go_on(now_s)
        elif self._phase is not Phase.STOPPING and now_s >= self._look_due_s:
            starting = self._phase is Phase.STARTING
            patience_s = _STARTING_ANSWER_S if starting else min(_READY_ANSWER_S, self._pause_s)
            look = self._inspector.begin(now_s, starting=starting, patience_s=patience_s)
        else:
            look = None
        if look is not None:
            self._conclude(look, now_s)

    def _keep_turn(self) -> None:
        """
        Renew the tenure, and end the child with it: first as ever, then at once.

        It is killed a moment before the kernel would kill us both, so that we can say why; and as soon as another
        host has the record, which it can only have if somebody wrote it by hand.
        """
        if self._keeper is None:
            return
        self._keeper.advance()
        lost = self._keeper.error()
        if lost is not None:
            self._stop(str(lost))
        if self._keeper.hurry_in_s <= 0:
            self._child.signal(signal.SIGKILL)

    def _conclude(self, look: Look, now_s: float) -> None:
        """Do what a look asks for."""
        self._found = look
        waited_s = now_s - self._began_s
        action = after_look(
            self._phase, look, waited_s=waited_s, ready_timeout_s=self._expectation.ready_timeout_s
        )
        if action is Action.FEED:
            self._supervisor.ping()  # before it is written down, or the file was a look behind
        self._textfile.looked(look, is_well=action in (Action.READY, Action.FEED))
        pause_s = self._pause_s
        match action:
            case Action.READY:
                self._enter(Phase.READY)
                self._supervisor.ready(self._ready())
            case Action.FEED:
                self._supervisor.status(self._ready())
                self._degraded = False
            case Action.DEGRADED:
                self._tell_degraded()
                pause_s = min(pause_s, _DEGRADED_PAUSE_S)
            case Action.WAIT:
                pause_s = _STARTING_PAUSE_S
                if self._keeper is not None:
                    # READY was said by the standby, so systemd watches already; --ready-timeout is the patience.
                    self._supervisor.ping()
            case Action.GIVE_UP:
                self._gave_up = True
                timeout_s = self._expectation.ready_timeout_s
                self._stop(f"not ready within {timeout_s:g} s ({self._finding()})")
        self._look_due_s = now_s + pause_s

    def _tell_degraded(self) -> None:
        trouble = f"{DEGRADED_STATUS}{self._finding()}"
        self._supervisor.status(trouble)
        if not self._degraded:
            self._degraded = True
            self._journal.write(Event.DEGRADED, trouble, CHILD_PID=self._child.pid)

    def _ready(self) -> str:
        return f"ready on {self._address}, guarding {self._name}{self._neighbours.status()}"

    def _finding(self) -> str:
        """Say what the last look found."""
        look, port = self._found, self._expectation.port
        if not look.listens and look.other_ports:
            elsewhere = ", ".join(map(str, look.other_ports))
            return f"{self._name} listens on port {elsewhere}, and not on {port}"
        if not look.listens:
            holders = self._neighbours.holders()
            taken = f", which {holders} has" if holders else ""
            return f"{self._name} does not listen on port {port}{taken}"
        if look.health is Health.HEALTHY:
            return f"{self._name} answers, and is still starting"
        return f"{self._name} listens on port {port}, and there is {look.health or 'no answer yet'}"
