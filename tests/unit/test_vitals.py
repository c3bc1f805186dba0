"""The longest delay of the last minute or two: nothing is missed, and nothing shows for ever."""

from __future__ import annotations

import asyncio
import time

from openclaw_gateway.supervisor import loop
from openclaw_gateway.supervisor.vitals import Delay


def test_longest_counts() -> None:
    delay = Delay(window_s=60)
    for seconds in (0.1, 0.3, 0.2):
        delay.note(seconds, now_s=1000)
    assert delay.longest_s(now_s=1000) == 0.3


def test_delay_shows_for_a_window_at_least_and_for_two_at_most() -> None:
    delay = Delay(window_s=60)
    delay.note(0.0, now_s=1000)
    delay.note(0.5, now_s=1059)
    delay.note(0.1, now_s=1061)
    assert delay.longest_s(now_s=1119) == 0.5
    assert delay.longest_s(now_s=1122) == 0.1


def test_delay_is_forgotten_when_nobody_asked_for_long() -> None:
    delay = Delay(window_s=60)
    delay.note(0.5, now_s=1000)
    assert delay.longest_s(now_s=5000) == 0.0


def test_loop_sees_whoever_keeps_it() -> None:
    delay = Delay()

    async def main() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 0.2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run(main(), delay=delay)
    assert delay.longest_s(now_s=time.monotonic()) >= 0.2


def test_waiting_is_no_delay() -> None:
    delay = Delay()

    async def main() -> None:
        await asyncio.sleep(0.3)

    loop.run(main(), delay=delay)
    assert delay.longest_s(now_s=time.monotonic()) < 0.3
