"""Which drivers have left marks on a node: the state label or the record, under our label domain."""

import re
from functools import lru_cache

from controller.api.node import Node

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
