"""Records and a server's clock that was set while they stood.

Deadlines count from the times in records, in the server's time, so that they survive every process of ours. Where the
server's clock is set by an hour, all times that were written before are an hour wrong, and nobody could tell by looking
at one. But a process that was there can: it notes which times stood at that moment, and for as long as it lives they
count as moved along with the clock. Nothing is written: whoever comes after us takes the records by their word.

Records of ours that are on their way at that moment are as old as those that stand: often it is the answer to one that
tells of the step, before it is in the cache, and where there is no answer the watch brings the record seconds later.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from controller.api.node import Node
from controller.kube.clock import ServerClock
from controller.kube.store import Store
from controller.upgrade.actions import PatchNode
from controller.upgrade.marks import records_on
from controller.upgrade.record import Record
from controller.upgrade.snapshot import NodeView

SENT: Final = 16
"""Writes of one version of a node that are remembered: a server that does not answer is asked once a minute by then."""
_UNMOVED: Final[Mapping[float, float]] = {}

logger = logging.getLogger(__name__)


class ClockSteps:
    """Knows by how much the times in records are to be moved.

    Args:
        clock: The server's time.
        nodes: The cache of nodes.
        domain: The label domain of their records.
    """

    def __init__(self, clock: ServerClock, nodes: Store[Node], domain: str) -> None:
        self._nodes = nodes
        self._domain = domain
        # By node and driver: the times that stood in the record at the last step, each with how much all steps come to.
        self._moved: dict[tuple[str, str], dict[float, float]] = {}
        # By node: the drivers and records that were sent on the version that the cache holds; any may be on the node by now.
        self._sent: dict[str, deque[tuple[str, Record]]] = {}
        nodes.add_handler(self._seen)
        clock.on_step(self._stepped)

    def moved(self, node: str, driver: str) -> Mapping[float, float]:
        """Return by how many seconds each time in a record is to be moved; those that are not named stay."""
        return self._moved.get((node, driver), _UNMOVED)

    def sending(self, view: NodeView, patch: PatchNode) -> None:
        """A record is about to be sent: from now on it may stand, whatever is answered and whenever that is seen."""
        if patch.record is not None:
            self._sent.setdefault(view.node.name, deque(maxlen=SENT)).append((view.keys.driver, patch.record))

    def _seen(self, old: Node | None, new: Node | None) -> None:
        """Any newer version breaks the precondition of what was sent: it was carried out, and is seen, or never will be."""
        if node := new or old:
            self._sent.pop(node.name, None)

    def _stepped(self, seconds: float) -> None:
        logger.warning("the API server's clock was set", extra={"seconds": round(seconds)})
        moved: dict[tuple[str, str], dict[float, float]] = {}
        for node in self._nodes.list():
            for driver, record in self._standing(node):
                if record.in_progress or record.gone:
                    before, times = self.moved(node.name, driver), (record.since, record.gone, *record.entered.values())
                    today = {time: before.get(time, 0.0) + seconds for time in times}
                    moved.setdefault((node.name, driver), {}).update(today)
        self._moved = moved

    def _standing(self, node: Node) -> Iterator[tuple[str, Record]]:
        """The records that are on a node as far as we know, and those that may be."""
        yield from records_on(node, self._domain)
        yield from self._sent.get(node.name, ())
