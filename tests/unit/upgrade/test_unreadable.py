"""Pods that are on a node but cannot be decoded: nobody knows what they hold, so the node is not empty, and that is said."""

from controller.upgrade.decide import decide
from controller.upgrade.fleet import Tally
from controller.upgrade.plan import plan
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from tests.unit.upgrade.builders import ENTERED, NOW, OLD, at, policy, view, workload
from tests.unit.upgrade.builders import node as a_node

DRAINED = policy(drain={"enable": True})
UNREADABLE = {"ml/odd": "Expected `array`, got `str` - at `$.spec.containers`", "nameless": "no"}
NAMED = [(Reason.PODS_NOT_LISTED, "ml", "odd"), (Reason.PODS_NOT_LISTED, "", "nameless")]


def test_each_is_named_with_what_is_wrong_with_it():
    decision = decide(at(State.DRAIN_REQUIRED, OLD, policy=DRAINED, unreadable=UNREADABLE), NOW)
    assert [(b.reason, b.namespace, b.name) for b in decision.blockers] == NAMED
    assert "ml/odd" in decision.message
    assert "$.spec.containers" in decision.message


def test_a_failure_names_the_first():
    late = at(State.DRAIN_REQUIRED, OLD, policy=DRAINED, unreadable=UNREADABLE)
    decision = decide(late, ENTERED + 301)
    assert decision.state is State.UPGRADE_FAILED
    assert "ml/odd" in decision.message


def test_a_plan_foresees_them():
    seen = view(a_node(), OLD, policy=DRAINED, workload=(workload("train"),), unreadable=UNREADABLE)
    (planned,) = plan(DRAINED, [seen], {}, NOW, Tally())
    assert [(b.reason, b.namespace, b.name) for b in planned.blockers] == NAMED
    assert planned.evicts == ("ops/train",)
