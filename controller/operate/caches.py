"""What the controller knows of the cluster: one informer for each resource, and the indexes by which it is asked.

Nodes, budgets and policies are watched cluster-wide, DaemonSets and their revisions in the driver namespaces. Driver pods
are watched by label, and which labels follows from the policies: those informers begin when a policy or a DaemonSet in a
record first asks for them, and end when no policy has the selector any more and nobody has asked for it for a while.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from controller.api.meta import KubeObject
from controller.api.node import Node
from controller.api.pod import Pod
from controller.api.policy import PolicyObject
from controller.api.selectors import Selector, SelectorError, from_label_selector
from controller.api.workloads import ControllerRevision, DaemonSet, PodDisruptionBudget
from controller.kube.client import Client
from controller.kube.informer import Informer
from controller.kube.metrics import ReflectorMetrics
from controller.kube.resources import (
    CONTROLLER_REVISIONS,
    DAEMONSETS,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    Resource,
)
from controller.kube.store import Handler, Store
from controller.logs import detached
from controller.operate.budgetwaits import BY_NAMESPACE
from controller.operate.nodepods import BY_NODE
from controller.operate.options import Options
from controller.upgrade.marks import records_on
from controller.upgrade.revision import HASH_LABEL, Revisions, revisions_of, split_target
from controller.upgrade.sources import Source

BY_OWNER = "owner"
BY_UID = "uid"

logger = logging.getLogger(__name__)


def policy_resource(source: Source) -> Resource[PolicyObject]:
    """Return the API resource of a policy source."""
    return Resource(source.group, source.version, source.plural, source.namespaced, PolicyObject)


class Caches:
    """All informers. :meth:`start` begins the static ones under a task group, which ends them all."""

    def __init__(self, client: Client, options: Options, metrics: ReflectorMetrics | None = None) -> None:
        self._client = client
        self._metrics = metrics
        self._tasks: asyncio.TaskGroup | None = None
        self.nodes: Informer[Node] = Informer(client, NODES, metrics=metrics)
        self.budgets: Informer[PodDisruptionBudget] = Informer(client, POD_DISRUPTION_BUDGETS, metrics=metrics)
        self.policies: dict[Source, Informer[PolicyObject]] = {
            source: Informer(client, policy_resource(source), metrics=metrics) for source in options.sources
        }
        self.daemonsets: dict[str, Informer[DaemonSet]] = {}
        self.controller_revisions: dict[str, Informer[ControllerRevision]] = {}
        self._driver_pods: dict[tuple[str, str], Informer[Pod]] = {}
        self._following: dict[tuple[str, str], asyncio.Task[None]] = {}
        # The selectors that were asked for since policies changed last.
        self._asked_for: set[tuple[str, str]] = set()
        self._pod_handlers: list[Handler[Pod]] = []
        self._on_listed: list[Callable[[], None]] = []
        # Hashes that a consistent LIST has proved to be of no revision, by DaemonSet uid.
        self._absent: dict[str, frozenset[str]] = {}
        # The highest number that a revision of a DaemonSet was seen to have, by the DaemonSet's uid.
        self._highest: dict[str, int] = {}
        self.proofs = 0
        """How often that has changed by a LIST: what was collected of revisions before is out of date."""
        self._domain = options.domain
        self.budgets.store.index_by(BY_NAMESPACE, lambda b: (b.namespace,))
        for namespace in options.driver_namespaces:
            self.add_namespace(namespace)

    def add_namespace(self, namespace: str) -> None:
        """Know a driver namespace's DaemonSets as well; before :meth:`start`."""
        daemonsets = Informer(self._client, DAEMONSETS, namespace, metrics=self._metrics)
        daemonsets.store.index_by(BY_UID, lambda d: (d.uid,))
        daemonsets.add_handler(self._forget)
        revisions = Informer(self._client, CONTROLLER_REVISIONS, namespace, metrics=self._metrics)
        revisions.store.index_by(BY_OWNER, lambda r: (r.controller_ref.uid,) if r.controller_ref else ())
        revisions.add_handler(self._numbered)
        self.daemonsets[namespace], self.controller_revisions[namespace] = daemonsets, revisions

    async def load(self) -> None:
        """Take once what is not there yet, by a list of each resource, and follow nothing: for commands that look once.

        Raises:
            KubeError: A list failed.
        """
        await asyncio.gather(*(informer.load() for informer in self._all() if not informer.synced))

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to watch."""
        self._tasks = tasks
        for informer in list(self._all()):
            tasks.create_task(informer.run(), name=f"informer of {informer.resource}")

    async def wait_for_sync(self) -> None:
        """Return when every informer holds a complete state; one that nobody needs any more is not waited for."""
        while waiting := [informer for informer in self._all() if not informer.synced]:
            synced = asyncio.ensure_future(waiting[0].wait_for_sync())
            try:
                await asyncio.wait({synced, *self._following.values()}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                synced.cancel()

    def unsynced(self) -> dict[str, str]:
        """Return the resources that are not there yet, each with what is in the way."""
        waiting = ((str(i.resource), i.last_error) for i in self._all() if not i.synced)
        return {name: error or "waiting for the first answer of the API server" for name, error in waiting}

    def troubles(self) -> list[str]:
        """Return why informers cannot keep up at the moment, with the remedies."""
        return [i.last_error for i in self._all() if i.last_error]

    def on_driver_pod(self, handler: Handler[Pod], listed: Callable[[], None]) -> None:
        """Call handler for every change of a driver pod, and listed when a selector's pods have been listed first."""
        self._pod_handlers.append(handler)
        self._on_listed.append(listed)
        for informer in self._driver_pods.values():
            informer.add_handler(handler)

    def driver_pods(self, namespace: str, selector: Selector) -> Store[Pod] | None:
        """Return the driver pods of a selector; None while they are not known, which starts to watch them."""
        key = (namespace, str(selector))
        self._asked_for.add(key)
        informer = self._driver_pods.get(key) or self._watch_driver_pods(namespace, selector)
        return informer.store if informer.synced else None

    def keep_driver_pods(self, used: Iterable[tuple[str, Selector]]) -> None:
        """Policies have changed, and have these namespaces and selectors: what nobody needs is not watched any more.

        What no policy has is watched on if it was asked for since the last such change, or if a node in progress goes by
        it: those go on without their policy, however often policies change before anybody looks at them.
        """
        kept = {(namespace, str(selector)) for namespace, selector in used} | self._asked_for
        if self._following.keys() - kept:
            kept |= set(self._in_progress())
        for key in self._following.keys() - kept:
            self._following.pop(key).cancel()
            del self._driver_pods[key]
        self._asked_for.clear()

    def _in_progress(self) -> Iterator[tuple[str, str]]:
        """The selectors by which nodes in progress go on without their policy."""
        for node in self.nodes.store.list():
            for _, record in records_on(node, self._domain):
                uid = split_target(record.target)[0] if record.in_progress else ""
                if uid and (daemonset := self.daemonset_by_uid(uid)):
                    yield daemonset.namespace, str(self.pods_of(daemonset))

    def driver_pod_stores(self) -> Iterator[Store[Pod]]:
        """Yield every store of driver pods."""
        return (informer.store for informer in self._driver_pods.values())

    def driver_daemonsets(self, namespace: str, selector: Selector) -> list[DaemonSet]:
        """Return the DaemonSets whose pods a selector picks, by name."""
        informer = self.daemonsets.get(namespace)
        found = informer.store.list() if informer else ()
        chosen = (d for d in found if selector.matches(d.spec.template.metadata.labels or {}))
        return sorted(chosen, key=lambda d: d.name)

    def daemonset_by_uid(self, uid: str) -> DaemonSet | None:
        """Return the DaemonSet of this uid."""
        for informer in self.daemonsets.values():
            for daemonset in informer.store.by_index(BY_UID, uid):
                return daemonset
        return None

    @staticmethod
    def pods_of(daemonset: DaemonSet) -> Selector:
        """Return the DaemonSet's own selector, where no policy says which pods are the driver's."""
        try:
            return from_label_selector(daemonset.spec.selector)
        except SelectorError:
            return Selector()

    def revisions(self, daemonset: DaemonSet) -> Revisions:
        """Return what is known of a DaemonSet's revisions: nothing while the newest that was seen is missing.

        No DaemonSet that stands loses its newest revision but by a person's hand. What a deleted one leaves is collected in
        no order, and while its watch hangs the next older revision would be taken for the newest, and its pods for current.
        """
        informer = self.controller_revisions.get(daemonset.namespace)
        found = informer.store.by_index(BY_OWNER, daemonset.uid) if informer else ()
        known = revisions_of(daemonset.uid, found, self._absent.get(daemonset.uid, frozenset()))
        behind = known.newest is None or known.newest[1] < self._highest.get(daemonset.uid, 0)
        return Revisions() if behind else known

    async def list_revisions(self, namespace: str, uid: str, hashes: frozenset[str]) -> None:
        """List a namespace's revisions consistently; hashes that are not among the DaemonSet's are of none.

        They are only if the DaemonSet, read after them, still stands: what a deleted one leaves is collected in no order,
        so that the newest revision may be missing while its pods run, and a watch that hangs does not tell.

        Raises:
            KubeError: A list failed; no hash is known to be of none that was not before.
        """
        held = self.daemonset_by_uid(uid)
        if held is None:
            return
        informer = self.controller_revisions[namespace]
        result = await self._client.list(CONTROLLER_REVISIONS, namespace)
        for revision in result.items:
            informer.store.observe_write(revision)
        if await self._stands(held):
            known = revisions_of(uid, result.items).known
            self._highest[uid] = max(known.values(), default=0)
            carried = {pod.labels.get(HASH_LABEL, "") for store in self.driver_pod_stores() for pod in store.list()}
            self._absent[uid] = (self._absent.get(uid, frozenset()) & carried) | (hashes - known.keys())
            self.proofs += 1

    def _forget(self, old: DaemonSet | None, new: DaemonSet | None) -> None:
        """A DaemonSet that is gone, or another of its name came in its place."""
        if old is not None and (new is None or new.uid != old.uid):
            self._absent.pop(old.uid, None)
            self._highest.pop(old.uid, None)

    def _numbered(self, old: ControllerRevision | None, new: ControllerRevision | None) -> None:
        """Remember the highest number while its owner is there, or another revision of it, which may come before it."""
        revision = new or old
        owner = revision.controller_ref if revision else None
        if revision is None or owner is None:
            return
        if new is not None:
            self._highest[owner.uid] = max(new.revision, self._highest.get(owner.uid, 0))
            return
        others = self.controller_revisions[revision.namespace].store.by_index(BY_OWNER, owner.uid)
        if not others and self.daemonset_by_uid(owner.uid) is None:
            self._highest.pop(owner.uid, None)

    async def _stands(self, held: DaemonSet) -> bool:
        """Read a DaemonSet anew, for the cache as well; returns whether it is there and stays."""
        found, at = await self._client.look_up_at(DAEMONSETS, held.name, held.namespace)
        store = self.daemonsets[held.namespace].store
        if found is None:
            store.delete(held, at)
            return False
        store.observe_write(found)
        return found.uid == held.uid and not found.terminating

    async def list_nodes(self) -> None:
        """List the nodes consistently: a new leader's first grant is decided on nothing older.

        Raises:
            KubeError: The list failed.
        """
        result = await self._client.list(NODES)
        self.nodes.store.replace(result.items, result.resource_version, keep={m.key for m in result.malformed})

    def _watch_driver_pods(self, namespace: str, selector: Selector) -> Informer[Pod]:
        informer = Informer(self._client, PODS, namespace, label_selector=str(selector), metrics=self._metrics)
        informer.store.index_by(BY_NODE, lambda pod: (pod.target_node,) if pod.target_node else ())
        for handler in self._pod_handlers:
            informer.add_handler(handler)
        key = (namespace, str(selector))
        self._driver_pods[key] = informer
        if self._tasks is not None:
            name = f"driver pods {selector} in {namespace}"
            self._following[key] = self._tasks.create_task(self._follow(informer), name=name, context=detached())
        return informer

    async def _follow(self, informer: Informer[Pod]) -> None:
        """Watch, and tell when the first list is there: an empty one calls no handler, but the nodes wait for it."""

        async def tell() -> None:
            await informer.wait_for_sync()
            for listed in self._on_listed:
                listed()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tell())
            tasks.create_task(informer.run())

    def informers(self) -> Iterator[Informer[Any]]:
        """Yield every informer there is by now."""
        return self._all()

    def _all(self) -> Iterator[Informer[Any]]:
        yield self.nodes
        yield self.budgets
        yield from self.policies.values()
        yield from self.daemonsets.values()
        yield from self.controller_revisions.values()
        yield from self._driver_pods.values()


def same(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Whether an event changed nothing that the controller looks at: only the resourceVersion moved, as by a heartbeat."""
    if old is None or new is None or type(old) is not type(new):
        return False
    fields = [f for f in old.__struct_fields__ if f != "metadata"]
    a, b = old.metadata, new.metadata
    return all(getattr(old, f) == getattr(new, f) for f in fields) and all(
        getattr(a, f) == getattr(b, f) for f in a.__struct_fields__ if f != "resource_version"
    )
