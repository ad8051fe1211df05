"""What a decision asks to be done. Values one can print, count, compare and replay; nothing here does anything."""

from collections.abc import Mapping

import msgspec

from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.record import Record, encode_record
from controller.upgrade.states import State


class PatchNode(msgspec.Struct, frozen=True):
    """One PATCH of one node, with the resourceVersion that the decision was made on.

    ``record`` None takes label and record away. ``unschedulable`` None leaves the cordon alone. Annotations with value
    None are removed.
    """

    record: Record | None
    unschedulable: bool | None = None
    annotations: Mapping[str, str | None] = {}
    reason: Reason | None = None
    message: str = ""

    @property
    def state(self) -> State:
        """The state that the node has afterwards."""
        return self.record.state if self.record else State.UNKNOWN


class EvictPod(msgspec.Struct, frozen=True):
    """Evict a workload pod through the Eviction API, with its uid as precondition."""

    namespace: str
    name: str
    uid: str
    grace_period_seconds: int = -1


class DeletePod(msgspec.Struct, frozen=True):
    """Delete a driver pod, with its uid as precondition. Workloads are never deleted."""

    namespace: str
    name: str
    uid: str


class ListRevisions(msgspec.Struct, frozen=True):
    """List the revisions of one DaemonSet consistently: a pod carries a hash that the cache does not know."""

    namespace: str
    daemonset: str
    uid: str
    hashes: frozenset[str]


class ConfirmPods(msgspec.Struct, frozen=True):
    """List the pods of the node consistently: the view that says it is empty comes from a cluster-wide watch."""


class ReadClaims(msgspec.Struct, frozen=True):
    """Read ResourceClaims (``namespace/name``): pods on the node hold devices through them."""

    claims: frozenset[str]


Action = PatchNode | EvictPod | DeletePod | ListRevisions | ConfirmPods | ReadClaims


class Decision(msgspec.Struct, frozen=True):
    """What to do now, why nothing more can be done, and when to look again (server time, seconds).

    A decision with a PATCH is followed by another decision as soon as its answer is there. ``deadline`` is when the
    state's time is up; None is never.
    """

    state: State
    actions: tuple[Action, ...] = ()
    reason: Reason | None = None
    message: str = ""
    blockers: tuple[Blocker, ...] = ()
    look_again: float | None = None
    deadline: float | None = None

    @property
    def patch(self) -> PatchNode | None:
        """The node's PATCH, if the decision has one: a decision has at most one."""
        return next((a for a in self.actions if isinstance(a, PatchNode)), None)


def merge_body(patch: PatchNode, state_key: str, record_key: str, resource_version: str) -> dict[str, object]:
    """Return the JSON merge patch: label, record, cordon and annotations in one write."""
    label = patch.state.value or None
    record = encode_record(patch.record) if patch.record else None
    body: dict[str, object] = {
        "metadata": {
            "resourceVersion": resource_version,
            "labels": {state_key: label},
            "annotations": {**patch.annotations, record_key: record},
        },
    }
    if patch.unschedulable is not None:
        body["spec"] = {"unschedulable": patch.unschedulable or None}
    return body
