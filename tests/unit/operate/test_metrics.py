"""What is measured, as Prometheus reads it."""

import asyncio
import math
from types import MappingProxyType
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import generate_latest

from controller.kube.informer import Informer
from controller.kube.resources import NODES
from controller.kube.workqueue import WorkQueue
from controller.operate.fleetmetrics import Decisions
from controller.operate.metrics import Metrics
from controller.upgrade.actions import Decision
from controller.upgrade.facts import Ask, Facts
from controller.upgrade.fleet import LEFT_SOON, Fleet
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from tests.unit.kube.fake import FakeTransport, make_client
from tests.unit.upgrade.builders import policy

OF = ("gpu", "DriverUpgradePolicy/ns/p")
LABELS = {"driver": OF[0], "policy": OF[1]}
NO_DECISIONS: Decisions = MappingProxyType({})


def exposed(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"driver_upgrade_{name}", LABELS | labels)


def followed(*policies: Policy, decisions: Decisions = NO_DECISIONS, now: float = 100.0) -> tuple[Metrics, Fleet]:
    metrics, fleet = Metrics(), Fleet()
    metrics.follow(fleet, lambda: policies, decisions, lambda: now)
    return metrics, fleet


def facts(state: State, **more: Any) -> Facts:
    return Facts(LABELS["policy"], state, managed=True, **more)


def test_nodes_are_counted_by_state_from_the_fleet():
    metrics, fleet = followed()
    for name, state in (("a", State.UPGRADE_DONE), ("b", State.DRAIN_REQUIRED), ("c", State.UPGRADE_FAILED)):
        fleet.update("gpu", name, facts(state, in_progress=state is State.DRAIN_REQUIRED))
    assert value(metrics, "nodes", state="upgrade-done") == 1
    assert value(metrics, "nodes_in_progress") == 1
    assert value(metrics, "nodes_failed") == 1
    fleet.update("gpu", "b", None)
    assert value(metrics, "nodes_in_progress") == 0


def test_every_state_has_a_series_so_that_alerts_see_zero():
    metrics, fleet = followed()
    fleet.update("gpu", "a", facts(State.UPGRADE_DONE))
    text = exposed(metrics)
    assert text.count("driver_upgrade_nodes{") == len(State)
    assert text.count("driver_upgrade_oldest_in_state_seconds{") == len(LEFT_SOON)


def test_blocked_nodes_are_counted_by_reason():
    metrics, fleet = followed()
    fleet.update("gpu", "a", facts(State.UPGRADE_REQUIRED, blocked=Reason.SKIPPED))
    assert value(metrics, "nodes_blocked", reason="Skipped") == 1


def test_waiting_nodes_are_counted_by_what_the_policy_lacks():
    metrics, fleet = followed(named(paused=True))
    fleet.update("gpu", "a", facts(State.UPGRADE_REQUIRED, ask=Ask.GRANT, available=True))
    assert value(metrics, "nodes_blocked", reason="Paused") == 1


def test_what_holds_a_node_up_in_the_middle_is_counted_once_it_is_on_its_way():
    """A node that waits for its grant is counted by the tallies alone, though the workers decide on it as well."""
    decisions = {
        ("gpu", "a"): Decision(State.DRAIN_REQUIRED, reason=Reason.POD_DISRUPTION_BUDGET),
        ("gpu", "b"): Decision(State.UPGRADE_REQUIRED, reason=Reason.SKIPPED),
        ("gpu", "gone"): Decision(State.DRAIN_REQUIRED, reason=Reason.POD_DISRUPTION_BUDGET),
    }
    metrics, fleet = followed(decisions=decisions)
    fleet.update("gpu", "a", facts(State.DRAIN_REQUIRED, in_progress=True))
    fleet.update("gpu", "b", facts(State.UPGRADE_REQUIRED, ask=Ask.GRANT, blocked=Reason.SKIPPED))
    assert value(metrics, "nodes_blocked", reason="PodDisruptionBudget") == 1
    assert value(metrics, "nodes_blocked", reason="Skipped") == 1


def test_a_node_at_rest_whose_write_is_refused_is_counted():
    metrics, fleet = followed(decisions={("gpu", "a"): Decision(State.UNKNOWN, reason=Reason.FORBIDDEN)})
    fleet.update("gpu", "a", facts(State.UNKNOWN))
    assert value(metrics, "nodes_blocked", reason="Forbidden") == 1


def test_a_recovered_node_that_waits_for_its_validation_is_counted_once():
    """It is failed, so the workers tell of it; and it asks for a slot, so the tallies do."""
    decisions = {("gpu", "a"): Decision(State.UPGRADE_FAILED, reason=Reason.NO_SLOT)}
    metrics, fleet = followed(named(), decisions=decisions)
    fleet.update("gpu", "a", facts(State.UPGRADE_FAILED, ask=Ask.VALIDATION))
    assert value(metrics, "nodes_blocked", reason="NoSlot") == 1


def test_the_oldest_node_of_a_state_tells_for_how_long():
    metrics, fleet = followed(now=100.0)
    fleet.update("gpu", "a", facts(State.DRAIN_REQUIRED, in_progress=True, since=40.0))
    fleet.update("gpu", "b", facts(State.DRAIN_REQUIRED, in_progress=True, since=90.0))
    assert value(metrics, "oldest_in_state_seconds", state="drain-required") == 60
    fleet.update("gpu", "a", facts(State.UPGRADE_DONE, since=100.0))
    assert value(metrics, "oldest_in_state_seconds", state="drain-required") == 10
    fleet.update("gpu", "b", None)
    fleet.update("gpu", "c", facts(State.UPGRADE_DONE))
    assert value(metrics, "oldest_in_state_seconds", state="drain-required") == 0


def test_slots_room_and_halt_are_those_of_the_policy():
    metrics, fleet = followed(named(maxParallelUpgrades=2, maxUnavailable="50%", failureThreshold=1))
    fleet.update("gpu", "a", facts(State.UPGRADE_FAILED, target="t@2", failed_target="t@2"))
    fleet.update("gpu", "b", facts(State.UPGRADE_DONE, available=True))
    fleet.update("gpu", "c", facts(State.UPGRADE_DONE, available=True))
    assert value(metrics, "slots_limit") == 2
    assert value(metrics, "unavailable_room") == 1
    assert value(metrics, "halted") == 1
    fleet.update("gpu", "a", facts(State.UPGRADE_DONE, available=True))
    assert value(metrics, "unavailable_room") == 2
    assert value(metrics, "halted") == 0


def test_no_limit_is_infinite():
    metrics, _ = followed(named(maxParallelUpgrades=0))
    assert value(metrics, "slots_limit") == math.inf
    assert value(metrics, "unavailable_room") == math.inf


def test_a_policy_is_told_about_before_it_has_nodes():
    metrics, _ = followed(named(paused=True))
    assert value(metrics, "policy_info", kind="DriverUpgradePolicy", namespace="ns", name="p") == 1
    assert value(metrics, "policy_paused") == 1
    assert value(metrics, "policy_valid") == 1
    assert value(metrics, "nodes", state="upgrade-done") == 0


def test_transitions_and_their_duration():
    metrics = Metrics()
    metrics.transition(*OF, State.DRAIN_REQUIRED, State.POD_RESTART_REQUIRED, 12.0)
    assert value(metrics, "transitions_total", **{"from": "drain-required", "to": "pod-restart-required"}) == 1
    assert value(metrics, "state_seconds_sum", state="drain-required") == 12


def test_an_upgrade_is_measured_at_its_end_alone():
    metrics = Metrics()
    metrics.upgraded(*OF, State.DRAIN_REQUIRED, State.POD_RESTART_REQUIRED, 5.0)
    metrics.upgraded(*OF, State.UNCORDON_REQUIRED, State.UPGRADE_DONE, 30.0)
    metrics.upgraded(*OF, State.DRAIN_REQUIRED, State.UPGRADE_FAILED, 40.0)
    metrics.upgraded(*OF, State.UPGRADE_REQUIRED, State.UPGRADE_DONE, 50.0)
    assert value(metrics, "node_upgrade_seconds_sum", outcome="done") == 30
    assert value(metrics, "node_upgrade_seconds_sum", outcome="failed") == 40


def test_what_was_counted_for_a_policy_goes_with_it():
    metrics = Metrics()
    for name in (LABELS["policy"], "DriverUpgradePolicy/ns/other"):
        metrics.transition("gpu", name, State.DRAIN_REQUIRED, State.UPGRADE_FAILED, 1.0)
        metrics.upgraded("gpu", name, State.DRAIN_REQUIRED, State.UPGRADE_FAILED, 1.0)
        metrics.failed("gpu", name, State.DRAIN_REQUIRED, Reason.DEADLINE_EXCEEDED)
        metrics.driver_restarted("gpu", name)
    metrics.retire({"gpu": ["DriverUpgradePolicy/ns/other"]})
    text = exposed(metrics)
    assert LABELS["policy"] not in text
    assert text.count('policy="DriverUpgradePolicy/ns/other"') > 20


def test_the_first_node_that_ends_is_seen_by_a_rate():
    """Where a series begins at 1 nobody sees it grow: each leader's first node would be missing from the pace."""
    metrics = Metrics()
    metrics.retire({"gpu": [LABELS["policy"]]})
    assert [value(metrics, "node_upgrade_seconds_count", outcome=outcome) for outcome in ("done", "failed")] == [0, 0]
    metrics.upgraded(*OF, State.UNCORDON_REQUIRED, State.UPGRADE_DONE, 30.0)
    metrics.retire({"gpu": [LABELS["policy"]]})
    assert value(metrics, "node_upgrade_seconds_count", outcome="done") == 1
    metrics.retire({})
    assert value(metrics, "node_upgrade_seconds_count", outcome="done") is None


async def test_informers_tell_what_they_hold_and_how_old_their_news_is():
    informer = Informer(make_client(FakeTransport()), NODES)
    metrics = Metrics()
    metrics.follow_informers(lambda: (informer, informer), lambda: 130.0)
    assert metrics.registry.get_sample_value("driver_upgrade_informer_synced", {"resource": "nodes"}) == 0
    informer.reflector.heard = 100.0
    age = metrics.registry.get_sample_value("driver_upgrade_informer_last_event_age_seconds", {"resource": "nodes"})
    assert age == 30


@pytest.mark.looptime
async def test_a_loop_that_is_held_up_is_seen():
    metrics = Metrics()
    async with metrics.watching_loop():
        await asyncio.sleep(5.5)
    assert metrics.registry.get_sample_value("driver_upgrade_event_loop_lag_seconds_count") == 5


def named(**upgrade: Any) -> Policy:
    return replace(policy(**upgrade), namespace="ns", name="p")


def test_client_and_queue_speak_client_gos_names():
    metrics = Metrics()
    metrics.request("GET", "nodes", "200", 0.01)
    metrics.throttled("PATCH", 0.5)
    metrics.watched("pods", 0, 0.1, short=True)
    metrics.listed("pods", 3, 0.1)
    metrics.added()
    metrics.depth(1)
    metrics.queued(0.1)
    metrics.worked(0.1)
    metrics.retried()
    text = exposed(metrics)
    for name in (
        "rest_client_requests_total",
        "rest_client_request_duration_seconds",
        "rest_client_rate_limiter_duration_seconds",
        "workqueue_depth",
        "workqueue_adds_total",
        "workqueue_retries_total",
        "workqueue_queue_duration_seconds",
        "workqueue_work_duration_seconds",
        "reflector_short_watches_total",
        "process_resident_memory_bytes",
    ):
        assert name in text, name


async def test_work_under_way_is_seen_at_scrape_time():
    metrics = Metrics()
    queue: WorkQueue[str] = WorkQueue(metrics=metrics)
    metrics.follow_queue(queue)
    queue.add("node-1")
    await queue.get()
    text = exposed(metrics)
    assert 'workqueue_unfinished_work_seconds{name="nodes"}' in text
    assert 'workqueue_longest_running_processor_seconds{name="nodes"}' in text
    queue.done("node-1")
    assert 'workqueue_unfinished_work_seconds{name="nodes"} 0.0' in exposed(metrics)
