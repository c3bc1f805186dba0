"""How the process itself is, beside what it serves: plain values, written where things happen. Pure."""

from __future__ import annotations

_WINDOW_S = 60.0


class Vitals:
    """
    What the heartbeat of a process knows.

    Attributes:
        watchdog_s: Seconds within which systemd wants the next ``WATCHDOG=1``; ``None`` if it does not watch.
        pinged_at_s: Wall clock when systemd took the last ``WATCHDOG=1``; ``None`` if it never did.
        problem: Why no ping is deserved just now; ``""`` if one is.
        locks_restored: Lock files made anew since the start, because somebody had removed them.
        loop_delay: Of the event loop; stays at nothing where there is none.
    """

    def __init__(self, *, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self.pinged_at_s: float | None = None
        self.problem = ""
        self.locks_restored = 0
        self.loop_delay = Delay()


class Delay:
    """
    The longest delay of the last minute or two; older ones are forgotten, or one bad start would show for ever.

    Not since the last time that somebody asked: there may be several who ask.
    """

    def __init__(self, *, window_s: float = _WINDOW_S) -> None:
        """``window_s`` is how long a delay shows at least; twice as long at most."""
        self._window_s = window_s
        self._since_s = 0.0
        self._before_s = self._current_s = 0.0

    def note(self, delay_s: float, *, now_s: float) -> None:
        """Take one delay, in seconds; ``now_s`` is the monotonic clock."""
        if now_s - self._since_s >= self._window_s:
            is_next = now_s - self._since_s < 2 * self._window_s
            self._before_s = self._current_s if is_next else 0.0
            self._current_s, self._since_s = 0.0, now_s
        self._current_s = max(self._current_s, delay_s)

    def longest_s(self, *, now_s: float) -> float:
        """Return the longest, in seconds."""
        self.note(0.0, now_s=now_s)
        return max(self._before_s, self._current_s)
