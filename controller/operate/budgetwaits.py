"""Which disruption budgets guard the pods that are to be evicted, and which pods wait for a budget to change.

When it changes, as many waiting pods are let go as it allows, first come, first served. What guards a pod is found anew
only when some budget comes, goes or chooses others: a budget's status changes with each eviction, its selector hardly ever.
"""

from collections.abc import Callable, Collection

from controller.api.selectors import Selector
from controller.api.workloads import PodDisruptionBudget
from controller.kube.store import Store
from controller.operate.evictees import Evictee
from controller.upgrade.guards import counted
from controller.upgrade.reasons import Reason

BY_NAMESPACE = "namespace"


class BudgetWaits:
    """Follows the budgets.

    Args:
        budgets: The disruption budgets, indexed :data:`BY_NAMESPACE`.
        freed: Called with a pod that its budget does not hold any more. It waits no longer.
    """

    def __init__(self, budgets: Store[PodDisruptionBudget], freed: Callable[[Evictee], None]) -> None:
        self._budgets = budgets
        self._freed = freed
        # By the budget's key; a new version whenever one is not what it was.
        self._selectors: dict[str, Selector | None] = {}
        self._version = 0
        # Who waits, by the budget's key, in order.
        self._waiting: dict[str, dict[Evictee, None]] = {}
        budgets.add_handler(self._changed)

    def guarding(self, evictee: Evictee) -> list[PodDisruptionBudget]:
        """Return the budgets that guard a pod, as they are now, in a stable order."""
        if evictee.budgets_at != self._version:
            found = (b.key for b in self._budgets.by_index(BY_NAMESPACE, evictee.pod.namespace) if self._counts(b, evictee))
            evictee.budgets, evictee.budgets_at = tuple(sorted(found)), self._version
        return [budget for key in evictee.budgets if (budget := self._budgets.get(key)) is not None]

    def add(self, evictee: Evictee) -> None:
        """Let a pod wait for a change of any of its budgets."""
        self.remove(evictee)
        evictee.waits_for = [budget.key for budget in self.guarding(evictee)]
        for key in evictee.waits_for:
            self._waiting.setdefault(key, {})[evictee] = None

    def remove(self, evictee: Evictee) -> None:
        """Let it wait for none: what the next one allows is for others."""
        for key in evictee.waits_for:
            waiting = self._waiting[key]
            del waiting[evictee]
            if not waiting:
                del self._waiting[key]
        evictee.waits_for = []

    def __len__(self) -> int:
        return len(self._waiting)

    def _counts(self, budget: PodDisruptionBudget, evictee: Evictee) -> bool:
        selector = self._selectors.get(budget.key)
        return selector is not None and selector.matches(evictee.pod.labels)

    def _changed(self, old: PodDisruptionBudget | None, new: PodDisruptionBudget | None) -> None:
        budget = new or old
        if budget is None:
            return
        chooses_anew = old is None or new is None or old.spec != new.spec
        if chooses_anew:
            self._version += 1
            self._selectors.pop(budget.key, None)
            if new is not None:
                self._selectors[new.key] = counted(new)
        waiting = self._waiting.get(budget.key, {})
        for evictee in list(waiting) if new is None else _let_go(waiting, new, chooses_anew=chooses_anew):
            self.remove(evictee)
            self._freed(evictee)


def _let_go(waiting: Collection[Evictee], budget: PodDisruptionBudget, *, chooses_anew: bool) -> list[Evictee]:
    """A pod with several budgets is not helped by what one of them allows, but by having one less."""
    several = {e: None for e in waiting if e.attempt and e.attempt.reason is Reason.MULTIPLE_POD_DISRUPTION_BUDGETS}
    alone = [evictee for evictee in waiting if evictee not in several]
    return [*(several if chooses_anew else ()), *alone[: budget.status.disruptions_allowed]]
