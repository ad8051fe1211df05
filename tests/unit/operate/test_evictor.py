"""Which refused pods try again when a disruption budget changes, and that no pod is asked for twice."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from controller.api.meta import ObjectMeta
from controller.api.pod import Pod
from controller.api.selectors import LabelSelector, Selector
from controller.api.workloads import PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus
from controller.kube.ratelimiters import RateLimiter, TokenBucket
from controller.kube.store import Store
from controller.kube.writegate import NotLeading
from controller.operate import budgetwaits
from controller.operate.budgetwaits import BY_NAMESPACE
from controller.operate.evictor import Evictor
from controller.upgrade.actions import EvictPod
from controller.upgrade.guards import NEVER, counted
from controller.upgrade.reasons import Reason
from tests.unit.kube.fake import Answer, FakeTransport, json_answer, make_client, status_answer
from tests.unit.upgrade.builders import pod

pytestmark = pytest.mark.looptime
R = Reason
BY_BUDGET = [{"reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods and has 2 currently"}]
REFUSED = status_answer(429, "TooManyRequests", causes=BY_BUDGET)
SEVERAL = status_answer(500, message="This pod has more than one PodDisruptionBudget, which ...")
EVICTED = json_answer({"kind": "Status", "status": "Success"}, 201)
_versions: Iterator[int] = iter(range(10, 1000))


class Evictions:
    """What the evictor counts."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def evicted(self, outcome: str) -> None:
        self.outcomes.append(outcome)


class Bench:
    """An evictor whose nodes, one for each pod, decide again as often as they are told to."""

    def __init__(self, tasks: asyncio.TaskGroup, *script: Answer | Exception, limiter: RateLimiter | None = None) -> None:
        self.transport = FakeTransport(*script)
        self.budgets: Store[PodDisruptionBudget] = Store()
        self.budgets.index_by(BY_NAMESPACE, lambda b: (b.namespace,))
        self.changed: list[str] = []
        self._told: asyncio.Queue[str] = asyncio.Queue()
        self.wanted = True
        self.decided: list[tuple[str, bool]] = []
        self.counted = Evictions()
        client = make_client(self.transport, limiter=limiter)
        self.evictor = Evictor(client, self.budgets, tasks, self._decide, self._tell, self.counted)

    def _decide(self, node: str, uid: str) -> bool:
        self.decided.append((uid, uid in self.evictor.attempts))
        return self.wanted

    def _tell(self, node: str) -> None:
        self.changed.append(node)
        self._told.put_nowait(node)

    def budget(self, name: str = "web", **status: Any) -> PodDisruptionBudget:
        """A budget over all pods, as the watch shows it."""
        made = PodDisruptionBudget(
            metadata=ObjectMeta(name=name, namespace="ops", uid=name, generation=1, resource_version=str(next(_versions))),
            spec=PodDisruptionBudgetSpec(LabelSelector()),
            status=PodDisruptionBudgetStatus(**{"observed_generation": 1, "disruptions_allowed": 1, **status}),
        )
        self.budgets.apply(made)
        return made

    def choose(self, budget: PodDisruptionBudget, **labels: str) -> None:
        """Has a budget guard other pods."""
        meta = replace(budget.metadata, resource_version=str(next(_versions)))
        spec = PodDisruptionBudgetSpec(LabelSelector(match_labels=labels))
        self.budgets.apply(replace(budget, metadata=meta, spec=spec))

    async def evict(self, *names: str, labels: Mapping[str, str] | None = None) -> None:
        """Asks for evictions, and waits until each has been answered or spared."""
        while not self._told.empty():
            self._told.get_nowait()
        for name in names:
            one: Pod = pod(name, labels=labels)
            self.evictor.submit(f"node-{name}", EvictPod("ops", name, name), one)
        for _ in names:
            await self._told.get()
        self.changed.clear()

    @property
    def kept(self) -> tuple[Any, ...]:
        """Everything that is remembered of pods."""
        pods, waits = self.evictor._pods, self.evictor._waits
        return (self.evictor.attempts, pods._by_uid, pods._by_node, waits._waiting)

    def reason(self, name: str) -> Reason | None:
        attempt = self.evictor.attempts.get(name)
        return attempt.reason if attempt else None


async def test_as_many_go_as_the_budget_allows_first_come_first_served():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.budget(disruptions_allowed=0)
        await bench.evict("a", "b", "c")
        assert not bench.transport.requests, "it is known to be refused"
        bench.budget(disruptions_allowed=2)
        assert bench.changed == ["node-a", "node-b"]


async def test_what_a_budget_allows_is_not_spent_on_pods_that_are_gone():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.budget(disruptions_allowed=0)
        await bench.evict("a", "b", "c")
        bench.evictor.forget("a")
        bench.evictor.forget_node("node-b")
        bench.budget()
        assert bench.changed == ["node-c"]


async def test_a_pod_evicted_at_last_is_not_asked_for_again_when_its_budget_changes():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, REFUSED, EVICTED)
        bench.budget()
        await bench.evict("a")
        assert bench.reason("a") is R.POD_DISRUPTION_BUDGET
        await bench.evict("a")
        bench.budget(disruptions_allowed=2)
        assert (bench.changed, bench.reason("a")) == ([], R.POD_TERMINATING)


async def test_a_pod_on_its_way_through_the_lane_is_not_let_go_a_second_time():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, REFUSED, EVICTED)
        bench.budget()
        await bench.evict("a")
        bench.evictor.submit("node-a", EvictPod("ops", "a", "a"), pod("a"))
        bench.budget()
        assert bench.changed == []
        assert bench.evictor.attempts["a"].again == NEVER
        assert bench.reason("a") is R.POD_DISRUPTION_BUDGET, "a try is no change until it is answered"


async def test_a_budget_that_changed_while_the_server_was_asked_is_asked_again_at_once():
    async with asyncio.TaskGroup() as tasks:
        refused = replace_steps(REFUSED, 1.0)
        bench = Bench(tasks, refused)
        bench.budget()
        evicting = tasks.create_task(bench.evict("a"))
        await asyncio.sleep(0.5)  # of virtual time: the request is on its way
        bench.budget(current_healthy=3)
        await evicting
        assert bench.evictor.attempts["a"].again <= bench.evictor._client.now()


async def test_a_pod_refused_for_two_budgets_waits_for_neither_when_one_is_gone():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, SEVERAL)
        one, _ = bench.budget("one"), bench.budget("two")
        await bench.evict("a")
        bench.budgets.delete(one)
        assert bench.changed == ["node-a"]
        bench.budget("two", disruptions_allowed=2)
        assert bench.changed == ["node-a"]


async def test_an_eviction_that_is_not_wanted_any_more_when_its_turn_comes_is_not_sent():
    async with asyncio.TaskGroup() as tasks:
        limiter = TokenBucket(qps=0.1, burst=1)
        await limiter.wait()
        bench = Bench(tasks, EVICTED, limiter=limiter)
        bench.evictor.submit("node-a", EvictPod("ops", "a", "a"), pod("a"))
        await asyncio.sleep(5)
        bench.wanted = False
        await asyncio.sleep(10)
        assert not bench.transport.requests
        assert bench.reason("a") is None


async def test_a_refusal_by_a_budget_that_stays_as_it_is_is_not_repeated_at_once():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, REFUSED)
        bench.budget()
        await bench.evict("a")
        assert bench.evictor.attempts["a"].again == bench.evictor._client.now() + 5


async def test_a_pod_with_two_budgets_goes_when_one_of_them_is_gone_or_guards_others():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, SEVERAL, SEVERAL)
        first, second = bench.budget("first"), bench.budget("second")
        await bench.evict("a")
        assert bench.reason("a") is R.MULTIPLE_POD_DISRUPTION_BUDGETS
        bench.budget("first", disruptions_allowed=7)
        assert bench.changed == [], "what one of them allows does not help"
        bench.choose(first, app="other")
        assert bench.changed == ["node-a"]
        bench.budget("first")
        await bench.evict("a")
        bench.budgets.delete(second)
        assert bench.changed == ["node-a"]


async def test_gone_is_gone():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, status_answer(404, "NotFound"))
        await bench.evict("a")
        assert (bench.reason("a"), bench.evictor.attempts["a"].again < NEVER) == (None, True)


@pytest.mark.parametrize("answer", [EVICTED, REFUSED, SEVERAL, status_answer(503, "ServiceUnavailable")])
async def test_an_answer_about_a_pod_that_is_forgotten_leaves_nothing(answer: Answer):
    """The node went, or its policy, while the server was asked: nobody would ever forget the pod again."""
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, replace_steps(answer, 3.0))
        submitted = tasks.create_task(bench.evict("a"))
        await asyncio.sleep(1)
        assert bench.evictor.attempts
        bench.evictor.forget_node("node-a")
        await submitted
        left = bench.kept
        assert not any(left), left


async def test_of_pods_that_come_and_go_in_one_drain_nothing_is_kept():
    """A drain without a time-out, and a pod that tolerates the cordon: it comes back under another uid, for ever."""
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, *[EVICTED] * 3)
        for number in range(3):
            await bench.evict(f"a{number}")
            bench.evictor.forget(f"a{number}")
        left = bench.kept
        assert not any(left), left


async def test_a_pod_that_was_given_up_and_is_submitted_again_is_evicted_once():
    """An administrator lifts the cordon in mid-drain and it is taken again, while the pod still stands in its lane."""
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, replace_steps(EVICTED, 3.0), EVICTED, EVICTED)
        bench.budget()
        for name in ("a", "b"):
            bench.evictor.submit(f"node-{name}", EvictPod("ops", name, name), pod(name))
        await asyncio.sleep(1)
        bench.evictor.forget_node("node-b")
        bench.evictor.submit("node-b", EvictPod("ops", "b", "b"), pod("b"))
    assert [request.path.split("/")[-2] for request in bench.transport.requests] == ["a", "b"]
    assert bench.reason("b") is R.POD_TERMINATING


async def test_a_late_yes_counts_for_a_pod_that_was_given_up_and_is_submitted_again():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, replace_steps(EVICTED, 3.0), EVICTED)
        bench.evictor.submit("node-a", EvictPod("ops", "a", "a"), pod("a"))
        await asyncio.sleep(1)
        bench.evictor.forget_node("node-a")
        bench.evictor.submit("node-a", EvictPod("ops", "a", "a"), pod("a"))
    assert len(bench.transport.requests) == 1
    assert bench.reason("a") is R.POD_TERMINATING


async def test_a_late_no_does_not_count_for_a_pod_that_was_given_up_and_is_submitted_again():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, replace_steps(REFUSED, 3.0), EVICTED)
        bench.budget()
        bench.evictor.submit("node-a", EvictPod("ops", "a", "a"), pod("a"))
        await asyncio.sleep(1)
        bench.evictor.forget_node("node-a")
        bench.evictor.submit("node-a", EvictPod("ops", "a", "a"), pod("a"))
    assert bench.reason("a") is R.POD_TERMINATING
    bench.evictor.forget("a")
    assert not any(bench.kept), bench.kept


@pytest.mark.parametrize("answer", [EVICTED, REFUSED])
async def test_a_pod_whose_eviction_is_on_the_way_is_not_submitted_again(answer: Answer):
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, replace_steps(answer, 3.0), EVICTED)
        for _ in range(2):
            bench.evictor.submit("node-a", EvictPod("ops", "a", "a"), pod("a"))
            await asyncio.sleep(1)
    assert len(bench.transport.requests) == 1


async def test_a_pod_that_is_forgotten_while_it_waits_for_its_turn_is_not_evicted():
    async with asyncio.TaskGroup() as tasks:
        limiter = TokenBucket(qps=0.1, burst=1)
        await limiter.wait()
        bench = Bench(tasks, EVICTED, limiter=limiter)
        bench.evictor.submit("node-a", EvictPod("ops", "a", "a"), pod("a"))
        await asyncio.sleep(5)
        bench.evictor.forget("a")
    assert not bench.transport.requests
    assert not any(bench.kept), bench.kept


async def test_an_eviction_not_sent_for_lack_of_the_lead_is_neither_told_nor_counted(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, NotLeading("not sent", maybe_applied=False), status_answer(503), NotLeading("no"), EVICTED)
        await bench.evict("a")
        assert (bench.reason("a"), caplog.messages, bench.counted.outcomes) == (R.EVICTING, [], [])
        assert 0 < bench.evictor.attempts["a"].again - bench.evictor._client.now() <= 5, "but it is tried again"
        await asyncio.sleep(2)
        await bench.evict("a")
        told = bench.evictor.attempts["a"]
        assert (told.reason, bench.counted.outcomes) == (R.API_UNAVAILABLE, ["unavailable"])
        assert told.again - bench.evictor._client.now() < 1.5, "the first failure"
        await asyncio.sleep(2)
        await bench.evict("a")
        assert replace(bench.evictor.attempts["a"], again=told.again) == told, "what the server said last stands"
        assert len(caplog.messages) == len(bench.counted.outcomes) == 1
        await asyncio.sleep(2)
        await bench.evict("a")
        assert bench.reason("a") is R.POD_TERMINATING


async def test_a_node_is_decided_once_for_each_eviction_as_if_it_were_not_under_way():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, *[EVICTED] * 3)
        bench.budget("web")
        await bench.evict("a", "b", "c")
        assert bench.decided == [("a", False), ("b", False), ("c", False)]


async def test_a_node_is_not_decided_for_an_eviction_that_is_known_to_be_refused():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.budget(disruptions_allowed=0)
        await bench.evict("a", "b")
        assert not bench.decided


async def test_a_budgets_selector_is_read_when_it_changes_and_not_for_each_eviction(monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []

    def reading(budget: PodDisruptionBudget) -> Selector | None:
        read.append(budget.name)
        return counted(budget)

    monkeypatch.setattr(budgetwaits, "counted", reading)
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, *[REFUSED] * 20)
        for _ in range(10):
            bench.budget()
            await bench.evict("a", "b")
            await asyncio.sleep(6)
        assert read == ["web"]


async def test_a_pod_is_guarded_by_what_its_labels_say_now():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, EVICTED)
        made = bench.budget(disruptions_allowed=0)
        bench.choose(made, app="web")
        await bench.evict("a", labels={"app": "web"})
        assert bench.reason("a") is R.POD_DISRUPTION_BUDGET
        await bench.evict("a", labels={"app": "free"})
        assert bench.reason("a") is R.POD_TERMINATING


def replace_steps(answer: Answer, seconds: float) -> Answer:
    """The same answer, later."""
    return Answer(answer.status, (seconds, *answer.steps), answer.headers)
