"""The admission policy that has the Lease as its parameter (manifests/admission), as the simulated API server enforces it.

Only the pod that the Lease names as its holder may write nodes, pods and the status of policies. The policy's parameter
comes to it through a watch: it knows what the Lease was a moment ago.
"""

from collections import deque
from typing import Any

from tests.checker import Event
from tests.sim.apiserver import Answer, ApiServer, Call, RefusedError

WRITTEN = frozenset({"nodes", "pods", "driverupgradepolicies"})
MESSAGE = "driver-upgrade fence: only the pod that holds the Lease may write"


def pod_of(actor: str) -> str:
    """uid of the pod that a process runs in: ``controller-1`` and what it is started as again share one."""
    return actor.partition(" ")[0].replace("controller", "uid") if actor.startswith("controller") else ""


class FencedServer:
    """Stands before the API server for those whose requests are fenced.

    Args:
        server: The API server.
        lease: Key of the Lease.
        on: Whether there is a fence.
        lag: Seconds by which it learns late of a new holder.
    """

    def __init__(self, server: ApiServer, lease: str, *, on: bool, lag: float) -> None:
        self._server = server
        self._lease = lease
        self._on = on
        self._lag = lag
        self._holders: deque[tuple[float, str]] = deque([(float("-inf"), "")])
        self.loop = server.loop
        self.requests = server.requests
        self.refused = 0
        server.audits.append(self._watch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def handle(self, call: Call) -> Answer:
        """Carry a request out, or refuse it."""
        where = call.route
        if self._on and where is not None and call.method != "GET" and where.kind in WRITTEN:
            uid = pod_of(call.actor)
            if uid and not self._holder().endswith(f"_{uid}"):
                self.refused += 1
                text = f"{where.kind} {where.name!r} is forbidden: {MESSAGE}"
                refused = RefusedError(403, "Forbidden", text, causes=[{"message": MESSAGE}])
                self._server._refused(call, refused)
                return refused.answer(self._server)
        return self._server.handle(call)

    def _watch(self, entry: Event) -> None:
        if entry.kind == "leases" and entry.key == self._lease and entry.code < 400:
            holder = ((entry.new or {}).get("spec") or {}).get("holderIdentity") or ""
            self._holders.append((entry.at, str(holder)))

    def _holder(self) -> str:
        known = self.loop.time() - self._lag
        while len(self._holders) > 1 and self._holders[1][0] <= known:
            self._holders.popleft()
        return self._holders[0][1]
