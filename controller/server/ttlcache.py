"""A small cache whose entries end after a fixed time and whose size has a bound.

Entries end in the order in which they came, as all live equally long; so both the end of an entry and the choice of the
one that must go for a new one are a look at the front. Times are those of the running loop.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """Remembers values.

    Args:
        ttl: Seconds that a value is remembered.
        size: The most entries; a further one takes the place of the oldest.
    """

    def __init__(self, ttl: float, size: int) -> None:
        self._ttl = ttl
        self._size = size
        # Value and end by key, the next to end first.
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return what was put under the key less than ``ttl`` seconds ago."""
        self._expire()
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V) -> None:
        """Remember the value from now on."""
        self._expire()
        self._entries.pop(key, None)
        while len(self._entries) >= self._size:
            self._entries.popitem(last=False)
        self._entries[key] = (value, asyncio.get_running_loop().time() + self._ttl)

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._entries and next(iter(self._entries.values()))[1] <= now:
            self._entries.popitem(last=False)
