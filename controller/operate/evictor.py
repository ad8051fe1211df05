"""Sends evictions, few at a time per disruption budget, and remembers what came of them.

Evictions that share a budget conflict inside the API server, each conflict costing half a second there; so they go one
after the other, in a lane per budget, while other budgets' go beside them. An eviction whose budget is known to allow
nothing is not sent at all until the budget changes, or five seconds have passed. When it changes, as many waiting pods
are let go as it allows, first come, first served.

What was decided may be old news when a lane comes to it. Right before an eviction is sent the node is decided once more,
and only what that decision still asks for is sent.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from controller.api.pod import Pod
from controller.api.workloads import PodDisruptionBudget
from controller.kube.client import Client
from controller.kube.errors import ApiError, Conflict, NetworkError
from controller.kube.resources import PODS
from controller.kube.store import Store
from controller.logs import detached, reconcile_scope
from controller.operate.answers import BUDGET_RETRY, Answer, classify
from controller.upgrade.actions import EvictPod
from controller.upgrade.guards import NEVER, guards, spent
from controller.upgrade.pods import is_ready
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import Attempt

BY_NAMESPACE = "namespace"
MISJUDGED = 2.0
"""Seconds by which a step of the server's clock may have been misjudged that had run at a wrong speed before."""
_BY_BUDGETS = frozenset({Reason.POD_DISRUPTION_BUDGET, Reason.MULTIPLE_POD_DISRUPTION_BUDGETS})

logger = logging.getLogger(__name__)


class EvictionMetrics(Protocol):
    """What the evictor tells."""

    def evicted(self, outcome: str) -> None:
        """One eviction was answered."""


@dataclass(slots=True)
class _Item:
    """One pod on its way through a lane."""

    node: str
    action: EvictPod
    pod: Pod


@dataclass(slots=True)
class _History:
    """What is remembered of a pod between attempts."""

    node: str
    failures: int = 0
    asked: float = 0.0
    """When the server was last asked, or first spared the question: a budget that says 0 is believed for 5 s only."""
    since: float = 0.0
    """Since when the pod has been refused."""
    reason: Reason | None = None
    """The last refusal's, so that one that only repeats is not logged again."""
    refusal: Attempt | None = None
    """The last refusal: until another answer is there it is what holds the pod up."""


class Evictor:
    """Evicts pods on behalf of nodes.

    Args:
        client: The API server.
        budgets: The disruption budgets, indexed :data:`BY_NAMESPACE`.
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
        self._budgets = budgets
        self._tasks = tasks
        self._still_wanted = still_wanted
        self._changed = changed
        self._metrics = metrics
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self.attempts: dict[str, Attempt] = {}
        """By pod uid: what came of the last eviction. The core reads it, nobody else writes it."""
        # By pod uid, from its first submission until it is forgotten: of others nothing is kept, not even a late answer.
        self._histories: dict[str, _History] = {}
        # The same pods by node: what is remembered of them goes with the node's upgrade.
        self._by_node: dict[str, set[str]] = {}
        self._lanes: dict[str, deque[_Item]] = {}
        # Pods refused by a budget, in order, by the budget's key.
        self._refused: dict[str, dict[str, str]] = {}
        budgets.add_handler(self._budget_changed)
        client.clock.on_step(self._clock_set)

    def submit(self, node: str, action: EvictPod, pod: Pod) -> None:
        """Send an eviction as soon as its budget's lane is free. Returns at once."""
        self._unrefuse(action.uid)
        history = self._histories.setdefault(action.uid, _History(node))
        self._by_node.setdefault(history.node, set()).add(action.uid)
        self.attempts[action.uid] = _under_way(history)
        guarding = self._guarding(pod)
        lane = guarding[0].key if guarding else f"pod {action.uid}"
        if lane in self._lanes:
            self._lanes[lane].append(_Item(node, action, pod))
            return
        self._lanes[lane] = deque([_Item(node, action, pod)])
        self._tasks.create_task(self._run(lane), name=f"evictions of {lane}", context=detached())

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self.attempts.pop(uid, None)
        self._unrefuse(uid)
        if history := self._histories.pop(uid, None):
            here = self._by_node[history.node]
            here.discard(uid)
            if not here:
                del self._by_node[history.node]

    def forget_node(self, node: str) -> None:
        """The node's pods are not looked at any more."""
        for uid in tuple(self._by_node.get(node, ())):
            self.forget(uid)

    async def _run(self, lane: str) -> None:
        """Send a lane's evictions one after the other; the lane ends when it is empty."""
        items = self._lanes[lane]
        try:
            while items:
                item = items.popleft()
                try:
                    with reconcile_scope(item.node):
                        await self._evict(item)
                except Exception:  # a defect met on one pod must not end the lane, nor the controller
                    logger.exception("eviction crashed", extra={"node": item.node, "pod": item.pod.key})
                    self._refuse(item, Answer(Reason.EVICTING, "internal error, see the log", BUDGET_RETRY))
                self._changed(item.node)
        finally:
            del self._lanes[lane]

    async def _evict(self, item: _Item) -> None:
        uid = item.action.uid
        self.attempts.pop(uid, None)
        history = self._histories.get(uid)
        if history is None:
            return
        wanted = partial(self._still_wanted, item.node, uid)
        if not wanted():
            return
        if spent := self._spent_budget(item, history):
            self._refuse(item, spent)
            return
        self.attempts[uid] = _under_way(history)
        history.asked = self._client.now()
        known = self._guarding(item.pod)
        try:
            client = await self._client.in_turn("EVICT")
            # Decided as before the turn was waited for, which may have taken seconds: as if it were not under way.
            under_way = self.attempts.pop(uid, None)
            if under_way is None or not wanted():
                return
            self.attempts[uid] = under_way
            await _send(client, item.action)
        except (ApiError, NetworkError) as error:
            self._answered(item, await self._judge(item, error, history), known)
            return
        except BaseException:
            self.attempts.pop(uid, None)
            raise
        self._metrics.evicted("evicted")
        if uid in self._histories:
            # Never evicted again: from here on only its end is waited for.
            self.attempts[uid] = Attempt(NEVER, Reason.POD_TERMINATING, since=self._client.now())

    async def _judge(self, item: _Item, error: ApiError | NetworkError, history: _History) -> Answer:
        answer = classify(error, history.failures, len(self._guarding(item.pod)))
        history.failures += 1
        if isinstance(error, Conflict) and await self._replaced(item.action):
            return Answer(None, "", NEVER, outcome="gone")
        return answer

    async def _replaced(self, action: EvictPod) -> bool:
        """Whether the pod of that name is another one by now, or none."""
        try:
            found = await self._client.look_up(PODS, action.name, action.namespace)
        except (ApiError, NetworkError):
            return False
        return found is None or found.uid != action.uid

    def _answered(self, item: _Item, answer: Answer, known: list[PodDisruptionBudget]) -> None:
        """Note a refusal. ``known`` are the pod's budgets as they were when the server was asked."""
        self._metrics.evicted(answer.outcome)
        history = self._histories.get(item.action.uid)
        if history is None:
            return
        if history.reason is not answer.reason:
            fields = {"node": item.node, "pod": item.pod.key, "reason": answer.reason, "error": answer.message}
            logger.info("eviction not accepted", extra=fields)
        history.reason = answer.reason
        budgets = self._guarding(item.pod)
        if answer.reason is Reason.POD_DISRUPTION_BUDGET and budgets != known and not any(map(spent, budgets)):
            # It changed while the server was asked: nothing would tell again that it allows one.
            answer = replace(answer, retry_seconds=0.0)
        self._refuse(item, answer)

    def _refuse(self, item: _Item, answer: Answer) -> None:
        uid, now = item.action.uid, self._client.now()
        history = self._histories.get(uid)
        if history is None:
            return
        history.since = history.since or now
        by_budget = answer.reason is Reason.POD_DISRUPTION_BUDGET
        wait = answer.retry_seconds * (1 if by_budget else 1 + self._rng.random() / 4)
        self.attempts[uid] = history.refusal = Attempt(now + wait, answer.reason, answer.message, history.since)
        for budget in self._guarding(item.pod) if answer.reason in _BY_BUDGETS else ():
            self._refused.setdefault(budget.key, {})[uid] = item.node

    def _unrefuse(self, uid: str) -> None:
        """It waits for no budget: what the next one allows is for others."""
        for key in [key for key, pods in self._refused.items() if pods.pop(uid, None) is not None and not pods]:
            del self._refused[key]

    def _spent_budget(self, item: _Item, history: _History) -> Answer | None:
        """Return the refusal to expect where the pod's budget is known to allow nothing, unless it is time to ask.

        Pods that are not ready may be evicted whatever the budget says, so for them the server is always asked.
        """
        now = self._client.now()
        if not is_ready(item.pod) or (history.asked and now - history.asked >= BUDGET_RETRY):
            return None
        for budget in self._guarding(item.pod):
            if message := spent(budget):
                history.asked = history.asked or now
                return Answer(Reason.POD_DISRUPTION_BUDGET, message, BUDGET_RETRY, outcome="budget")
        return None

    def _clock_set(self, seconds: float) -> None:
        """What was to be tried in a few seconds still is, whatever the server's clock says then; rather late than early."""
        for uid, attempt in self.attempts.items():
            self.attempts[uid] = replace(_moved(attempt, seconds), again=attempt.again + seconds + MISJUDGED)
        for history in self._histories.values():
            history.asked = history.asked and history.asked + seconds + MISJUDGED
            history.since = history.since and history.since + seconds
            history.refusal = history.refusal and _moved(history.refusal, seconds)

    def _guarding(self, pod: Pod) -> list[PodDisruptionBudget]:
        found = (b for b in self._budgets.by_index(BY_NAMESPACE, pod.namespace) if guards(b, pod))
        return sorted(found, key=lambda b: b.key)

    def _budget_changed(self, old: PodDisruptionBudget | None, new: PodDisruptionBudget | None) -> None:
        """Let refused pods try again: as many as the budget now allows, or all that it does not hold any more."""
        budget = new or old
        refused = self._refused.get(budget.key) if budget else None
        if budget is None or not refused:
            return
        for uid in self._freed(refused, old, new):
            node = refused[uid]
            self._unrefuse(uid)
            if self.attempts.pop(uid, None):
                self._changed(node)

    def _freed(self, refused: Iterable[str], old: PodDisruptionBudget | None, new: PodDisruptionBudget | None) -> list[str]:
        """A pod with several budgets is not helped by what one of them allows, but by having one less."""
        if new is None:
            return list(refused)
        several = {uid for uid in refused if self.attempts[uid].reason is Reason.MULTIPLE_POD_DISRUPTION_BUDGETS}
        alone = [uid for uid in refused if uid not in several]
        is_other = old is None or old.spec != new.spec
        return [*(several if is_other else ()), *alone[: new.status.disruptions_allowed]]


def _under_way(history: _History) -> Attempt:
    """What is known of a pod while its eviction is on the way."""
    return replace(history.refusal or Attempt(NEVER, Reason.EVICTING, since=history.since), again=NEVER)


def _moved(attempt: Attempt, seconds: float) -> Attempt:
    return replace(attempt, again=attempt.again + seconds, since=attempt.since and attempt.since + seconds)


async def _send(client: Client, action: EvictPod) -> None:
    grace = action.grace_period_seconds if action.grace_period_seconds >= 0 else None
    await client.evict(action.name, action.namespace, action.uid, grace_period_seconds=grace)
