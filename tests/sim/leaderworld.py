"""Two and more replicas of the whole controller, each a process of its own, on one simulated API server with a Lease.

Whoever ends is started again, as a kubelet and a Deployment do it: a container that exits in the same pod, a pod that was
killed or asked to stop as a new one. What is judged: the checker's invariants with S10 (who writes holds the Lease, and
has renewed it in time) and the time until somebody leads again. The faults of a plan befall whichever replica sends, its
requests for the Lease too; how soon somebody leads again (L6) is then not judged.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from controller.kube.client import Client
from controller.kube.clock import ServerClock
from controller.kube.leaderelection import LeaderElectionConfig, LeaderElector, LeadershipLost
from controller.kube.ratelimiters import TokenBucket
from controller.operate.controller import Controller
from controller.operate.metrics import Metrics
from controller.operate.options import Options
from tests.checker import Checker, Event
from tests.sim import loop as virtual
from tests.sim.apiserver import ApiServer, Call
from tests.sim.behind import FORGOTTEN
from tests.sim.faults import Faults
from tests.sim.fence import FencedServer, pod_of
from tests.sim.harness import LIMIT, SLACK, WORKERS, _seeded
from tests.sim.leaderloop import Bridge, ProcessLoop
from tests.sim.loop import VirtualLoop
from tests.sim.network import FINE, SimTransport, Verdict
from tests.sim.trace import Trace
from tests.sim.world import DRIVERS, QUIET, Plan, World

LEASE = "driver-upgrade"
KEY = f"{DRIVERS}/{LEASE}"
TAKE_OVER = 20.0
HAND_OVER = 3.0
GRACE = 30.0
"""terminationGracePeriodSeconds: who takes longer to stop is killed."""
SYNCED = 10.0
"""Seconds after which a replica that was started stands by."""
FOREVER = 1e6


@dataclass
class Election:
    """What is to happen between replicas, besides a plan."""

    plan: Plan
    replicas: int = 2
    fence: bool = True
    fence_lag: float = 0.2
    script: list[tuple[float, Callable[["Cluster"], None]]] = field(default_factory=list)
    """Each some seconds after the rollout began."""
    rates: dict[int, float] = field(default_factory=dict)
    """Drift of a replica's clock, by its number."""
    stop_at: int = 0
    """The write of ours, counted from the rollout on, at which its sender is asked to stop."""
    kill_at: tuple[int, str] = (0, "")
    """Such a write, and the moment of it at which its sender is killed."""
    verdicts: dict[tuple[str, str], list[Verdict]] = field(default_factory=dict)
    """By verb and resource: what becomes of the first such requests, whoever sends them."""


class Replica:
    """One process in a pod."""

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self._cluster = cluster
        self.number = number
        self.name = f"controller-{number}"
        world, rng = cluster.world, cluster.rng
        self.loop = ProcessLoop(world.loop, rng.uniform(0, 1e5), cluster.election.rates.get(number, 1.0))
        fenced = cast(ApiServer, cluster.fence)
        self._sim = SimTransport(fenced, world.watches, world.network, self.name, self._judge, self._died)
        self._bridge = Bridge(self.loop, world.loop, self._sim)
        self._skew = rng.choice([-3600.0, 0.0, 3600.0])
        self.lease_fault = ""
        self.partitioned = False
        self.late = 0.0
        """Seconds by which its writes arrive late."""
        self.mute: Verdict | None = None
        """What becomes of its next write, at which it is asked to stop."""
        self.stopped_at: float | None = None
        self.born = world.loop.time()
        self.ended = False
        self.elector: LeaderElector | None = None
        self._main: asyncio.Task[None] | None = None
        self.loop.call_soon(self._start)

    @property
    def identity(self) -> str:
        """What it writes into the Lease."""
        return f"{self.name}_{pod_of(self.name)}"

    @property
    def leads(self) -> bool:
        return not self.ended and self.elector is not None and self.elector.is_leader

    def _start(self) -> None:
        self._main = self.loop.create_task(self._run())
        self._main.add_done_callback(self._exited)

    async def _run(self) -> None:
        world = self._cluster.world
        clock = ServerClock(self.loop.time, lambda: world.server.now() + self._skew + world.wall_skew)
        client = Client(self._bridge, limiter=TokenBucket(500, 1000), clock=clock)
        lease_clock = ServerClock(self.loop.time, lambda: world.server.now() + self._skew)
        config = LeaderElectionConfig(DRIVERS, LEASE, self.identity)
        self.elector = LeaderElector(Client(self._bridge, clock=lease_clock), config)
        options = Options((DRIVERS,), pod_uid=pod_of(self.name), workers=WORKERS)
        await Controller(client, options, Metrics(), self.elector).run()

    def _exited(self, main: "asyncio.Task[None]") -> None:
        if self.ended:
            return
        lost = not main.cancelled() and isinstance(main.exception(), LeadershipLost)
        if not main.cancelled() and not lost:
            self._cluster.checker.violate("crash", "", f"{self.name} ended: {main.exception()!r}")
        self._cluster.world.loop.call_soon(self._cluster.exited, self, lost)

    def _judge(self, call: Call) -> Verdict:
        if self.partitioned:
            return Verdict(lost=True)
        kind = call.route.kind if call.route else ""
        if due := self._cluster.election.verdicts.get((call.verb, kind)):
            self._cluster.faults += 1
            return due.pop(0)
        if kind != "leases":
            if (moment := self._cluster.sent(self, call)) is not None:
                return moment
            return Verdict(delay=self.late) if self.late and call.method != "GET" else self._trouble(call)
        match self.lease_fault:
            case "reset":
                return Verdict(lost=True)
            case "unanswered":
                return Verdict(unanswered=True) if call.method != "GET" else FINE
            case "hang":
                return Verdict(delay=60.0)
            case "never":
                return Verdict(delay=FOREVER)
        return self._trouble(call)

    def _trouble(self, call: Call) -> Verdict:
        troubles = self._cluster.troubles
        return troubles.judge(call) if troubles.active else FINE

    def freeze_before_sending(self) -> None:
        """Its next write is let through by all that the process asks itself, and leaves it when another one leads."""

        def hold(send: Callable[[], None]) -> bool:
            self._bridge.holds = lambda _: False
            self.loop.freeze(on=True)
            self._cluster.when_followed.append(lambda: self._go_on(send))
            return True

        self._bridge.holds = hold

    def _go_on(self, send: Callable[[], None]) -> None:
        if not self.ended:
            send()
            self.loop.freeze(on=False)

    def partition(self, *, on: bool) -> None:
        """Nothing comes through in either direction, and nobody is told."""
        self.partitioned = on
        world = self._cluster.world
        for watch in world.watches.all():
            if watch.actor == self.name:
                watch.silent_until = world.loop.time() + FOREVER if on else 0.0
                watch.wake()

    def stop(self) -> None:
        """SIGTERM."""
        if self.stopped_at is None and self._main is not None:
            self.stopped_at = self._cluster.world.loop.time()
            self._cluster.trace.say(f"{self.name} is asked to stop")
            if not (self.lease_fault or self.partitioned or self.mute or self._cluster.disturbed):
                self._cluster.checker.leaders.asked(self.identity)
            self.loop.post(self._main.cancel)

    def end(self) -> None:
        """The process is gone. What it has sent may still arrive, by way of a proxy say."""
        if not self.ended:
            self.ended = True
            self.loop.end()

    def _died(self) -> None:
        """A verdict has killed it, in the middle of what the world does."""
        self._cluster.world.loop.call_soon(self.kill)

    def kill(self) -> None:
        """SIGKILL."""
        if self.ended:
            return
        self._cluster.trace.say(f"{self.name} is killed")
        self._cluster.kills.append((self._cluster.world.loop.time(), self.name))
        self._cluster.checker.leaders.killed(self.identity)
        self._sim.kill()
        self.end()
        self._cluster.gone(self)


class Cluster:
    """One election, carried out."""

    def __init__(self, world: World, election: Election) -> None:
        self.world = world
        self.election = election
        self.rng = random.Random(f"{election.plan.seed} election")
        self.checker = Checker(world.plan.subjects(), window=self._window, lease=KEY, disorder=0.0)
        self.checker.leaders.standby = self._standby
        self.fence = FencedServer(world.server, KEY, on=election.fence, lag=election.fence_lag)
        self.trace = Trace(world.server)
        self.troubles = Faults(world, self.trace)
        world.restart = self._restart
        world.server.audits.append(self._audit)
        self.replicas: dict[str, Replica] = {}
        self.count = 0
        self.acquired: list[tuple[float, str]] = []
        """When which replica took the Lease."""
        self.lost: list[str] = []
        """Who ended since it had lost leadership."""
        self.stops: list[tuple[float, float]] = []
        """When each stop that was asked for began, and was over."""
        self.kills: list[tuple[float, str]] = []
        """When which replica was killed."""
        self.when_followed: list[Callable[[], None]] = []
        """What happens as soon as another one takes the Lease."""
        self.released: dict[str, float] = {}
        self.ours: list[Event] = []
        self.faults = 0
        self._counting = False
        self._sent = 0

    @property
    def disturbed(self) -> bool:
        """Whether requests may fail that nobody in particular is to blame for."""
        return self.troubles.any or bool(self.election.verdicts)

    def _restart(self) -> None:
        """Kill who leads, or whoever is there."""
        there = [replica for replica in self.replicas.values() if not replica.ended]
        for replica in sorted(there, key=lambda one: not one.leads)[:1]:
            self.world.loop.call_soon(replica.kill)

    def _window(self, entry: Event) -> float:
        known = entry.ours or not self.troubles.any
        ages = self.world.network.views.decided(entry.actor, entry.sent)
        behind = max(ages.values(), default=0.0) if known else self._blind(entry.at)
        return SLACK + min(behind, FORGOTTEN)

    def _blind(self, at: float) -> float:
        """How old the view is of who leads; without end while nobody does, or it has only begun."""
        leader = next((r.name for r in self.replicas.values() if r.leads), "")
        views = self.world.network.views
        slow = self.world.network.slow
        behind = views.lagged(leader, at, SLACK + slow) + slow if leader else math.inf
        since = max(views.seeing_since(leader), self.acquired[-1][0]) if leader and self.acquired else math.inf
        return behind if at - since >= SLACK + behind else math.inf

    def _standby(self, begin: float, _end: float) -> float | None:
        """Whether somebody stood by who never led: faults befall leaders alone. Clocks that drift wait longer."""
        ready = [r for r in self.replicas.values() if not r.ended and r.born + SYNCED < begin]
        fresh = [r for r in ready if r.name not in {who for _, who in self.acquired[:-1]}]
        return 0.0 if fresh and not self.election.rates and not self.troubles.any else None

    def _audit(self, entry: Event) -> None:
        # Events tell of what was done and do nothing: they are not fenced, and S10 is not about them.
        entry = entry._replace(pod="" if entry.kind == "events" else pod_of(entry.actor))
        for replica in self.replicas.values():
            if self.troubles.any and not replica.ended:
                self.world.network.views.sample(replica.name, entry.at)
        if entry.kind == "leases":
            self._lease_written(entry)
            if not entry.ours:
                return  # nobody can know at once of a person's edit; judged is that no other replica acts meanwhile
        elif entry.ours:
            self.ours.append(entry)
            if entry.code < 400 and entry.at > self.released.get(entry.actor, float("inf")):
                self.checker.violate("S10", entry.key, f"{entry.actor} wrote after it had given the Lease back")
        self.checker.take(entry)

    def _lease_written(self, entry: Event) -> None:
        if entry.code >= 400 or not entry.ours:
            return
        before = ((entry.old or {}).get("spec") or {}).get("holderIdentity") or ""
        now = ((entry.new or {}).get("spec") or {}).get("holderIdentity") or ""
        if not now:
            self.released[entry.actor] = entry.at
        elif now != before and (not self.acquired or self.acquired[-1][1] != entry.actor):
            self.acquired.append((entry.at, entry.actor))
            for act in self.when_followed if len(self.acquired) > 1 else ():
                self.world.loop.call_soon(act)
            if len(self.acquired) > 1:
                self.when_followed.clear()

    def sent(self, replica: Replica, call: Call) -> Verdict | None:
        """A request that is not the Lease's leaves a replica; returns what is planned for this very one."""
        if replica.mute is not None and call.method != "GET" and call.route is not None and call.route.kind == "nodes":
            replica.stop()
            self.faults += 1
            verdict, replica.mute = replica.mute, None
            return verdict
        if self._counting and call.method != "GET" and call.route is not None and call.route.kind in {"nodes", "pods"}:
            self._sent += 1
            if self._sent == self.election.stop_at:
                self.faults += 1
                replica.stop()
            if self._sent == self.election.kill_at[0]:
                self.faults += 1
                return Verdict(crash=self.election.kill_at[1])
        return None

    def start(self) -> None:
        """Start a replica in a new pod."""
        self.count += 1
        replica = self.replicas[f"controller-{self.count}"] = Replica(self, self.count)
        self.trace.say(f"{replica.name} starts")

    def leader(self) -> Replica:
        """The replica that acts."""
        return next(r for r in self.replicas.values() if r.leads)

    def standby(self) -> Replica:
        """One that does not."""
        return next(r for r in self.replicas.values() if not r.leads)

    def edit_lease(self, **fields: object) -> None:
        """A person edits the Lease; a value of None takes a field out."""
        lease = self.world.server.get("leases", KEY)
        assert lease is not None
        self.trace.say(f"a person edits the Lease: {fields}")
        spec = {name: value for name, value in {**lease["spec"], **fields}.items() if value is not None}
        self.world.server.edit("admin", "leases", KEY, ("spec",), spec)

    def delete_lease(self) -> None:
        """A person deletes the Lease."""
        self.world.server.delete("admin", "leases", KEY)

    def until_acquired(self, since: float, by_other_than: str) -> float:
        """Seconds from a moment until another replica took the Lease."""
        return next(at for at, who in self.acquired if at > since and who != by_other_than) - since

    def gone(self, replica: Replica) -> None:
        """A pod is gone; its Deployment makes another one."""
        if self.replicas.pop(replica.name, None):
            self.world.loop.call_later(self.rng.uniform(1, 5), self.start)

    def exited(self, replica: Replica, lost: bool) -> None:
        """A process has ended by itself."""
        now = self.world.loop.time()
        replica.end()
        if lost:
            self.lost.append(replica.name)
            self.trace.say(f"{replica.name} exits: leadership lost")
        if replica.stopped_at is not None:
            self.stops.append((replica.stopped_at, now))
        self.gone(replica)

    async def play(self) -> None:
        """Build, start, roll, and judge the end."""
        self.world.build()
        await asyncio.sleep(5)
        for _ in range(self.election.replicas):
            self.start()
        await self._rest()
        for number in range(self.election.plan.rounds):
            await self._round(self.election.script if number == 0 else [])
        await asyncio.sleep(self.world.clock.set_back)
        self.checker.rest(self.world.loop.time())

    async def _round(self, script: list[tuple[float, Callable[["Cluster"], None]]]) -> None:
        loop, checker = self.world.loop, self.checker
        self.world.roll()
        self._counting = True
        for after, act in script:
            loop.call_later(after, act, self)
        seconds = max((after for after, _ in script), default=0.0) + 1.0
        if self.troubles.any:
            self.troubles.begin()
            seconds = max(seconds, self.election.plan.fault_seconds)
        await asyncio.sleep(seconds)
        hangs = self.troubles.end() if self.troubles.any else 0.0
        checker.disturb(max(loop.time(), hangs))
        checker.set_back = self.world.clock.set_back
        await asyncio.sleep(max(0.0, hangs - loop.time()))
        await self._rest()

    async def _rest(self) -> None:
        loop, checker = self.world.loop, self.checker
        deadline = loop.time() + LIMIT
        while loop.time() < deadline:
            await asyncio.sleep(5.0)
            since = loop.time() - max(checker.last_write, checker.disturbed)
            if since > QUIET and not checker.in_progress() and not checker.waiting_for():
                return
        checker.violate("L3", "", f"does not come to rest: {checker.in_progress()} {checker.waiting_for()}")


class _Errors(logging.Handler):
    """A defect that the controller caught and logged is a defect all the same."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(logging.ERROR)
        self._cluster = cluster

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._cluster.checker.violate("crash", "", f"{record.msg}: {record.exc_info[1]!r}")


async def _play(election: Election, handed: list[Cluster], *, trace: bool) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    cluster = Cluster(World(loop, election.plan), election)
    cluster.trace.on = trace
    handed.append(cluster)
    errors = _Errors(cluster)
    logger = logging.getLogger("controller")
    logger.addHandler(errors)
    try:
        await cluster.play()
    finally:
        logger.removeHandler(errors)
        for replica in tuple(cluster.replicas.values()):
            replica.end()


def elect(election: Election, *, trace: bool = False) -> Cluster:
    """Carry an election out and return what is left of it."""
    logger = logging.getLogger("controller")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    handed: list[Cluster] = []
    try:
        with _seeded(election.plan.seed):
            virtual.run(_play(election, handed, trace=trace))
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
    return handed[0]
