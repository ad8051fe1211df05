"""What the disruption budgets would answer, told from their status."""

from typing import Any

import pytest

from controller.api.meta import ObjectMeta
from controller.api.selectors import LabelSelector, LabelSelectorRequirement
from controller.api.workloads import PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus
from controller.upgrade.guards import foreseen, guards, spent
from controller.upgrade.reasons import Reason
from tests.unit.upgrade.builders import pod

POD = pod("web-1", labels={"app": "web"})


WEB = LabelSelector(match_labels={"app": "web"})


def budget(name: str = "web", *, selector: LabelSelector | None = WEB, allowed: int = 0, **meta: Any) -> PodDisruptionBudget:
    """A budget that has seen its spec and allows so many disruptions."""
    return PodDisruptionBudget(
        metadata=ObjectMeta(**{"name": name, "namespace": "ops", "generation": 1, **meta}),
        spec=PodDisruptionBudgetSpec(selector),
        status=PodDisruptionBudgetStatus(1, allowed, 2, 2, 2),
    )


@pytest.mark.parametrize(
    ("one", "guarded"),
    [
        (budget(), True),
        (budget(selector=LabelSelector()), True),
        (budget(selector=None), False),
        (budget(selector=LabelSelector(match_labels={"app": "other"})), False),
        (budget(namespace="elsewhere"), False),
        (budget(selector=LabelSelector(match_expressions=(LabelSelectorRequirement("app", "Nonsense"),))), False),
    ],
    ids=["by-label", "all", "none", "another", "another-namespace", "unreadable"],
)
def test_which_pods_a_budget_guards(one: PodDisruptionBudget, guarded: bool):
    assert guards(one, POD) is guarded


def test_a_spent_budget_is_told_in_the_servers_words():
    assert spent(budget()) == "The disruption budget web needs 2 healthy pods and has 2 currently"
    assert spent(budget(allowed=1)) == ""
    assert spent(budget(generation=2)) == "", "its controller has not seen the new spec yet"


def test_a_pod_that_may_go_is_foreseen_to_go():
    assert foreseen(POD, ()) is None
    assert foreseen(POD, (budget(allowed=1),)) is None
    assert foreseen(pod("web-1", labels={"app": "web"}, ready=False), (budget(),)) is None, "not ready pods may always go"


def test_refusals_are_foreseen():
    refused = foreseen(POD, (budget(),))
    assert refused is not None
    assert refused.reason is Reason.POD_DISRUPTION_BUDGET
    several = foreseen(POD, (budget("b", allowed=1), budget("a", allowed=1)))
    assert several is not None
    assert several.reason is Reason.MULTIPLE_POD_DISRUPTION_BUDGETS
    assert "a, b" in several.message
