"""Which drivers have left marks on a node: the state label or the record, under our label domain."""

import re
from functools import lru_cache

from controller.api.node import Node


@lru_cache(maxsize=16)
def _pattern(domain: str) -> re.Pattern[str]:
    name = r"[a-z0-9](?:[-a-z0-9]{0,11}[a-z0-9])?"
    return re.compile(rf"{re.escape(domain)}/({name})-driver-upgrade(?:-state|\.record)")


def marked_drivers(node: Node, domain: str) -> frozenset[str]:
    """Return the drivers with a state label or a record on the node."""
    prefix, pattern = f"{domain}/", _pattern(domain)
    keys = (key for key in (*node.labels, *node.annotations) if key.startswith(prefix))
    return frozenset(m[1] for key in keys if (m := pattern.fullmatch(key)))
