"""Metrics of the fleet as it is now, read from the rollout's tallies at scrape time and never counted beside them.

Every policy and every state that somebody waits for a node to leave has a series, zero or not, so that alerts resolve.
What belongs to a policy that is gone is gone with the next scrape.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.upgrade.actions import Decision
from controller.upgrade.admission import halted_targets, waiting_by_reason
from controller.upgrade.budget import UNLIMITED, free_room
from controller.upgrade.facts import Ask, Facts
from controller.upgrade.fleet import LEFT_SOON, Fleet, Tally
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State

Decisions = Mapping[tuple[str, str], Decision]
"""The last decision by driver and node."""
_LABELS = ["driver", "policy"]


class FleetCollector(Collector):
    """Reads the tallies.

    Args:
        fleet: The rollout's counts.
        policies: Every policy that counts.
        decisions: The workers' last decisions, for what holds up nodes that have been granted, and for refused writes.
        now: Server time in seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        policies: Callable[[], Iterable[Policy]],
        decisions: Decisions,
        now: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._policies = policies
        self._decisions = decisions
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read everything once."""
        policies = {(policy.driver, policy.full_name): policy for policy in self._policies()}
        tallies = {(driver, name): tally for driver, name, tally in self._fleet.tallies()}
        for key in policies:
            tallies.setdefault(key, Tally())
        yield from self._nodes(tallies)
        yield self._blocked(tallies, policies)
        yield self._oldest(tallies)
        yield from _limits(tallies, policies)
        yield from _about(policies)

    @staticmethod
    def _nodes(tallies: Mapping[tuple[str, str], Tally]) -> Iterator[GaugeMetricFamily]:
        states = _gauge("nodes", "Managed nodes by state.", "state")
        progress = _gauge("nodes_in_progress", "Nodes that hold a slot: granted, and neither done nor failed.")
        failed = _gauge("nodes_failed", "Managed nodes in upgrade-failed.")
        out = _gauge("nodes_unavailable", "Managed nodes that are unschedulable, not Ready, failed or in progress.")
        for key, tally in tallies.items():
            for state in State:
                states.add_metric([*key, str(state) or "unknown"], tally.states.get(state, 0))
            progress.add_metric(key, tally.in_progress)
            failed.add_metric(key, tally.states.get(State.UPGRADE_FAILED, 0))
            out.add_metric(key, tally.unavailable)
        yield from (states, progress, failed, out)

    def _blocked(
        self, tallies: Mapping[tuple[str, str], Tally], policies: Mapping[tuple[str, str], Policy]
    ) -> GaugeMetricFamily:
        counts: Counter[tuple[str, str, Reason]] = Counter()
        for key, tally in tallies.items():
            policy = policies.get(key)
            for reason, count in (waiting_by_reason(policy, tally) if policy else tally.blocked).items():
                counts[(*key, reason)] += count
        for (driver, node), decision in self._decisions.items():
            facts = self._fleet.facts(driver, node)
            if facts is not None and _is_told_by_workers(facts) and decision.reason is not None:
                counts[(driver, facts.policy, decision.reason)] += 1
        text = "Nodes that do not move, before, in the middle of or without an upgrade, by reason."
        family = _gauge("nodes_blocked", text, "reason")
        for (driver, name, reason), count in counts.items():
            family.add_metric([driver, name, str(reason)], count)
        return family

    def _oldest(self, tallies: Mapping[tuple[str, str], Tally]) -> GaugeMetricFamily:
        now = self._now()
        family = _gauge(
            "oldest_in_state_seconds",
            "How long the node that entered a state first has been in it; 0 where none is.",
            "state",
        )
        for key, tally in tallies.items():
            for state in LEFT_SOON:
                since = tally.oldest(state)
                family.add_metric([*key, str(state)], 0.0 if since is None else max(0.0, now - since))
        return family


def _is_told_by_workers(facts: Facts) -> bool:
    """Whether the tallies do not tell what this node waits for already: each node is counted once."""
    return (facts.managed or facts.in_progress) and facts.ask is Ask.NOTHING and facts.blocked is None


def _limits(
    tallies: Mapping[tuple[str, str], Tally], policies: Mapping[tuple[str, str], Policy]
) -> Iterator[GaugeMetricFamily]:
    slots = _gauge("slots_limit", "Nodes that may be in progress at once; +Inf where there is no limit.")
    room = _gauge("unavailable_room", "Nodes that may become unavailable yet; +Inf where maxUnavailable is not set.")
    halted = _gauge("halted", "1 where as many nodes failed for one target as failureThreshold allows, else 0.")
    for key, policy in policies.items():
        tally = tallies[key]
        free = free_room(policy.spec.max_unavailable, tally.total, tally.unavailable)
        slots.add_metric(key, policy.spec.max_parallel_upgrades or math.inf)
        room.add_metric(key, math.inf if free >= UNLIMITED - tally.unavailable else free)
        halted.add_metric(key, bool(halted_targets(policy, tally)))
    yield from (slots, room, halted)


def _about(policies: Mapping[tuple[str, str], Policy]) -> Iterator[GaugeMetricFamily]:
    info = GaugeMetricFamily(
        "driver_upgrade_policy_info",
        "Always 1; what the policy is, to be joined to the others by its label policy.",
        labels=[*_LABELS, "kind", "namespace", "name"],
    )
    enabled = _gauge("policy_enabled", "1 where autoUpgrade is on (for other kinds: where the source is), else 0.")
    paused = _gauge("policy_paused", "1 where the policy is paused, else 0.")
    valid = _gauge("policy_valid", "1 where every field of the policy can be understood, else 0.")
    for key, policy in policies.items():
        info.add_metric([*key, policy.source.kind, policy.namespace, policy.name], 1)
        enabled.add_metric(key, policy.enabled)
        paused.add_metric(key, policy.paused)
        valid.add_metric(key, not policy.errors)
    yield from (info, enabled, paused, valid)


def _gauge(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"driver_upgrade_{name}", text, labels=[*_LABELS, *more])
