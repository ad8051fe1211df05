"""In which waves a plan goes, how long that takes, and which nodes no waiting helps: slots, room, halts and errors."""

from typing import Any

import pytest

from controller.upgrade.facts import facts_of
from controller.upgrade.fleet import Fleet
from controller.upgrade.outlook import Outlook, outlook
from controller.upgrade.plan import PlannedNode, in_order, plan
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from tests.unit.upgrade.builders import NEW, NOW, OLD, node, policy, record, view

S, R = State, Reason
FAILURE = Failure(R.FAILED, S.DRAIN_REQUIRED, "ds@2")
TOOK = 10.0


class Cluster:
    """Nodes of one policy, by name, and what is planned for those that wait."""

    def __init__(self, by: Policy, *nodes: tuple[str, str]) -> None:
        self._by, self._fleet = by, Fleet()
        views = [self._view(name, kind) for name, kind in nodes]
        for seen in views:
            self._fleet.update("gpu", seen.node.name, facts_of(seen, NOW))
        self._waiting = [seen for seen in views if seen.state is S.UPGRADE_REQUIRED]

    def _view(self, name: str, kind: str) -> NodeView:
        def a_node(state: State, *, cordoned: bool = False, ready: bool = True, **rec: Any) -> NodeView:
            pod = NEW if state is S.UPGRADE_DONE else OLD
            on = node(state, record(state, **rec), name=name, cordoned=cordoned, ready=ready)
            return view(on, pod, policy=self._by)

        match kind:
            case "waits":
                return a_node(S.UPGRADE_REQUIRED)
            case "waits cordoned":
                return a_node(S.UPGRADE_REQUIRED, cordoned=True)
            case "retries":
                return a_node(S.UPGRADE_REQUIRED, cordoned=True, claim=True, failure=FAILURE)
            case "retries not ready":
                return a_node(S.UPGRADE_REQUIRED, cordoned=True, ready=False, claim=True, failure=FAILURE)
            case "busy":
                return a_node(S.DRAIN_REQUIRED, cordoned=True)
            case "failed":
                return a_node(S.UPGRADE_FAILED, cordoned=True, failure=FAILURE)
            case "done cordoned":
                return a_node(S.UPGRADE_DONE, cordoned=True)
        return a_node(S.UPGRADE_DONE)

    @property
    def planned(self) -> list[PlannedNode]:
        ordered = in_order([(seen, facts_of(seen, NOW)) for seen in self._waiting])
        return plan(self._by, ordered, {}, NOW, self._fleet.tally("gpu", self._by.full_name))

    @property
    def outlook(self) -> Outlook:
        took = {seen.node.name: TOOK for seen in self._waiting}
        return outlook(self._by, self.planned, took, self._fleet.tally("gpu", self._by.full_name))


def of(*kinds: str, **upgrade: Any) -> Cluster:
    return Cluster(policy(**upgrade), *((f"n{at}", kind) for at, kind in enumerate(kinds, 1)))


@pytest.mark.parametrize(
    ("fields", "kinds", "waves"),
    [
        ({"maxParallelUpgrades": 2}, ["waits"] * 3, "112"),
        ({"maxParallelUpgrades": 0}, ["waits"] * 3, "111"),
        ({"maxParallelUpgrades": 0, "maxUnavailable": 1}, ["waits"] * 6, "123456"),
        ({"maxParallelUpgrades": 3, "maxUnavailable": "50%"}, ["waits"] * 4, "1122"),
        ({"maxParallelUpgrades": 0, "maxUnavailable": 2}, ["waits", "waits", "done cordoned"], "12"),
        ({"maxParallelUpgrades": 0, "maxUnavailable": 1}, ["waits", "waits", "busy"], "12"),
        ({"maxParallelUpgrades": 2, "maxUnavailable": 2}, ["waits", "waits", "waits cordoned", "waits"], "1213"),
        ({"maxParallelUpgrades": 2, "maxUnavailable": 2}, ["waits cordoned", "waits"], "11"),
        ({"maxParallelUpgrades": 1, "maxUnavailable": 2}, ["waits", "waits cordoned", "waits"], "123"),
        ({"maxParallelUpgrades": 0, "maxUnavailable": 1, "failureThreshold": 2}, ["waits", "waits", "retries"], "123"),
    ],
    ids=[
        "slots",
        "no limit",
        "room alone",
        "room is less than slots",
        "who is out anyway leaves less room",
        "what is in progress comes back",
        "a cordoned node takes a slot and no room, past those that wait for room",
        "a cordoned node takes no room from those behind it",
        "a slot is taken by a cordoned node, too",
        "a retry goes first, and the others have its room only when it is done",
    ],
)
def test_waves_are_as_wide_as_slots_and_room(fields: dict[str, Any], kinds: list[str], waves: str):
    found = of(*kinds, **fields)
    assert "".join(str(one.wave) for one in found.planned) == waves
    assert found.outlook.waves == int(max(waves))
    assert found.outlook.seconds == TOOK * found.outlook.waves, "equal nodes take one length a wave"


@pytest.mark.parametrize(
    ("fields", "kinds", "reasons"),
    [
        ({"maxUnavailable": 0}, ["waits"] * 3, [R.MAX_UNAVAILABLE] * 3),
        ({"maxUnavailable": 1}, ["waits", "done cordoned"], [R.MAX_UNAVAILABLE]),
        ({"maxUnavailable": 0}, ["waits", "waits cordoned"], [R.MAX_UNAVAILABLE, None]),
        ({"maxUnavailable": 0, "failureThreshold": 2}, ["waits", "retries"], [None, R.MAX_UNAVAILABLE]),
        ({"maxUnavailable": 1, "failureThreshold": 2}, ["waits", "retries not ready"], [None, R.MAX_UNAVAILABLE]),
        ({"failureThreshold": 1}, ["waits", "waits", "failed"], [R.HALTED] * 2),
        ({"failureThreshold": 2}, ["waits", "retries", "failed"], [None, R.HALTED]),
        ({"drain": {"podSelector": "("}}, ["waits"], [R.POLICY_INVALID]),
        ({"paused": True}, ["waits"], [None]),
    ],
    ids=[
        "no room at all",
        "the room is taken by others",
        "a cordoned node needs none",
        "a retry needs none",
        "a retry that is not ready stays out",
        "halted",
        "a retry goes on while halted",
        "invalid",
        "a pause is planned as if it were over",
    ],
)
def test_what_waiting_does_not_help_is_not_started(fields: dict[str, Any], kinds: list[str], reasons: list[Reason | None]):
    found = of(*kinds, **fields).planned
    assert [one.reason for one in found] == reasons
    assert all(bool(one.wave) == (one.reason is None) and bool(one.message) == (one.wave == 0) for one in found)


def test_nothing_is_estimated_of_what_is_not_started():
    assert of("waits", maxUnavailable=0).outlook == Outlook("DriverUpgradePolicy/ops/gpu", 0, None, 0.0)


def test_who_needs_no_room_is_not_delayed_by_those_who_do():
    by = policy(maxParallelUpgrades=2, maxUnavailable=2)
    found = Cluster(by, ("n1", "waits"), ("n2", "waits"), ("n3", "waits cordoned"))
    assert found.outlook.seconds == 2 * TOOK
