"""The least of a disruption controller: a budget's status follows the pods that it guards, a moment later."""

from tests.sim.apiserver import ApiServer
from tests.sim.objects import Obj, key_of, labels, ready_pod
from tests.sim.selectors import from_object

DELAY = 0.1


class Budgets:
    """Keeps the status of every budget that says ``minAvailable``."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        for kind in ("pods", "poddisruptionbudgets"):
            server.store.reactions[kind].append(self._changed)

    def _changed(self, _old: Obj | None, _new: Obj | None) -> None:
        self._server.loop.call_later(DELAY, self._count)

    def _count(self) -> None:
        for budget in self._server.store.objects("poddisruptionbudgets"):
            guards = from_object(budget["spec"]["selector"])
            namespace = budget["metadata"]["namespace"]
            pods = [p for p in self._server.store.objects("pods") if p["metadata"]["namespace"] == namespace]
            guarded = [p for p in pods if guards(labels(p))]
            healthy, desired = sum(map(ready_pod, guarded)), budget["spec"]["minAvailable"]
            status = {
                "observedGeneration": budget["metadata"]["generation"],
                "disruptionsAllowed": max(0, healthy - desired),
                "currentHealthy": healthy,
                "desiredHealthy": desired,
                "expectedPods": len(guarded),
            }
            self._server.edit("disruption-controller", "poddisruptionbudgets", key_of(budget), ("status",), status)
