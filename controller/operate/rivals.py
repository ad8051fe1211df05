"""Follows nodes and policies for :mod:`controller.upgrade.rivalry`: who loses nodes is known without looking at them all."""

from controller.api.node import Node
from controller.kube.store import Store
from controller.operate.policies import Policies
from controller.upgrade.policy import Policy
from controller.upgrade.rivalry import Lost, Rivalry


class Rivals:
    """The contested nodes of every driver with several policies. All nodes are looked at only where those change."""

    def __init__(self, nodes: Store[Node], policies: Policies) -> None:
        self._nodes = nodes
        self._policies = policies
        # By driver. Each is of the policies that there were when it was last asked for.
        self._rivalries: dict[str, Rivalry] = {}
        nodes.add_handler(self._follow)

    def lost(self, policy: Policy) -> Lost | None:
        """Return what a policy loses to older ones of its driver; None where that is nothing."""
        policies = self._policies.of_driver(policy.driver)
        if len(policies) < 2:  # noqa: PLR2004 - a conflict takes two
            self._rivalries.pop(policy.driver, None)
            return None
        rivalry = self._rivalries.get(policy.driver)
        if rivalry is None or not rivalry.holds_for(policies):
            rivalry = self._begin(policy.driver, policies)
        return rivalry.lost(policy)

    def _begin(self, driver: str, policies: tuple[Policy, ...]) -> Rivalry:
        for gone in self._rivalries.keys() - set(self._policies.drivers()):
            del self._rivalries[gone]
        rivalry = self._rivalries[driver] = Rivalry(policies)
        for node in self._nodes.list():
            rivalry.judge(node)
        return rivalry

    def _follow(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            for rivalry in self._rivalries.values():
                rivalry.forget(old.name if old else "")
        elif old is None or old.labels != new.labels:
            for rivalry in self._rivalries.values():
                rivalry.judge(new)
