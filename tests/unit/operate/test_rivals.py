"""Contested nodes follow nodes and policies, and all nodes are looked at only where policies change."""

from typing import Any

import pytest
from msgspec.structs import replace

from controller.api.node import Node
from controller.kube.store import Store
from controller.operate.rivals import Rivals
from controller.upgrade.policy import Policy
from controller.upgrade.rivalry import Rivalry
from tests.unit.upgrade.builders import node
from tests.unit.upgrade.test_rivalry import OLD, YOUNG


class Stand:
    """Policies by driver, as they are changed here."""

    def __init__(self, *policies: Policy) -> None:
        self.held = policies

    def of_driver(self, driver: str) -> tuple[Policy, ...]:
        return self.held if driver == "gpu" else ()

    def drivers(self) -> tuple[str, ...]:
        return ("gpu",) if self.held else ()


def test_contested_nodes_follow_nodes_and_policies(monkeypatch: pytest.MonkeyPatch):
    judged: list[str] = []
    judge = Rivalry.judge

    def noting(self: Rivalry, one: Node) -> None:
        judged.append(one.name)
        judge(self, one)

    monkeypatch.setattr(Rivalry, "judge", noting)
    nodes: Store[Any] = Store()
    nodes.apply(node(name="n1"))
    policies: Any = Stand(OLD, YOUNG)
    rivals = Rivals(nodes, policies)

    def lost() -> int:
        found = rivals.lost(YOUNG)
        return found.nodes if found else 0

    assert [lost(), lost()] == [1, 1]
    assert judged == ["n1"]
    nodes.apply(node(name="n2"))
    assert (lost(), judged) == (2, ["n1", "n2"])
    held = nodes.get("n1")
    nodes.delete(held)
    assert (lost(), judged) == (1, ["n1", "n2"])
    policies.held = (OLD, replace(YOUNG, spec=replace(YOUNG.spec, paused=True)))
    assert (lost(), judged) == (1, ["n1", "n2"])
    policies.held = (replace(OLD, spec=replace(OLD.spec, auto_upgrade=False)), YOUNG)
    assert lost() == 0
    policies.held = (YOUNG,)
    assert lost() == 0
    policies.held = (OLD, YOUNG)
    assert lost() == 1
