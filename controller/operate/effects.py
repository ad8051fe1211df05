"""Does what a decision asks for, each write with a precondition, and tells of it.

A node's PATCH carries the resourceVersion that was decided on, a deletion and an eviction the pod's uid. Every answer
enters the caches at once, so that the next decision never sees less than what we did ourselves.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from controller.api.node import Node
from controller.api.pod import Pod
from controller.kube.client import Client
from controller.kube.errors import Conflict, NotFound
from controller.kube.resources import NODES, PODS
from controller.operate.caches import Caches
from controller.operate.claims import Claims
from controller.operate.evictor import Evictor
from controller.operate.nodepods import NodePods
from controller.upgrade.actions import (
    Action,
    ConfirmPods,
    DeletePod,
    EvictPod,
    ListRevisions,
    PatchNode,
    ReadClaims,
    merge_body,
)
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State

logger = logging.getLogger(__name__)


class TransitionMetrics(Protocol):
    """What the effects tell."""

    def transition(self, driver: str, policy: str, old: State, new: State, seconds: float) -> None:
        """A node went from one state to another after this long."""

    def upgraded(self, driver: str, policy: str, old: State, new: State, seconds: float) -> None:
        """A node went from one state to another this long after its grant."""

    def failed(self, driver: str, policy: str, state: State, reason: Reason | None) -> None:
        """A node failed in a state, for a reason."""

    def driver_restarted(self, driver: str, policy: str) -> None:
        """A driver pod was deleted to be replaced."""


class Effects:
    """Turns actions into API calls.

    Args:
        client: The API server.
        caches: What answers enter.
        pods: Pods of the nodes in progress.
        evictor: Sends evictions.
        claims: Reads resource claims.
        metrics: Told of what was done.
        still_wanted: Decides a node anew and says whether a driver pod's deletion is still asked for.
    """

    def __init__(
        self,
        client: Client,
        caches: Caches,
        pods: NodePods,
        evictor: Evictor,
        claims: Claims,
        metrics: TransitionMetrics,
        still_wanted: Callable[[str, str], bool],
    ) -> None:
        self._client = client
        self._caches = caches
        self._pods = pods
        self._evictor = evictor
        self._claims = claims
        self._metrics = metrics
        self._still_wanted = still_wanted
        self._followers: list[Callable[[NodeView, PatchNode, Node], None]] = []
        self._heralds: list[Callable[[NodeView, PatchNode], None]] = []

    def on_transition(self, follower: Callable[[NodeView, PatchNode, Node], None]) -> None:
        """Call follower after every PATCH of a node: the seam for Events and notifications."""
        self._followers.append(follower)

    def before_transition(self, herald: Callable[[NodeView, PatchNode], None]) -> None:
        """Call herald before every PATCH of a node is sent: what is decided is known here before the server's answer."""
        self._heralds.append(herald)

    async def patch_node(self, view: NodeView, patch: PatchNode) -> Node:
        """Write label, record and cordon in one PATCH; the answer is in the cache when this returns.

        Raises:
            Conflict: The node changed since it was looked at: look again.
            KubeError: As the client.
        """
        decided = self._client.now()  # the answer may tell that the clock was set, which the view does not know of
        for herald in self._heralds:
            herald(view, patch)
        body = merge_body(patch, view.keys.state, view.keys.record, view.node.metadata.resource_version)
        node = await self._client.patch(NODES, view.node.name, body)
        self._caches.nodes.store.observe_write(node)
        self._tell(view, patch, node, decided)
        return node

    def _tell(self, view: NodeView, patch: PatchNode, node: Node, decided: float) -> None:
        old = view.state or State.UNKNOWN
        fields = {
            "node": view.node.name,
            "driver": view.keys.driver,
            "policy": _policy(view),
            "from": str(old) or "unknown",
            "state": str(patch.state) or "unknown",
            "reason": patch.reason or "",
            "detail": patch.message,
        }
        if old is patch.state:
            logger.info("node marks written", extra=fields)
        else:
            logger.log(logging.WARNING if patch.state is State.UPGRADE_FAILED else logging.INFO, "node moved", extra=fields)
            self._measure(view, old, patch, decided)
        for follower in self._followers:
            follower(view, patch, node)

    def _measure(self, view: NodeView, old: State, patch: PatchNode, decided: float) -> None:
        driver, policy = view.keys.driver, _policy(view)
        since = view.written.since if view.written else 0.0
        granted = view.written.entered.get(State.CORDON_REQUIRED, 0.0) if view.written else 0.0
        self._metrics.transition(driver, policy, old, patch.state, max(0.0, decided - view.today(since)) if since else 0.0)
        if granted:
            self._metrics.upgraded(driver, policy, old, patch.state, max(0.0, decided - view.today(granted)))
        if patch.state is State.UPGRADE_FAILED:
            self._metrics.failed(driver, policy, old, patch.reason)

    async def carry_out(self, view: NodeView, action: Action) -> None:
        """Do anything but the node's PATCH.

        Raises:
            KubeError: As the client; pods that are gone already are no error.
        """
        match action:
            case EvictPod():
                pod = next((p for p in view.workload or () if p.uid == action.uid), None)
                if pod is not None:
                    self._evictor.submit(view.node.name, action, pod)
            case DeletePod():
                await self._delete(view, action)
            case ListRevisions():
                await self._caches.list_revisions(action.namespace, action.uid, action.hashes)
            case ConfirmPods():
                await self._pods.confirm(view.node.name)
            case ReadClaims():
                await self._claims.read(view.node.name, action.claims)

    async def _delete(self, view: NodeView, action: DeletePod) -> None:
        pod = next(p for p in view.driver_pods if p.uid == action.uid)
        fields = {"node": view.node.name, "driver": view.keys.driver, "pod": pod.key}
        gone_at = ""
        client = await self._client.in_turn("DELETE")
        # The turn may have been waited for while the node was uncordoned: who changed it has it decided anew.
        if not self._still_wanted(view.node.name, action.uid):
            return
        try:
            answer = await client.delete(PODS, action.name, action.namespace, uid=action.uid)
        except (NotFound, Conflict):
            # A cache that believes a mistaken 404, a proxy's for instance, would miss the pod until it changes, which it
            # never may: the node would wait for a driver that runs.
            answer, gone_at = await self._client.look_up_at(PODS, pod.name, pod.namespace)
            if answer is not None and answer.uid == pod.uid:
                self._take_over(pod, answer)
                raise
            answer = None
        else:
            logger.info("driver pod deleted", extra=fields)
            self._metrics.driver_restarted(view.keys.driver, _policy(view))
        self._take_over(pod, answer, gone_at)

    def _take_over(self, pod: Pod, answer: Pod | None, gone_at: str = "") -> None:
        """Show the deletion in the cache before the watch does: nothing is deleted twice.

        What the watch still has to tell of the pod's end is older than ``gone_at``, a version at which it was gone.
        """
        for store in self._caches.driver_pod_stores():
            held = store.get(pod.key)
            if held is None or held.uid != pod.uid:
                continue
            if answer is not None:
                store.observe_write(answer)
            else:
                store.delete(held, gone_at)


def _policy(view: NodeView) -> str:
    return view.policy.full_name if view.policy else ""
