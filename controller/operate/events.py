"""Tells of nodes and policies by Events: follows writes, decisions and conditions, and hands the words to the recorder.

What is told is decided in :mod:`controller.upgrade.narration`; how much of it is written, in the recorder. Only the leader
has one of these.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from controller.api.event import EventType, ObjectReference, reference
from controller.api.meta import KubeObject
from controller.api.node import Node
from controller.kube.recorder import EventRecorder
from controller.upgrade.actions import PatchNode
from controller.upgrade.narration import Told, gist, on_condition, on_transition
from controller.upgrade.policy import Policy
from controller.upgrade.snapshot import NodeView

CONTROLLER = "nvidia.com/driver-upgrade-controller"
"""``reportingController`` of all Events."""


class Events:
    """The voice of the controller in the cluster."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder

    def transition(self, view: NodeView, patch: PatchNode, node: Node) -> None:
        """A node was written."""
        if told := on_transition(view, patch):
            self._tell(reference(node, "Node"), told, view)

    def decision(self, view: NodeView, news: Iterable[Told]) -> None:
        """A node waits, and this is news of it."""
        for told in news:
            self._tell(reference(view.node, "Node"), told, view)

    def conditions(
        self,
        policy: Policy,
        obj: KubeObject,
        earlier: Iterable[Mapping[str, Any]],
        now: Iterable[Mapping[str, Any]],
    ) -> None:
        """A policy's conditions are told: what changed is an Event."""
        before = {c.get("type"): gist(c) for c in earlier}
        regarding = reference(obj, policy.source.kind, f"{policy.source.group}/{policy.source.version}")
        for condition in now:
            kind, message = condition["type"], condition.get("message", "")
            if told := on_condition(kind, before.get(kind), gist(condition), message, policy.full_name):
                self._record(regarding, told)

    def _tell(self, regarding: ObjectReference, told: Told, view: NodeView) -> None:
        namespace, name = told.pod
        if name:
            uids = (p.uid for p in (*(view.workload or ()), *view.driver_pods) if (p.namespace, p.name) == told.pod)
            self._record(regarding, told, ObjectReference("Pod", name, namespace, next(uids, "")))
        elif policy := view.policy:
            self._record(regarding, told, _reference_of(policy))
        else:
            self._record(regarding, told)

    def _record(self, regarding: ObjectReference, told: Told, related: ObjectReference | None = None) -> None:
        kind: EventType = "Warning" if told.warning else "Normal"
        self._recorder.event(regarding, kind, str(told.reason), told.action, told.note, related)


def _reference_of(policy: Policy) -> ObjectReference:
    """Refer to the custom resource; a cluster-scoped one has no namespace, whatever namespace it counts in."""
    source = policy.source
    namespace = policy.namespace if source.namespaced else ""
    return ObjectReference(source.kind, policy.name, namespace, policy.uid, f"{source.group}/{source.version}")
