"""A node's whole way, with a small world around it: evicted pods go, a deleted driver pod comes back new."""

import pytest
from msgspec.structs import replace

from controller.api.pod import Pod
from controller.upgrade.actions import Decision, DeletePod, EvictPod
from controller.upgrade.decide import decide, grant, grant_validation
from controller.upgrade.facts import Ask, facts_of
from controller.upgrade.policy import Policy
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from tests.unit.upgrade.builders import (
    KEYS,
    NEW,
    NOW,
    OLD,
    STARTING,
    driver_pod,
    node,
    orphan,
    patched,
    pod,
    policy,
    view,
    workload,
)

CHECK = pod("check", labels={"app": "check"}, owner=("apps/v1", "DaemonSet", "check"))
JOB = workload("job", labels={"app": "job"})
GPU = workload("gpu", resource="nvidia.com/gpu")
FULL = policy(
    waitForCompletion={"podSelector": "app=job"},
    podDeletion={"resourceNames": ["nvidia.com/gpu"]},
    drain={"enable": True},
    validation={"podSelector": "app=check"},
)
PATH = (
    "upgrade-required cordon-required wait-for-jobs-required pod-deletion-required drain-required pod-restart-required "
    "validation-required uncordon-required upgrade-done"
)


class World:
    """One node; time stands still, which no way may need."""

    def __init__(self, seen: NodeView, fresh: Pod = NEW) -> None:
        self.view = seen
        self.fresh = fresh
        self.labels: list[str] = []
        self.patches = 0
        self.evicted: list[str] = []

    def run(self, policy: Policy) -> str:
        """Act until nothing happens; return the labels that were seen."""
        while self._step(policy):
            assert self.patches < 20
        return " ".join(self.labels)

    def _step(self, policy: Policy) -> bool:
        ask = facts_of(self.view, NOW)
        if ask.ask is Ask.VALIDATION:
            return self._patch(grant_validation(self.view, policy, NOW))
        if ask.ask is Ask.GRANT and ask.blocked is None:
            return self._patch(grant(self.view, policy, NOW))
        decision = decide(self.view, NOW)
        return self._patch(decision) or self._act(decision) or self._end_jobs()

    def _patch(self, decision: Decision) -> bool:
        if decision.patch is None:
            return False
        self.view = patched(self.view, decision.patch)
        self.patches += 1
        if not self.labels or self.labels[-1] != self.view.label:
            self.labels.append(self.view.label)
        return True

    def _act(self, decision: Decision) -> bool:
        gone = {a.uid for a in decision.actions if isinstance(a, EvictPod | DeletePod)}
        self.evicted += [a.name for a in decision.actions if isinstance(a, EvictPod)]
        left = tuple(p for p in self.view.workload or () if p.uid not in gone)
        drivers = tuple(p for p in self.view.driver_pods if p.uid not in gone)
        back = () if drivers == self.view.driver_pods else (self.fresh,)
        self.view = replace(self.view, workload=left, driver_pods=(*drivers, *back))
        return bool(gone)

    def _end_jobs(self) -> bool:
        before = self.view.workload or ()
        self.view = replace(self.view, workload=tuple(p for p in before if p.labels.get("app") != "job"))
        return self.view.workload != before


def start(*pods: Pod, policy: Policy, cordoned: bool = False, notes: dict[str, str] | None = None) -> NodeView:
    work = (JOB, GPU, workload("web"), CHECK)
    return view(node(State.UPGRADE_DONE, cordoned=cordoned, notes=notes), *pods, policy=policy, workload=work)


def test_every_state_that_has_work_is_seen_and_one_patch_leads_to_each():
    world = World(start(OLD, policy=FULL))
    assert world.run(FULL) == PATH
    assert world.patches == len(PATH.split())
    assert world.evicted == ["gpu", "web"]
    assert not world.view.node.unschedulable
    assert [p.name for p in world.view.workload or ()] == ["check"]


SEED = policy(maxParallelUpgrades=0, drain={"enable": True})


@pytest.mark.parametrize(
    ("situation", "seen", "policy", "path"),
    [
        (
            "the seed's example",
            start(OLD, policy=SEED),
            SEED,
            "upgrade-required cordon-required drain-required pod-restart-required uncordon-required upgrade-done",
        ),
        (
            "nothing to do but the restart",
            start(OLD, policy=policy()),
            policy(),
            "upgrade-required cordon-required pod-restart-required uncordon-required upgrade-done",
        ),
        (
            "foreign cordon",
            start(OLD, policy=policy(), cordoned=True),
            policy(),
            "upgrade-required cordon-required pod-restart-required upgrade-done",
        ),
        (
            "requested restart of a current pod",
            start(driver_pod("drv-before", 2), policy=SEED, notes={KEYS.requested: "true"}),
            SEED,
            "upgrade-required cordon-required drain-required pod-restart-required uncordon-required upgrade-done",
        ),
        (
            "requested replacement of an orphan, which the drain leaves alone",
            replace(start(orphan(), policy=SEED, notes={KEYS.requested: "true"}), workload=(orphan(), workload("web"))),
            SEED,
            "upgrade-required cordon-required drain-required pod-restart-required uncordon-required upgrade-done",
        ),
    ],
)
def test_paths(situation: str, seen: NodeView, policy: Policy, path: str):
    world = World(seen)
    assert world.run(policy) == path
    assert world.view.node.unschedulable is seen.node.unschedulable
    assert not world.view.node.annotations.keys() & {KEYS.initial_unschedulable, KEYS.requested}


def test_safe_load_is_let_on_when_the_node_is_empty():
    world = World(start(STARTING, policy=SEED, notes={KEYS.safe_load: "drv"}))
    assert world.run(SEED) == "upgrade-required cordon-required drain-required pod-restart-required"
    assert KEYS.safe_load not in world.view.node.annotations
    assert world.evicted == ["job", "gpu", "web"]
    world.view = replace(world.view, driver_pods=(NEW,))
    assert world.run(SEED).endswith("pod-restart-required uncordon-required upgrade-done")


def test_the_seeds_manual_recovery():
    """The new driver does not start in time: failed. A person deletes its pod, the next one starts: validated, done."""
    checked = policy(validation={"podSelector": "app=check"})
    broken = World(start(OLD, policy=checked), fresh=STARTING)
    broken.run(checked)
    late = decide(broken.view, NOW + 1800)
    broken._patch(late)
    assert broken.run(checked).endswith("pod-restart-required upgrade-failed")
    assert broken.view.node.unschedulable
    broken.view = replace(broken.view, driver_pods=(driver_pod("drv-newer", 2),))
    assert broken.run(checked).endswith("upgrade-failed validation-required uncordon-required upgrade-done")
    assert not broken.view.node.unschedulable
