"""What the rollout must know of one node: a few small values, made from its view whenever the view changes."""

from enum import Enum

import msgspec
from msgspec.structs import replace

from controller.upgrade.actions import Decision
from controller.upgrade.decide import decide, other_operators, record_in_force
from controller.upgrade.failed import recovered
from controller.upgrade.idle import why_not_eligible
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure, Record
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import IN_PROGRESS, State

OTHER_TARGET, RETRY, REQUESTED, SAFE_LOAD, ORDINARY = range(5)


class Ask(Enum):
    """What a node asks of the rollout."""

    NOTHING = "nothing"
    GRANT = "grant"
    VALIDATION = "validation"


class Facts(msgspec.Struct, frozen=True, gc=False):
    """One node for one driver, as the budget counts it. ``policy`` is the policy that it counts for."""

    policy: str
    state: State
    managed: bool = False
    in_progress: bool = False
    available: bool = False
    target: str = ""
    failed_target: str = ""
    ask: Ask = Ask.NOTHING
    rank: int = ORDINARY
    blocked: Reason | None = None
    """What of its own holds it where it is: a node that is to be upgraded, one at rest, or one that must be left alone."""
    since: float = 0.0
    """When it entered its state, by its record (server time, seconds); 0 where that is not known."""
    outdated: bool = False
    """Whether a node that must be left alone needs the upgrade, by its driver pods, whatever its label says."""

    @property
    def outstanding(self) -> bool:
        """Whether the rollout is not over while this node is as it is."""
        return self.state is State.UPGRADE_REQUIRED or self.outdated


class Unlisted(msgspec.Struct, frozen=True):
    """A node whose driver pods have not been listed yet: nothing is decided on half a picture, but it counts."""

    half: NodeView
    """All but its driver pods."""


def facts_of(view: NodeView, now: float, decision: Decision | None = None) -> Facts:
    """Reduce a view to what the budget counts.

    A node counts for the policy in its record while it is in progress, whatever selects it now, and whatever a person has
    made of its label meanwhile: it is in progress until the record says that it is not.

    Args:
        view: What is known.
        now: Server time in seconds.
        decision: What was decided on this view; where it is not given and is needed, it is made here.
    """
    state = view.state or State.UNKNOWN
    ask, blocked = _ask(view, state, now)
    at_rest = _left_alone(view) or not (holds_slot(view, state) or state is State.UPGRADE_FAILED)
    if ask is Ask.NOTHING and at_rest and (_manages(view) or holds_slot(view, state)):
        decision = decision or decide(view, now)
        blocked = decision.reason if decision.patch is None else None
    return _facts(view, now, ask, blocked)


def facts_unlisted(unlisted: Unlisted, now: float) -> Facts:
    """Count a node whose driver pods are not known by what stands on it: it keeps its slot, and asks for nothing."""
    return _facts(unlisted.half, now, Ask.NOTHING, None)


def _facts(view: NodeView, now: float, ask: Ask, blocked: Reason | None) -> Facts:
    state = view.state or State.UNKNOWN
    in_progress = holds_slot(view, state)
    policy = view.policy.full_name if view.policy else ""
    if in_progress and view.written and view.written.policy:
        kind, _, name = view.written.policy.partition("/")
        policy = f"{kind}/{view.written.namespace}/{name}"
    # A failed node without a record is about to be taken over: it counts against the threshold from the first.
    known = view.written or (record_in_force(view, state, now) if state is State.UPGRADE_FAILED else None)
    failure = known.failure if known else None
    return Facts(
        policy=policy,
        state=state,
        managed=_manages(view),
        in_progress=in_progress,
        available=view.node.ready and not view.node.unschedulable and not in_progress and state is not State.UPGRADE_FAILED,
        target=view.target,
        failed_target=_failed_target(failure, view.target),
        ask=ask,
        rank=rank_of(view),
        blocked=blocked,
        since=view.written.since if view.written and view.written.state is state else 0.0,
        outdated=blocked is not None and _left_alone(view) and view.needs_upgrade,
    )


def _failed_target(failure: Failure | None, target: str) -> str:
    """The target that a failed node counts against; one whose DaemonSet no longer wants it has none now, and counts on."""
    return failure.target if failure and not failure.earlier and target in {"", failure.target} else ""


def failing(facts: Facts, record: Record) -> Facts:
    """A node whose failure is decided and not yet answered: it keeps its slot, and counts as failed already."""
    return replace(facts, failed_target=_failed_target(record.failure, facts.target), available=False)


def holds_slot(view: NodeView, state: State) -> bool:
    """Whether the node is in progress by its label or still by its record."""
    return state in IN_PROGRESS or (view.written is not None and view.written.in_progress)


def _left_alone(view: NodeView) -> bool:
    """Whether the node must be left as it is, whatever it needs."""
    return view.state is None or other_operators(view)


def _manages(view: NodeView) -> bool:
    return view.policy is not None and is_managed(view)


def is_managed(view: NodeView) -> bool:
    """Whether a driver DaemonSet should run here, or a driver pod or our record is here."""
    return bool(view.driver_pods) or view.written is not None or view.is_wanted


def _ask(view: NodeView, state: State, now: float) -> tuple[Ask, Reason | None]:
    if view.policy is None or view.label != state or other_operators(view):
        return Ask.NOTHING, None
    if view.written is not None and view.written.state is not state:
        return Ask.NOTHING, None
    record = record_in_force(view, state, now)
    if state is State.UPGRADE_FAILED and view.written is not None:
        busy = any(o.in_progress for o in view.others)
        validate = not busy and recovered(view, record.failure, record.asked_for)
        return (Ask.VALIDATION if validate else Ask.NOTHING), None
    if state is not State.UPGRADE_REQUIRED or not (view.needs_upgrade or record.claim) or view.unsettled:
        return Ask.NOTHING, None
    reason, _ = why_not_eligible(view)
    return Ask.GRANT, reason


def rank_of(view: NodeView) -> int:
    """Where a node stands among those that may be granted; the lowest goes first."""
    failure = view.written.failure if view.written else None
    if failure is not None:
        return RETRY if failure.target == view.target else OTHER_TARGET
    if view.requested:
        return REQUESTED
    return SAFE_LOAD if view.waits_for_safe_load else ORDINARY
