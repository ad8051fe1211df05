"""Evicts pods on behalf of nodes, and tells what came of it.

An eviction whose budget is known to allow nothing is not sent at all until the budget changes, or five seconds have passed
(:mod:`controller.operate.budgetwaits`). Any other goes through its lane (:mod:`controller.operate.lanes`).

What was decided may be old news when a pod has passed its lane. Right before an eviction is sent the node is decided once
more, and only what that decision still asks for is sent.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec.structs import replace

from controller.api.pod import Pod
from controller.api.workloads import PodDisruptionBudget
from controller.kube.client import Client
from controller.kube.errors import ApiError, Conflict, NetworkError
from controller.kube.resources import PODS
from controller.kube.store import Store
from controller.logs import reconcile_scope
from controller.operate.answers import BUDGET_RETRY, Answer, classify
from controller.operate.budgetwaits import BudgetWaits
from controller.operate.evictees import Evictee, Evictees
from controller.operate.lanes import EvictionLanes
from controller.upgrade.actions import EvictPod
from controller.upgrade.guards import NEVER, spent
from controller.upgrade.pods import is_ready
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import Attempt

_BY_BUDGETS = frozenset({Reason.POD_DISRUPTION_BUDGET, Reason.MULTIPLE_POD_DISRUPTION_BUDGETS})

logger = logging.getLogger(__name__)


class EvictionMetrics(Protocol):
    """What the evictor tells."""

    def evicted(self, outcome: str) -> None:
        """One eviction was answered."""


class Evictor:
    """Evicts pods on behalf of nodes.

    Args:
        client: The API server.
        budgets: The disruption budgets, indexed :data:`~controller.operate.budgetwaits.BY_NAMESPACE`.
        tasks: Owner of the lanes' tasks.
        still_wanted: Decides a node anew and says whether a pod's eviction is still asked for.
        changed: Called with a node's name when an attempt of its pods has ended or may be repeated.
        metrics: Told of every answer.
    """

    def __init__(
        self,
        client: Client,
        budgets: Store[PodDisruptionBudget],
        tasks: asyncio.TaskGroup,
        still_wanted: Callable[[str, str], bool],
        changed: Callable[[str], None],
        metrics: EvictionMetrics,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._still_wanted = still_wanted
        self._changed = changed
        self._metrics = metrics
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._pods = Evictees()
        self._waits = BudgetWaits(budgets, self._freed)
        self._lanes = EvictionLanes(client, tasks, self._process)
        client.clock.on_step(self._pods.clock_set)

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        """By pod uid: what came of the last eviction, and when the next may be sent."""
        return self._pods.attempts

    def submit(self, node: str, action: EvictPod, pod: Pod) -> None:
        """Send an eviction as soon as its lane is free, unless one is on the way or was accepted. Returns at once."""
        evictee = self._pods.add(node, action, pod)
        if evictee.under_way:
            return
        self._waits.remove(evictee)
        self._pods.tell(evictee, evictee.trying())
        guarding = self._waits.guarding(evictee)
        self._lanes.add(guarding[0].key if guarding else f"pod {action.uid}", evictee)

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        if evictee := self._pods.forget(uid):
            self._waits.remove(evictee)

    def forget_node(self, node: str) -> None:
        """The node's pods are not looked at any more."""
        for uid in self._pods.of_node(node):
            self.forget(uid)

    async def _process(self, evictee: Evictee) -> None:
        try:
            with reconcile_scope(evictee.node):
                await self._evict(evictee)
        except Exception:  # a defect met on one pod must not end its lane, nor the controller
            logger.exception("eviction crashed", extra={"node": evictee.node, "pod": evictee.pod.key})
            self._refuse(evictee, Answer(Reason.EVICTING, "internal error, see the log", BUDGET_RETRY))
        self._changed(evictee.node)

    async def _evict(self, evictee: Evictee) -> None:
        if not self._pods.expects(evictee):
            return
        if refusal := self._spent_budget(evictee):
            self._refuse(evictee, refusal)
            return
        async with self._lanes.turn(evictee) as client:
            if not self._is_wanted(evictee):
                self._pods.tell(evictee, None)
                return
            evictee.asked = self._client.now()
            known = self._waits.guarding(evictee)
            answer = await self._ask(client, evictee)
        if answer is None:
            self._accepted(evictee.uid)
        else:
            self._answered(evictee, answer, known)

    def _spent_budget(self, evictee: Evictee) -> Answer | None:
        """Return the refusal to expect where the pod's budget is known to allow nothing, unless it is time to ask.

        Pods that are not ready may be evicted whatever the budget says, so for them the server is always asked.
        """
        now = self._client.now()
        if not is_ready(evictee.pod) or (evictee.asked and now - evictee.asked >= BUDGET_RETRY):
            return None
        for budget in self._waits.guarding(evictee):
            if message := spent(budget):
                evictee.asked = evictee.asked or now
                return Answer(Reason.POD_DISRUPTION_BUDGET, message, BUDGET_RETRY, outcome="budget")
        return None

    def _is_wanted(self, evictee: Evictee) -> bool:
        """Ask at the last moment: the wait before may have taken seconds."""
        if not self._pods.expects(evictee):
            return False
        with self._pods.set_aside(evictee):
            return self._still_wanted(evictee.node, evictee.uid)

    async def _ask(self, client: Client, evictee: Evictee) -> Answer | None:
        """Ask for the eviction; returns why not, None where it was accepted."""
        try:
            await _send(client, evictee.action)
        except (ApiError, NetworkError) as error:
            answer = classify(error, evictee.failures, len(self._waits.guarding(evictee)))
            evictee.failures += answer.of_server
            if isinstance(error, Conflict) and await self._replaced(evictee.action):
                return Answer(None, "", NEVER, outcome="gone")
            return answer
        return None

    async def _replaced(self, action: EvictPod) -> bool:
        """Whether the pod of that name is another one by now, or none."""
        try:
            found = await self._client.look_up(PODS, action.name, action.namespace)
        except (ApiError, NetworkError):
            return False
        return found is None or found.uid != action.uid

    def _accepted(self, uid: str) -> None:
        """Note an eviction that will never be repeated, also where its pod was forgotten and submitted again meanwhile."""
        self._metrics.evicted("evicted")
        if evictee := self._pods.get(uid):
            evictee.evicted = True
            self._pods.tell(evictee, Attempt(NEVER, Reason.POD_TERMINATING, since=self._client.now()))

    def _answered(self, evictee: Evictee, answer: Answer, known: list[PodDisruptionBudget]) -> None:
        """Note a refusal. ``known`` are the pod's budgets as they were when the server was asked."""
        if not answer.of_server:
            self._pods.tell(evictee, evictee.trying(again=self._client.now() + answer.retry_seconds))
            return
        self._metrics.evicted(answer.outcome)
        if not self._pods.expects(evictee):
            return
        if evictee.logged is not answer.reason:
            fields = {"node": evictee.node, "pod": evictee.pod.key, "reason": answer.reason, "error": answer.message}
            logger.info("eviction not accepted", extra=fields)
        evictee.logged = answer.reason
        budgets = self._waits.guarding(evictee)
        if answer.reason is Reason.POD_DISRUPTION_BUDGET and budgets != known and not any(map(spent, budgets)):
            # It changed while the server was asked: nothing would tell again that it allows one.
            answer = replace(answer, retry_seconds=0.0)
        self._refuse(evictee, answer)

    def _refuse(self, evictee: Evictee, answer: Answer) -> None:
        if not self._pods.expects(evictee):
            return
        now = self._client.now()
        evictee.since = evictee.since or now
        by_budget = answer.reason is Reason.POD_DISRUPTION_BUDGET
        wait = answer.retry_seconds * (1 if by_budget else 1 + self._rng.random() / 4)
        evictee.refusal = Attempt(now + wait, answer.reason, answer.message, evictee.since)
        self._pods.tell(evictee, evictee.refusal)
        if answer.reason in _BY_BUDGETS:
            self._waits.add(evictee)

    def _freed(self, evictee: Evictee) -> None:
        self._pods.tell(evictee, None)
        self._changed(evictee.node)


async def _send(client: Client, action: EvictPod) -> None:
    grace = action.grace_period_seconds if action.grace_period_seconds >= 0 else None
    await client.evict(action.name, action.namespace, action.uid, grace_period_seconds=grace)
