"""The API server's time, learnt from the Date header of its answers.

Timestamps in records outlive processes and machines, so they are all in the server's time: a controller whose own clock
is wrong must not let a deadline expire. A Date header is cut to whole seconds, and a request takes a while; an answer to
a request sent at local time *a* and received at *b* therefore says only that server time minus local time lies between
``Date - b`` and ``Date + 1 - a``. :class:`ServerClock` keeps the intersection of what many answers say, which narrows
to a few milliseconds, and lets it widen slowly because clocks drift. Answers that contradict it are noise at first
(several API servers, a proxy's own Date); after :data:`CONTRADICTIONS` in a row the clock has jumped and is learnt anew.

A jump that no drift explains is a step: somebody has set the server's clock. Who remembers times follows it
(:meth:`ServerClock.on_step`), for what was to happen in a minute is still to happen in a minute.
"""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

CONTRADICTIONS: Final = 3
DRIFT: Final = 0.0005
"""Seconds per second by which two machines' clocks may diverge (the most that NTP slews)."""
STEP: Final = 30.0
"""Seconds by which a jump must exceed what a clock at a wrong speed comes to, to be a step."""
WRONG_SPEED: Final = 0.25
"""Seconds per second that the worst clock may be wrong."""


class ServerClock:
    """Server time in seconds since the epoch.

    Args:
        monotonic: Local monotonic seconds.
        wall: Local wall clock, used only until the first answer.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.monotonic = monotonic
        self._learnt_at = monotonic()
        offset = wall() - self._learnt_at
        self._low = self._high = offset
        self._contradictions = CONTRADICTIONS  # the first answer replaces the guess
        self._taught = False
        self._followers: list[Callable[[float], None]] = []

    def now(self) -> float:
        """Best estimate of the server's time."""
        return self.monotonic() + (self._low + self._high) / 2

    def on_step(self, follower: Callable[[float], None]) -> None:
        """Call follower with the seconds by which the server's clock was set: what :meth:`now` says differs by as much."""
        self._followers.append(follower)

    def observe(self, date: str, sent: float, received: float) -> None:
        """Learn from one answer.

        Args:
            date: Its Date header; what cannot be parsed is ignored.
            sent: Local monotonic time before the request.
            received: Local monotonic time after the answer's headers.
        """
        try:
            stamp = parsedate_to_datetime(date).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            return
        self._learn(stamp - received, stamp + 1 - sent, received)

    def _learn(self, low: float, high: float, now: float) -> None:
        slack = DRIFT * max(0.0, now - self._learnt_at)
        joint_low, joint_high = max(low, self._low - slack), min(high, self._high + slack)
        if joint_low <= joint_high and self._contradictions < CONTRADICTIONS:
            self._contradictions = 0
        else:
            self._contradictions += 1
            if self._contradictions < CONTRADICTIONS:
                return
            joint_low, joint_high, self._contradictions = low, high, 0
        jump, silence, taught = (joint_low + joint_high - self._low - self._high) / 2, now - self._learnt_at, self._taught
        self._low, self._high, self._learnt_at, self._taught = joint_low, joint_high, now, True
        if taught and abs(jump) > STEP + WRONG_SPEED * silence:
            for follower in self._followers:
                follower(jump)
