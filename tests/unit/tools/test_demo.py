"""The demo: what it keeps of a rollout, how it draws it, and what it tells in the end."""

import io
from typing import Any

import pytest
from rich.console import Console

from controller.upgrade.reasons import Reason
from controller.upgrade.states import IN_PROGRESS, State
from tools.controlplane import scene
from tools.controlplane.audit import Request
from tools.demo import summary, view
from tools.demo.fleet import KEYS, Budget, Fleet, NodeCell
from tools.demo.stage import NEW, OLD, Script, policy


def node(name: str, state: str, *, cordoned: bool = False, waits: bool = False, zone: str = "zone-a") -> dict[str, Any]:
    made = scene.node(name, zone=zone, labels={KEYS.state: state} if state else {})
    if cordoned:
        made["spec"] = {"unschedulable": True}
    if waits:
        made["metadata"]["annotations"][KEYS.safe_load] = "true"
    return made | {"spec": made.get("spec", {})}


def waits(name: str, state: str, reason: str) -> dict[str, str]:
    return {"msg": "node waits", "node": name, "state": state, "reason": reason}


@pytest.fixture
def fleet() -> Fleet:
    made = Fleet(2)
    for name in ("node-1", "node-2", "node-3"):
        made.see_node(node(name, "upgrade-done"))
    made.begin()
    return made


def upgrade(fleet: Fleet, name: str) -> None:
    fleet.see_node(node(name, "drain-required", cordoned=True))
    fleet.see_node(node(name, "upgrade-done"))


def test_it_is_over_when_every_node_was_granted_and_is_done_and_schedulable(fleet: Fleet) -> None:
    upgrade(fleet, "node-1")
    upgrade(fleet, "node-2")
    fleet.see_node(node("node-3", "drain-required", cordoned=True))
    fleet.see_node(node("node-3", "upgrade-done", cordoned=True))
    assert not fleet.finished.is_set()
    fleet.see_node(node("node-3", "upgrade-done"))
    assert fleet.finished.is_set()
    assert (fleet.upgraded, fleet.failed) == (3, [])


def test_it_is_over_as_well_when_a_node_failed(fleet: Fleet) -> None:
    fleet.see_node(node("node-2", "upgrade-failed", cordoned=True))
    assert fleet.finished.is_set()
    assert fleet.failed == ["node-2"]


def test_the_most_nodes_out_at_once_are_counted_as_they_happen(fleet: Fleet) -> None:
    fleet.see_node(node("node-1", "drain-required", cordoned=True))
    fleet.see_node(node("node-2", "drain-required", cordoned=True))
    fleet.see_node(node("node-1", "upgrade-done"))
    fleet.see_node(node("node-3", "drain-required", cordoned=True))
    assert (fleet.most_out, fleet.slots) == (2, 2)


def test_a_reason_counts_only_for_the_state_that_it_was_given_for(fleet: Fleet) -> None:
    fleet.see_node(node("node-1", "drain-required", cordoned=True))
    fleet.hear(waits("node-1", "drain-required", Reason.POD_DISRUPTION_BUDGET))
    assert fleet.nodes["node-1"].blocked_by == Reason.POD_DISRUPTION_BUDGET
    fleet.see_node(node("node-1", "pod-restart-required", cordoned=True))
    assert not fleet.nodes["node-1"].blocked_by
    fleet.hear(waits("unheard-of", "drain-required", Reason.EVICTING))


def test_the_worst_that_a_budget_said_is_kept() -> None:
    budget = Budget("web")
    for healthy in (12, 10, 11):
        budget.see({"disruptionsAllowed": healthy - 10, "currentHealthy": healthy, "desiredHealthy": 10})
    assert (budget.lowest, budget.healthy, budget.allowed) == (10, 11, 1)


def drawn(fleet: Fleet, width: int, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    console = Console(width=width, file=io.TextIOWrapper(raw, encoding=encoding, write_through=True), color_system=None)
    console.print(view.draw(fleet, console))
    return raw.getvalue().decode(encoding).splitlines()


def every_state() -> Fleet:
    """All states with each reason that has a short word, in three zones."""
    made = Fleet(4)
    made.budgets = {name: Budget(name, 0, 21, 21) for name in ("inference", "web")}
    cases = [(state, reason) for state in IN_PROGRESS for reason in view._SHORT if _may_be(state, reason)]
    for number, (state, reason) in enumerate(cases):
        name = f"node-{number:02}"
        made.see_node(node(name, state, cordoned=True, zone=f"zone-{'abc'[number % 3]}"))
        made.hear(waits(name, state, reason))
    for name, label in (("node-97", "upgrade-required"), ("node-98", ""), ("node-99", "upgrade-failed")):
        made.see_node(node(name, label, waits=True))
    return made


def _may_be(state: State, reason: str) -> bool:
    of_driver = reason.startswith("Driver")
    allowed = {
        State.WAIT_FOR_JOBS_REQUIRED: reason in (Reason.JOBS_RUNNING, Reason.PODS_NOT_LISTED),
        State.DRAIN_REQUIRED: not of_driver and reason != Reason.JOBS_RUNNING,
        State.POD_RESTART_REQUIRED: of_driver,
    }
    return allowed.get(state, False)


def test_on_80_columns_nothing_is_cut_off() -> None:
    lines = drawn(every_state(), 80)
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line]


def test_wide_screens_show_the_controllers_own_reasons() -> None:
    shown = "\n".join(drawn(every_state(), 120))
    assert "drain: PodDisruptionBudget" in shown
    assert "restart: DriverPodTerminating" in shown
    assert "…" not in shown


def test_states_differ_without_colour() -> None:
    words = [word for _, _, word, _ in view._LOOKS.values()]
    assert len(set(words)) == len(words)
    assert view._LOOKS.keys() == set(State)


def test_a_terminal_without_unicode_gets_ascii_glyphs() -> None:
    assert "d node-" in "\n".join(drawn(every_state(), 80, "ascii"))  # encoding anything else would have failed


def test_a_line_of_text_tells_state_and_what_blocks_but_no_passing_reasons() -> None:
    cell = NodeCell("node-1", "zone-a", State.DRAIN_REQUIRED, reason_state=State.DRAIN_REQUIRED)
    cell.reason = Reason.POD_DISRUPTION_BUDGET
    assert view.line(cell) == "node-1 zone-a drain-required: PodDisruptionBudget"
    cell.reason = Reason.POD_TERMINATING
    assert view.line(cell) == "node-1 zone-a drain-required"
    cell.safe_load = True
    assert view.line(cell) == "node-1 zone-a drain-required, waits for safe load"


def eviction(code: int, agent: str = "driver-upgrade/1 x") -> Request:
    return Request("", "", "create", "pods", "eviction", "default", "web-1", "admin", agent, code, "/api")


def test_only_the_controllers_evictions_are_told() -> None:
    sent = [eviction(201), eviction(201), eviction(429), eviction(404), eviction(201, "kubectl/1")]
    assert summary.evictions(sent) == summary.Evictions(2, 1)


def test_the_summary_names_the_longest_node_and_why(fleet: Fleet) -> None:
    upgrade(fleet, "node-1")
    fleet.nodes["node-1"].started, fleet.nodes["node-1"].finished = 1.0, 13.5
    fleet.hear(waits("node-1", "wait-for-jobs-required", Reason.JOBS_RUNNING))
    told = dict(summary.rows(fleet, summary.Evictions(5, 1)))
    assert told["Longest node"] == "node-1, 12.5 s, it waited for a job"
    assert told["Nodes upgraded"] == "1 of 3"
    assert told["Nodes out of service at once"] == "at most 1; the policy allows 2"
    assert (told["Pods evicted"], told["Evictions refused by a budget"]) == ("5", "1")


def test_the_policy_asks_for_the_version_and_waits_for_the_job() -> None:
    script = Script(nodes=6, parallel=2)
    driver = policy(script, OLD)["spec"]["driver"]
    assert (driver["version"], driver["upgradePolicy"]["maxParallelUpgrades"]) == (OLD, 2)
    assert driver["upgradePolicy"]["waitForCompletion"] == {"podSelector": "app=training"}
    assert OLD != NEW
    assert len(script.ordinary) == 5
