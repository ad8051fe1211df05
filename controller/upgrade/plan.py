"""What an upgrade would do to a node that waits for one, said before it is done.

The rules are those of the drain itself. What is foreseen is foreseen from this moment: by the time the node's turn comes,
pods have moved and budgets have changed. How long it takes is estimated from what the same nodes took last, which their
records tell; how long it may take at most, from the policy's time-outs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from controller.api.pod import Pod
from controller.upgrade.admission import lasting_room, why_never
from controller.upgrade.budget import free_slots
from controller.upgrade.cordon import lifts
from controller.upgrade.decide import grant, record_in_force
from controller.upgrade.drain import Fate, Rules, drainage, fate
from controller.upgrade.facts import Facts, facts_of, holds_slot
from controller.upgrade.fleet import Tally, group_of
from controller.upgrade.idle import why_not_eligible
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.record import Record
from controller.upgrade.snapshot import Attempt, NodeView
from controller.upgrade.states import State
from controller.upgrade.turn import Turn
from controller.upgrade.vacate import deletion_rules, drain_rules, restart_only, unreadable


class PlannedNode(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One node in its turn. ``wave`` counts from 1 in steps of the policy's slots and room; 0: it would not be started."""

    node: str
    driver: str
    policy: str
    wave: int = 0
    reason: Reason | None = None
    """Why it would not be started."""
    message: str = ""
    available: bool = True
    """Whether it is available now: only then its upgrade needs room under ``maxUnavailable``."""
    gives_room: bool = False
    """Whether only our own cordon, of an upgrade that failed, makes it unavailable, so that others go once it is done."""
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


class _Waves:
    """Gives each node the first wave that has a slot for it, and room where it takes any: as they are granted."""

    def __init__(self, slots: int, room: int) -> None:
        self._slots, self._room = slots, room
        # By wave, how many nodes it has, and how many of them take room.
        self._nodes: Counter[int] = Counter()
        self._taken: Counter[int] = Counter()
        # The first wave that may yet have a place, by whether the node needs room. Waves only fill up, so it only goes up.
        self._first = {True: 1, False: 1}

    def next(self, *, needs: bool, takes: bool) -> int:
        """Place a node that may need room, which there must be then, and may take some, needed or not."""
        wave = self._first[needs]
        while self._nodes[wave] >= self._slots or (needs and self._taken[wave] >= self._room):
            wave += 1
        self._first[needs] = wave
        self._nodes[wave] += 1
        self._taken[wave] += takes
        return wave


def plan(
    policy: Policy, views: Sequence[NodeView], refusals: Mapping[str, Attempt], now: float, tally: Tally
) -> list[PlannedNode]:
    """Plan the waiting nodes of one policy, given in their order, as if it were not paused and nothing were in progress.

    Args:
        policy: The policy.
        views: Its waiting nodes, with their pods.
        refusals: By uid, the pods whose eviction would be refused.
        now: Server time in seconds.
        tally: The policy's counts.
    """
    giving = [_gives_room(view) for view in views]
    returning = sum(giving)
    waves = _Waves(free_slots(policy.spec.max_parallel_upgrades, 0), lasting_room(policy, tally, returning))
    planned = []
    for view, gives in zip(views, giving, strict=True):
        facts = facts_of(view, now)
        reason, message = why_not_eligible(view)
        if reason is None:
            reason, message = why_never(policy, tally, group_of(facts), returning) or (None, "")
        wave = 0 if reason else waves.next(needs=facts.available, takes=facts.available or gives)
        node = PlannedNode(view.node.name, view.keys.driver, policy.full_name, wave, reason, message, facts.available, gives)
        planned.append(_with_pods(node, Turn(view, _record(view, policy, now), policy, now), refusals))
    return planned


def _gives_room(view: NodeView) -> bool:
    return lifts(view) and view.node.ready and why_not_eligible(view)[0] is None


def _record(view: NodeView, policy: Policy, now: float) -> Record:
    """The record that the grant would begin with, which says whether a restart alone may do."""
    patch = grant(view, policy, now).patch
    return patch.record if patch and patch.record else record_in_force(view, State.UPGRADE_REQUIRED, now)


def _with_pods(node: PlannedNode, turn: Turn, refusals: Mapping[str, Attempt]) -> PlannedNode:
    """Add what would become of the node's pods."""
    only = restart_only(turn)
    steps = () if only else _steps(turn)
    leaving = {p.key: p for rules in steps for p in _leaving(turn, rules)}
    blockers = {str(b): b for rules in steps for b in (*unreadable(turn), *_blockers(turn, rules, refusals))}
    return replace(node, restart_only=only, evicts=tuple(sorted(leaving)), blockers=tuple(blockers.values()))


def _steps(turn: Turn) -> tuple[Rules, ...]:
    deletion = (deletion_rules(turn),) if turn.policy.has_work(State.POD_DELETION_REQUIRED) else ()
    return (*deletion, drain_rules(turn)) if turn.policy.spec.drain.enable else deletion


def _leaving(turn: Turn, rules: Rules) -> list[Pod]:
    return [p for p in turn.view.workload or () if fate(p, rules) is not Fate.STAYS]


def _blockers(turn: Turn, rules: Rules, refusals: Mapping[str, Attempt]) -> tuple[Blocker, ...]:
    return drainage(turn.view.workload or (), rules, refusals, turn.now).blockers
