"""An event loop in virtual time: when nothing is left to run now, the clock jumps to the next timer.

It does no I/O at all, which makes a step of time cost a comparison instead of some dozens of system calls (looptime's
careful no-op cycles), and it is exact: a timer fires at the very time it was set for.
"""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


STANDSTILL = 20_000
"""Rounds of callbacks at one moment; every request takes time, so that only a busy loop gets there."""


class DeadlockError(RuntimeError):
    """Virtual time cannot go on: everything waits and no timer is set, or something runs in circles."""


class _Jump:
    """Stands in for the selector: where asyncio would sleep, the clock is moved."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop
        self._rounds = 0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("all tasks wait and no timer is set")
        self._rounds += 1
        if timeout > 0:
            self._rounds = 0
            self._loop.jump()
        elif self._rounds > STANDSTILL:
            self._rounds = 0
            raise DeadlockError("something runs in circles while no time passes")
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Time starts at 0 and moves only between callbacks."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _Jump(self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._now

    def jump(self) -> None:
        """Go to the next timer."""
        scheduled = self._scheduled  # type: ignore[attr-defined]
        self._now = max(self._now, scheduled[0]._when)
        # A timer is due before now and this; what vanishes beside now, after half a year, would leave it undone for ever.
        self._clock_resolution = max(1e-9, math.ulp(self._now))

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No other thread wakes this loop."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time; what it leaves behind is cancelled."""
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _cancel_all(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
