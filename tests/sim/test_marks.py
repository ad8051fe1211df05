"""A new version outdates every node: that they are marked holds up none of those that are upgraded meanwhile."""

from typing import Any

from controller.upgrade.states import IN_PROGRESS
from tests.checker import Event
from tests.sim.harness import simulate
from tests.sim.objects import labels
from tests.sim.scenes import DRAIN, RESTART
from tests.sim.workloads import Workload
from tests.sim.world import STATE, Plan

NODES, PARALLEL = 120, 5


def test_the_first_nodes_are_drained_while_the_others_are_still_being_marked():
    """As fast as they came, the marks of all nodes stood before the first cordon: in the queue and in the rate limiter."""
    seen: list[Event] = []
    policy: Any = {"autoUpgrade": True, "maxParallelUpgrades": PARALLEL, "drain": DRAIN, "podRestart": RESTART}
    plan = Plan(nodes=NODES, policy=policy, workloads=[Workload("w0", NODES)])
    plan.script = [(0.0, lambda world: world.server.audits.append(seen.append))]
    outcome = simulate(plan)
    assert (outcome.violations, outcome.upgrades) == ([], NODES)
    writes = [e for e in seen if e.ours and e.kind == "nodes" and e.new is not None]
    moves = [(e.sent, labels(e.new).get(STATE)) for e in writes if e.new is not None]
    marks = [at for at, state in moves if state == "upgrade-required"]
    steps = [at for at, state in moves if state in IN_PROGRESS]
    evictions = [e.sent for e in seen if e.ours and e.verb == "EVICT"]
    assert len(marks) == NODES
    assert sum(at < marks[20] for at in steps) >= PARALLEL, "granted before a sixth of the nodes are marked"
    assert evictions[0] < marks[NODES // 3]
    assert marks[-1] - marks[0] < NODES / 50 + 1, "and all are marked in their time"
