"""The controller: everything wired together, started and stopped in order.

Start: informers; once they hold the whole state, the election; the leader then lists the nodes consistently and starts
workers and the rollout task. Stop: the write gate closes, so that no new write starts, not even a grant; the writes
under way are answered, then the Lease is given back, informers last. A standby runs the informers alone.
"""

import asyncio
import logging
import random
import socket

from controller.api.node import Node
from controller.api.pod import Pod
from controller.api.workloads import ControllerRevision, DaemonSet
from controller.kube.client import Client
from controller.kube.errors import KubeError
from controller.kube.leaderelection import LeaderElector, LeadershipLost
from controller.kube.ratelimiters import Backoff, ItemExponentialFailureRateLimiter, TokenBucket
from controller.kube.recorder import EventRecorder
from controller.kube.workqueue import WorkQueue
from controller.kube.writegate import WriteGate
from controller.operate.answers import explained
from controller.operate.caches import Caches, same
from controller.operate.claims import Claims
from controller.operate.clocksteps import ClockSteps
from controller.operate.effects import Effects
from controller.operate.events import CONTROLLER, Events
from controller.operate.evictor import Evictor
from controller.operate.marking import AT_ONCE, Marking
from controller.operate.metrics import Metrics
from controller.operate.nodepods import NodePods
from controller.operate.options import Options
from controller.operate.policies import Policies
from controller.operate.rollout import Rollout
from controller.operate.status import StatusWriter
from controller.operate.views import Views
from controller.operate.worker import Worker
from controller.upgrade.actions import Decision
from controller.upgrade.facts import Unlisted
from controller.upgrade.snapshot import NodeView

MAX_RETRY_SECONDS = 60.0
"""A failing node is tried again at least this often: its trouble may have ended without an event."""
DRAIN_SECONDS = 10.0
"""How long workers may take, when asked to stop, to end: the write that they are at is answered, others do not start."""

logger = logging.getLogger(__name__)


class Controller:
    """One controller over one API server.

    Args:
        client: The API server.
        options: Settings.
        metrics: Where to count.
        elector: Decides when to act; None acts at once, which is right for a single replica only.
    """

    def __init__(self, client: Client, options: Options, metrics: Metrics, elector: LeaderElector | None = None) -> None:
        self._client = client
        self._options = options
        self._metrics = metrics
        self._elector = elector
        self._gate = elector.gate if elector else WriteGate()
        self.caches = Caches(client, options, metrics)
        self.policies = Policies(
            self.caches.policies.items(),
            options.driver_namespaces,
            options.domain,
            self._policy_changed,
        )
        metrics.follow_informers(self.caches.informers, client.clock.monotonic)
        # What acts, while we lead.
        self._parts: _Parts | None = None
        # Why the list before the first grant has not come, while it is tried.
        self._unlisted = ""

    def not_ready(self) -> dict[str, str]:
        """Return what is not synced yet, each with what is in the way; empty when ready."""
        waiting = dict(self.caches.unsynced())
        if self._unlisted:
            waiting.setdefault("nodes", self._unlisted)
        return waiting

    @property
    def leads(self) -> bool:
        """Whether this replica acts, or would."""
        return self._elector is None or self._elector.is_leader

    async def run(self) -> None:
        """Watch, and act while leading, until cancelled. Cancelling ends effects cleanly before it returns.

        Raises:
            LeadershipLost: Another replica leads, or may soon. All effects have ended; the process must exit.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self.caches.start(tasks)
                await self.caches.wait_for_sync()
                logger.info("caches synced", extra={"nodes": len(self.caches.nodes.store)})
                if self._elector is None:
                    await self._lead_alone()
                else:
                    await self._elector.run(self._lead)
        except ExceptionGroup as group:
            if lost := group.subgroup(LeadershipLost):
                raise LeadershipLost(*lost.exceptions[0].args) from group
            raise

    async def _lead_alone(self) -> None:
        try:
            await self._lead()
        finally:
            await self._gate.drained()

    async def _lead(self) -> None:
        await self._list_nodes()
        client = self._client.through(self._gate.before)
        async with asyncio.TaskGroup() as tasks:
            self._parts = _Parts(client, self._options, self._metrics, self.caches, self.policies, tasks)
            try:
                await self._parts.act(self._gate)
            finally:
                self._gate.close()

    def _policy_changed(self, driver: str) -> None:
        """Watch the driver's pods, also as a standby; any node may have been won or lost."""
        names = {name: [p.full_name for p in self.policies.of_driver(name)] for name in self.policies.drivers()}
        self._metrics.retire(names)
        self.caches.keep_driver_pods((p.namespace, p.pods) for p in self.policies.all() if p.pods is not None)
        for policy in self.policies.of_driver(driver):
            if policy.pods is not None:
                self.caches.driver_pods(policy.namespace, policy.pods)
        if self._parts is not None:
            self._parts.all_nodes()

    async def _list_nodes(self) -> None:
        """One consistent list before the first grant; retried until the API server answers."""
        backoff = Backoff(self._client.clock.monotonic, random.Random())  # noqa: S311 - jitter
        while True:
            try:
                await self.caches.list_nodes()
                self._unlisted = ""
                return
            except KubeError as error:
                text = explained(error, "list on nodes cluster-wide")
                self._unlisted = f"not listed, no grants yet: {text}"
                logger.warning("nodes not listed, no grants yet", extra={"error": text})
                await asyncio.sleep(backoff.step())


class _Parts:
    """The parts that act, and the wires between them."""

    def __init__(
        self,
        client: Client,
        options: Options,
        metrics: Metrics,
        caches: Caches,
        policies: Policies,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.options = options
        self.caches = caches
        self.queue: WorkQueue[str] = WorkQueue(
            limiter=ItemExponentialFailureRateLimiter(cap=MAX_RETRY_SECONDS),
            metrics=metrics,
        )
        nodes, add = caches.nodes.store, self.queue.add
        self.evictor = Evictor(client, caches.budgets.store, tasks, self._wants_eviction, add, metrics)
        self._claims = claims = Claims(client)
        self.pods = NodePods(client, tasks, add, self.evictor.forget, self._forget_node, metrics)
        steps = ClockSteps(client.clock, nodes, options.domain)
        self.views = Views(caches, policies, self.pods, self.evictor.attempts, options, claims.drivers, steps)
        self.effects = Effects(client, caches, self.pods, self.evictor, claims, metrics, self._wants_deletion)
        self.effects.before_transition(steps.sending)
        self.rollout = Rollout(client, nodes, self.views, policies, self.effects, add, metrics.reconcile_error)
        why = self.rollout.why_waiting
        looked_at, error = self.rollout.looked_at, metrics.reconcile_error
        self.marking = marking = Marking(TokenBucket(options.marks_qps, AT_ONCE), add)
        self.worker = Worker(
            client, nodes, self.queue, self.views, self.pods, self.effects, marking, self._refresh, looked_at, why, error
        )
        self.recorder = EventRecorder(client, CONTROLLER, socket.gethostname(), metrics=metrics)
        events = Events(self.recorder)
        self.effects.on_transition(events.transition)
        self.worker.on_decision(events.decision)
        self.status = StatusWriter(client, caches, policies, self.rollout, self.worker.decisions, events, options, metrics)
        metrics.follow(self.rollout.fleet, policies.all, self.worker.decisions, client.now)
        metrics.follow_queue(self.queue)
        self._follow()

    async def act(self, gate: WriteGate) -> None:
        """Run workers, rollout and status until cancelled; then close the gate and let workers end."""
        self.all_nodes()
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(self.worker.run(), name=f"worker {n}") for n in range(self.options.workers)]
            others = [
                tasks.create_task(self.rollout.run(), name="rollout"),
                tasks.create_task(self.marking.run(), name="marks"),
                tasks.create_task(self.status.run(), name="status"),
                tasks.create_task(self.recorder.run(), name="events"),
            ]
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                gate.close()
                for task in others:
                    task.cancel()
                self.queue.shut_down()
                await asyncio.wait(workers, timeout=DRAIN_SECONDS)

    def _follow(self) -> None:
        self.caches.nodes.add_handler(self._node)
        self.caches.on_driver_pod(self._pod, self.all_nodes)
        for daemonsets in self.caches.daemonsets.values():
            daemonsets.add_handler(self._daemonset)
        for revisions in self.caches.controller_revisions.values():
            revisions.add_handler(self._revision)

    def _node(self, old: Node | None, new: Node | None) -> None:
        node = new or old
        if node is not None and not same(old, new):
            self._touch(node.name)

    def _pod(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is not None and pod.target_node and not same(old, new):
                self._touch(pod.target_node)

    def _daemonset(self, old: DaemonSet | None, new: DaemonSet | None) -> None:
        if old is None or new is None or (old.spec, old.observed, old.uid) != (new.spec, new.observed, new.uid):
            self.all_nodes()

    def _revision(self, old: ControllerRevision | None, new: ControllerRevision | None) -> None:
        if old is None or new is None or old.revision != new.revision:
            self.all_nodes()

    def _forget_node(self, node: str) -> None:
        self.evictor.forget_node(node)
        self._claims.forget_node(node)

    def _touch(self, node: str) -> None:
        self.queue.add(node)
        self.rollout.touch(node)

    def all_nodes(self) -> None:
        """Look at every node anew."""
        for node in self.caches.nodes.store.list():
            self._touch(node.name)
        self.status.poke()
        self.rollout.poke()

    def _refresh(self, driver: str, name: str, seen: NodeView | Unlisted | None, decision: Decision | None) -> None:
        self.rollout.refresh(driver, name, seen, decision)
        self.status.looked_at(driver)

    def _wants_eviction(self, node: str, uid: str) -> bool:
        return self.worker.wants_eviction(node, uid)

    def _wants_deletion(self, node: str, uid: str) -> bool:
        return self.worker.wants_deletion(node, uid)
