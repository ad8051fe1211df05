"""The rollout beside broken nodes: that nothing but these differs from the one without, and what is told of each."""

from collections.abc import Mapping
from typing import Any

import pytest

from controller.upgrade.reasons import Reason
from tools.bench.broken import IN_ALL, LIMIT, SIZE, Isolation, said_of_nodes
from tools.bench.kinds import BROKEN, GOOD, GROUP, KINDS, Kind, daemon_set, groups, name_of, new_version, nodes, policies
from tools.bench.obstacles import namespace_of, obstacles, pods_of


def names(kinds: Mapping[str, Kind]) -> list[str]:
    return [str(node["metadata"]["name"]) for node in nodes(SIZE, kinds)]


def policy(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    main, _ = policies(SIZE, kinds)
    found: dict[str, Any] = main["spec"]["driver"]["upgradePolicy"]
    return found


def test_the_broken_nodes_and_the_healthy_ones_are_thirty_in_all() -> None:
    assert len(names(KINDS)) == IN_ALL == 30
    assert len(names({})) == SIZE.nodes
    assert set(names(KINDS)) - set(names({})) == set(map(name_of, KINDS))


def test_broken_nodes_carry_no_workload_of_the_others_and_no_driver_of_theirs() -> None:
    for node in nodes(SIZE, KINDS):
        is_broken = BROKEN in node["metadata"]["labels"]
        assert bool(node.get("spec", {}).get("taints")) == is_broken
        assert (node["metadata"]["labels"][GROUP] == GOOD) != is_broken
    assert GOOD not in {daemon_set(group)["spec"]["template"]["spec"]["nodeSelector"][GROUP] for group in groups(KINDS)}
    assert {node["metadata"]["labels"][GROUP] for node in nodes(SIZE, KINDS)} == {GOOD, *groups(KINDS)}


def test_slots_that_broken_nodes_keep_are_added_to_the_others_slots() -> None:
    alone, beside = policy({}), policy(KINDS)
    without = {"refused", "unready", "validation"}
    assert {kind for kind, each in KINDS.items() if not each.keeps_slot} == without
    assert alone["maxParallelUpgrades"] == SIZE.parallel
    assert beside["maxParallelUpgrades"] == SIZE.parallel + len(KINDS) - len(without)
    assert beside["failureThreshold"] > len(KINDS)
    assert {**alone, "maxParallelUpgrades": 0} == {**beside, "maxParallelUpgrades": 0}


def test_the_node_that_is_to_be_validated_has_a_policy_of_its_own_for_the_same_driver() -> None:
    main, validating = (one["spec"]["driver"] for one in policies(SIZE, KINDS))
    assert main["name"] == validating["name"]
    (others,), (its,) = (one["nodeSelector"]["matchExpressions"] for one in (main, validating))
    assert (others["operator"], its["operator"]) == ("NotIn", "In")
    assert others["values"] == its["values"] == ["validation"]
    assert "validation" not in main["upgradePolicy"]
    assert validating["upgradePolicy"]["validation"]["podSelector"]


def test_every_kind_is_broken_by_its_driver_by_something_in_its_way_or_by_its_node() -> None:
    by_hand = {"unready", "validation"}
    for kind, each in KINDS.items():
        assert bool(obstacles({kind: each})) != (each.driver or kind in by_hand), kind
    bad = [str(new_version(kind)) for kind, each in KINDS.items() if each.driver and kind != "terminating"]
    assert len(set(bad)) == len(bad), "each in a way of its own"


def test_what_is_denied_is_denied_to_one_kind_alone() -> None:
    for kind in ("denied", "going", "refused"):
        specs = {obj["kind"]: obj.get("spec", {}) for obj in obstacles({kind: KINDS[kind]})}
        (rule,) = specs["ValidatingAdmissionPolicy"]["matchConstraints"]["resourceRules"]
        bound = specs["ValidatingAdmissionPolicyBinding"]
        space = bound.get("matchResources", {}).get("namespaceSelector", {}).get("matchLabels", {})
        assert rule.get("resourceNames") == [name_of(kind)] or list(space.values()) == [namespace_of(kind)]
    assert pods_of(obstacles(KINDS)) == 10


def test_two_kinds_that_the_status_tells_alike_are_told_apart_by_its_words() -> None:
    alike = [kind for kind, each in KINDS.items() if each.reason is Reason.POD_TERMINATING]
    assert alike == ["finalizer", "stuck"]
    assert KINDS["finalizer"].words


def test_what_a_status_says_of_nodes_in_progress_and_of_those_that_wait() -> None:
    active = {"node": "a", "state": "drain-required", "reason": "UnmanagedPod"}
    blocked = {"reason": "Forbidden", "nodes": 1, "example": "b"}
    told = said_of_nodes({"active": [active], "blocked": [blocked]})
    assert [(item["node"], item["state"], item["reason"]) for item in told] == [
        ("a", "drain-required", "UnmanagedPod"),
        ("b", "upgrade-required", "Forbidden"),
    ]
    assert said_of_nodes({}) == []


def test_the_lines_and_the_ratio() -> None:
    measured = Isolation([10.5, 14.0, 10.9], [10.0, 9.0, 13.0], {"bare": "drain-required UnmanagedPod: ..."})
    assert measured.ratio == pytest.approx(1.09)
    first, second, third = str(measured).splitlines()
    assert first == (
        "Isolation: 11 healthy nodes were done after 10.90 s beside 19 broken, "
        "after 10.00 s without them: ratio 1.090, within the limit of 1.10"
    )
    assert second == "  medians: beside 10.50, 14.00, 10.90; without 10.00, 9.00, 13.00"
    assert third.split() == ["bare", "drain-required", "UnmanagedPod:", "..."]


def test_a_ratio_above_the_limit_is_told_so() -> None:
    assert "ratio 1.110, ABOVE the limit of 1.10" in str(Isolation([11.1], [10.0]))
    assert LIMIT == 1.1
