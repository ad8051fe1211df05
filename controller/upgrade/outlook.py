"""How long a plan takes: estimated from what the same nodes took last, bounded by the policy's time-outs.

What a node took, its record tells. The estimate knows nothing of what holds a node up at this moment: that is in the plan,
and what it costs depends on who removes it.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from controller.upgrade.admission import lasting_room
from controller.upgrade.budget import free_slots
from controller.upgrade.fleet import Tally
from controller.upgrade.plan import PlannedNode
from controller.upgrade.policy import Policy
from controller.upgrade.states import State
from controller.upgrade.turn import timeout_of

_TIMED = (
    State.WAIT_FOR_JOBS_REQUIRED,
    State.POD_DELETION_REQUIRED,
    State.DRAIN_REQUIRED,
    State.POD_RESTART_REQUIRED,
    State.VALIDATION_REQUIRED,
)


_Line = deque[tuple[int, float, bool]]
"""Nodes that wait: place in the order, seconds, whether the upgrade takes room."""


class Outlook(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How long the nodes that one policy would start may take; seconds."""

    policy: str
    waves: int
    seconds: float | None = None
    """At the times that these nodes took last; None where none of them has been upgraded by us before."""
    at_most: float | None = None
    """If every node used up every time-out; None where one of them is for ever."""


def outlook(policy: Policy, planned: Sequence[PlannedNode], took: Mapping[str, float], tally: Tally) -> Outlook:
    """Estimate how long a plan takes: nodes in their order, each as soon as there is a slot, and room where it needs any.

    Args:
        policy: The policy.
        planned: Its plan.
        took: By node, seconds of its last upgrade; a node that is not there is taken for a typical one (the median).
        tally: The policy's counts.
    """
    nodes = [one for one in planned if one.wave]
    waves = max((one.wave for one in planned), default=0)
    limit = _limit(policy)
    at_most = None if limit is None else float(limit * waves)
    known = sorted(took[one.node] for one in nodes if one.node in took)
    if not known:
        return Outlook(policy.full_name, waves, None, at_most)
    typical = known[len(known) // 2]
    slots = free_slots(policy.spec.max_parallel_upgrades, 0)
    room = lasting_room(policy, tally, sum(one.gives_room for one in nodes))
    seconds = _length([(one, took.get(one.node, typical)) for one in nodes], slots, room)
    return Outlook(policy.full_name, waves, seconds, at_most)


def _length(nodes: Iterable[tuple[PlannedNode, float]], slots: int, room: int) -> float:
    """How long nodes take in all, given in their order, each with its seconds."""
    # Two lines, since who needs no room does not wait behind those who do; the place is that in the order of all.
    lines: dict[bool, _Line] = {True: deque(), False: deque()}
    for place, (node, seconds) in enumerate(nodes):
        lines[node.available].append((place, seconds, node.available or node.gives_room))
    busy: list[tuple[float, bool]] = []
    now = 0.0
    while True:
        while slots > 0 and (line := _next(lines, room)):
            _, seconds, takes = line.popleft()
            heapq.heappush(busy, (now + seconds, takes))
            slots, room = slots - 1, room - takes
        if not busy:
            return now
        now, takes = heapq.heappop(busy)
        slots, room = slots + 1, room + takes


def _next(lines: Mapping[bool, _Line], room: int) -> _Line | None:
    """The line whose first node is the next to begin."""
    open_ = [line for needs, line in lines.items() if line and (room > 0 or not needs)]
    return min(open_, key=lambda line: line[0][0], default=None)


def _limit(policy: Policy) -> int | None:
    """The time-outs of all steps that the policy has, in seconds; None where one may last for ever."""
    waits = [timeout_of(policy, state) for state in _TIMED if policy.has_work(state)]
    return sum(waits) if all(waits) else None
