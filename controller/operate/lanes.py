"""In which order evictions are sent, and how many at a time.

Evictions that share a budget conflict inside the API server, each conflict costing half a second there; so they go one
after the other, in a lane per budget, while other budgets' go beside them. A pod without a budget has a lane of its own.

Lanes are many, and what passes them is bounded: an eviction first waits for one of a few slots, then for its turn in the
client's rate limiter. In this order, so that few stand before other nodes' writes there. Slots are shared by namespace,
because what makes evictions slow, a webhook, is seldom everybody's; and within it by node.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from controller.kube.client import Client
from controller.logs import detached
from controller.operate.evictees import Evictee
from controller.operate.slots import FairSlots

EVICTIONS_AT_ONCE: Final = 64
"""Evictions under way. A webhook may hold each for ten seconds and more, and the transport's 256 connections also carry a
watch for each of 64 nodes in progress, the informers', and whatever is written and listed for nodes that are well."""


class EvictionLanes:
    """Queues of pods, one per lane.

    Args:
        client: The API server.
        tasks: Owner of the lanes' tasks.
        evict: Called with one pod of each lane at a time, the next when it returns; raises nothing.
    """

    def __init__(self, client: Client, tasks: asyncio.TaskGroup, evict: Callable[[Evictee], Awaitable[None]]) -> None:
        self._client = client
        self._tasks = tasks
        self._evict = evict
        self._slots = FairSlots(EVICTIONS_AT_ONCE)
        self._lanes: dict[str, deque[Evictee]] = {}

    def add(self, lane: str, evictee: Evictee) -> None:
        """Let a pod through as soon as the lane is free. Returns at once."""
        if lane in self._lanes:
            self._lanes[lane].append(evictee)
            return
        self._lanes[lane] = deque([evictee])
        self._tasks.create_task(self._run(lane), name=f"evictions of {lane}", context=detached())

    @asynccontextmanager
    async def turn(self, evictee: Evictee) -> AsyncIterator[Client]:
        """Wait until the pod's eviction may be sent, and hand out a client that sends it without waiting again."""
        async with self._slots.hold(evictee.pod.namespace, evictee.node):
            yield await self._client.in_turn("EVICT")

    async def _run(self, lane: str) -> None:
        """Pass on a lane's pods one after the other; the lane ends when it is empty."""
        queue = self._lanes[lane]
        try:
            while queue:
                await self._evict(queue.popleft())
        finally:
            del self._lanes[lane]
