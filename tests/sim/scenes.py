"""Named small scenes: for crashes at every write, for mutants, and as the first thing to read when something breaks."""

from collections.abc import Callable

from tests.checker import Event
from tests.sim.network import Verdict, error_answer
from tests.sim.objects import Obj, key_of, labels
from tests.sim.workloads import Workload, budget
from tests.sim.world import DAEMONSET, DRAIN_SKIP, KEEP, REQUESTED, REQUESTOR, SKIP, STATE, Plan, World

DRAIN: Obj = {"enable": True, "timeoutSeconds": 120, "deleteEmptyDir": True}
RESTART: Obj = {"timeoutSeconds": 60, "maxRestarts": 3}


def _policy(parallel: int = 1, **more: object) -> Obj:
    return {"autoUpgrade": True, "maxParallelUpgrades": parallel, "podRestart": RESTART, **more}


def _plan(nodes: int, policy: Obj, *workloads: Workload, **more: object) -> Plan:
    return Plan(nodes=nodes, policy=policy, workloads=list(workloads), **more)  # type: ignore[arg-type]


def _delete_n00(world: World) -> None:
    world.server.delete("autoscaler", "nodes", "n00")


def _replace_driver(world: World) -> None:
    """The DaemonSet is deleted and made anew while its watch hangs; of its revisions the newest is collected first."""
    for watch in world.watches.of("daemonsets"):
        watch.silence(world.loop.time() + 20.0, hangs=True)
    newest = max(world.server.store.objects("controllerrevisions"), key=lambda r: int(r["revision"]))
    world.server.delete("admin", "daemonsets", DAEMONSET)
    world.create_driver()
    world.server.delete("garbage-collector", "controllerrevisions", key_of(newest))


def _silence_pods(world: World) -> None:
    """As soon as a node's own pods are watched that watch falls silent, on a connection that stands for an hour."""
    watches = [watch for watch in world.watches.of("pods") if watch.scope.node and not watch.gathering]
    for watch in watches:
        watch.silence(world.loop.time() + 3600.0, hangs=True)
    if not watches:
        world.loop.call_later(0.05, _silence_pods, world)


def _recreate_busy(world: World) -> None:
    """A machine in progress is replaced by another of its name, and a backup restores the labels and annotations."""
    name = next(n for n, state in sorted(world.states().items()) if state not in {"upgrade-done", "upgrade-required"})
    old = world.server.get("nodes", name)
    assert old is not None
    world.server.delete("autoscaler", "nodes", name)
    meta = {"name": name, "labels": old["metadata"]["labels"], "annotations": old["metadata"]["annotations"]}
    world.server.apply("admin", "nodes", {**old, "metadata": meta, "spec": {}})


def _restart_unseen(world: World) -> None:
    """As soon as a node is validated the controller dies, and the driver restarts: what validates it is ready only later."""
    done: list[str] = []

    def look(entry: Event) -> None:
        if done or entry.kind != "nodes" or entry.new is None or labels(entry.new).get(STATE) != "uncordon-required":
            return
        done.append(entry.key)
        world.restart()
        world.kubelets.behaviour.broken.add(("validator:v1", "*"))
        world.kubelets.behaviour.ready = (0.5, 1.0)  # before the next controller starts
        world.loop.call_soon(world.kubelets.crash_driver, entry.key)
        world.loop.call_later(90.0, world.kubelets.behaviour.broken.clear)

    world.server.audits.append(look)


def _disable_at_restart(world: World) -> None:
    """As soon as it must have been seen that a driver pod was deleted the policy is switched off."""
    done: list[str] = []

    world.kubelets.behaviour.ready = (5.0, 6.0)

    def look(entry: Event) -> None:
        if not done and entry.ours and entry.kind == "pods" and entry.verb == "DELETE":
            done.append(entry.key)
            world.loop.call_later(2.5, lambda: world.edit_policy(autoUpgrade=False))

    world.server.audits.append(look)


SCENES: dict[str, Callable[[], Plan]] = {
    "restart": lambda: _plan(3, _policy()),
    "drain": lambda: _plan(3, _policy(drain=DRAIN), Workload("w0", 5)),
    "drain two at a time": lambda: _plan(4, _policy(2, drain=DRAIN), Workload("w0", 6)),
    "all at once": lambda: _plan(3, _policy(0, drain=DRAIN), Workload("w0", 3)),
    "budget": lambda: _plan(3, _policy(2, drain=DRAIN), Workload("w0", 4), budgets=[budget("b0", "w0", maxUnavailable=1)]),
    "budget that allows nothing": lambda: _plan(
        2,
        _policy(drain={**DRAIN, "timeoutSeconds": 20}),
        Workload("w0", 2),
        budgets=[budget("b0", "w0", maxUnavailable=0)],
        may_fail=True,
    ),
    "jobs": lambda: _plan(
        2,
        _policy(drain=DRAIN, waitForCompletion={"podSelector": "job=true", "timeoutSeconds": 200}),
        Workload("j", 3, job=True),
    ),
    "jobs that take too long": lambda: _plan(
        2,
        _policy(drain=DRAIN, waitForCompletion={"podSelector": "job=true", "timeoutSeconds": 8}),
        Workload("j", 3, job=True),
    ),
    "pod deletion": lambda: _plan(
        3, _policy(podDeletion={"podSelector": "app=w0", "timeoutSeconds": 60}), Workload("w0", 3), Workload("w1", 3)
    ),
    "pod deletion, then drain": lambda: _plan(
        2,
        _policy(drain=DRAIN, podDeletion={"podSelector": "app=w0", "timeoutSeconds": 60}),
        Workload("w0", 3),
        Workload("w1", 3),
    ),
    "validation": lambda: _plan(
        3, _policy(2, drain=DRAIN, validation={"podSelector": "app=validator", "timeoutSeconds": 60}), validators=True
    ),
    "safe load": lambda: _plan(2, _policy(drain=DRAIN), Workload("w0", 2), safe_load=True),
    "foreign cordon": lambda: _plan(3, _policy(drain=DRAIN), Workload("w0", 3), cordoned=[1]),
    "foreign cordon skipped": lambda: _plan(3, _policy(drain=DRAIN, cordonedNodes="Skip"), cordoned=[1]),
    "not ready": lambda: _plan(4, _policy(2, drain=DRAIN, maxUnavailable=2), Workload("w0", 3), not_ready=[2]),
    "max unavailable": lambda: _plan(6, _policy(4, maxUnavailable="34%", drain=DRAIN), Workload("w0", 6), cordoned=[0]),
    "broken version": lambda: _plan(5, _policy(failureThreshold=2), broken=["n00", "n01"], rounds=2, may_fail=True),
    "skipped node": lambda: _plan(3, _policy(3, drain=DRAIN), script=[(-0.0, lambda w: w.label_node("n01", SKIP, "true"))]),
    "paused": lambda: _plan(2, _policy(paused=True)),
    "skipped pod": lambda: _plan(2, _policy(drain=DRAIN), Workload("w0", 3, labels={DRAIN_SKIP: "true"}), Workload("w1", 3)),
    "pods that are not chosen": lambda: _plan(
        2, _policy(drain={**DRAIN, "podSelector": "app=w0"}), Workload("w0", 2), Workload("w1", 3)
    ),
    "scratch space": lambda: _plan(
        2, _policy(drain={"enable": True, "timeoutSeconds": 20}), Workload("w0", 3, empty_dir=True), may_fail=True
    ),
    "validation missing": lambda: _plan(
        2, _policy(2, validation={"podSelector": "app=validator", "timeoutSeconds": 20}), may_fail=True
    ),
    "slow to end": lambda: _plan(2, _policy(drain=DRAIN), *(Workload(f"w{n}", 2, grace=60) for n in range(3))),
    "jobs, two versions": lambda: _plan(
        2,
        _policy(waitForCompletion={"podSelector": "job=true", "timeoutSeconds": 40}),
        Workload("j", 4, job=True),
        rounds=2,
        script=[(60, lambda w: w.workloads.add(Workload("k", 4, job=True)))],
    ),
    "uncordoned meanwhile": lambda: _plan(
        1,
        _policy(drain=DRAIN),
        Workload("w0", 4, grace=60),
        script=[(1.0 + n, lambda w: w.cordon("n00", on=False)) for n in (0, 2)],
    ),
    "disabled meanwhile": lambda: _plan(
        2,
        _policy(2, drain=DRAIN),
        Workload("w0", 6, grace=60),
        budgets=[budget("b0", "w0", maxUnavailable=1)],
        script=[(2.0, lambda w: w.edit_policy(autoUpgrade=False))],
    ),
    "cordon to be kept": lambda: _plan(
        1, _policy(drain=DRAIN), Workload("w0", 2), script=[(1.0, lambda w: w.annotate_node("n00", KEEP, "true"))]
    ),
    "disabled in the middle of a restart": lambda: _plan(
        2, _policy(drain=DRAIN), Workload("w0", 2), script=[(0.0, _disable_at_restart)]
    ),
    "disabled with a failed node": lambda: _plan(
        2,
        _policy(failureThreshold=2),
        broken=["n00"],
        may_fail=True,
        script=[(90.0, lambda w: w.edit_policy(autoUpgrade=False))],
    ),
    "another operator's node": lambda: _plan(
        2,
        _policy(drain=DRAIN),
        Workload("w0", 2),
        script=[
            (-0.0, lambda w: w.label_node("n01", SKIP, "true")),
            (0.0, lambda w: w.annotate_node("n01", REQUESTOR, "true")),
            (5.0, lambda w: w.label_node("n01", SKIP, None)),
        ],
    ),
    "a node that is not ready for a while": lambda: _plan(
        3,
        _policy(drain=DRAIN),
        Workload("w0", 3),
        script=[
            (-0.0, lambda w: w.label_node("n02", SKIP, "true")),
            (0.0, lambda w: w.set_ready("n02", ready=False)),
            (5.0, lambda w: w.label_node("n02", SKIP, None)),
            (40.0, lambda w: w.set_ready("n02", ready=True)),
        ],
    ),
    "a DaemonSet is away for a minute": lambda: _plan(
        2,
        _policy(drain=DRAIN),
        script=[
            (20.0, lambda w: w.label_node("n01", "gpu", None)),
            (50.0, lambda w: w.label_node("n01", "gpu", "true")),
        ],
    ),
    "a mistaken 404 as the controller starts anew": lambda: _plan(
        3,
        _policy(drain=DRAIN),
        Workload("w0", 5),
        verdicts={("WATCH", "driverupgradepolicies"): [Verdict(answer=error_answer(404, "NotFound", "not found"))]},
        script=[(9.0, lambda w: w.restart())],
    ),
    "node deleted": lambda: _plan(3, _policy(drain=DRAIN), Workload("w0", 3), script=[(1.0, _delete_n00)]),
    "node deleted and back with its marks": lambda: _plan(
        2, _policy(drain=DRAIN), Workload("w0", 4, grace=60), script=[(1.0, _recreate_busy)]
    ),
    "requested": lambda: _plan(
        2, _policy(drain=DRAIN), Workload("w0", 2), script=[(30, lambda w: w.annotate_node("n01", REQUESTED, "true"))]
    ),
    "nodes seen late": lambda: _plan(4, _policy(1, drain=DRAIN), Workload("w0", 3), lags={"nodes": 3.0}),
    "one percent": lambda: _plan(3, _policy(2, maxUnavailable="1%", drain=DRAIN)),
    "a DaemonSet beside": lambda: _plan(
        2,
        _policy(validation={"podSelector": "app=validator", "timeoutSeconds": 60}),
        validators=True,
        script=[(1.0 * n, lambda w, n=n: w.set_version(f"v{n}", key="drivers/validator")) for n in (2, 3, 4)],
    ),
    "cordon lifted and set again": lambda: _plan(
        1,
        _policy(drain=DRAIN, validation={"podSelector": "app=validator", "timeoutSeconds": 60}),
        validators=True,
        script=[
            (0.0, lambda w: w.kubelets.behaviour.broken.add(("validator:v1", "*"))),
            (14.0, lambda w: w.cordon("n00", on=False)),
            (20.0, lambda w: w.cordon("n00", on=True)),
            (26.0, lambda w: w.kubelets.behaviour.broken.clear()),
        ],
    ),
    "a node restarts during its validation": lambda: _plan(
        1,
        _policy(drain=DRAIN, validation={"podSelector": "app=validator", "timeoutSeconds": 600}),
        validators=True,
        script=[
            (0.0, lambda w: w.kubelets.behaviour.broken.add(("validator:v1", "*"))),
            (25.0, lambda w: w.set_ready("n00", ready=False)),
            (225.0, lambda w: w.kubelets.behaviour.broken.clear()),
            (225.0, lambda w: w.set_ready("n00", ready=True)),
        ],
    ),
    "a driver restarts after its validation, and nobody looks": lambda: _plan(
        1,
        _policy(drain=DRAIN, validation={"podSelector": "app=validator", "timeoutSeconds": 600}),
        validators=True,
        script=[(0.0, _restart_unseen)],
    ),
    "a step that is off, set by hand": lambda: _plan(
        1,
        _policy(drain=DRAIN),
        may_fail=True,
        script=[
            (30.0, lambda w: w.set_ready("n00", ready=False)),
            (31.0, lambda w: w.server.delete("admin", "daemonsets", DAEMONSET)),
            (33.0, World.create_driver),
            (36.0, lambda w: w.label_node("n00", STATE, "wait-for-jobs-required")),
        ],
    ),
    "matrix": lambda: _plan(
        2,
        _policy(drain=DRAIN),
        Workload("w0", 3),
        budgets=[budget("b0", "w0", maxUnavailable=2)],
        script=[(0.0, World.break_watches)],
    ),
    "a DaemonSet replaced while its watch hangs": lambda: _plan(2, _policy(2), script=[(20.0, _replace_driver)]),
    "a node's pods leave while its watch is silent": lambda: _plan(
        1, _policy(drain={**DRAIN, "timeoutSeconds": 300}), Workload("w0", 3), script=[(0.0, _silence_pods)]
    ),
    "two versions": lambda: _plan(2, _policy(drain=DRAIN), Workload("w0", 2), rounds=2),
}


def scene(name: str, seed: int = 0) -> Plan:
    """Return a scene's plan."""
    plan = SCENES[name]()
    plan.seed = seed
    return plan
