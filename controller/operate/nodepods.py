"""All pods of the nodes that are being emptied or validated, and of no others.

Watching every pod of a large cluster for the sake of a few nodes would cost memory and bandwidth for nothing. So each
node in progress has a watch of its own, which begins with the whole state as of the request (a WatchList without a
resourceVersion is a consistent read, and one request less than a list and a watch): begun after the cordon's answer, it
misses nothing that was bound before. Above :data:`MANY` nodes one trimmed cluster-wide watch serves all that come
later; since that one may lag, its word that a node is empty is confirmed by one consistent list of the node.

A pod that cannot be decoded is on its node all the same: it is told beside the others, and the node is not empty. Where
the cluster-wide watch is all there is, which node that is may be unreadable as well; so no node's emptiness is believed
any more without a new list, and a node on which a list finds such a pod gets a watch of its own.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from controller.api.pod import Pod
from controller.kube.client import Client
from controller.kube.decoding import Malformed
from controller.kube.informer import Informer
from controller.kube.metrics import ReflectorMetrics
from controller.kube.resources import PODS
from controller.logs import detached

MANY = 64
BY_NODE = "node"

logger = logging.getLogger(__name__)


class Look(NamedTuple):
    """What is known of a node's pods."""

    pods: tuple[Pod, ...] | None
    """None while they have not been listed."""
    final: bool = True
    """Whether they are believed where nothing is left."""
    unreadable: Mapping[str, str] = {}
    """Pods that are there but cannot be decoded (``namespace/name``), each with what is wrong with it."""


def unreadable(found: Iterable[Malformed]) -> Mapping[str, str]:
    """Return undecodable pods as a :class:`Look` tells them."""
    return {bad.key: bad.error for bad in found}


class NodePods:
    """Pods by node, for nodes that were asked for.

    Args:
        client: The API server.
        tasks: Owner of the watches' tasks.
        changed: Called with a node's name when its pods changed or were listed.
        gone: Called with the uid of a pod that is gone.
        dropped: Called with the name of a node whose pods are not looked at any more.
        metrics: Told of lists and watches.
    """

    def __init__(
        self,
        client: Client,
        tasks: asyncio.TaskGroup,
        changed: Callable[[str], None],
        gone: Callable[[str], None],
        dropped: Callable[[str], None],
        metrics: ReflectorMetrics | None = None,
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._changed = changed
        self._gone = gone
        self._dropped = dropped
        self._metrics = metrics
        self._own: dict[str, tuple[Informer[Pod], asyncio.Task[None]]] = {}
        # Nodes served by the cluster-wide watch, each with whether a consistent list has confirmed what it shows.
        self._shared: dict[str, bool] = {}
        # Those of them that an undecodable pod may have come to since a list of them was asked for.
        self._doubted: set[str] = set()
        self._cluster: tuple[Informer[Pod], asyncio.Task[None]] | None = None

    def ensure(self, node: str) -> None:
        """Look at a node's pods from now on."""
        if node in self._own or node in self._shared:
            return
        if len(self._own) < MANY:
            self._watch(node)
        else:
            self._shared[node] = False
            self._share(node)

    def drop(self, node: str) -> None:
        """Stop looking. Asked for again, the node is listed again."""
        if own := self._own.pop(node, None):
            own[1].cancel()
        self._unshare(node)
        self._dropped(node)

    def look(self, node: str) -> Look:
        """Return what is known of the node's pods."""
        if own := self._own.get(node):
            pods = own[0].store.list() if own[0].synced else None
            return Look(pods, unreadable=unreadable(own[0].reflector.malformed.values()))
        if node in self._shared and self._cluster and self._cluster[0].synced:
            return Look(self._cluster[0].store.by_index(BY_NODE, node), self._shared[node])
        return Look(None)

    async def confirm(self, node: str) -> None:
        """List a node's pods consistently, and take over what the cluster-wide watch has not shown yet.

        Raises:
            KubeError: The list failed; nothing is confirmed.
        """
        if node not in self._shared or self._cluster is None:
            return
        self._doubted.discard(node)
        result = await self._client.list(PODS, field_selector=f"spec.nodeName={node}")
        if self._cluster is None or node not in self._shared:
            return
        if result.malformed:
            self._unshare(node)
            self._watch(node)
            return
        for pod in result.items:
            self._cluster[0].store.observe_write(pod)
        self._shared[node] = node not in self._doubted
        self._changed(node)

    def __len__(self) -> int:
        return len(self._own) + len(self._shared)

    def _watch(self, node: str) -> None:
        pods = f"spec.nodeName={node}"
        informer = Informer(self._client, PODS, field_selector=pods, on_malformed=lambda _: self._changed(node))
        self._own[node] = (informer, self._start(informer, node))

    def _share(self, node: str) -> None:
        if self._cluster is not None:
            if self._cluster[0].synced:
                self._changed(node)  # nothing else would tell that its pods are known
        else:
            informer = Informer(self._client, PODS, metrics=self._metrics, on_malformed=self._doubt)
            informer.store.index_by(BY_NODE, lambda pod: (pod.node_name,) if pod.node_name else ())
            self._cluster = (informer, self._start(informer, ""))

    def _unshare(self, node: str) -> None:
        self._shared.pop(node, None)
        self._doubted.discard(node)
        if self._cluster and not self._shared:
            self._cluster[1].cancel()
            self._cluster = None

    def _doubt(self, bad: Malformed) -> None:
        """An undecodable pod came, changed or went: where it may be, what was confirmed may not be so any more."""
        for node in self._shared.keys() & {bad.node} if bad.node else list(self._shared):
            self._shared[node] = False
            self._doubted.add(node)

    def _start(self, informer: Informer[Pod], node: str) -> asyncio.Task[None]:
        informer.add_handler(self._handle)
        name = f"pods of {node or 'the cluster'}"
        return self._tasks.create_task(self._run(informer, node), name=name, context=detached())

    async def _run(self, informer: Informer[Pod], node: str) -> None:
        """Watch, and tell when the first list is there: an empty one calls no handler."""

        async def tell() -> None:
            await informer.wait_for_sync()
            for name in [node] if node else list(self._shared):
                self._changed(name)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tell())
            tasks.create_task(informer.run())

    def _handle(self, old: Pod | None, new: Pod | None) -> None:
        if new is None and old is not None:
            self._gone(old.uid)
        pod = new or old
        if pod is None or not pod.node_name or (pod.node_name not in self._own and pod.node_name not in self._shared):
            return
        if old is None and pod.node_name in self._shared:
            self._shared[pod.node_name] = False
        self._changed(pod.node_name)
