"""What the checker is told: every write with who did it, as an audit log and a watch tell it; and what it is to judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Obj = dict[str, Any]


class Event(NamedTuple):
    """One write, or one refused write, in the order of resourceVersion. Times are seconds since any one moment.

    A write that changed nothing, or that was refused, has the very same object as ``old`` and ``new``.
    """

    at: float
    """When it took effect: the audit log's stageTimestamp."""
    sent: float
    """When it was asked for: the audit log's requestReceivedTimestamp."""
    actor: str
    """Ours begin with ``controller``; ``admin`` is a person who disturbs; all others are the cluster's own."""
    verb: str
    """POST, PUT, PATCH, DELETE or EVICT."""
    kind: str
    """The resource in the plural."""
    key: str
    """``namespace/name``, or the name."""
    sub: str
    """The subresource ``status``, or nothing."""
    old: Obj | None
    new: Obj | None
    body: Any
    """What the request said; needed of ours only."""
    code: int
    pod: str = ""
    """uid of the pod whose token asked, to be held against the Lease; empty where that is not judged."""
    clock: float = 0.0
    """The API server's wall clock at that time, where it may step; else it goes with ``at``."""
    set_by: float = 0.0
    """Seconds by which that clock had been set until then, forward and back."""

    @property
    def ran(self) -> float:
        """How far that clock had run when it was asked for, at whatever speed, had nobody set it."""
        return (self.clock or self.at) - self.set_by - (self.at - self.sent)

    @property
    def ours(self) -> bool:
        """Whether the controller under test did it."""
        return self.actor.startswith("controller")


@dataclass(frozen=True)
class Subject:
    """One policy for one driver: what is judged, and by which names it is seen."""

    driver: str = "gpu"
    namespace: str = "drivers"
    daemonset: str = "driver"
    policy: str = "gpu"
    kind: str = "driverupgradepolicies"
    app: Mapping[str, str] = field(default_factory=lambda: {"app": "driver"})
    """The driver pods' labels."""
    pool: Mapping[str, str] = field(default_factory=dict)
    """The policy's nodeSelector. A node that policies of one driver select alike is of the one that is told of first."""
    app_expressions: Sequence[Mapping[str, Any]] = ()
    pool_expressions: Sequence[Mapping[str, Any]] = ()
    """The matchExpressions of both."""
    domain: str = "nvidia.com"
    may_fail: bool = False
    """Whether a node may end as failed."""
    others: tuple[str, ...] = ()
    """Further DaemonSets of the same driver."""
    named: str = ""
    """What a record calls the policy; needed where a driver has several."""

    @property
    def policy_key(self) -> str:
        return f"{self.namespace}/{self.policy}"

    @property
    def daemonset_keys(self) -> tuple[str, ...]:
        return tuple(f"{self.namespace}/{name}" for name in (self.daemonset, *self.others))
