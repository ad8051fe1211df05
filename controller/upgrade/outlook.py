"""How long a plan takes: estimated from what the same nodes took last, bounded by the policy's time-outs.

What a node took, its record tells. The estimate knows nothing of what holds a node up at this moment: that is in the plan,
and what it costs depends on who removes it.
"""

import heapq
from collections.abc import Mapping, Sequence

import msgspec

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


class Outlook(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How long the nodes that one policy would start may take; seconds."""

    policy: str
    waves: int
    seconds: float | None = None
    """At the times that these nodes took last; None where none of them has been upgraded by us before."""
    at_most: float | None = None
    """If every node used up every time-out; None where one of them is for ever."""


def outlook(policy: Policy, planned: Sequence[PlannedNode], took: Mapping[str, float]) -> Outlook:
    """Estimate how long a plan takes: nodes in their order, each in the slot that is free first.

    Args:
        policy: The policy.
        planned: Its plan.
        took: By node, seconds of its last upgrade; a node that is not there is taken for a typical one (the median).
    """
    nodes = [one.node for one in planned if one.wave]
    waves = max((one.wave for one in planned), default=0)
    limit = _limit(policy)
    at_most = None if limit is None else float(limit * waves)
    known = sorted(took[node] for node in nodes if node in took)
    if not known:
        return Outlook(policy.full_name, waves, None, at_most)
    typical = known[len(known) // 2]
    slots = [0.0] * min(policy.spec.max_parallel_upgrades or len(nodes), len(nodes))
    for node in nodes:
        heapq.heapreplace(slots, slots[0] + took.get(node, typical))
    return Outlook(policy.full_name, waves, max(slots), at_most)


def _limit(policy: Policy) -> int | None:
    """The time-outs of all steps that the policy has, in seconds; None where one may last for ever."""
    waits = [timeout_of(policy, state) for state in _TIMED if policy.has_work(state)]
    return sum(waits) if all(waits) else None
