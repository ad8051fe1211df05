"""Which drivers have left marks on a node: the state label or the record, under our label domain."""

import re
from collections.abc import Iterator
from functools import lru_cache

from controller.api.node import Node
from controller.upgrade.keys import keys_for
from controller.upgrade.record import Record, decode_record

_STEM = "-driver-upgrade"


@lru_cache(maxsize=16)
def _pattern(domain: str) -> re.Pattern[str]:
    name = r"[a-z0-9](?:[-a-z0-9]{0,11}[a-z0-9])?"
    return re.compile(rf"{re.escape(domain)}/({name})-driver-upgrade(?:-state|\.record)")


def marked_drivers(node: Node, domain: str) -> frozenset[str]:
    """Return the drivers with a state label or a record on the node."""
    # Few of a node's many labels, also of those under the same domain, get as far as the pattern.
    keys = [key for found in (node.labels, node.annotations) for key in found if _STEM in key]
    return frozenset(m[1] for key in keys if (m := _pattern(domain).fullmatch(key)))


def records_on(node: Node, domain: str) -> Iterator[tuple[str, Record]]:
    """Yield each driver that has a record on the node, with the record."""
    for driver in marked_drivers(node, domain):
        record = decode_record(node.annotations.get(keys_for(driver, domain).record))
        if record is not None:
            yield driver, record
