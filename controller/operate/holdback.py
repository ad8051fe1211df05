"""Nodes whose grant was not written: each is tried again by and by, with its reason told meanwhile, and delays no other.

A node that cannot be written (an admission policy, a freeze, a conflict with whoever writes it all the time) would be the
first in line again at once, for ever: it would cost a request every few milliseconds, and keep its slot from all others. So
it steps aside for a while that doubles with each refusal. A server that asks for less, of whoever it asks it, is given a
rest from all grants.
"""

import asyncio
from collections.abc import Callable

from controller.kube.errors import ApiError, KubeError, TooManyRequests
from controller.kube.ratelimiters import ItemExponentialFailureRateLimiter
from controller.operate.answers import refusal
from controller.upgrade.reasons import Reason

BASE_SECONDS = 0.1
CAP_SECONDS = 60.0

Key = tuple[str, str]
"""Driver and node."""


class HoldBack:
    """Remembers refused grants, and when each may be tried again.

    Args:
        again: Called with the name of a node that may be tried again.
        rested: Called when the server's rest is over.
    """

    def __init__(self, again: Callable[[str], None], rested: Callable[[], None]) -> None:
        self._again = again
        self._rested = rested
        self._limiter = ItemExponentialFailureRateLimiter[Key](BASE_SECONDS, CAP_SECONDS)
        self._aside: dict[Key, asyncio.TimerHandle] = {}
        # Kept until a grant is written, or not wanted any more: a node tells one reason all the while.
        self._reasons: dict[Key, tuple[Reason, str]] = {}
        self._rest: asyncio.TimerHandle | None = None

    @property
    def resting(self) -> bool:
        """Whether the server has asked for a rest, which is not over."""
        return self._rest is not None

    def stands_aside(self, key: Key) -> bool:
        """Whether a node is not to be tried now."""
        return key in self._aside

    def nodes(self) -> set[str]:
        """The nodes that stand aside now."""
        return {node for _, node in self._aside}

    def why(self, key: Key) -> tuple[Reason, str] | None:
        """Why the last grant of a node was not written; None where it was, or none was tried."""
        return self._reasons.get(key)

    def refused(self, key: Key, error: Exception) -> None:
        """A grant was not written: the node stands aside."""
        self._end(self._aside.pop(key, None))
        failures = self._limiter.num_requeues(key)
        wait = self._limiter.when(key)
        if isinstance(error, ApiError):
            wait = max(wait, min(error.retry_after or 0.0, CAP_SECONDS))
        loop = asyncio.get_running_loop()
        self._aside[key] = loop.call_later(wait, self._back_in_line, key)
        if isinstance(error, TooManyRequests):
            self._end(self._rest)
            self._rest = loop.call_later(wait, self._rest_over)
        told = refusal(error, failures) if isinstance(error, KubeError) else None
        if told is not None:
            self._reasons[key] = told

    def forget(self, key: Key) -> None:
        """The grant was written, or nobody wants it any more."""
        self._limiter.forget(key)
        self._reasons.pop(key, None)
        self._end(self._aside.pop(key, None))

    def close(self) -> None:
        """End every timer: nothing is granted any more."""
        for timer in (*self._aside.values(), self._rest):
            self._end(timer)

    def _back_in_line(self, key: Key) -> None:
        del self._aside[key]
        self._again(key[1])

    def _rest_over(self) -> None:
        self._rest = None
        self._rested()

    @staticmethod
    def _end(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
