"""From caches to the core's input: which drivers a node has, and the view of each.

Thousands of nodes share a few DaemonSets, and one node is looked at several times in a row: what is the same for all of
them, or for one version of a node, is made once (:mod:`controller.operate.driversets`).
"""

from collections.abc import Mapping
from typing import Protocol

from controller.api.node import Node
from controller.api.pod import Pod
from controller.operate.caches import Caches
from controller.operate.clocksteps import ClockSteps
from controller.operate.driversets import DriverSets
from controller.operate.nodepods import BY_NODE, Look
from controller.operate.options import Options
from controller.operate.policies import Policies
from controller.upgrade.assign import assign
from controller.upgrade.facts import Unlisted
from controller.upgrade.keys import Keys, keys_for
from controller.upgrade.marks import marked_drivers
from controller.upgrade.placement import wants
from controller.upgrade.policy import Policy
from controller.upgrade.record import decode_record
from controller.upgrade.revision import DriverSet, split_target
from controller.upgrade.snapshot import Attempt, NodeView, other_driver


class PodsByNode(Protocol):
    """Where all pods of a node come from."""

    def look(self, node: str) -> Look:
        """Return what is known of a node's pods."""


class Views:
    """Builds :class:`NodeView` from what the caches hold at the moment."""

    def __init__(
        self,
        caches: Caches,
        policies: Policies,
        pods: PodsByNode,
        attempts: Mapping[str, Attempt],
        options: Options,
        claims: Mapping[str, tuple[str, ...]] | None = None,
        steps: ClockSteps | None = None,
    ) -> None:
        self._steps = steps
        self._claims = {} if claims is None else claims
        self._caches = caches
        self._sets = DriverSets(caches)
        # The node that was looked at last, and the drivers that have marks on it.
        self._marked: tuple[Node | None, frozenset[str]] = None, frozenset()
        self._policies = policies
        self._pods = pods
        self._attempts = attempts
        self._options = options

    def drivers_of(self, node: Node) -> list[str]:
        """Drivers with a policy or with our marks on the node, in the order in which they may have it."""
        return sorted(self._marks(node).union(self._policies.drivers()), key=self.order)

    def order(self, driver: str) -> tuple[int, str]:
        """Where a driver stands in ``--driver-order``."""
        order = self._options.driver_order
        return (order.index(driver) if driver in order else len(order), driver)

    def view(self, node: Node, driver: str) -> NodeView | None:
        """Return the view of a driver on a node; None where there is none, or only half of one, to decide on."""
        seen = self.look(node, driver)
        return seen if isinstance(seen, NodeView) else None

    def look(self, node: Node, driver: str) -> NodeView | Unlisted | None:
        """Return the view of a driver on a node, or what counts while its driver pods have not been listed yet.

        None where the node is none of the driver's business: it holds nothing of the driver's.
        """
        keys = keys_for(driver, self._options.domain)
        policy, released = assign(node, keys, self._policies.of_driver(driver))
        if policy is None and released is None:
            return None
        sets, driver_pods = self._driver(node, keys, policy)
        seen = self._pods.look(node.name)
        others = (keys_for(d, self._options.domain) for d in self.drivers_of(node) if d != driver)
        view = NodeView(
            node=node,
            keys=keys,
            policy=policy,
            released=released,
            sets=sets,
            driver_pods=driver_pods or (),
            workload=seen.pods,
            unreadable=seen.unreadable,
            confirmed=seen.final,
            attempts=self._attempts,
            claims=self._claims,
            others=tuple(other_driver(node, k) for k in others),
            own_uid=self._options.pod_uid,
            moved=self._steps.moved(node.name, driver) if self._steps else {},
        )
        return view if driver_pods is not None else Unlisted(view)

    def _marks(self, node: Node) -> frozenset[str]:
        if self._marked[0] is not node:
            self._marked = node, marked_drivers(node, self._options.domain)
        return self._marked[1]

    def _driver(self, node: Node, keys: Keys, policy: Policy | None) -> tuple[tuple[DriverSet, ...], tuple[Pod, ...] | None]:
        """The driver's DaemonSets, and its pods on the node: None while they have not been listed."""
        if policy is not None:
            namespace, selector = policy.namespace, policy.pods
            found = self._sets.of(namespace, selector) if selector else ()
        else:
            record = decode_record(node.annotations.get(keys.record))
            found = self._sets.alone(split_target(record.target)[0]) if record else ()
            namespace, selector = (found[0][0].namespace, self._caches.pods_of(found[0][0])) if found else ("", None)
        if selector is None:
            return (), ()
        store = self._caches.driver_pods(namespace, selector)
        sets = tuple(DriverSet(daemonset, revisions, wants(daemonset, node)) for daemonset, revisions in found)
        if store is None:
            return sets, None
        pods = sorted((p for p in store.by_index(BY_NODE, node.name) if _is_driver_pod(p)), key=lambda p: p.name)
        return sets, tuple(pods)


def _is_driver_pod(pod: Pod) -> bool:
    owner = pod.controller_ref
    return owner is None or owner.kind == "DaemonSet"
