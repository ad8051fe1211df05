"""Runs the unchanged controller against a world: starts it, kills it, starts it again, and waits until all is quiet."""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from controller.kube.client import Client
from controller.kube.clock import ServerClock
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
from tests.sim.loop import DeadlockError, VirtualLoop
from tests.sim.network import FINE, SimTransport, Verdict
from tests.sim.trace import Trace
from tests.sim.world import DRIVERS, Plan, World

LEASE = f"{DRIVERS}/leader"
LIMIT = 4 * 3600.0
WORKERS = 16
SLACK = 2.0
"""Seconds that a view may be old while nothing is wrong."""


@dataclass
class Outcome:
    """What a run came to."""

    seed: int
    upgrades: int = 0
    faults: int = 0
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    writes: int = 0
    trace: list[str] = field(default_factory=list)


class Replica:
    """One process of the controller."""

    def __init__(self, world: World, name: str, faults: Faults, crashed: "Run") -> None:
        self._faults = faults
        server = cast(ApiServer, crashed.fence)
        self.transport = SimTransport(server, world.watches, world.network, name, self._judge, crashed.crashed)
        skew = faults.rng.uniform(-3600, 3600)
        clock = ServerClock(world.loop.time, lambda: world.server.now() + skew + world.wall_skew)
        client = Client(self.transport, limiter=TokenBucket(500, 1000), clock=clock)
        options = Options((DRIVERS,), pod_uid="us", workers=WORKERS, driver_order=world.plan.order)
        self.metrics = Metrics()
        self.controller = Controller(client, options, self.metrics)
        self.task = world.loop.create_task(self.controller.run(), name=name)

    def _judge(self, call: Call) -> Verdict:
        return self._faults.judge(call) if self._faults.active or self._faults.refuses else FINE

    def kill(self) -> None:
        """SIGKILL: nothing of it reaches the server any more."""
        self.transport.kill()
        self.task.cancel()


class Run:
    """One plan, carried out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.loop = world.loop
        self.checker = Checker(world.plan.subjects(), window=self._window, disorder=0.0, ages=self._ages)
        world.server.audits += [self._sample, self.checker.take]
        self.trace = Trace(world.server)
        self.faults = Faults(world, self.trace)
        self.replicas = 0
        self.replica: Replica | None = None
        self.fence = FencedServer(world.server, LEASE, on=world.plan.fenced, lag=0.2)
        world.restart = self.crashed
        self._old: list[Replica] = []

    def _sample(self, entry: Event) -> None:
        if self.replica is not None:
            self.world.network.views.sample(self.replica.transport.actor, entry.at)

    def _window(self, entry: Event) -> float:
        """How old the view was that a write was decided on: as old as our watches were behind, and what a decision takes."""
        if entry.ours:
            behind = max(self.world.network.views.decided(entry.actor, entry.sent).values(), default=0.0)
        elif self.replica is None:
            behind = math.inf
        else:
            actor, views, slow = self.replica.transport.actor, self.world.network.views, self.world.network.slow
            behind = views.lagged(actor, entry.at, SLACK + slow) + slow  # what was decided travels for a while
            if entry.at - views.seeing_since(actor) < SLACK + behind:
                behind = math.inf  # what had been there before it could see has not been acted on yet
        return SLACK + min(behind, FORGOTTEN)

    def _ages(self, entry: Event) -> dict[str, float]:
        """The same of one of our writes, by kind."""
        return {
            k: SLACK + min(old, FORGOTTEN) for k, old in self.world.network.views.decided(entry.actor, entry.sent).items()
        }

    def start(self) -> None:
        """Start a new process."""
        self.replicas += 1
        self.trace.say(f"controller {self.replicas} starts")
        if self.world.plan.fenced:
            self._hold_lease(f"controller-{self.replicas}")
        self.replica = Replica(self.world, f"controller-{self.replicas}", self.faults, self)

    def _hold_lease(self, name: str) -> None:
        """Stands in for the election, which has tests of its own: the newest process holds the Lease."""
        space, _, lease = LEASE.partition("/")
        spec = {"holderIdentity": f"{name}_{pod_of(name)}"}
        self.world.server.apply("elector", "leases", {"metadata": {"name": lease, "namespace": space}, "spec": spec})

    def crashed(self) -> None:
        """The process died by a verdict; another one starts after a while."""
        replica = self.replica
        if replica is None:
            return
        self.trace.say("controller killed")
        self.replica = None
        self._old.append(replica)
        self.loop.call_soon(replica.kill)
        self.loop.call_later(self.faults.rng.uniform(2, 20), self.start)

    async def play(self) -> None:
        """Build, start, roll, and judge the end."""
        self.world.build()
        await asyncio.sleep(5)
        self.start()
        await self.come_to_rest()
        for number in range(self.world.plan.rounds):
            version = self.world.roll()
            for after, act in self.world.plan.script if number == 0 else ():
                self.loop.call_later(after, act, self.world)
            self.trace.say(f"version {version}")
            self.faults.begin()
            await asyncio.sleep(self.world.plan.fault_seconds if self.faults.any else 1.0)
            hangs = self.faults.end()
            self.checker.disturb(max(self.loop.time(), hangs))
            self.checker.set_back = self.world.clock.set_back
            await asyncio.sleep(max(0.0, hangs - self.loop.time()))
            await self.come_to_rest()
        await asyncio.sleep(self.world.clock.set_back)
        self.checker.rest(self.loop.time())
        await self._idle()
        self._failed_tasks()

    async def come_to_rest(self) -> None:
        """Wait until nothing of ours has happened for a while and no node is in progress."""
        deadline = self.loop.time() + LIMIT
        while self.loop.time() < deadline:
            await asyncio.sleep(5.0)
            self.checker.look(self.loop.time())
            since = self.loop.time() - max(self.checker.last_write, self.checker.disturbed)
            if since > self.world.plan.quiet and not self.checker.in_progress() and not self.checker.waiting_for():
                return
            if self.checker.overdue(self.loop.time()):
                self.checker.violate(
                    "L1", "", f"in progress for longer than all time-outs together: {self.checker.in_progress()}"
                )
                return
        self.checker.violate("L3", "", "does not come to rest")

    async def _idle(self) -> None:
        before, said = self.checker.writes, self.checker.said
        await asyncio.sleep(600.0)
        if self.checker.writes != before:
            self.checker.violate("L3", "", f"{self.checker.writes - before} writes in ten minutes at rest")
        if self.checker.said != said:
            self.checker.violate("L3", "", f"{self.checker.said - said} writes of a status in ten minutes at rest")

    def _failed_tasks(self) -> None:
        for replica in (*self._old, self.replica):
            if replica is not None and replica.task.done() and not replica.task.cancelled():
                self.checker.violate("crash", "", f"the controller ended: {replica.task.exception()!r}")


class _Errors(logging.Handler):
    """A defect that the controller caught and logged is a defect all the same."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.ERROR)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._run.checker.violate("crash", str(getattr(record, "node", "")), f"{record.msg}: {record.exc_info[1]!r}")


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Make the controller's own dice fall the same way each time."""
    original = random.Random
    count = iter(range(1 << 60))

    def seeded(x: object = None) -> random.Random:
        return original(f"{seed} {next(count)}" if x is None else x)  # type: ignore[arg-type]

    random.Random = seeded  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        random.Random = original  # type: ignore[misc]


async def _play(plan: Plan, handed: list[Run], play: Callable[[Run], Awaitable[None]], *, trace: bool) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    world = World(loop, plan)
    run = Run(world)
    run.trace.on = trace
    errors = _Errors(run)
    loop.set_exception_handler(lambda _, c: run.checker.violate("crash", "", f"{c.get('message')}: {c.get('exception')!r}"))
    logger = logging.getLogger("controller")
    logger.addHandler(errors)
    handed.append(run)
    try:
        await play(run)
    finally:
        logger.removeHandler(errors)
        if run.replica is not None:
            run.replica.kill()


def simulate(plan: Plan, *, trace: bool = False) -> Outcome:
    """Carry out a plan and return what came of it."""
    return simulate_with(plan, Run.play, trace=trace)


def simulate_with(plan: Plan, play: Callable[[Run], Awaitable[None]], *, trace: bool = False) -> Outcome:
    """Build a plan's world and do as told with it; return what came of it."""
    logger = logging.getLogger("controller")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    handed: list[Run] = []
    try:
        with _seeded(plan.seed):
            virtual.run(_play(plan, handed, play, trace=trace))
    except DeadlockError as error:
        handed[0].checker.violate("crash", "", str(error))
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
    run = handed[0]
    return Outcome(
        plan.seed,
        run.checker.upgrades,
        run.faults.count,
        run.checker.violations,
        run.loop.time(),
        run.checker.writes,
        run.trace.lines,
    )
