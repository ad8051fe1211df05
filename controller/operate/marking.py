"""Marks of nodes at rest, at a pace that leaves the API server to the nodes in progress.

A new version outdates every node at once, and each is to be marked ``upgrade-required``; the first look at a cluster marks
all of them as well. Such a write says where a node stands and moves nothing. Sent as fast as they come, thousands of them
stand before the first cordon: in the work queue, in the client's rate limiter and in the API server. So few go at once and
the rest one after the other, in the order in which they came, while workers and limiter are free for what nodes in progress
need. A node that is to be granted before others is not made to wait.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from controller.kube.ratelimiters import RateLimiter
from controller.upgrade.actions import PatchNode
from controller.upgrade.facts import ORDINARY, holds_slot, rank_of
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import IN_PROGRESS, State

AT_ONCE: Final = 16
"""Marks that need not wait after a rest: a small cluster is marked at once."""
SHARE: Final = 0.5
"""How much of the client's requests a second marks may have."""


class Marking:
    """Lets marks through one after the other. :meth:`run` is what lets them.

    Args:
        limiter: Their pace.
        again: Called with the name of a node whose mark may be written now: it is to be looked at.
    """

    def __init__(self, limiter: RateLimiter, again: Callable[[str], None]) -> None:
        self._limiter = limiter
        self._again = again
        # Nodes whose marks wait, the first first; and whether there are any.
        self._waiting: dict[str, None] = {}
        self._any = asyncio.Event()
        # Nodes that were let through and have not been looked at since.
        self._through: set[str] = set()

    def may_write(self, view: NodeView, patch: PatchNode) -> bool:
        """Whether a write may be sent now. If not, its node is looked at again when its turn has come."""
        name = view.node.name
        if not is_mark(view, patch) or name in self._through:
            return True
        self._waiting[name] = None
        self._any.set()
        return False

    def waits(self, name: str) -> bool:
        """Whether a node's mark waits for its turn."""
        return name in self._waiting

    def looked_at(self, name: str) -> None:
        """A look at a node has ended. Where it brought no mark to write, its turn is over all the same."""
        self._through.discard(name)

    async def run(self) -> None:
        """Let marks through until cancelled."""
        while True:
            await self._any.wait()
            await self._limiter.wait()
            name = next(iter(self._waiting))
            del self._waiting[name]
            if not self._waiting:
                self._any.clear()
            self._through.add(name)
            self._again(name)


def is_mark(view: NodeView, patch: PatchNode) -> bool:
    """Whether a write only says where a node at rest stands, one that is not to be granted before others."""
    rests = not holds_slot(view, view.state or State.UNKNOWN) and patch.state not in IN_PROGRESS
    return rests and patch.unschedulable is None and rank_of(view) == ORDINARY
