"""What a rollout did and how long it took, by the one witness that both sides share: the API server's audit log.

It begins when the request that changes the DaemonSet arrives, and ends when the last write of a node is answered; with
either side that write gives the last node back. Everything that the client under test asked for in between, and until
it had no more to say, is counted, watches too; Events and leases are not a rollout's business and stand apart.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tools.controlplane.audit import Request

APART = frozenset({"events", "leases"})


@dataclass(frozen=True)
class Evidence:
    """One rollout as the API server saw it."""

    makespan: float
    """Seconds from the version's change until the last node is given back."""
    requests: Counter[tuple[str, str]]
    """By verb and target; Events and leases are left out."""
    apart: int
    """Requests about Events and leases."""
    evictions: Counter[int]
    """Answers to evictions by HTTP status."""
    eviction_seconds: tuple[float, ...]
    """How long each eviction took to be answered, in order of length."""

    @property
    def total(self) -> int:
        """How many requests there were."""
        return self.requests.total()


def evidence_of(requests: Iterable[Request], client: str) -> Evidence:
    """Reads what one client did from the version's change on.

    Raises:
        ValueError: the log shows no change of the version, or the client gave back no node.
    """
    seen = sorted(requests, key=lambda request: request.received)
    start = next((r.received for r in seen if r.is_write and r.target == "daemonsets" and _is_person(r)), None)
    if start is None:
        raise ValueError("the audit log shows no change of the driver's version")
    own = [request for request in seen if request.client == client and request.received >= start]
    counted = [request for request in own if request.resource not in APART]
    evictions = [request for request in counted if request.subresource == "eviction"]
    return Evidence(
        _seconds(start, _last_node_write(own, client)),
        Counter((request.verb, request.target) for request in counted),
        len(own) - len(counted),
        Counter(request.code for request in evictions),
        tuple(sorted(_seconds(request.received, request.answered) for request in evictions)),
    )


def _last_node_write(requests: Sequence[Request], client: str) -> str:
    writes = [request.answered for request in requests if request.verb == "patch" and request.target == "nodes"]
    if not writes:
        raise ValueError(f"the audit log shows no node written by {client}")
    return max(writes)


def _is_person(request: Request) -> bool:
    """The DaemonSet controller writes the DaemonSet's status under the same resource."""
    return request.verb == "patch"


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
