"""One bad node delays no other (L4): whatever is wrong with it, the rest is upgraded as soon as in a world without it.

A bad node may hold a slot until its time-outs end, so the world with it has one slot more. Both worlds are played in
virtual time, and the others' last moments are compared. That it was bad in the way that is meant, the policy's status tells.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from controller.upgrade.reasons import Reason
from tests.checker.events import Event
from tests.sim.apiserver import Answer, Call, RefusedError
from tests.sim.harness import Run, simulate_with
from tests.sim.hostile import DISGUISES
from tests.sim.mutants import swapped
from tests.sim.mutations import Edit
from tests.sim.objects import Obj, assoc, key_of, labels, node_of, pod_status
from tests.sim.workloads import NAMESPACE, Workload, budget
from tests.sim.world import POLICY, RECORD, STATE, Plan, World

BAD, OTHERS = "n00", 6
SLACK = 30.0
PARALLEL = 2
UPGRADE: Obj = {
    "autoUpgrade": True,
    "failureThreshold": 100,
    "drain": {"enable": True, "timeoutSeconds": 300},
    "podRestart": {"timeoutSeconds": 300, "maxRestarts": 10},
    "waitForCompletion": {"podSelector": "job=endless"},
    "validation": {"podSelector": "app=validator", "timeoutSeconds": 300},
}
HOLD = "example.com/hold"


def _stay(world: World, *, volumes: tuple[Obj, ...] = (), **meta: object) -> None:
    """A pod on the bad node that nothing else is like."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "stuck", "uid": "rs-stuck", "controller": True}
    meta = {"name": "stuck", "namespace": NAMESPACE, "labels": {"app": "stuck"}, "ownerReferences": [owner], **meta}
    spec = {"nodeName": BAD, "containers": [{"name": "main", "image": "stuck:v1"}], "terminationGracePeriodSeconds": 1}
    spec |= {"volumes": list(volumes)} if volumes else {}
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": spec, "status": pod_status("Running", ready=True)}
    world.server.apply("admin", "pods", pod)


def _makes_none(world: World, app: str) -> None:
    """A DaemonSet wants a pod there and makes none, for want of room say; the one it has is gone."""
    create = world.daemonsets._create

    def make(daemonset: Obj, node: str) -> None:
        if (daemonset["metadata"]["name"], node) != (app, BAD):
            create(daemonset, node)

    setattr(world.daemonsets, "_create", make)  # noqa: B010 - a method is replaced
    for pod in world.server.store.objects("pods"):
        if labels(pod).get("app") == app and node_of(pod) == BAD:
            world.server.delete("kubelet", "pods", key_of(pod), 0)


def _is_new_driver(pod: Obj) -> bool:
    return bool(pod["spec"]["containers"][0]["image"] == "driver:v2")


def not_ready(world: World) -> None:
    world.set_ready(BAD, ready=False)


def budget_that_never_allows(world: World) -> None:
    world.server.apply("admin", "poddisruptionbudgets", budget("stuck", "stuck", maxUnavailable=0))
    _stay(world)


def two_budgets(world: World) -> None:
    for name in ("one", "another"):
        world.server.apply("admin", "poddisruptionbudgets", budget(name, "stuck", maxUnavailable=1))
    _stay(world)


def eviction_denied(world: World) -> None:
    evict = world.server.evict
    assert evict is not None

    def denying(call: Call) -> Answer:
        if call.route is not None and call.route.name == "stuck":
            raise RefusedError(422, "Invalid", "ValidatingAdmissionPolicy 'freeze' denied request: not on a Friday")
        return evict(call)

    world.server.evict = denying
    _stay(world)


def bare_pod(world: World) -> None:
    _stay(world, ownerReferences=[])


def empty_dir(world: World) -> None:
    _stay(world, volumes=({"name": "scratch", "emptyDir": {}},))


def job_for_ever(world: World) -> None:
    _stay(world, labels={"job": "endless"})


def stuck_terminating(world: World) -> None:
    _stay(world, finalizers=[HOLD])


def no_driver_pod(world: World) -> None:
    _makes_none(world, "driver")


def no_validation_pod(world: World) -> None:
    _makes_none(world, "validator")


def image_cannot_be_pulled(world: World) -> None:
    run = world.kubelets._run

    def pulls(pod: Obj) -> None:
        if node_of(pod) == BAD and _is_new_driver(pod):
            world.kubelets._status(pod, pod_status("Pending", waiting="ImagePullBackOff"))
        else:
            run(pod)

    setattr(world.kubelets, "_run", pulls)  # noqa: B010 - a method is replaced


def driver_pending(world: World) -> None:
    """The scheduler finds no room for the new driver pod, which names its node as the DaemonSet controller has it."""
    choose = world.scheduler._choose
    field = {"key": "metadata.name", "operator": "In", "values": [BAD]}
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    status = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}

    def seek(pod: Obj, fit: list[str]) -> str | None:
        if world.daemonsets.targets.get(key_of(pod)) != BAD or not _is_new_driver(pod):
            return choose(pod, fit)
        told = {**assoc(pod, ("spec", "affinity"), affinity), "status": status}
        if told != pod:
            world.server.apply("scheduler", "pods", told)
        return None

    setattr(world.scheduler, "_choose", seek)  # noqa: B010 - a method is replaced


def old_driver_stuck_terminating(world: World) -> None:
    for pod in world.driver_pods(BAD):
        world.server.edit("admin", "pods", key_of(pod), ("metadata", "finalizers"), [HOLD])


def driver_never_ready(world: World) -> None:
    world.kubelets.behaviour.broken.add(("driver:v2", BAD))


def malformed_node(world: World) -> None:
    for number, spoil in enumerate(DISGUISES["nodes"]):
        world.loop.call_later(4.0 * number, _disguise, world, "nodes", BAD, spoil)


def malformed_pods(world: World) -> None:
    for pod in world.driver_pods(BAD):
        for number, spoil in enumerate(DISGUISES["pods"]):
            world.loop.call_later(4.0 * number, _disguise, world, "pods", key_of(pod), spoil)


def _disguise(world: World, kind: str, key: str, spoil: Callable[[Obj], Obj]) -> None:
    if world.server.get(kind, key) is not None:
        world.server.store.disguises[kind, key] = spoil
        world.server.store.touch(kind, key)


def malformed_record(world: World) -> None:
    for number, text in enumerate(("{", "[]", '{"state":5}', '{"state":"drain-required","since":1e30}', "[" * 5000)):
        world.loop.call_later(3.0 * number, world.annotate_node, BAD, RECORD, text)


def crash_loop(world: World) -> None:
    world.kubelets.behaviour.crashing.add(("driver:v2", BAD))


WAYS: dict[Callable[[World], None], Reason | None] = {
    not_ready: Reason.NODE_NOT_READY,
    bare_pod: Reason.UNMANAGED_POD,
    empty_dir: Reason.EMPTY_DIR_POD,
    budget_that_never_allows: Reason.POD_DISRUPTION_BUDGET,
    two_budgets: Reason.MULTIPLE_POD_DISRUPTION_BUDGETS,
    eviction_denied: Reason.EVICTION_DENIED,
    job_for_ever: Reason.JOBS_RUNNING,
    stuck_terminating: Reason.POD_TERMINATING,
    no_driver_pod: Reason.DRIVER_POD_MISSING,
    driver_pending: Reason.DRIVER_POD_PENDING,
    image_cannot_be_pulled: Reason.IMAGE_PULL_FAILED,
    old_driver_stuck_terminating: Reason.DRIVER_POD_TERMINATING,
    driver_never_ready: Reason.DRIVER_POD_NOT_READY,
    crash_loop: Reason.DRIVER_POD_CRASHING,
    no_validation_pod: Reason.VALIDATION_POD_MISSING,
    malformed_node: None,
    malformed_pods: None,
    malformed_record: None,
}
"""With what the policy's status must say of the bad node at some time; None where it only has to be borne."""


def finished(spoil: Callable[[World], None] | None) -> tuple[dict[str, float], list[str], set[str]]:
    """Seconds after the rollout began at which each good node was done, violations, and the bad node's reasons."""
    extra = spoil is not None
    upgrade: Obj = {**UPGRADE, "maxParallelUpgrades": PARALLEL + extra}
    plan = Plan(nodes=OTHERS + 1, policy=upgrade, workloads=[Workload("w0", 8)], validators=True, may_fail=True)
    done: dict[str, float] = {}
    violations: list[str] = []
    reasons: set[str] = set()

    async def play(run: Run) -> None:
        world = run.world
        world.kubelets.behaviour.start = world.kubelets.behaviour.ready = world.kubelets.behaviour.stop = (1.0, 1.0)
        world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        if spoil is None:
            world.server.delete("autoscaler", "nodes", BAD)
        else:
            spoil(world)
        await asyncio.sleep(1)
        began = run.loop.time()

        def note(entry: Event) -> None:
            if not entry.ours or entry.new is None or entry.new is entry.old:
                return
            if entry.kind == "nodes" and labels(entry.new).get(STATE) == "upgrade-done":
                done[entry.key] = entry.at - began
            elif (entry.kind, entry.key) == ("driverupgradepolicies", POLICY):
                reasons.update(_reasons(entry.new["status"]))

        world.server.audits.append(note)
        world.roll()
        await asyncio.sleep(900)
        violations.extend(v for v in run.checker.violations if " L" not in v[:16])

    simulate_with(plan, play)
    return {name: at for name, at in done.items() if name != BAD}, violations, reasons


def _reasons(status: Obj) -> Iterator[str]:
    """What a policy's status says of the bad node."""
    told = [*status.get("active", ()), *status.get("failed", ()), *status.get("blocked", ())]
    yield from (item["reason"] for item in told if BAD in {item.get("node"), item.get("example")} and "reason" in item)


@pytest.fixture(scope="module")
def alone():
    """The world without the bad node."""
    done, violations, reasons = finished(None)
    assert not reasons
    assert not violations
    assert len(done) == OTHERS
    return done


@pytest.mark.parametrize("spoil", WAYS, ids=[spoil.__name__ for spoil in WAYS])
def test_a_bad_node_delays_no_other(spoil, alone):
    done, violations, reasons = finished(spoil)
    assert not violations
    assert WAYS[spoil] is None or WAYS[spoil] in reasons, reasons
    assert done.keys() == alone.keys()
    late = max(done.values()) - max(alone.values())
    assert late <= SLACK, (done, alone)


_LOCKED = """\
        async with self.__dict__.setdefault('_lock', asyncio.Lock()):
            await self.reconcile(name)
            await asyncio.sleep(2.0)"""
MUTANTS: dict[str, tuple[Callable[[World], None], Edit]] = {
    "nobody is granted while one node cannot be": (
        not_ready,
        (
            "upgrade.admission:admit",
            "if not policy.usable or slots <= 0:",
            "if not policy.usable or slots <= 0 or tally.blocked:",
        ),
    ),
    "workers sleep under a lock that they share": (
        stuck_terminating,
        (
            "operate.worker:Worker._process",
            "        await self.reconcile(name)",
            _LOCKED,
        ),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_what_delays_others_is_noticed(name, alone):
    spoil, edit = MUTANTS[name]
    with swapped([edit]):
        done, _, _ = finished(spoil)
    assert done.keys() < alone.keys() or max(done.values()) - max(alone.values()) > SLACK
