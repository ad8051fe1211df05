"""Two drivers on the same nodes, and two policies of one driver, judged together: nodes are shared, slots are not.

Each driver has its own label and record on a node; the cordon is the node's. So what is looked at beside the invariants of
each: a node is in progress for one driver at a time (S8), the last claim lifts the cordon (S5), and a policy's limits
count its own nodes (S1, S2).
"""

import random

import pytest

from tests.sim.harness import simulate
from tests.sim.mutants import swapped
from tests.sim.mutations import Edit
from tests.sim.objects import Obj
from tests.sim.world import Also, Plan, random_plan

SEEDS = 20
DRAIN: Obj = {"enable": True, "timeoutSeconds": 120, "deleteEmptyDir": True}
RESTART: Obj = {"timeoutSeconds": 120, "maxRestarts": 10}
POOL_A, POOL_B = {"pool": "a"}, {"pool": "b"}


def _upgrade(rng: random.Random) -> Obj:
    limits: Obj = {"autoUpgrade": True, "maxParallelUpgrades": rng.choice([1, 2, 3, 0]), "podRestart": RESTART}
    if rng.random() < 0.4:
        limits["maxUnavailable"] = rng.choice([1, 2, "50%"])
    return {**limits, "drain": DRAIN} if rng.random() < 0.7 else limits


def several(seed: int, faults: str, kind: str) -> Plan:
    """A random world with more policies: of another driver on two thirds of the nodes, and of the same one."""
    rng = random.Random(f"{seed} several")
    plan = random_plan(seed, faults)
    plan.nodes = max(plan.nodes, 4)
    if kind != "drivers":
        plan.pool = POOL_A
        selector = {"gpu": "true"} if kind == "overlapping" else None
        plan.also.append(Also("gpu-b", pool=POOL_B, selector=selector, upgrade=_upgrade(rng)))
    if kind in {"drivers", "all"}:
        plan.also.append(Also("ofed", "ofed", upgrade=_upgrade(rng)))
        plan.order = rng.choice([(), ("ofed", "gpu"), ("gpu", "ofed")])
    return plan


# Who deletes the older of two overlapping policies gives its nodes to the other: no subject has nodes of its own then.
WORLDS = [(kind, faults) for kind in ("drivers", "pools", "all") for faults in ("calm", "all")]
WORLDS += [("overlapping", "calm"), ("overlapping", "crash+errors+watch")]


@pytest.mark.parametrize(("kind", "faults"), WORLDS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_several_policies(seed, kind, faults):
    outcome = simulate(several(seed, faults, kind))
    assert not outcome.violations, outcome.violations[:20]
    assert outcome.upgrades > 0 or faults == "all"


def _failed_and_shared() -> Plan:
    """The first driver fails on two nodes, which keep its claim while the other driver is upgraded there."""
    upgrade: Obj = {"autoUpgrade": True, "maxParallelUpgrades": 2, "podRestart": {"timeoutSeconds": 20, "maxRestarts": 10}}
    also = Also("ofed", "ofed", upgrade={**upgrade, "drain": DRAIN})
    plan = Plan(nodes=5, policy={**upgrade, "failureThreshold": 5}, also=[also], order=("gpu", "ofed"), may_fail=True)
    plan.broken = ["n01", "n02"]
    return plan


MUTANTS: dict[str, tuple[str, tuple[Edit, ...]]] = {
    "another driver's claim is not looked at": (
        " S5 ",
        (("upgrade.cordon:lifts", "any(o.claim for o in view.others)", "False"),),
    ),
    "another driver's progress is not looked at": (
        " S8 ",
        (
            (
                "upgrade.idle:why_not_eligible",
                "if other := next((o for o in view.others if o.in_progress), None):",
                "if False:",
            ),
            ("operate.rollout:Rollout._admissions", "{node for _, node in self._granting}", "set()"),
            ("operate.rollout:Rollout._admissions", "taken.update(grants.validations, grants.upgrades)", ""),
        ),
    ),
}


def test_a_claim_outlives_the_other_drivers_upgrade():
    outcome = simulate(_failed_and_shared())
    assert not outcome.violations, outcome.violations


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name):
    rule, edits = MUTANTS[name]
    with swapped(edits):
        violations = simulate(_failed_and_shared()).violations
    assert any(rule in violation for violation in violations), violations
