"""Why a node is where it is, and what would move it: the decision and the rollout's counts, in words.

Nothing is decided here. :func:`explain` asks ``decide`` and ``why_waiting``, the same as the controller, and adds what a
person needs to act: since when, until when, what then, and the remedy.
"""

from collections.abc import Iterable

import msgspec

from controller.upgrade.actions import Decision
from controller.upgrade.admission import admit, in_line, why_waiting
from controller.upgrade.decide import decide
from controller.upgrade.facts import Ask, Facts
from controller.upgrade.fleet import Tally
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.remedies import remedy
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State


class Explanation(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One driver on one node. Times are server time in seconds, 0 where there is none."""

    node: str
    driver: str
    state: str = "unknown"
    policy: str = ""
    target: str = ""
    since: float = 0.0
    deadline: float = 0.0
    then: str = ""
    """What happens at the deadline."""
    reason: Reason | None = None
    message: str = ""
    blockers: tuple[Blocker, ...] = ()
    holders: tuple[str, ...] = ()
    """Nodes that hold the slots, where that is what is missing."""
    remedy: str = ""
    next: str = ""
    """What the controller does as soon as it looks: where this stays, no controller is at work."""

    @property
    def stuck(self) -> bool:
        """Whether something other than its turn keeps the node from moving."""
        return self.reason not in {None, Reason.NO_SLOT, Reason.EVICTING}


def explain(view: NodeView, facts: Facts, tally: Tally, holders: Iterable[str], now: float) -> Explanation:
    """Explain a node that some policy, or our record, makes our business.

    Args:
        view: What is known of it.
        facts: The view as the rollout counts it.
        tally: The counts of its policy.
        holders: Nodes that hold a slot of its policy.
        now: Server time in seconds.
    """
    decision = decide(view, now)
    state = view.state or State.UNKNOWN
    reason, message, to = _waiting(view, tally, facts, decision)
    record = view.written if view.written and view.written.state is state else None
    return Explanation(
        node=view.node.name,
        driver=view.keys.driver,
        state=view.label if view.state is None else str(state) or "unknown",
        policy=facts.policy,
        target=view.target,
        since=record.since if record else 0.0,
        deadline=decision.deadline or 0.0,
        then=_then(view.policy, state, decision),
        reason=reason,
        message=message,
        blockers=decision.blockers,
        holders=tuple(holders) if reason is Reason.NO_SLOT else (),
        remedy=remedy(reason, view.node.name, facts.policy or "POLICY"),
        next=to,
    )


def _waiting(view: NodeView, tally: Tally, facts: Facts, decision: Decision) -> tuple[Reason | None, str, str]:
    """Reason, message, and what comes next where nothing is in the way."""
    if decision.patch is not None:
        to = decision.patch.state
        return None, decision.message, "label and record are written" if to is view.state else f"goes to {to or 'unknown'}"
    policy = view.policy
    why = why_waiting(policy, tally, facts) if policy is not None else None
    if policy is None or why is None:
        return decision.reason, decision.message, ""
    grants = admit(policy, tally)
    if view.node.name in (*grants.upgrades, *grants.validations):
        to = State.VALIDATION_REQUIRED if facts.ask is Ask.VALIDATION else State.CORDON_REQUIRED
        return None, "a slot is free for it", f"goes to {to}"
    told = in_line(decision, why)
    return told.reason, told.message, ""


def _then(policy: Policy | None, state: State, decision: Decision) -> str:
    if decision.deadline is None:
        return ""
    if decision.reason is Reason.DAEMONSET_GONE:
        return "the node is put back"
    if state is State.WAIT_FOR_JOBS_REQUIRED:
        return "the upgrade goes on all the same"
    if state is State.POD_DELETION_REQUIRED and policy is not None and policy.spec.drain.enable:
        return str(State.DRAIN_REQUIRED)
    return str(State.UPGRADE_FAILED)
