"""What is around a policy is told where it keeps the policy from its work, with what to do about it."""

import pytest
from msgspec.structs import replace

from controller.api.workloads import UpdateStrategy
from controller.upgrade.findings import Surroundings, findings
from controller.upgrade.rivalry import Lost
from tests.unit.upgrade.builders import daemonset, policy

SET = daemonset()
FINE = Surroundings(
    nodes=3, selected=True, daemonsets=(replace(SET, spec=replace(SET.spec, update_strategy=UpdateStrategy("OnDelete"))),)
)
ROLLS = replace(SET, spec=replace(SET.spec, update_strategy=UpdateStrategy("RollingUpdate")))


@pytest.mark.parametrize(
    ("around", "reasons", "words"),
    [
        (FINE, [], ""),
        (replace(FINE, selected=False), ["NoNodesSelected"], "matches none of 3 nodes"),
        (replace(FINE, daemonsets=()), ["NoDaemonSet"], "matches the pods of no DaemonSet in namespace ops"),
        (replace(FINE, selected=False, daemonsets=()), ["NoNodesSelected"], "compare it with the nodes' labels"),
        (replace(FINE, daemonsets=(ROLLS,)), ["DaemonSetNotOnDelete"], "set spec.updateStrategy.type to OnDelete"),
        (replace(FINE, lost=Lost(2, "n1", "K/ops/old")), ["PolicyConflict"], "2 nodes, such as n1, belong to K/ops/old"),
    ],
)
def test_what_hinders_is_told(around: Surroundings, reasons: list[str], words: str):
    found = list(findings(policy(), around))
    assert [finding.reason for finding in found] == reasons
    assert words in "".join(finding.message for finding in found)


def test_nothing_hinders_a_policy_that_does_not_act():
    assert not list(findings(policy(autoUpgrade=False), Surroundings(nodes=3, selected=False)))
