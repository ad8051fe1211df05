"""One bad node delays no other (L4): whatever is wrong with it, the rest is upgraded as soon as in a world without it.

A bad node may hold a slot until its time-outs end, so the world with it has one slot more. Both worlds are played in
virtual time, and the others' last moments are compared.
"""

import asyncio
from collections.abc import Callable

import pytest

from tests.checker.events import Event
from tests.sim.harness import Run, simulate_with
from tests.sim.hostile import DISGUISES
from tests.sim.mutants import swapped
from tests.sim.mutations import Edit
from tests.sim.objects import Obj, key_of, labels, pod_status
from tests.sim.workloads import NAMESPACE, Workload, budget
from tests.sim.world import RECORD, STATE, Plan, World

BAD, OTHERS = "n00", 6
SLACK = 30.0
PARALLEL = 2
DRAIN: Obj = {"enable": True, "timeoutSeconds": 300, "deleteEmptyDir": True}
RESTART: Obj = {"timeoutSeconds": 300, "maxRestarts": 10}


def _stay(world: World, **meta: object) -> None:
    """A pod on the bad node that nothing else is like."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "stuck", "uid": "rs-stuck", "controller": True}
    meta = {"name": "stuck", "namespace": NAMESPACE, "labels": {"app": "stuck"}, "ownerReferences": [owner], **meta}
    spec = {"nodeName": BAD, "containers": [{"name": "main", "image": "stuck:v1"}], "terminationGracePeriodSeconds": 1}
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": spec, "status": pod_status("Running", ready=True)}
    world.server.apply("admin", "pods", pod)


def not_ready(world: World) -> None:
    world.set_ready(BAD, ready=False)


def budget_that_never_allows(world: World) -> None:
    world.server.apply("admin", "poddisruptionbudgets", budget("stuck", "stuck", maxUnavailable=0))
    _stay(world)


def stuck_terminating(world: World) -> None:
    _stay(world, finalizers=["example.com/hold"])


def no_driver_pod(world: World) -> None:
    """Its DaemonSet wants one there and makes none, for want of room say."""
    create = world.daemonsets._create

    def make(daemonset: Obj, node: str) -> None:
        if node != BAD:
            create(daemonset, node)

    setattr(world.daemonsets, "_create", make)  # noqa: B010 - a method is replaced
    for pod in world.driver_pods(BAD):
        world.server.delete("kubelet", "pods", key_of(pod), 0)


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


WAYS = (
    not_ready,
    budget_that_never_allows,
    stuck_terminating,
    no_driver_pod,
    malformed_node,
    malformed_pods,
    malformed_record,
    crash_loop,
)


def finished(spoil: Callable[[World], None] | None) -> tuple[dict[str, float], list[str]]:
    """Seconds after the rollout began at which each good node was done; and why the bad one was not, if it was bad."""
    extra = spoil is not None
    upgrade: Obj = {"autoUpgrade": True, "maxParallelUpgrades": PARALLEL + extra, "failureThreshold": 100}
    upgrade |= {"drain": DRAIN, "podRestart": RESTART}
    plan = Plan(nodes=OTHERS + 1, policy=upgrade, workloads=[Workload("w0", 8)], may_fail=True)
    done: dict[str, float] = {}
    violations: list[str] = []

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
            written = entry.new if entry.ours and entry.kind == "nodes" and entry.new is not entry.old else None
            if written is not None and labels(written).get(STATE) == "upgrade-done":
                done[entry.key] = entry.at - began

        world.server.audits.append(note)
        world.roll()
        await asyncio.sleep(900)
        violations.extend(v for v in run.checker.violations if " L" not in v[:16])

    simulate_with(plan, play)
    return {name: at for name, at in done.items() if name != BAD}, violations


@pytest.fixture(scope="module")
def alone():
    """The world without the bad node."""
    done, violations = finished(None)
    assert not violations
    assert len(done) == OTHERS
    return done


@pytest.mark.parametrize("spoil", WAYS)
def test_a_bad_node_delays_no_other(spoil, alone):
    done, violations = finished(spoil)
    assert not violations
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
        done, _ = finished(spoil)
    assert done.keys() < alone.keys() or max(done.values()) - max(alone.values()) > SLACK
