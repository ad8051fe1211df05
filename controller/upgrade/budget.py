"""How many more nodes may be out at once: arithmetic of the two caps (design, section 4)."""

import math

UNLIMITED = 1 << 30
"""Stands for "no limit": more than any cluster has nodes."""


def scale(max_unavailable: int | str | None, total: int) -> int:
    """Return a cap in nodes. Percentages of ``total`` are rounded up; unset is no cap.

    Rounding up follows k8s-operator-libs: 1 % of 10 nodes lets one go, 0 % none.
    """
    if max_unavailable is None:
        return UNLIMITED
    if isinstance(max_unavailable, int):
        return max_unavailable
    return math.ceil(int(max_unavailable.removesuffix("%")) * total / 100)


def free_slots(max_parallel: int, in_progress: int) -> int:
    """Return how many nodes may begin; ``max_parallel`` 0 is no limit."""
    return UNLIMITED if max_parallel == 0 else max(0, max_parallel - in_progress)


def free_room(max_unavailable: int | str | None, total: int, unavailable: int) -> int:
    """Return how many more nodes may become unavailable."""
    return max(0, scale(max_unavailable, total) - unavailable)
