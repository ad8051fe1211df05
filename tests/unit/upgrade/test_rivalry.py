"""Contested nodes are known at any time as if they were all counted, whatever came, changed and went."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.upgrade.assign import contenders
from controller.upgrade.policy import Policy
from controller.upgrade.rivalry import Lost, Rivalry
from tests.unit.upgrade.builders import node, policy

POOLS = ("a", "b")


def of_pool(name: str, created: int, pool: str = "") -> Policy:
    selector = {"nodeSelector": {"matchLabels": {"pool": pool}}} if pool else {}
    return policy(name=name, created=created, driver=selector)


OLD, YOUNG, POOL = of_pool("old", 1), of_pool("young", 2), of_pool("pool", 3, "a")
ALL = (OLD, YOUNG, POOL)


def recounted(nodes: dict[str, str], loser: Policy) -> dict[str, str]:
    held = {name: contenders(node(name=name, labels={"pool": pool}), ALL) for name, pool in nodes.items()}
    return {name: has[0].full_name for name, has in held.items() if loser in has[1:]}


@given(st.lists(st.tuples(st.sampled_from(["n1", "n2", "n3"]), st.sampled_from([*POOLS, None]))))
def test_it_is_as_if_counted_anew(changes: list[tuple[str, str | None]]):
    rivalry, nodes = Rivalry(ALL), dict[str, str]()
    for name, pool in changes:
        nodes.pop(name, None)
        if pool is None:
            rivalry.forget(name)
        else:
            nodes[name] = pool
            rivalry.judge(node(name=name, labels={"pool": pool}))
        for loser in ALL:
            expected, found = recounted(nodes, loser), rivalry.lost(loser)
            assert (found.nodes if found else 0) == len(expected)
            assert found is None or expected[found.example] == found.winner


def test_what_is_lost_is_told_with_an_example():
    rivalry = Rivalry(ALL)
    for name in ("n1", "n2"):
        rivalry.judge(node(name=name))
    assert rivalry.lost(YOUNG) == Lost(2, "n1", OLD.full_name)
    assert rivalry.lost(OLD) is rivalry.lost(POOL) is None


def test_the_example_stays_when_labels_change_that_decide_nothing():
    """Each state is a label: the finding was logged and told anew with every step of the rollout."""
    rivalry = Rivalry(ALL)
    for name in ("n2", "n1"):
        rivalry.judge(node(name=name))
    before = rivalry.lost(YOUNG)
    rivalry.judge(node(name="n1", labels={"state": "changed"}))
    assert rivalry.lost(YOUNG) == before == Lost(2, "n1", OLD.full_name)


@pytest.mark.parametrize("which", ["disabled", "elsewhere"])
def test_who_does_not_act_or_select_loses_nothing(which: str):
    other = policy(name="other", autoUpgrade=False) if which == "disabled" else of_pool("other", 4, "b")
    rivalry = Rivalry((OLD, other))
    rivalry.judge(node(labels={"pool": "a"}))
    assert rivalry.lost(other) is None
