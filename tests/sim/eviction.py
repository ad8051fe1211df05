"""The Eviction API, after kubernetes/pkg/registry/core/pod/storage/eviction.go: budgets decide, the pod is deleted."""

from tests.sim.apiserver import Answer, ApiServer, Call, RefusedError, check_uid, status_body
from tests.sim.objects import Obj, assoc, labels, ready_pod, terminal
from tests.sim.selectors import from_object


class Evictions:
    """Serves ``pods/eviction``."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        server.evict = self.evict

    def evict(self, call: Call) -> Answer:
        assert call.route is not None
        pod = self._server.existing(call.route)
        if call.body["metadata"]["name"] != call.route.name:
            raise RefusedError(400, "BadRequest", "name in URL does not match name in Eviction object")
        options = call.body.get("deleteOptions") or {}
        self._server.check_namespace(call.route)
        check_uid(call.route, pod, options)
        if not self._ignores_budgets(pod):
            self._ask_budget(pod, dry_run=bool(options.get("dryRun")))
        accepted = Answer(201, {"Date": self._server.date()}, status_body(201, "", ""))
        if options.get("dryRun"):
            return accepted
        self._mark(pod)
        fresh = self._server.existing(call.route)
        self._server.remove(call, "pods", fresh, options.get("gracePeriodSeconds"))
        return accepted

    @staticmethod
    def _ignores_budgets(pod: Obj) -> bool:
        """What is not up needs no budget."""
        return terminal(pod) or pod["status"].get("phase") == "Pending" or "deletionTimestamp" in pod["metadata"]

    def _ask_budget(self, pod: Obj, *, dry_run: bool) -> None:
        budgets = [b for b in self._server.store.objects("poddisruptionbudgets") if _guards(b, pod)]
        if len(budgets) > 1:
            text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            raise RefusedError(500, "InternalError", text)
        if not budgets:
            return
        budget = budgets[0]
        status = budget.get("status") or {}
        healthy, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
        if not ready_pod(pod) and desired > 0 and healthy >= desired:
            return
        self._decrement(budget, status, pod, dry_run=dry_run)

    def _decrement(self, budget: Obj, status: Obj, pod: Obj, *, dry_run: bool) -> None:
        name, allowed = budget["metadata"]["name"], status.get("disruptionsAllowed", 0)
        if status.get("observedGeneration", 0) < budget["metadata"]["generation"]:
            raise _too_many(f"The disruption budget {name} is still being processed by the server.", 10)
        if allowed <= 0:
            needs, has = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
            raise _too_many(f"The disruption budget {name} needs {needs} healthy pods and has {has} currently", 0)
        if dry_run:
            return
        disrupted = {**(status.get("disruptedPods") or {}), pod["metadata"]["name"]: self._server.stamp()}
        new = {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}
        self._server.apply("apiserver", "poddisruptionbudgets", {**budget, "status": new})

    def _mark(self, pod: Obj) -> None:
        """The DisruptionTarget condition, written before the deletion."""
        if "deletionTimestamp" in pod["metadata"]:
            return
        target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        kept = [c for c in pod["status"].get("conditions", ()) if c["type"] != "DisruptionTarget"]
        self._server.apply("apiserver", "pods", assoc(pod, ("status", "conditions"), [*kept, target]))


def _guards(budget: Obj, pod: Obj) -> bool:
    return budget["metadata"]["namespace"] == pod["metadata"]["namespace"] and from_object(budget["spec"].get("selector"))(
        labels(pod)
    )


def _too_many(cause: str, retry_after: int) -> RefusedError:
    text = "Cannot evict pod as it would violate the pod's disruption budget."
    causes = [{"reason": "DisruptionBudget", "message": cause}]
    return RefusedError(429, "TooManyRequests", text, causes=causes, retry_after=retry_after)
