"""What a person who wrote a policy would want to be told first: what around it keeps it from doing its work. Pure."""

from collections.abc import Iterable, Iterator

import msgspec

from controller.api.workloads import DaemonSet
from controller.upgrade.conditions import Finding
from controller.upgrade.policy import Policy
from controller.upgrade.rivalry import Lost

ON_DELETE = "OnDelete"


class Surroundings(msgspec.Struct, frozen=True):
    """What there is around a policy."""

    nodes: int
    """How many nodes the cluster has."""
    selected: bool
    """Whether the policy has a node, or its nodeSelector matches one that is another's."""
    daemonsets: tuple[DaemonSet, ...] = ()
    """Those whose pods its podSelector picks, by name."""
    lost: Lost | None = None
    """The nodes that an older policy of its driver has."""


def findings(policy: Policy, around: Surroundings) -> Iterator[Finding]:
    """Yield what hinders a policy, the worst first; nothing of one that does not act."""
    if not policy.enabled or policy.pods is None:
        return
    if not around.selected:
        text = f"nodeSelector {policy.nodes} matches none of {around.nodes} nodes: compare it with the nodes' labels"
        yield Finding("NoNodesSelected", text)
    elif not around.daemonsets:
        text = f"podSelector {policy.pods} matches the pods of no DaemonSet in namespace {policy.namespace}"
        yield Finding("NoDaemonSet", f"{text}: compare it with the template's labels")
    yield from _not_on_delete(around.daemonsets)
    if lost := around.lost:
        text = f"{lost.nodes} nodes, such as {lost.example}, belong to {lost.winner}, which is older: narrow nodeSelector"
        yield Finding("PolicyConflict", text)


def _not_on_delete(daemonsets: Iterable[DaemonSet]) -> Iterator[Finding]:
    for daemonset in daemonsets:
        strategy = daemonset.spec.update_strategy.type
        if strategy != ON_DELETE:
            text = (
                f"DaemonSet {daemonset.name} has updateStrategy {strategy}: its controller replaces driver pods without a "
                "drain; set spec.updateStrategy.type to OnDelete"
            )
            yield Finding("DaemonSetNotOnDelete", text)
