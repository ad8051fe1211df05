"""How long the machine held its breath: a bound in seconds is the controller's, and what others took of the time is not.

Where a requirement is a number of seconds, and has to be seen on the real cluster, the bound is that number and what a
clock beside it has lost meanwhile: a task that asks to be woken every few milliseconds, and adds up how late it was. On a
quiet machine that is next to nothing. Virtual time, where seconds are exact, is in `tests/sim`.
"""

import asyncio
import time
from bisect import bisect_right
from contextlib import suppress
from typing import Self

TICK = 0.02


class Breath:
    """Measures from its start to its end; an async context manager."""

    def __init__(self) -> None:
        self._moments: list[float] = []
        self._lost: list[float] = []

    @property
    def lost(self) -> float:
        """Seconds by which the ticks so far came too late, all together."""
        return self._lost[-1] if self._lost else 0.0

    def between(self, begin: float, end: float) -> float:
        """The same from one moment to another, in seconds since the epoch."""
        return self._until(end) - self._until(begin)

    def _until(self, moment: float) -> float:
        place = bisect_right(self._moments, moment)
        return self._lost[place - 1] if place else 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick(), name="breath")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _tick(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK)
            late = time.monotonic() - before - TICK
            self._moments.append(time.time())
            self._lost.append(self.lost + late)
