"""A few slots for many who may stay long: some are always left for the next, and who has much to do delays nobody."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_Members = dict[str, deque[asyncio.Future[None]]]


class FairSlots:
    """Lets so many through at a time, each of a group and within it of a member.

    A group holds at most as many slots as it leaves free (one more, where the number is odd). So however many of one
    group come, and however long they stay, half of what was free is there for the next group: with 64 slots it takes seven
    groups to fill them. Groups take turns, and so do the members of a group.

    Args:
        slots: How many there are.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._held: Counter[str] = Counter()
        # Who waits, by group and member; whose turn is next comes first, in both.
        self._waiting: dict[str, _Members] = {}

    @asynccontextmanager
    async def hold(self, group: str, member: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(group, {}).setdefault(member, deque()).append(waiter)
        self._grant()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._give_back(group)
            raise
        try:
            yield
        finally:
            self._give_back(group)

    def _give_back(self, group: str) -> None:
        self._free += 1
        self._held[group] -= 1
        if not self._held[group]:
            del self._held[group]
        self._grant()

    def _grant(self) -> None:
        """Let through whoever may go now."""
        granted = True
        while granted:
            granted = False
            for group in tuple(self._waiting) if self._free else ():
                if self._held[group] < self._free:
                    granted = True
                    self._let_through(group)

    def _let_through(self, group: str) -> None:
        """Give a slot to the next of a group, whose turn comes again after the others'."""
        members = self._waiting.pop(group)
        member, waiters = next(iter(members.items()))
        del members[member]
        waiter = waiters.popleft()
        if waiters:
            members[member] = waiters
        if members:
            self._waiting[group] = members
        if not waiter.done():  # cancelled
            self._free -= 1
            self._held[group] += 1
            waiter.set_result(None)
