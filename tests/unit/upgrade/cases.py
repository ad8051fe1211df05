"""A row of the state table: a situation, and what must come of it. Actions are said in words, in :func:`words`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.upgrade.actions import ConfirmPods, Decision, DeletePod, EvictPod, ListRevisions, PatchNode
from controller.upgrade.decide import decide, grant, grant_validation
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from tests.unit.upgrade.builders import NOW, PLAIN

Decider = Callable[[NodeView, float], Decision]
DEFAULT_DEADLINE = -1.0
PUT_BACK = "put back"


def granted(view: NodeView, now: float) -> Decision:
    """What the rollout's grant does."""
    return grant(view, view.policy or PLAIN, now)


def validation_granted(view: NodeView, now: float) -> Decision:
    """What the rollout's grant of a validation does."""
    return grant_validation(view, view.policy or PLAIN, now)


@dataclass(frozen=True)
class Case:
    """One row. ``to`` None: it stays. ``does``: in :func:`words`. A time of 0 is none; one left out is not asked."""

    name: str
    view: NodeView
    to: State | None = None
    why: Reason | None = None
    does: str = ""
    deadline: float = DEFAULT_DEADLINE
    look_again: float = DEFAULT_DEADLINE
    by: Decider = decide
    now: float = NOW

    @property
    def start(self) -> State | None:
        """The state in force before."""
        return self.view.state

    def decided(self) -> Decision:
        """Decide."""
        return self.by(self.view, self.now)


def words(view: NodeView, decision: Decision) -> str:
    """The actions of a decision in a fixed order, such as ``cordon claim`` or ``evict a, evict b``."""
    return ", ".join(word for action in decision.actions for word in _words(view, action))


def _words(view: NodeView, action: object) -> Iterator[str]:
    match action:
        case EvictPod(name=name) if action.uid == name:
            yield f"evict {name}"
        case DeletePod(name=name) if action.uid == name:
            yield f"delete {name}"
        case ListRevisions():
            yield f"list revisions of {action.daemonset}"
        case ConfirmPods():
            yield "confirm"
        case PatchNode():
            yield from _patch_words(view, action)
        case _:
            raise AssertionError(action)


def _patch_words(view: NodeView, patch: PatchNode) -> Iterator[str]:
    if patch.record is None:
        yield PUT_BACK
    if patch.unschedulable is not None:
        yield "cordon" if patch.unschedulable else "uncordon"
    claimed = view.written is not None and view.written.claim
    claims = patch.record is not None and patch.record.claim
    if claims != claimed:
        yield "claim" if claims else "unclaim"
    names = {
        view.keys.initial_unschedulable: "keep",
        view.keys.safe_load: "safe-load",
        view.keys.requested: "requested",
        view.keys.jobs_start: "jobs-clock",
        view.keys.validation_start: "validation-clock",
        "nvidia.com/ofed-driver-upgrade.node-initial-state.unschedulable": "ofed-keep",
    }
    yield from (f"{'-' if value is None else '+'}{names[key]}" for key, value in sorted(patch.annotations.items()))


def check(case: Case) -> None:
    """Hold a decision against its row."""
    decision = case.decided()
    after = decision.patch.state if decision.patch else None
    moved = None if after is case.start or (decision.patch and decision.patch.record is None) else after
    assert (moved, decision.reason, words(case.view, decision)) == (case.to, case.why, case.does)
    if case.deadline != DEFAULT_DEADLINE:
        assert decision.deadline == (case.deadline or None)
    if case.look_again != DEFAULT_DEADLINE:
        assert decision.look_again == (case.look_again or None)
    if decision.look_again is not None:
        assert decision.look_again > case.now
