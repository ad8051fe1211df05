"""Which disruption budgets guard a pod, and what they would answer to its eviction now.

The answer that counts is the Eviction API's; this one is made from the budgets' own status, and so can be had without
asking for an eviction: by a dry run, by an explanation, and before an eviction is sent that is known to be refused.
"""

from collections.abc import Iterable

from controller.api.pod import Pod
from controller.api.selectors import Selector, SelectorError, from_label_selector
from controller.api.workloads import PodDisruptionBudget
from controller.upgrade.pods import is_ready
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import Attempt

NEVER = float("inf")


def guards(budget: PodDisruptionBudget, pod: Pod) -> bool:
    """Whether the budget counts the pod."""
    if budget.namespace != pod.namespace:
        return False
    selector = counted(budget)
    return selector is not None and selector.matches(pod.labels)


def counted(budget: PodDisruptionBudget) -> Selector | None:
    """Return what the budget selects in its namespace; None where it has no selector, or none that makes sense."""
    try:
        return from_label_selector(budget.spec.selector) if budget.spec.selector is not None else None
    except SelectorError:
        return None


def spent(budget: PodDisruptionBudget) -> str:
    """Return what the server would say where the budget is known to allow nothing, in its words; else empty."""
    status = budget.status
    if status.disruptions_allowed > 0 or status.observed_generation < budget.metadata.generation:
        return ""
    need, have = status.desired_healthy, status.current_healthy
    return f"The disruption budget {budget.name} needs {need} healthy pods and has {have} currently"


def foreseen(pod: Pod, budgets: Iterable[PodDisruptionBudget]) -> Attempt | None:
    """Return the refusal to expect for a pod, None where nothing known speaks against its eviction.

    Pods that are not ready may be evicted whatever a budget says.
    """
    guarding = sorted((b for b in budgets if guards(b, pod)), key=lambda b: b.key)
    if len(guarding) > 1:
        names = ", ".join(b.name for b in guarding)
        text = f"guarded by {len(guarding)} budgets, {names}, and the server evicts no such pod"
        return Attempt(NEVER, Reason.MULTIPLE_POD_DISRUPTION_BUDGETS, text)
    message = spent(guarding[0]) if guarding and is_ready(pod) else ""
    return Attempt(NEVER, Reason.POD_DISRUPTION_BUDGET, message) if message else None
