"""A cluster in virtual time: API server, its components, and what a plan says is in it."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.checker.events import Subject
from tests.sim.apiserver import ApiServer
from tests.sim.daemonsets import DaemonSets, daemonset, with_version
from tests.sim.eviction import Evictions
from tests.sim.kubelets import Behaviour, Kubelets, node
from tests.sim.loop import VirtualLoop
from tests.sim.network import Network, Verdict
from tests.sim.objects import Obj, labels
from tests.sim.watches import Watches
from tests.sim.workloads import Disruptions, Scheduler, Workload, Workloads, budget

DRIVERS = "drivers"
STEM = "nvidia.com/gpu-driver-upgrade"
STATE = f"{STEM}-state"
RECORD = f"{STEM}.record"
SKIP = f"{STEM}.skip"
SAFE_LOAD = f"{STEM}.driver-wait-for-safe-load"
KEEP = f"{STEM}.node-initial-state.unschedulable"
REQUESTED = f"{STEM}-requested"
REQUESTOR = f"{STEM}-requestor-mode"
DRAIN_SKIP = f"{STEM}-drain.skip"
POLICY = f"{DRIVERS}/gpu"
DAEMONSET = f"{DRIVERS}/driver"
QUIET = 40.0
"""Seconds without a write of ours after which a world without nodes in progress has come to rest."""


@dataclass(frozen=True)
class Also:
    """One more policy beside ``gpu``: for its driver's other nodes, or for another driver, which brings its DaemonSet."""

    policy: str
    driver: str = "gpu"
    pool: dict[str, str] = field(default_factory=dict)
    """The nodes that are this policy's in the end, by label."""
    selector: dict[str, str] | None = None
    """What its nodeSelector says, where an older policy takes some of those nodes."""
    upgrade: Obj = field(default_factory=dict)

    @property
    def app(self) -> str:
        return "driver" if self.driver == "gpu" else self.driver

    def subject(self, *, may_fail: bool) -> Subject:
        """How a checker sees it."""
        app, named = {"app": self.app}, f"DriverUpgradePolicy/{self.policy}"
        return Subject(self.driver, DRIVERS, self.app, self.policy, app=app, pool=self.pool, may_fail=may_fail, named=named)


@dataclass
class Plan:
    """What is in the cluster and what is to happen. Everything follows from it and the seed."""

    seed: int = 0
    nodes: int = 6
    policy: Obj = field(default_factory=dict)
    workloads: list[Workload] = field(default_factory=list)
    budgets: list[Obj] = field(default_factory=list)
    cordoned: list[int] = field(default_factory=list)
    not_ready: list[int] = field(default_factory=list)
    validators: bool = False
    safe_load: bool = False
    rounds: int = 1
    broken: list[str] = field(default_factory=list)
    """Nodes on which the new version of the first round never gets ready."""
    may_fail: bool = False
    """Whether a node may end as failed."""
    faults: str = "calm"
    fault_seconds: float = 120.0
    crashes: dict[int, str] = field(default_factory=dict)
    """By the index of our write since the first rollout: the moment at which the process dies."""
    early: dict[int, str] = field(default_factory=dict)
    """The same of our writes before the first rollout, when every node is seen for the first time."""
    script: list[tuple[float, Callable[["World"], None]]] = field(default_factory=list)
    """What people do, each some seconds after the first rollout."""
    verdicts: dict[tuple[str, str], list[Verdict]] = field(default_factory=dict)
    """By verb and resource: what becomes of the first such requests since the first rollout."""
    lags: dict[str, float] = field(default_factory=dict)
    """Seconds by which the watches of a resource are behind, all the time."""
    fenced: bool = False
    """Whether only the newest process may write, as the admission policy sees to: late requests do nothing."""

    quiet: float = QUIET
    """After how many seconds without a write of ours the world is taken to be at rest."""
    pool: dict[str, str] = field(default_factory=dict)
    """The nodeSelector of the policy ``gpu``."""
    also: list[Also] = field(default_factory=list)
    order: tuple[str, ...] = ()
    """``--driver-order``."""

    def subjects(self) -> list[Subject]:
        """What a checker is to judge."""
        first = Subject(pool=self.pool, may_fail=self.may_fail, named="DriverUpgradePolicy/gpu")
        return [first, *(also.subject(may_fail=self.may_fail) for also in self.also)]


class World:
    """The cluster of a plan."""

    def __init__(self, loop: VirtualLoop, plan: Plan) -> None:
        self.loop = loop
        self.plan = plan
        self.rng = random.Random(f"{plan.seed} world")
        self.server = ApiServer(loop)
        self.watches = Watches(self.server)
        self.network = Network(random.Random(f"{plan.seed} network"))
        self.evictions = Evictions(self.server)
        self.daemonsets = DaemonSets(self.server, self._rng("daemonsets"))
        self.workloads = Workloads(self.server, self._rng("workloads"))
        self.scheduler = Scheduler(self.server, self._rng("scheduler"), self.daemonsets)
        self.disruptions = Disruptions(self.server, self._rng("disruptions"), self.workloads)
        behaviour = Behaviour(safe_load_key=SAFE_LOAD if plan.safe_load else "")
        self.kubelets = Kubelets(self.server, self._rng("kubelets"), behaviour)
        self.version = 1
        self.clock = self.server.clock
        self.wall_skew = 0.0
        """How wrong the controller's own wall clock is, in seconds."""
        self.restart: Callable[[], None] = lambda: None
        """Kills the controller, which is started again soon."""

    def _rng(self, what: str) -> random.Random:
        return random.Random(f"{self.plan.seed} {what}")

    def build(self) -> None:
        """Create everything."""
        plan, server = self.plan, self.server
        self.network.lags.update(plan.lags)
        for n in range(plan.nodes):
            self.add_node(f"n{n:02}", unschedulable=n in plan.cordoned, ready=n not in plan.not_ready)
        self.create_driver()
        if plan.validators:
            server.apply("admin", "daemonsets", daemonset("validator", DRIVERS, "validator", "v1", {"gpu": "true"}))
        for one in plan.budgets:
            server.apply("admin", "poddisruptionbudgets", one)
        for workload in plan.workloads:
            self.workloads.add(workload)
        self.create_policy(plan.policy)
        for also in plan.also:
            self.add(also)

    def add(self, also: Also) -> None:
        """One more policy, with its driver's DaemonSet where it is not there."""
        if self.server.get("daemonsets", f"{DRIVERS}/{also.app}") is None:
            new = daemonset(also.app, DRIVERS, also.app, "v1", {also.driver: "true"})
            self.server.apply("admin", "daemonsets", new)
        self.create_policy(also.upgrade, also.policy, also)

    def add_node(self, name: str, *, unschedulable: bool = False, ready: bool = True) -> None:
        pool = {"pool": "b"} if self.plan.also and int(name[1:]) % 2 else {"pool": "a"}
        drivers = {also.driver: "true" for also in self.plan.also if int(name[1:]) % 3}
        new = node(name, {**drivers, "gpu": "true", **pool}, unschedulable=unschedulable, ready=ready)
        self.server.apply("admin", "nodes", new)

    def create_driver(self) -> None:
        """The driver's DaemonSet, at the present version."""
        version, safe_load = f"v{self.version}", self.plan.safe_load
        new = daemonset("driver", DRIVERS, "driver", version, {"gpu": "true"}, safe_load=safe_load)
        self.server.apply("admin", "daemonsets", new)

    def create_policy(self, upgrade: Obj, name: str = "gpu", also: Also | None = None) -> None:
        driver = {
            "name": also.driver if also else "gpu",
            "podSelector": {"matchLabels": {"app": also.app if also else "driver"}},
            "upgradePolicy": upgrade,
        }
        pool = (also.pool if also.selector is None else also.selector) if also else self.plan.pool
        if pool:
            driver["nodeSelector"] = {"matchLabels": pool}
        obj = {
            "kind": "DriverUpgradePolicy",
            "apiVersion": "nvidia.com/v1",
            "metadata": {"name": name, "namespace": DRIVERS},
            "spec": {"driver": driver},
        }
        self.server.apply("admin", "driverupgradepolicies", obj)

    def edit_policy(self, **fields: object) -> None:
        old = self.server.get("driverupgradepolicies", POLICY)
        if old is not None:
            upgrade = {**old["spec"]["driver"]["upgradePolicy"], **fields}
            path = ("spec", "driver", "upgradePolicy")
            self.server.edit("admin", "driverupgradepolicies", POLICY, path, upgrade)

    def set_version(self, version: str, config: str = "", key: str = DAEMONSET) -> None:
        """The owner of the driver's, or another, DaemonSet changes it."""
        old = self.server.get("daemonsets", key)
        if old is not None:
            self.server.apply("admin", "daemonsets", with_version(old, version, config))

    def roll(self) -> str:
        """Begin the next version."""
        self.version += 1
        version = f"v{self.version}"
        if self.version == 2:
            self.kubelets.behaviour.broken |= {(f"driver:{version}", name) for name in self.plan.broken}
        self.set_version(version)
        for app in sorted({also.app for also in self.plan.also} - {"driver"}):
            self.loop.call_later(self.rng.uniform(0, 30), self.set_version, version, "", f"{DRIVERS}/{app}")
        return version

    def break_watches(self) -> None:
        """Every watch is cut, so that each is begun again."""
        for watch in self.watches.all():
            watch.cut()

    def set_ready(self, name: str, *, ready: bool) -> None:
        conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
        self.server.edit("node-lifecycle", "nodes", name, ("status", "conditions"), conditions)

    def label_node(self, name: str, key: str, value: str | None, actor: str = "admin") -> None:
        self.server.edit(actor, "nodes", name, ("metadata", "labels", key), value)

    def annotate_node(self, name: str, key: str, value: str | None, actor: str = "admin") -> None:
        self.server.edit(actor, "nodes", name, ("metadata", "annotations", key), value)

    def cordon(self, name: str, *, on: bool) -> None:
        self.server.edit("admin", "nodes", name, ("spec", "unschedulable"), True if on else None)

    def driver_pods(self, name: str) -> list[Obj]:
        found = self.server.store.objects("pods")
        return [p for p in found if labels(p).get("app") == "driver" and p["spec"].get("nodeName") == name]

    def states(self) -> dict[str, str]:
        return {n["metadata"]["name"]: labels(n).get(STATE, "") for n in self.server.store.objects("nodes")}


def random_plan(seed: int, faults: str = "") -> Plan:
    """Draw a plan from a seed."""
    rng = random.Random(f"{seed} plan")
    nodes = rng.randint(3, 12)

    def some(p: float) -> list[int]:
        return [n for n in range(nodes) if rng.random() < p]

    plan = Plan(
        seed=seed,
        nodes=nodes,
        policy=_policy(rng, nodes),
        cordoned=some(0.15) if rng.random() < 0.4 else [],
        not_ready=some(0.1) if rng.random() < 0.3 else [],
        may_fail=True,
        safe_load=rng.random() < 0.2,
        rounds=rng.randint(1, 3),
        faults=faults or _mixture(seed, rng.choice(PROFILES)),
        fault_seconds=rng.uniform(20, 300),
    )
    plan.validators = bool(plan.policy.get("validation"))
    plan.broken = [f"n{n:02}" for n in some(0.3)] if rng.random() < 0.15 else []
    _load(rng, plan)
    return plan


PROFILES = ("calm", "crash", "errors", "watch", "meddle", "all")
KINDS = ("answers", "bodies", "gaps", "travel", "slow", "clock", "fuzz", "hostile")


def _mixture(seed: int, profile: str) -> str:
    """What goes wrong where nobody says: a profile and none to three kinds beside it; now and then everything at once."""
    rng = random.Random(f"{seed} mixture")
    if rng.random() < 0.04:
        return "storm"
    return "+".join([profile, *sorted(rng.sample(KINDS, rng.choice([0, 1, 1, 1, 2, 2, 3])))])


def _policy(rng: random.Random, nodes: int) -> Obj:
    policy: Obj = {"autoUpgrade": True, "maxParallelUpgrades": rng.choice([1, 1, 2, 3, 4, 0])}
    if rng.random() < 0.4:
        policy["maxUnavailable"] = rng.choice([1, 2, 3, "25%", "50%", "34%"])
    if rng.random() < 0.3:
        policy["failureThreshold"] = rng.randint(1, nodes)
    if rng.random() < 0.2:
        policy["cordonedNodes"] = "Skip"
    if rng.random() < 0.85:
        policy["drain"] = {
            "enable": True,
            "timeoutSeconds": rng.choice([30, 120, 300]),
            "deleteEmptyDir": rng.random() < 0.8,
        }
    if rng.random() < 0.3:
        policy["waitForCompletion"] = {"podSelector": "job=true", "timeoutSeconds": rng.choice([20, 60, 200])}
    if rng.random() < 0.2:
        policy["podDeletion"] = {"podSelector": "app=w0", "timeoutSeconds": rng.choice([30, 120]), "deleteEmptyDir": True}
    if rng.random() < 0.4:
        policy["validation"] = {"podSelector": "app=validator", "timeoutSeconds": rng.choice([60, 300])}
    policy["podRestart"] = {"timeoutSeconds": rng.choice([60, 120, 600]), "maxRestarts": rng.choice([2, 10])}
    if rng.random() < 0.1:
        policy["podRestart"]["unchangedEnv"] = "CONFIG"
    return policy


def _load(rng: random.Random, plan: Plan) -> None:
    for n in range(rng.randint(0, 3)):
        name, replicas = f"w{n}", rng.randint(1, plan.nodes * 2)
        empty_dir = rng.random() < 0.1
        plan.workloads.append(Workload(name, replicas, grace=rng.choice([1, 30, 60]), empty_dir=empty_dir))
        if rng.random() < 0.6:
            limit = {"maxUnavailable": rng.randint(1, 3)} if rng.random() < 0.7 else {"minAvailable": max(0, replicas - 1)}
            plan.budgets.append(budget(f"b{n}", name, **limit))
        if rng.random() < 0.05:
            plan.budgets.append(budget(f"b{n}-again", name, maxUnavailable=2))
    if plan.policy.get("waitForCompletion"):
        plan.workloads.append(Workload("jobs", rng.randint(1, plan.nodes), job=True))
