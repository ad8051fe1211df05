"""Records and a server's clock that was set while they stood.

Deadlines count from the times in records, in the server's time, so that they survive every process of ours. Where the
server's clock is set by an hour, all times that were written before are an hour wrong, and nobody could tell by looking
at one. But a process that was there can: it notes which times stood at that moment, and for as long as it lives they
count as moved along with the clock. Nothing is written: whoever comes after us takes the records by their word.
"""

import logging
from collections.abc import Mapping
from typing import Final

from controller.api.node import Node
from controller.kube.clock import ServerClock
from controller.kube.store import Store
from controller.upgrade.keys import keys_for
from controller.upgrade.marks import marked_drivers
from controller.upgrade.record import decode_record

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
        self._moved: dict[tuple[str, str], Mapping[float, float]] = {}
        clock.on_step(self._stepped)

    def moved(self, node: str, driver: str) -> Mapping[float, float]:
        """Return by how many seconds each time in a record is to be moved; those that are not named stay."""
        return self._moved.get((node, driver), _UNMOVED)

    def _stepped(self, seconds: float) -> None:
        logger.warning("the API server's clock was set", extra={"seconds": round(seconds)})
        moved: dict[tuple[str, str], Mapping[float, float]] = {}
        for node in self._nodes.list():
            for driver in marked_drivers(node, self._domain):
                record = decode_record(node.annotations.get(keys_for(driver, self._domain).record))
                if record is not None and (record.in_progress or record.gone):
                    before, times = self.moved(node.name, driver), (record.since, record.gone, *record.entered.values())
                    moved[node.name, driver] = {time: before.get(time, 0.0) + seconds for time in times}
        self._moved = moved
