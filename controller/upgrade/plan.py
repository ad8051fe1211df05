"""What an upgrade would do to a node that waits for one, said before it is done.

The rules are those of the drain itself. What is foreseen is foreseen from this moment: by the time the node's turn comes,
pods have moved and budgets have changed. How long it takes is estimated from what the same nodes took last, which their
records tell; how long it may take at most, from the policy's time-outs.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from controller.api.pod import Pod
from controller.upgrade.decide import grant, record_in_force
from controller.upgrade.drain import Fate, Rules, drainage, fate
from controller.upgrade.facts import Facts, holds_slot
from controller.upgrade.idle import why_not_eligible
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.record import Record
from controller.upgrade.snapshot import Attempt, NodeView
from controller.upgrade.states import State
from controller.upgrade.turn import Turn
from controller.upgrade.vacate import deletion_rules, drain_rules, restart_only, unreadable


class PlannedNode(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One node in its turn. ``wave`` counts from 1 in steps of the policy's slots; 0 where it would not be started."""

    node: str
    driver: str
    policy: str
    wave: int = 0
    reason: Reason | None = None
    """Why it would not be started."""
    message: str = ""
    restart_only: bool = False
    evicts: tuple[str, ...] = ()
    """``namespace/name`` of the pods that would have to leave."""
    blockers: tuple[Blocker, ...] = ()
    """What would hold it up, as things stand now."""


def is_waiting(view: NodeView) -> bool:
    """Whether the node needs an upgrade that has not begun, whether or not a controller has labelled it so."""
    state = view.state
    idle = state in {State.UNKNOWN, State.UPGRADE_DONE, State.UPGRADE_REQUIRED} and not holds_slot(
        view, state or State.UNKNOWN
    )
    return view.policy is not None and idle and view.needs_upgrade


def in_order(waiting: Iterable[tuple[NodeView, Facts]]) -> list[NodeView]:
    """Return nodes in the order in which they are granted."""
    return [view for view, _ in sorted(waiting, key=lambda w: (w[1].rank, w[0].node.name))]


def plan(policy: Policy, views: Sequence[NodeView], refusals: Mapping[str, Attempt], now: float) -> list[PlannedNode]:
    """Plan the waiting nodes of one policy, given in their order.

    Args:
        policy: The policy.
        views: Its waiting nodes, with their pods.
        refusals: By uid, the pods whose eviction would be refused.
        now: Server time in seconds.
    """
    slots = policy.spec.max_parallel_upgrades or len(views)
    planned, started = [], 0
    for view in views:
        reason, message = why_not_eligible(view)
        if reason is None:
            started += 1
        wave = 0 if reason else (started - 1) // slots + 1
        planned.append(_planned(Turn(view, _record(view, policy, now), policy, now), wave, reason, message, refusals))
    return planned


def _record(view: NodeView, policy: Policy, now: float) -> Record:
    """The record that the grant would begin with, which says whether a restart alone may do."""
    patch = grant(view, policy, now).patch
    return patch.record if patch and patch.record else record_in_force(view, State.UPGRADE_REQUIRED, now)


def _planned(turn: Turn, wave: int, reason: Reason | None, message: str, refusals: Mapping[str, Attempt]) -> PlannedNode:
    only = restart_only(turn)
    steps = () if only else _steps(turn)
    leaving = {p.key: p for rules in steps for p in _leaving(turn, rules)}
    blockers = {str(b): b for rules in steps for b in (*unreadable(turn), *_blockers(turn, rules, refusals))}
    return PlannedNode(
        turn.view.node.name,
        turn.view.keys.driver,
        turn.policy.full_name,
        wave,
        reason,
        message,
        restart_only=only,
        evicts=tuple(sorted(leaving)),
        blockers=tuple(blockers.values()),
    )


def _steps(turn: Turn) -> tuple[Rules, ...]:
    deletion = (deletion_rules(turn),) if turn.policy.has_work(State.POD_DELETION_REQUIRED) else ()
    return (*deletion, drain_rules(turn)) if turn.policy.spec.drain.enable else deletion


def _leaving(turn: Turn, rules: Rules) -> list[Pod]:
    return [p for p in turn.view.workload or () if fate(p, rules) is not Fate.STAYS]


def _blockers(turn: Turn, rules: Rules, refusals: Mapping[str, Attempt]) -> tuple[Blocker, ...]:
    return drainage(turn.view.workload or (), rules, refusals, turn.now).blockers
