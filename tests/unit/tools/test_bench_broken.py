"""The rollout beside broken nodes: that nothing but the broken nodes themselves differs from the one without."""

import pytest

from tools.bench.broken import KINDS, SIZE, Isolation, nodes, policy


def names(kinds: dict[str, str]) -> list[str]:
    return [str(node["metadata"]["name"]) for node in nodes(kinds)]


def test_broken_nodes_are_granted_first_and_carry_no_workload_of_the_others() -> None:
    healthy, all_names = names({}), names(dict(KINDS))
    assert len(healthy) == SIZE.nodes
    assert sorted(set(all_names) - set(healthy)) == sorted(all_names)[: len(KINDS)]
    assert all(
        bool(node.get("spec", {}).get("taints")) == (node["metadata"]["name"] not in healthy) for node in nodes(KINDS)
    )


def test_slots_that_broken_nodes_keep_are_added_to_the_others_slots() -> None:
    alone, beside = (policy(kinds)["spec"]["driver"]["upgradePolicy"] for kinds in ({}, KINDS))
    assert alone["maxParallelUpgrades"] == SIZE.parallel
    assert beside["maxParallelUpgrades"] == SIZE.parallel + len(KINDS) - 1, "one that is not ready gets none"
    assert beside["failureThreshold"] > len(KINDS)
    assert {**alone, "maxParallelUpgrades": 0} == {**beside, "maxParallelUpgrades": 0}


def test_the_line_and_the_ratio() -> None:
    measured = Isolation(beside=11.0, alone=10.0)
    assert measured.ratio == pytest.approx(1.1)
    assert str(measured) == (
        "Isolation: 24 healthy nodes were done after 11.00 s beside 6 broken ones, after 10.00 s without them: ratio 1.100"
    )
