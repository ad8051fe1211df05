"""A week in the life of a cluster, again and again: all that comes and goes in the years that a controller runs.

Each week brings names that were never there before (a node, a workload with a budget, a job, a driver with its policy,
its DaemonSet and its nodes) and takes them away again at its end, and ends in the same state as the one before. What the
controller holds then, at rest, is what it holds for ever: nothing in it may grow from week to week.
"""

import asyncio
import gc
import re
from dataclasses import dataclass, field

from tests.checker.judge import Judge
from tests.sim.footprint import held, instances, labels_of, resident, tasks, traced, weight
from tests.sim.harness import Run
from tests.sim.objects import Obj, key_of, labels
from tests.sim.workloads import Workload, budget
from tests.sim.world import DAEMONSET, DRIVERS, POLICY, REQUESTED, Also, Plan

HOUR = 3600.0
WEEK = 7 * 86_400.0
QUIET = 1800.0
"""Seconds at rest after which nothing of the week is under way any more, series of Events included."""
BEAT = 300.0
"""Seconds between a kubelet's reports that nothing has changed."""
NAMES = re.compile(r"\b[ndpewjb]\d+\b")
"""The names of what there is in this life: n nodes, d drivers, p and e policies, w and j workloads, b budgets."""
GLANCES = 5
"""How often tasks are counted: the least of these is what there is while no watch is being begun anew."""
RESTART: Obj = {"timeoutSeconds": 60, "maxRestarts": 3}
DRAIN: Obj = {"enable": True, "timeoutSeconds": 120, "deleteEmptyDir": True}
UPGRADE: Obj = {
    "autoUpgrade": True,
    "maxParallelUpgrades": 2,
    "failureThreshold": 9,
    "drain": DRAIN,
    "podRestart": RESTART,
    "waitForCompletion": {"podSelector": "job=true", "timeoutSeconds": 60},
    "validation": {"podSelector": "app=validator", "timeoutSeconds": 60},
}
STEADY = 4
"""Nodes that stay."""


def plan(seed: int = 0) -> Plan:
    """The cluster before the first week."""
    return Plan(
        seed=seed,
        nodes=STEADY,
        policy=UPGRADE,
        workloads=[Workload("steady", 5, grace=20)],
        validators=True,
        may_fail=True,
        faults="errors+watch+gaps",
    )


@dataclass(frozen=True)
class Week:
    """What one week came to."""

    number: int
    upgrades: int
    busy: float
    """Requests a second from its first event until it was at rest."""
    idle: dict[str, int]
    """Requests of one hour at rest, by verb and resource."""
    tasks: int
    held: dict[str, int] = field(repr=False)
    """What the controller holds, by collection."""
    weight: int = 0
    """Bytes of all that."""
    traced: int = 0
    """Bytes that its code has allocated and not freed."""
    resident: int = 0
    """Bytes of the whole process."""
    stale: tuple[str, ...] = ()
    """Labels of metrics that name a node or a workload, or the driver or policy of an earlier week.

    How nodes are put back is counted after their policy is gone, and is kept until policies change again.
    """

    @property
    def things(self) -> int:
        """All that it holds."""
        return sum(self.held.values())


class Life:
    """Plays weeks with one process of the controller that is never restarted."""

    def __init__(self, run: Run, seconds: float = WEEK) -> None:
        self._run = run
        self._world = run.world
        self._seconds = seconds
        self._number = 0

    async def begin(self) -> None:
        """Build the cluster and start the controller."""
        self._world.build()
        await asyncio.sleep(5)
        self._run.start()
        await self._run.come_to_rest()

    async def week(self) -> Week:
        """Live through a week, and look at what is left of it."""
        run, began = self._run, self._run.loop.time()
        self._number += 1
        before, upgrades = self._requests(), run.checker.upgrades
        await self._happenings()
        busy = sum(self._since(before).values()) / (run.loop.time() - began)
        await asyncio.sleep(QUIET)
        quiet = self._requests()
        for _ in range(int(HOUR / BEAT)):
            self._world.kubelets.beat()
            await asyncio.sleep(BEAT)
        idle = self._since(quiet)
        found = await self._measured(run.checker.upgrades - upgrades, busy, idle)
        await asyncio.sleep(max(0.0, began + self._seconds - run.loop.time()))
        return found

    async def _measured(self, upgrades: int, busy: float, idle: dict[str, int]) -> Week:
        counts = []
        for _ in range(GLANCES):
            await asyncio.sleep(7.0)
            counts.append(tasks())
        replica = self._run.replica
        assert replica is not None
        gc.collect()
        everything = {**held(replica.controller), **instances()}
        mine = {f"{kind}{self._number}" for kind in "dpe"}
        stale = tuple(text for text in labels_of(replica.metrics) if set(NAMES.findall(text)) - mine)
        bytes_held = weight(replica.controller)
        return Week(self._number, upgrades, busy, idle, min(counts), everything, bytes_held, traced(), resident(), stale)

    def _requests(self) -> dict[str, int]:
        return dict(self._world.server.requests)

    def _since(self, before: dict[str, int]) -> dict[str, int]:
        now = self._requests()
        return {what: now[what] - before.get(what, 0) for what in now if now[what] != before.get(what, 0)}

    # What happens.

    async def _happenings(self) -> None:
        world, run = self._world, self._run
        new, also = f"n{99 + self._number}", self._also()
        judge = await self._arrive(new, also)
        await self._version(broken=new)
        await self._version(vanishing=new)
        await self._person()
        await self._recreate()
        await self._leave(new, also, judge)
        run.checker.rest(run.loop.time())
        world.server.expire_pages()
        for event in world.server.store.objects("events"):
            world.server.delete("expiry", "events", key_of(event))

    def _also(self) -> Also:
        return Also(f"p{self._number}", f"d{self._number}", upgrade={**UPGRADE, "validation": None})

    async def _arrive(self, new: str, also: Also) -> Judge:
        """A node, a workload, a job, and a driver that only two of the nodes have."""
        world, number = self._world, self._number
        await self._disputed(new)
        world.workloads.add(Workload(f"w{number}", 4, grace=20))
        world.server.apply("admin", "poddisruptionbudgets", budget(f"b{number}", f"w{number}", maxUnavailable=1))
        world.workloads.add(Workload(f"j{number}", 3, job=True))
        judge = self._run.checker.follow(also.subject(may_fail=True))
        for name in (new, "n01"):
            world.label_node(name, also.driver, "true")
        world.add(also)
        await self._run.come_to_rest()
        return judge

    async def _disputed(self, name: str) -> None:
        """A node arrives that nobody may write at first, and that others then write again and again while we see it late.

        Our first writes are refused, and the next ones are conflicts.
        """
        world, faults = self._world, self._run.faults
        world.network.lags["nodes"] = 2.0
        faults.refuses = lambda call: call.method == "PATCH" and call.route is not None and call.route.name == name
        world.add_node(name)
        for number in range(60):
            await asyncio.sleep(0.25)
            world.annotate_node(name, "example.com/seen", str(number), "someone")
            if number == 40:
                faults.refuses = None
        del world.network.lags["nodes"]

    async def _version(self, *, broken: str = "", vanishing: str = "") -> None:
        """A version is rolled out while much goes wrong. On one node it is broken; the next one heals it, if it stays."""
        world, run = self._world, self._run
        if broken:
            world.kubelets.behaviour.broken = {(f"driver:v{world.version + 1}", broken)}
        world.roll()
        run.faults.begin()
        await asyncio.sleep(30)
        if vanishing:
            await self._replace_busy()
        await asyncio.sleep(60)
        hangs = run.faults.end()
        run.checker.disturb(max(run.loop.time(), hangs))
        await asyncio.sleep(max(0.0, hangs - run.loop.time()))
        await run.come_to_rest()

    async def _replace_busy(self) -> None:
        """A machine goes in the middle of its upgrade, and another of its name comes."""
        world = self._world
        busy = [name for name in self._run.checker.in_progress() if world.server.get("nodes", name)]
        name = busy[0] if busy else "n00"
        node = world.server.get("nodes", name)
        assert node is not None
        own = {key: value for key, value in labels(node).items() if "/" not in key}
        world.server.delete("autoscaler", "nodes", name)
        await asyncio.sleep(20)
        world.add_node(name)
        for key, value in own.items():
            world.label_node(name, key, value)

    async def _person(self) -> None:
        """Somebody asks for a restart, pauses, disables, and takes the policy away in the middle of a rollout."""
        world, run = self._world, self._run
        world.annotate_node("n02", REQUESTED, "true")
        await self._mistake()
        await run.come_to_rest()
        world.roll()
        await asyncio.sleep(10)
        world.edit_policy(autoUpgrade=False)
        await asyncio.sleep(60)
        world.edit_policy(autoUpgrade=True)
        await asyncio.sleep(10)
        world.server.delete("admin", "driverupgradepolicies", POLICY)
        await asyncio.sleep(60)
        world.create_policy(UPGRADE)
        await run.come_to_rest()

    async def _mistake(self) -> None:
        """A policy for all nodes that nobody can understand, until its author gives up."""
        world, name = self._world, f"e{self._number}"
        world.add(Also(name, name, upgrade={"autoUpgrade": True, "drain": {"enable": True, "podSelector": "(("}}))
        await asyncio.sleep(30)
        for kind in ("driverupgradepolicies", "daemonsets"):
            world.server.delete("admin", kind, f"{DRIVERS}/{name}")

    async def _recreate(self) -> None:
        """The driver's DaemonSet is made anew, and with it all its pods and revisions."""
        world = self._world
        world.server.delete("admin", "daemonsets", DAEMONSET)
        await asyncio.sleep(30)
        world.create_driver()
        await self._run.come_to_rest()

    async def _leave(self, new: str, also: Also, judge: Judge) -> None:
        """What came goes, the policy in the middle of a rollout."""
        world, number = self._world, self._number
        world.set_version("last", key=f"{DRIVERS}/{also.app}")
        await asyncio.sleep(10)
        world.server.delete("admin", "driverupgradepolicies", f"{DRIVERS}/{also.policy}")
        await asyncio.sleep(60)
        world.server.delete("admin", "daemonsets", f"{DRIVERS}/{also.app}")
        world.label_node("n01", also.driver, None)
        world.server.delete("autoscaler", "nodes", new)
        world.server.delete("admin", "poddisruptionbudgets", f"work/b{number}")
        for name in (f"w{number}", f"j{number}"):
            world.workloads.remove(name)
        await self._run.come_to_rest()
        self._run.checker.leave(judge)
