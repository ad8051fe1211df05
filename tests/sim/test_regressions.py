"""Every bug that the simulator has found, as the smallest thing that shows it again, with a line on what it was."""

import asyncio
from collections.abc import Callable

import orjson
import pytest

from controller.kube.client import Client
from controller.operate import nodepods
from tests.checker import Event
from tests.sim import loop as virtual
from tests.sim.apiserver import ApiServer, Call
from tests.sim.harness import Run, simulate, simulate_with
from tests.sim.loop import VirtualLoop
from tests.sim.matrix import DEVICE, claimed_devices
from tests.sim.mutants import hunt
from tests.sim.network import Verdict, error_answer
from tests.sim.objects import assoc, key_of, labels, node_of
from tests.sim.routes import route
from tests.sim.scenes import RESTART, scene
from tests.sim.watches import Watches
from tests.sim.workloads import Workload
from tests.sim.world import POLICY, STATE, Also, Plan, World, random_plan

SCENES = {
    "cordon lifted and set again": "the claim outlived its cordon: an administrator's later cordon was lifted at the end",
    "a DaemonSet replaced while its watch hangs": "the newest revision collected first: its current pods were deleted",
    "a node's pods leave while its watch is silent": "noticed after up to 630 s: the drain's time passed, the node failed",
    "a driver restarts after its validation, and nobody looks": "given back by the word of the validation before",
    "a step that is off, set by hand": "wait-for-jobs-required without a selector waited for ever for pods not to be judged",
}
SEEDS = {
    (111, "gaps"): "simulator: a new DaemonSet took over the revision of an earlier one, which the real one leaves alone",
    (27, "gaps"): "simulator: a watch was to hang shorter from the second time on, and nobody waited for its end",
    (9, "gaps"): "checker: a pod that a new DaemonSet had made beside the good one this moment should have been known",
    (56, "gaps"): "checker: the same, where one watch hung and the window was minutes long",
    (39, "storm"): "a controller that started while its policy went waited for ever for driver pods nobody had asked for",
    (9, "storm"): "simulator: a process that had not been told of all nodes yet was held to have seen a cordon lifted",
    (97, "storm"): "simulator: the same, where a watch was cut before it had told of all budgets",
    (25, "storm"): "simulator: a node's pods listed, and their watch refused, counted as a view that does not grow old",
    (18, "storm"): "checker: a policy not understood was held to mean what a later one meant",
    (53, ""): "simulator: a view that caught up this moment was held to have shown a lifted cordon all along",
    (135, "storm"): "simulator: a node that changed while the state was sent was not in it, and was counted as gone",
    (33, "storm"): "a record on its way while the server's clock was set was taken for younger: no job was waited for",
    (557, "meddle"): "checker: the same of an orphan, where the policy was disabled",
    (
        3154,
        "",
    ): "a replaced DaemonSet's newest revision collected first: a failed node's old driver was taken for current",
    (1114, "storm"): "a driver replaced after its validation, while no controller ran: given back, and not validated again",
    (
        144,
        "clock+slow",
    ): "checker: what the server's clock said was looked at when evictions arrived, not when they were sent",
    (63, "clock+slow"): "checker: a server's clock that runs slower had run faster before, and was misjudged by as much",
    (63, "clock"): "simulator: the judge was not told of the server's clock, five seconds of which are fewer of ours",
    (115, "fuzz"): "checker: a policy whose switch is a number is not understood, and demands nothing",
    (53, "meddle"): "the claim outlived its cordon in validation-required",
    (95, "meddle"): "the claim outlived its cordon while no DaemonSet wanted the node",
    (5085, "meddle"): "a failed node whose record was lost did not count: the halt was lifted for a moment",
    (3, "meddle"): "stuck in wait-for-jobs-required on a dead node",
    (20627, "meddle"): "a failed node that its DaemonSet wanted no longer stopped counting: the halt was lifted",
    (48, "meddle"): "marks of an earlier node of this name stayed on one that no DaemonSet wants",
}
DRAWN = {
    (136, "all"): "checker: a label that a person took off was read as where the node was, and its end as to and fro",
    (274, "all"): "the claim outlived its cordon while no version of the policy had ever been understood",
    (190, "all"): "checker: the same of a node that a person had marked done",
    (7, "meddle"): "set to validation-required by hand, the pod's DaemonSet gone: a state without deadline waited for ever",
    (
        618,
        "meddle+bodies+fuzz",
    ): "checker: the last good version of a policy had a field that was null, which it compared with numbers",
    (162, "all+bodies+slow"): "checker: a state's time counts from when it was sent, not from when a slow request arrived",
}
"""Seeds whose plan draws these faults by itself, or did before there were others to draw."""

ANSWERS = {
    ("DELETE", "pods"): "a mistaken 404 to a driver's deletion: the running pod was never seen again, and the node failed",
    ("WATCH", "pods"): "a mistaken 404 to the watch of a node's pods: it was taken for empty, the driver deleted under them",
    ("WATCH", "daemonsets"): "a mistaken 404 to the watch of DaemonSets: all were taken for gone, and nodes for not wanted",
    ("WATCH", "controllerrevisions"): "a mistaken 404 to the watch of revisions: outdated drivers were taken for current",
}


@pytest.mark.parametrize(("verb", "kind"), ANSWERS)
def test_mistaken_answer(verb, kind):
    plan = scene("matrix")
    plan.verdicts = {(verb, kind): [Verdict(answer=error_answer(404, "NotFound", "not found"))] * 3}
    assert not (found := simulate(plan).violations), (ANSWERS[verb, kind], found)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("seed", range(3))
def test_scene(name, seed):
    assert not (found := simulate(scene(name, seed)).violations), (SCENES[name], found)


@pytest.mark.parametrize(("seed", "faults"), SEEDS)
def test_seed(seed, faults):
    assert not (found := simulate(random_plan(seed, faults)).violations), (SEEDS[seed, faults], found)


def test_a_mistaken_404_to_the_first_look_at_policies():
    """A process that started amid a rollout took every policy for gone, and gave all nodes back half upgraded."""
    plan = scene("a mistaken 404 as the controller starts anew")
    outcome = simulate(plan)
    assert (outcome.violations, outcome.upgrades) == ([], plan.nodes)


def test_a_policy_that_goes_while_the_controller_starts():
    """It waited for ever for the first list of driver pods that nobody wanted any more, and never acted again."""
    plan = scene("restart")
    plan.verdicts = {("WATCH", "pods"): [Verdict(delay=30.0)]}
    plan.script = [
        (0.0, lambda world: world.restart()),
        (22.0, lambda world: world.server.delete("admin", "driverupgradepolicies", POLICY)),
        (24.0, lambda world: world.create_policy({}, "idle", Also("idle", driver="nic"))),
        (60.0, lambda world: world.create_policy(world.plan.policy)),
    ]
    outcome = simulate(plan)
    assert not outcome.violations, outcome.violations
    assert outcome.upgrades == plan.nodes


def test_a_decision_that_asks_for_the_past_does_not_spin():
    """A worker that was to look again at once never gave the loop back: watches, probes and timers stood still."""
    assert "L1" in hunt("P6 validation without pods never ends").violation


@pytest.mark.parametrize("seed", range(6))
def test_no_grant_slips_past_the_threshold_while_a_failure_is_written(seed):
    """Of two nodes that fail at one deadline the first one's answer freed a slot before the second one counted."""
    policy = {"autoUpgrade": True, "maxParallelUpgrades": 3, "failureThreshold": 3, "podRestart": RESTART}
    everywhere = [f"n{n:02}" for n in range(8)]
    outcome = simulate(Plan(seed=seed, nodes=8, policy=policy, broken=everywhere, may_fail=True))
    assert not outcome.violations, outcome.violations


@pytest.mark.parametrize(("seed", "faults"), DRAWN)
def test_drawn(seed, faults):
    plan = random_plan(seed)
    plan.faults = faults
    assert not (found := simulate(plan).violations), (DRAWN[seed, faults], found)


@pytest.mark.parametrize(("seed", "faults"), [(24, "all"), *((n, "crash+slow") for n in range(4))])
def test_fenced(seed, faults):
    """A killed process's late requests, which its successor cannot know of, do nothing where the fence stands."""
    plan = random_plan(seed, faults)
    plan.fenced = True
    assert not (found := simulate(plan).violations), found


def test_a_seed_tells_the_same_story_twice():
    first, second = (simulate(random_plan(7, "all"), trace=True) for _ in range(2))
    assert first.trace == second.trace
    assert len(first.trace) > 100


@pytest.mark.parametrize("when", ["at rest", "in progress"])
def test_a_driver_pod_that_leaves_the_selection_and_enters_it_again_is_seen(when):
    """To a watch by labels it was deleted and made anew; the cache took its uid for dead: the node waited for a driver."""
    shown = {"matchLabels": {"app": "driver"}, "matchExpressions": [{"key": "hidden", "operator": "DoesNotExist"}]}

    async def hide(run: Run) -> None:
        key = key_of(run.world.driver_pods("n01")[0])
        for value in ("true", None):
            run.world.server.edit("admin", "pods", key, ("metadata", "labels", "hidden"), value)
            await asyncio.sleep(2)

    async def play(run: Run) -> None:
        run.world.build()
        run.world.server.edit("admin", "driverupgradepolicies", POLICY, ("spec", "driver", "podSelector"), shown)
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        if when == "at rest":
            await hide(run)
            run.world.roll()
        else:
            run.world.roll()
            await hide(run)
        run.checker.disturb(run.loop.time())
        await run.come_to_rest()
        run.checker.rest(run.loop.time())

    outcome = simulate_with(Plan(nodes=2, policy={"autoUpgrade": True, "podRestart": RESTART}), play)
    assert not outcome.violations, outcome.violations
    assert outcome.upgrades == 2, outcome.upgrades


@pytest.mark.parametrize("alone", [True, False], ids=["by its own watch", "by the cluster's"])
def test_a_workload_that_cannot_be_read_keeps_its_driver(alone, monkeypatch):
    """What could not be decoded was on no node: it was taken for empty, and the driver deleted under the workload."""
    monkeypatch.setattr(nodepods, "MANY", 64 if alone else 0)
    states: list[dict[str, str]] = []

    async def play(run: Run) -> None:
        world, store = run.world, run.world.server.store
        world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        key = next(key_of(p) for p in store.objects("pods") if node_of(p) == "n01" and labels(p).get("app") == "w0")
        store.disguises["pods", key] = lambda o: {**o, "spec": {**o["spec"], "containers": "none"}}
        store.touch("pods", key)
        world.roll()
        await asyncio.sleep(100)
        states.append(world.states())
        store.disguises.clear()
        store.touch("pods", key)
        run.checker.disturb(run.loop.time())
        await run.come_to_rest()
        run.checker.rest(run.loop.time())

    upgrade = {"autoUpgrade": True, "maxParallelUpgrades": 2, "drain": {"enable": True}, "podRestart": RESTART}
    outcome = simulate_with(Plan(nodes=3, policy=upgrade, workloads=[Workload("w0", 6)]), play)
    assert not outcome.violations, outcome.violations
    assert states == [{"n00": "upgrade-done", "n01": "drain-required", "n02": "upgrade-done"}]
    assert outcome.upgrades == 3


def test_what_changes_while_the_state_is_sent_is_in_the_state():
    """Coalesced with its change it came after the end of the state: whoever took that over believed that it was gone."""

    async def told() -> list[tuple[str, str]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        server = ApiServer(loop)
        watches = Watches(server)
        server.apply("admin", "nodes", {"metadata": {"name": "n00"}, "spec": {}})
        state = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
        watch = watches.start(Call("we", "GET", route("/api/v1/nodes"), {"watch": "1", **state}, None, 0.0), lambda: 1.0)
        watch.coalesces = True
        for value in ("1", "2"):
            server.edit("admin", "nodes", "n00", ("metadata", "labels", "change"), value)
        events = [orjson.loads(line) for line in (await anext(watch.chunks())).splitlines()]
        return [(event["type"], labels(event["object"]).get("change", "")) for event in events]

    assert virtual.run(told()) == [("ADDED", ""), ("BOOKMARK", ""), ("MODIFIED", "2")]


def test_a_claim_made_anew_under_its_name_is_read_anew():
    """What was read of a claim was kept by its name for ever: weeks later its pods were judged by another claim's driver."""
    evicted: list[float] = []

    async def play(run: Run) -> None:
        world, kind = run.world, "resourceclaims"
        world.build()
        world.server.audits.append(lambda entry: evicted.append(entry.at) if entry.verb == "EVICT" else None)
        (mine,) = world.server.store.objects(kind)
        results = ("status", "allocation", "devices", "results")
        for drivers in ([{"driver": "nic.example.com"}], mine["status"]["allocation"]["devices"]["results"]):
            world.server.delete("admin", kind, key_of(mine))
            meta = {"name": mine["metadata"]["name"], "namespace": mine["metadata"]["namespace"]}
            world.server.apply("admin", kind, assoc({**mine, "metadata": meta}, results, drivers))
            if run.replica is None:
                run.start()
            await run.come_to_rest()
            world.roll()
            run.checker.disturb(run.loop.time())
            await run.come_to_rest()
            assert bool(evicted) is (drivers[0]["driver"] == DEVICE), drivers
        run.checker.rest(run.loop.time())

    plan = claimed_devices()
    del plan.policy["drain"]
    outcome = simulate_with(plan, play)
    assert not outcome.violations, outcome.violations
    assert outcome.upgrades == 4


def left_its_pool(run: Run, *, unlisted: float) -> asyncio.Event:
    """The first node whose driver pod is deleted leaves the policy; what it goes by then is not listed for some seconds."""
    left, world = asyncio.Event(), run.world

    def hidden(call: Call) -> bool:
        return call.verb == "WATCH" and call.params.get("labelSelector") == "app=driver"

    def leave(node: str) -> None:
        run.faults.refuses = hidden
        world.label_node(node, "pool", "b")
        run.loop.call_later(unlisted, setattr, run.faults, "refuses", None)
        left.set()

    def look(entry: Event) -> None:
        if entry.ours and entry.verb == "DELETE" and entry.old is not None and not left.is_set():
            run.loop.call_soon(leave, node_of(entry.old))

    world.server.audits.append(look)
    return left


def test_a_node_whose_driver_pods_are_not_known_keeps_its_slot():
    """Outside its policy it goes by its DaemonSet's selector: unlisted as yet, it did not count, and S1 broke."""
    apart = {"matchLabels": {"app": "driver"}, "matchExpressions": [{"key": "hidden", "operator": "DoesNotExist"}]}

    async def play(run: Run) -> None:
        run.world.build()
        run.world.server.edit("admin", "driverupgradepolicies", POLICY, ("spec", "driver", "podSelector"), apart)
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        left = left_its_pool(run, unlisted=20.0)
        run.world.roll()
        await left.wait()
        await asyncio.sleep(20.0)
        run.checker.disturb(run.loop.time())
        await run.come_to_rest()
        run.checker.rest(run.loop.time())

    policy = {"autoUpgrade": True, "maxParallelUpgrades": 1, "podRestart": RESTART}
    outcome = simulate_with(Plan(nodes=3, policy=policy, pool={"pool": "a"}), play)
    assert not outcome.violations, outcome.violations
    assert outcome.upgrades == 3


def when(run: Run, state: str, act: Callable[[str], object], after: float = 0.0) -> None:
    """Do something with the first node that we put into a state, so many seconds after that."""
    acted: list[str] = []

    def look(entry: Event) -> None:
        written = entry.new if entry.ours and entry.kind == "nodes" and not acted else None
        if written is not None and labels(written).get(STATE) == state:
            acted.append(entry.key)
            run.loop.call_later(after, act, entry.key)

    run.world.server.audits.append(look)


async def rolled(run: Run) -> None:
    """A rollout from its begin to its end."""
    run.world.roll()
    await asyncio.sleep(1.0)
    await run.come_to_rest()
    run.checker.rest(run.loop.time())


def test_a_driver_pod_is_deleted_on_no_decision_older_than_its_turn(monkeypatch):
    """The deletion waited for its turn in the rate limiter, and the node, uncordoned meanwhile, lost its driver (S4)."""
    turn = Client._take_turn

    async def late(client: Client, verb: str) -> None:
        await asyncio.sleep(6.0 if verb == "DELETE" else 0.0)
        await turn(client, verb)

    async def play(run: Run) -> None:
        run.world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        when(run, "pod-restart-required", lambda name: run.world.cordon(name, on=False), after=1.0)
        await rolled(run)

    monkeypatch.setattr(Client, "_take_turn", late)
    outcome = simulate_with(Plan(nodes=2, policy={"autoUpgrade": True, "podRestart": RESTART}), play)
    assert not outcome.violations, outcome.violations
    assert outcome.upgrades == 2


@pytest.mark.parametrize("fate", ["written", "deleted"])
def test_a_node_that_changes_while_its_watch_hangs_is_read(fate):
    """After 409 and 404 nothing was read: until the watch was renewed, minutes later, each write met the same answer."""
    found: list[dict[str, str]] = []

    def change(world: World, name: str) -> None:
        for watch in world.watches.of("nodes"):
            watch.silence(world.loop.time() + 600.0, hangs=True)
        if fate == "written":
            world.annotate_node(name, "example.com/seen", "true", actor="someone")
        else:
            world.server.delete("autoscaler", "nodes", name)

    async def play(run: Run) -> None:
        run.world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        when(run, "pod-restart-required", lambda name: change(run.world, name))
        run.world.roll()
        await asyncio.sleep(130.0)
        found.append(run.world.states())
        run.checker.disturb(run.loop.time() + 500.0)
        await asyncio.sleep(500.0)
        await run.come_to_rest()
        run.checker.rest(run.loop.time())

    outcome = simulate_with(Plan(nodes=2, policy={"autoUpgrade": True, "podRestart": RESTART}), play)
    assert not outcome.violations, outcome.violations
    assert set(found[0].values()) == {"upgrade-done"}
    assert len(found[0]) == (2 if fate == "written" else 1)
