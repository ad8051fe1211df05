"""One node at a time: look, decide, act, until there is nothing to do now but wait.

Workers take node names from the queue. A decision that writes the node is followed at once by another on the answer, so
a node goes through its states without waiting for its own echo; anything else ends the turn with a time to look again.
Waiting is ``add_after``, failing is ``add_rate_limited``; nothing sleeps here.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from controller.api.node import Node
from controller.kube.client import Client
from controller.kube.errors import Conflict, Forbidden, KubeError, NotFound
from controller.kube.ratelimiters import SpamFilter
from controller.kube.store import Store
from controller.kube.workqueue import QueueShutDown, WorkQueue
from controller.kube.writegate import NotLeading
from controller.logs import reconcile_scope
from controller.operate.answers import error_kind, refusal
from controller.operate.effects import Effects
from controller.operate.marking import Marking
from controller.operate.nodepods import NodePods
from controller.operate.reread import read_again
from controller.operate.views import Views
from controller.upgrade.actions import Decision, DeletePod, EvictPod, ListRevisions, PatchNode, ReadClaims
from controller.upgrade.admission import in_line
from controller.upgrade.decide import decide
from controller.upgrade.facts import Unlisted
from controller.upgrade.narration import Told, on_decision
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import IN_PROGRESS, State

REREAD_SECONDS = 5.0
"""How soon is read again what the last read did not bring: revisions, or claims."""
OVERDUE_SECONDS = 1.0
"""How soon a node is looked at again that asks for a time in the past: it must not spin."""
MAX_TURNS = 16
"""Writes of one node in a row; more than the longest path of an upgrade, so that only a defect reaches it."""
MAX_BLOCKERS = 5
"""What holds a node up is named in its log line, but not without end."""
LINES_AT_ONCE, LINE_SECONDS = 20, 60.0
"""How many nodes at rest are named at info level for one reason, and how often one more: ten thousand may be skipped."""

DecisionFollower = Callable[[NodeView, tuple[Told, ...]], None]
Refresh = Callable[[str, str, NodeView | Unlisted | None, Decision | None], None]

logger = logging.getLogger(__name__)


class Worker:
    """Reconciles nodes. One instance serves any number of concurrent :meth:`run` tasks.

    Args:
        client: For server time and re-reads.
        nodes: The cache of nodes.
        queue: Names of nodes to look at.
        views: Makes the core's input.
        pods: Pods of the nodes in progress.
        effects: Does what is decided.
        marking: Says when a node at rest may be marked.
        refresh: Called after each look, with driver, node, what was seen and what was decided: the rollout counts by it.
        looked_at: Called with the name of a node all of whose drivers have been looked at.
        why_waiting: Says why the rollout has not granted a driver's upgrade on a node.
        failed: Called with the kind of error (conflict, not_found, forbidden, request or crash) of a write or a look.
    """

    def __init__(
        self,
        client: Client,
        nodes: Store[Node],
        queue: WorkQueue[str],
        views: Views,
        pods: NodePods,
        effects: Effects,
        marking: Marking,
        refresh: Refresh,
        looked_at: Callable[[str], None],
        why_waiting: Callable[[str, str], tuple[Reason, str] | None],
        failed: Callable[[str], None],
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._queue = queue
        self._views = views
        self._pods = pods
        self._effects = effects
        self._marking = marking
        self._refresh = refresh
        self._looked_at = looked_at
        self._why_waiting = why_waiting
        self._failed = failed
        self._followers: list[DecisionFollower] = []
        self.decisions: dict[tuple[str, str], Decision] = {}
        """The last decision by driver and node: what status and explanations tell. Kept for nodes that are not at rest."""
        self._lines = SpamFilter(1 / LINE_SECONDS, LINES_AT_ONCE)
        # The drivers that there is a decision of, by node.
        self._undone: dict[str, set[str]] = {}

    def on_decision(self, follower: DecisionFollower) -> None:
        """Call follower after every new decision to wait, with what is news in it to people."""
        self._followers.append(follower)

    async def run(self) -> None:
        """Work until the queue is shut down."""
        while True:
            try:
                name = await self._queue.get()
            except QueueShutDown:
                return
            try:
                with reconcile_scope(name):
                    await self._process(name)
            finally:
                self._marking.looked_at(name)
                self._queue.done(name)
            # Most looks at a node await nothing. Thousands in a row must not keep probes and watches from their turn.
            await asyncio.sleep(0)

    async def _process(self, name: str) -> None:
        try:
            await self.reconcile(name)
        except NotLeading as error:
            logger.debug("write not sent", extra={"node": name, "error": str(error)})
            self._queue.add_rate_limited(name)
        except Exception as error:  # noqa: BLE001 - a defect met on one node must not end the worker that serves all others
            self._tell(name, error)
            self._failed(error_kind(error))
            self._queue.add_rate_limited(name)
        else:
            if not self._marking.waits(name):  # what was refused and waits to be sent again has not succeeded
                self._queue.forget(name)

    @staticmethod
    def _tell(name: str, error: Exception) -> None:
        match error:
            case Conflict() | NotFound():
                pass  # Someone else wrote what we were to write, and may write it again.
            case Forbidden():
                remedy = "grant the controller's role this verb, or look at the admission policy named here"
                logger.error("write refused", extra={"node": name, "error": str(error), "remedy": remedy})
            case KubeError():
                logger.warning("reconcile failed", extra={"node": name, "error": str(error)})
            case _:
                logger.error("reconcile crashed", extra={"node": name}, exc_info=error)

    async def reconcile(self, name: str) -> None:
        """Bring every driver of one node as far as it can go now.

        Raises:
            KubeError: A write or list failed; the node is to be tried again.
        """
        node = self._nodes.get(name)
        drivers = self._views.drivers_of(node) if node else []
        for driver in self._undone.get(name, set()).difference(drivers):
            self._keep(driver, name, None)
        needed, failure = False, None
        for driver in drivers:
            try:
                needed |= await self._turns(name, driver)
            except Exception as error:  # noqa: BLE001 - raised below: one driver's trouble is not another's on the same node
                needed, failure = True, failure or error
        self._looked_at(name)
        if failure is not None:
            raise failure
        if not needed:
            self._pods.drop(name)

    async def _turns(self, name: str, driver: str) -> bool:
        """Decide and act until no write of the node follows. Returns whether the node's pods are still looked at."""
        have_read = have_met = False
        for _ in range(MAX_TURNS):
            view, decision = self._look(name, driver)
            if view is None:
                self._keep(driver, name, None)
                return False
            if decision is None or isinstance(view, Unlisted):
                return True  # what is known of its pods is kept until it can be said whether they matter
            needed = self._look_at_pods(view)
            patch = decision.patch
            if patch is not None:
                if not self._marking.may_write(view, patch):
                    return needed
                have_met = not await self._write(view, patch, last=have_met)
                continue
            reads = any(isinstance(a, ListRevisions | ReadClaims) for a in decision.actions)
            if reads and have_read:
                self._note(view, decision)
                self._queue.add_after(name, REREAD_SECONDS)
                return needed
            await self._act(view, decision)
            if not reads:
                return needed
            have_read = True
        raise RuntimeError(f"node {name} was written {MAX_TURNS} times in a row without coming to rest")

    def _look(self, name: str, driver: str) -> tuple[NodeView | Unlisted | None, Decision | None]:
        """Look at a driver on a node, and decide where enough is seen of it."""
        node = self._nodes.get(name)
        seen = self._views.look(node, driver) if node else None
        decision = decide(seen, self._client.now()) if isinstance(seen, NodeView) else None
        self._refresh(driver, name, seen, decision)
        return seen, decision

    async def _write(self, view: NodeView, patch: PatchNode, *, last: bool) -> bool:
        """Write a node. Returns whether that was done; False where it had become another meanwhile, and is known by now.

        Raises:
            Conflict: It has become another once more, and this was the last try.
            KubeError: As the client.
        """
        try:
            with self._telling_refusal(view):
                await self._effects.patch_node(view, patch)
        except (Conflict, NotFound) as error:
            name = view.node.name
            known = self._nodes.get(name) is not view.node or await read_again(self._client, self._nodes, name)
            if last or not known:
                raise
            self._failed(error_kind(error))
            return False
        return True

    def _look_at_pods(self, view: NodeView) -> bool:
        """Watch the node's pods while they matter. The first list is sent after the cordon's answer, never before."""
        if not view.needs_workload:
            return False
        judged = {State.VALIDATION_REQUIRED, State.UNCORDON_REQUIRED, State.UPGRADE_FAILED}
        if view.node.unschedulable or view.state in judged:
            self._pods.ensure(view.node.name)
        else:
            self._pods.drop(view.node.name)
        return True

    async def _act(self, view: NodeView, decision: Decision) -> None:
        deletes = any(isinstance(action, DeletePod) for action in decision.actions)
        if not deletes:
            self._note(view, decision)
        if decision.look_again is not None:
            wait = decision.look_again - self._client.now()
            self._queue.add_after(view.node.name, wait if wait > 0 else OVERDUE_SECONDS)
        for action in decision.actions:
            if not isinstance(action, PatchNode):
                with self._telling_refusal(view):
                    await self._effects.carry_out(view, action)
        if deletes:  # told only now, so that while it is refused the node does not tell two reasons by turns
            self._note(view, decision)

    @contextmanager
    def _telling_refusal(self, view: NodeView) -> Iterator[None]:
        """Make the refusal of a write the reason why the node does not move, as status, Events and logs tell it."""
        try:
            yield
        except KubeError as error:
            if told := refusal(error, self._queue.num_requeues(view.node.name)):
                self._note(view, Decision(view.state or State.UNKNOWN, reason=told[0], message=told[1]))
            raise

    def _note(self, view: NodeView, decision: Decision) -> None:
        key = view.keys.driver, view.node.name
        decision, last = in_line(decision, self._why_waiting(*key)), self.decisions.get(key)
        if decision == last:
            return
        self._keep(*key, decision)
        if decision.reason is None:
            return
        # What is news to people is judged once, for Events and log alike.
        news = tuple(on_decision(view, decision, last))
        for follower in self._followers:
            follower(view, news)
        if last is None or (last.state, last.reason) != (decision.state, decision.reason):
            fields = {
                "node": view.node.name,
                "driver": view.keys.driver,
                "policy": view.policy.full_name if view.policy else "",
                "state": str(decision.state) or "unknown",
                "reason": decision.reason,
                "detail": decision.message,
                "blockers": "; ".join(str(blocker) for blocker in decision.blockers[:MAX_BLOCKERS]),
            }
            shown = bool(news) and (
                decision.state in IN_PROGRESS or self._lines.accepts(decision.reason, self._client.clock.monotonic())
            )
            logger.log(logging.INFO if shown else logging.DEBUG, "node waits", extra=fields)

    def _keep(self, driver: str, name: str, decision: Decision | None) -> None:
        """Remember the last decision while there is something to tell; None where the node is not the driver's business."""
        drivers = self._undone.setdefault(name, set())
        if decision is not None and decision.reason is not None:
            self.decisions[driver, name] = decision
            drivers.add(driver)
        else:
            self.decisions.pop((driver, name), None)
            drivers.discard(driver)
        if not drivers:
            del self._undone[name]

    def wants_eviction(self, name: str, uid: str) -> bool:
        """Decide a node anew and say whether it still asks for this pod's eviction."""
        return self._asks_for(name, EvictPod, uid)

    def wants_deletion(self, name: str, uid: str) -> bool:
        """Decide a node anew and say whether it still asks for this driver pod's deletion."""
        return self._asks_for(name, DeletePod, uid)

    def _asks_for(self, name: str, kind: type[EvictPod | DeletePod], uid: str) -> bool:
        node = self._nodes.get(name)
        if node is None:
            return False
        views = (self._views.view(node, driver) for driver in self._views.drivers_of(node))
        decisions = (decide(view, self._client.now()) for view in views if view is not None)
        return any(isinstance(a, kind) and a.uid == uid for d in decisions for a in d.actions)
