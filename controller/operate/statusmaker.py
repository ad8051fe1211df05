"""Makes a policy's status from what the caches hold and what was decided; the words are the core's."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from controller.operate.caches import Caches
from controller.operate.options import Options
from controller.operate.policies import Policies
from controller.operate.rivals import Rivals
from controller.upgrade.actions import Decision
from controller.upgrade.conditions import Condition, Finding, conditions, ignored, status_of
from controller.upgrade.findings import Surroundings, findings
from controller.upgrade.fleet import Fleet, Tally
from controller.upgrade.keys import keys_for
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Record, decode_record
from controller.upgrade.revision import split_target
from controller.upgrade.rollouttimes import RolloutTimes
from controller.upgrade.states import State
from controller.upgrade.statuspatch import keep_times
from controller.upgrade.summary import (
    active_item,
    active_names,
    bounded,
    failed_item,
    failed_names,
    targets,
    waiting_for,
)


class StatusMaker:
    """Says how a policy stands.

    Args:
        caches: What there is.
        policies: The policies in force.
        fleet: The counts.
        decisions: The last decision by driver and node.
        options: With the driver namespaces that count.
        now: Server time in seconds.
    """

    def __init__(
        self,
        caches: Caches,
        policies: Policies,
        fleet: Fleet,
        decisions: Mapping[tuple[str, str], Decision],
        options: Options,
        now: Callable[[], float],
    ) -> None:
        self._caches = caches
        self._policies = policies
        self._fleet = fleet
        self._decisions = decisions
        self._namespaces = options.driver_namespaces
        self._domain = options.domain
        self._now = now
        self._rivals = Rivals(caches.nodes.store, policies)

    def make(self, policy: Policy, earlier: Mapping[str, Any], times: RolloutTimes) -> dict[str, Any]:
        """Return a policy's whole status; ``earlier`` is the one before, as far as it is known."""
        now = self._now()
        if self._counts(policy):
            tally = self._tally(policy)
            status = status_of(policy, tally, self.findings(policy))
            status |= self._lists(policy, tally)
            status |= times.told(policy, tally, status, earlier, now)
        else:
            status = {
                "observedGeneration": policy.generation,
                "state": str(Reason.NAMESPACE_NOT_ALLOWED),
                "conditions": [msgspec.to_builtins(c) for c in self.judge(policy, ())],
            }
        keep_times(status["conditions"], earlier.get("conditions") or [], now, policy.generation)
        return status

    def judge(self, policy: Policy, found: Iterable[Finding]) -> list[Condition]:
        """Return the conditions alone."""
        return conditions(policy, self._tally(policy), found) if self._counts(policy) else ignored(self._namespaces)

    def findings(self, policy: Policy) -> tuple[Finding, ...]:
        """Return what hinders a policy; nothing of one that does not count."""
        if not self._counts(policy) or not policy.enabled or policy.pods is None:
            return ()
        nodes = self._caches.nodes.store
        around = Surroundings(
            nodes=len(nodes),
            selected=self._tally(policy).total > 0 or any(policy.selects(node.labels) for node in nodes.list()),
            daemonsets=tuple(self._caches.driver_daemonsets(policy.namespace, policy.pods)),
            lost=self._rivals.lost(policy),
        )
        return tuple(findings(policy, around))

    def _counts(self, policy: Policy) -> bool:
        return policy.full_name not in self._policies.ignored

    def _tally(self, policy: Policy) -> Tally:
        return self._fleet.tally(policy.driver, policy.full_name)

    def _lists(self, policy: Policy, tally: Tally) -> dict[str, Any]:
        """What nodes do and wait for. Costs as much as there are nodes in progress or failed, at most once a second."""
        active = bounded(self._active(policy.driver, active_names(tally)))
        uids = {split_target(target)[0] for target in tally.targets}
        sets = (d for uid in uids if (d := self._caches.daemonset_by_uid(uid)))
        known = {d.uid: (d.name, newest[0]) for d in sets if (newest := self._caches.revisions(d).newest)}
        found = {
            "targets": targets(tally, known),
            "active": active,
            "failed": list(self._failed(policy.driver, failed_names(tally))),
            "waitingFor": waiting_for(policy, tally, active),
        }
        return {key: value for key, value in found.items() if value}

    def _active(self, driver: str, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        for name, record in self._records(driver, names):
            if record.in_progress:
                yield active_item(name, record, self._decisions.get((driver, name)))

    def _failed(self, driver: str, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        for name, record in self._records(driver, names):
            if record.state is State.UPGRADE_FAILED:
                yield failed_item(name, record)

    def _records(self, driver: str, names: Iterable[str]) -> Iterator[tuple[str, Record]]:
        keys = keys_for(driver, self._domain)
        for name in names:
            node = self._caches.nodes.store.get(name)
            record = decode_record(node.annotations.get(keys.record)) if node else None
            if record is not None:
                yield name, record
