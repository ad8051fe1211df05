"""Which nodes the policies of one driver lose to older ones: kept up with every change of a node, never recounted."""

from collections.abc import Sequence

import msgspec

from controller.api.node import Node
from controller.api.selectors import Selector
from controller.upgrade.assign import contenders
from controller.upgrade.policy import Policy


class Lost(msgspec.Struct, frozen=True):
    """What a policy loses: how many nodes, one of them, and the policy that has that one."""

    nodes: int
    example: str
    winner: str


class Rivalry:
    """The contested nodes among the policies of one driver.

    A node that nobody contests costs a look at its labels and no memory. What a policy does with its nodes does not matter:
    only where one comes, goes, is enabled or selects others is there another rivalry.

    Args:
        policies: In :attr:`~controller.upgrade.policy.Policy.age_order`.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies
        # By loser: the winner of each node that it loses.
        self._lost: dict[str, dict[str, str]] = {}
        # By node, who loses it.
        self._losers: dict[str, tuple[str, ...]] = {}

    def holds_for(self, policies: Sequence[Policy]) -> bool:
        """Whether these policies contest the same nodes, as where they are the same but for how they upgrade."""
        if policies is not self._policies:
            if [_stake(p) for p in policies] != [_stake(p) for p in self._policies]:
                return False
            self._policies = policies
        return True

    def judge(self, node: Node) -> None:
        """A node came, or its labels changed."""
        self.forget(node.name)
        winner, *others = contenders(node, self._policies) or (None,)
        losers = tuple(p.full_name for p in others if winner is not None and p.fallback == winner.fallback)
        if winner is None or not losers:
            return
        self._losers[node.name] = losers
        for loser in losers:
            self._lost.setdefault(loser, {})[node.name] = winner.full_name

    def forget(self, node: str) -> None:
        """A node is gone."""
        for loser in self._losers.pop(node, ()):
            del self._lost[loser][node]

    def lost(self, policy: Policy) -> Lost | None:
        """Return what a policy loses by age; that a fallback gives way is no loss. None where that is nothing.

        The example is the first by name: one that changed with the labels of nodes would be told anew each time.
        """
        nodes = self._lost.get(policy.full_name)
        if not nodes:
            return None
        example = min(nodes)
        return Lost(len(nodes), example, nodes[example])


def _stake(policy: Policy) -> tuple[str, bool, bool, Selector]:
    return policy.full_name, policy.enabled, policy.fallback, policy.nodes
