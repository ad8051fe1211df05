"""The fleet as a command sees it: the controller's own caches, views and counts, over a cluster that is only read.

Two ways to fill them. :meth:`Picture.read` lists everything once and follows nothing, for commands that print and end.
A live picture is made over caches that are being watched, and recounted before it is looked at. Either way nothing here
depends on a controller being at work, and nothing is written.

What only a controller in the act knows, the answers to evictions, is foreseen from the disruption budgets' status.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace

from msgspec.structs import replace as with_fields

from controller.api.node import Node
from controller.api.pod import Pod
from controller.kube.client import Client
from controller.kube.resources import PODS
from controller.operate.budgetwaits import BY_NAMESPACE
from controller.operate.caches import Caches
from controller.operate.claims import Claims
from controller.operate.nodepods import MANY, Look, unreadable
from controller.operate.options import Options
from controller.operate.policies import Policies
from controller.operate.views import PodsByNode, Views
from controller.upgrade.assign import contenders
from controller.upgrade.explain import Explanation, explain
from controller.upgrade.facts import Facts, facts_of
from controller.upgrade.fleet import Fleet
from controller.upgrade.guards import foreseen
from controller.upgrade.keys import keys_for
from controller.upgrade.pods import claim_keys, is_active
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import decode_record
from controller.upgrade.remedies import remedy
from controller.upgrade.snapshot import Attempt, NodeView

_RECORD = "-driver-upgrade.record"


class PodsOnce:
    """All pods of some nodes, listed once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pods: dict[str, Look] = {}

    async def load(self, nodes: Iterable[str]) -> None:
        """List the pods of nodes; of many, by one list of the cluster.

        Raises:
            KubeError: A list failed.
        """
        names = [name for name in nodes if name not in self._pods]
        if len(names) > MANY:
            await self._load_all(names)
            return
        lists = (self._client.list(PODS, field_selector=f"spec.nodeName={name}") for name in names)
        for name, result in zip(names, await asyncio.gather(*lists), strict=True):
            self._pods[name] = Look(result.items, unreadable=unreadable(result.malformed))

    async def _load_all(self, names: Iterable[str]) -> None:
        result = await self._client.list(PODS)
        held: dict[str, list[Pod]] = {name: [] for name in names}
        for pod in result.items:
            if pod.node_name in held:
                held[pod.node_name].append(pod)
        for name, pods in held.items():
            here = (bad for bad in result.malformed if bad.node == name)
            self._pods[name] = Look(tuple(pods), unreadable=unreadable(here))

    def look(self, node: str) -> Look:
        """Return the node's pods, None where they were not listed; the list is final."""
        return self._pods.get(node, Look(None))


class Picture:
    """Explains nodes from what the caches hold.

    Args:
        client: For server time and resource claims.
        caches: Filled by :meth:`read`, or by informers.
        pods: Pods of the nodes in progress.
        options: With the driver namespaces that count.
    """

    def __init__(self, client: Client, caches: Caches, pods: PodsByNode, options: Options) -> None:
        self.caches = caches
        self.options = options
        self.now = client.now
        self._claims = Claims(client)
        self._pods = pods
        self._attempts: dict[str, Attempt] = {}
        self._holders: dict[tuple[str, str], list[str]] = {}
        sources = caches.policies.items()
        self.policies = Policies(sources, options.driver_namespaces, options.domain, lambda _: None)
        self.views = Views(caches, self.policies, pods, self._attempts, options, self._claims.drivers)
        self.fleet = Fleet()

    @classmethod
    async def read(cls, client: Client, options: Options, *, pods_of: Iterable[str] | None = None) -> "Picture":
        """Read the cluster once.

        Args:
            client: The API server.
            options: Settings; without driver namespaces, those count that have a policy or that a record names.
            pods_of: Nodes whose pods are to be listed as well; None is every node in progress.

        Raises:
            KubeError: Something could not be read.
        """
        caches = Caches(client, with_namespaces(options, ()))
        await caches.load()
        options = with_namespaces(options, options.driver_namespaces or namespaces_in_use(caches))
        for namespace in options.driver_namespaces:
            caches.add_namespace(namespace)
        pods = PodsOnce(client)
        picture = cls(client, caches, pods, options)
        await picture.complete()
        await picture.load_pods(picture.needing_pods() if pods_of is None else pods_of)
        return picture

    async def load_pods(self, nodes: Iterable[str]) -> None:
        """List all pods of nodes, in a picture that follows nothing.

        Raises:
            KubeError: A list failed.
        """
        if isinstance(self._pods, PodsOnce):
            await self._pods.load(nodes)
            await self.read_claims()
            self.count()

    async def read_claims(self) -> None:
        """Read the resource claims by which device users are told, of the pods that are known.

        Raises:
            KubeError: One could not be read.
        """
        for view in [v for v in self.all_views() if v.policy is not None and v.policy.spec.pod_deletion.resource_names]:
            used = {key for pod in view.workload or () if is_active(pod) for key in claim_keys(pod)}
            await self._claims.read(view.node.name, used - self._claims.drivers.keys())

    def forget_claims(self, node: str) -> None:
        """The node's pods are not followed any more: what its claims are is read again when they are."""
        self._claims.forget_node(node)

    async def complete(self) -> None:
        """Load what the views turn out to need: driver pods by selector, and revisions that were not listed yet.

        Raises:
            KubeError: A list failed.
        """
        self.count()
        while self.caches.unsynced():
            await self.caches.load()
            self.count()
        unlisted: dict[tuple[str, str], set[str]] = {}
        for view in self.all_views():
            for driver, pod_hash in view.unlisted:
                unlisted.setdefault((driver.daemonset.namespace, driver.uid), set()).add(pod_hash)
        for (namespace, uid), hashes in unlisted.items():
            await self.caches.list_revisions(namespace, uid, frozenset(hashes))

    def all_views(self) -> Iterator[NodeView]:
        """Yield the view of every driver on every node that is its business."""
        for node in self.caches.nodes.store.list():
            for driver in self.views.drivers_of(node):
                view = self.views.view(node, driver)
                if view is not None:
                    yield view

    def needing_pods(self) -> list[str]:
        """Return the nodes whose pods matter now."""
        return sorted({view.node.name for view in self.all_views() if view.needs_workload})

    def count(self) -> None:
        """Bring the counts up to date with the caches."""
        seen: set[tuple[str, str]] = set()
        for view in self.all_views():
            driver, name = view.keys.driver, view.node.name
            seen.add((driver, name))
            self.fleet.update(driver, name, facts_of(view, self.now()))
        self._settle(seen)

    def _settle(self, seen: set[tuple[str, str]]) -> None:
        """Forget what was not seen, and note who holds slots."""
        for driver, name, _ in list(self.fleet.members()):
            if (driver, name) not in seen:
                self.fleet.update(driver, name, None)
        self._holders.clear()
        for driver, name, facts in sorted(self.fleet.members(), key=lambda m: m[:2]):
            if facts.in_progress:
                self._holders.setdefault((driver, facts.policy), []).append(name)

    def explain(self, node: Node) -> list[Explanation]:
        """Explain every driver on a node."""
        return [self.explain_driver(node, driver) for driver in self.views.drivers_of(node)]

    def explain_driver(self, node: Node, driver: str) -> Explanation:
        """Explain one driver on a node."""
        self._foresee(node.name)
        view = self.views.view(node, driver)
        if view is None:
            return self._not_ours(node, driver)
        facts = facts_of(view, self.now())
        found = explain(view, facts, self.fleet.tally(driver, facts.policy), self.holders(driver, facts.policy), self.now())
        return with_fields(found, message=found.message or self._at_rest(view, found))

    def _at_rest(self, view: NodeView, found: Explanation) -> str:
        rivals = contenders(view.node, self.policies.of_driver(view.keys.driver))
        if found.reason is None and not found.next and len(rivals) > 1:
            others = ", ".join(p.full_name for p in rivals[1:])
            return f"nothing to do; also selected by {others}, which is younger and does not have the node"
        return "" if found.reason or found.next else "nothing to do"

    def _not_ours(self, node: Node, driver: str) -> Explanation:
        policies = self.policies.of_driver(driver)
        label = node.labels.get(keys_for(driver, self.options.domain).state, "")
        why = [f"{p.full_name} {_why_not(p)}" for p in policies] or [f"no policy for driver {driver}"]
        ignored = [p for p in self.policies.ignored.values() if p.driver == driver]
        reason = Reason.NAMESPACE_NOT_ALLOWED if ignored and not policies else None
        why += [f"{p.full_name} is in a namespace that does not count" for p in ignored]
        return Explanation(
            node.name, driver, label or "unknown", reason=reason, message="; ".join(why), remedy=remedy(reason, node.name)
        )

    def holders(self, driver: str, policy: str) -> list[str]:
        """Return the nodes that hold a slot of a policy."""
        return self._holders.get((driver, policy), [])

    def facts(self) -> Iterator[tuple[str, str, Facts]]:
        """Yield driver, node and facts of every node that counts."""
        return self.fleet.members()

    def foresee(self, pods: Iterable[Pod]) -> dict[str, Attempt]:
        """Return, by uid, the refusals that the disruption budgets would answer with now."""
        budgets = self.caches.budgets.store
        expected = ((p.uid, foreseen(p, budgets.by_index(BY_NAMESPACE, p.namespace))) for p in pods)
        return {uid: attempt for uid, attempt in expected if attempt is not None}

    def _foresee(self, node: str) -> None:
        pods = self._pods.look(node).pods or ()
        for pod in pods:
            self._attempts.pop(pod.uid, None)
        self._attempts.update(self.foresee(pods))


def with_namespaces(options: Options, namespaces: Iterable[str]) -> Options:
    """Return options for other driver namespaces."""
    return replace(options, driver_namespaces=tuple(namespaces))


def namespaces_in_use(caches: Caches) -> tuple[str, ...]:
    """Return the namespaces of policies, but of those that a controller has told that they do not count, and of records."""
    found = {
        obj.namespace or source.namespace
        for source, informer in caches.policies.items()
        for obj in informer.store.list()
        if not any(c.get("reason") == Reason.NAMESPACE_NOT_ALLOWED for c in (obj.status or {}).get("conditions") or ())
    }
    for node in caches.nodes.store.list():
        records = (decode_record(text) for key, text in node.annotations.items() if key.endswith(_RECORD))
        found |= {record.namespace for record in records if record and record.namespace}
    return tuple(sorted(found))


def _why_not(policy: Policy) -> str:
    if not policy.enabled:
        return "is disabled: " + ("its autoUpgrade is false" if policy.source.ours else "it says that it has no driver")
    return f"does not select it: its nodeSelector is {policy.nodes}"
