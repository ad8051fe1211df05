"""Writes the policies' status: on change only, and each at most once a second."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol

import msgspec

from controller.api.policy import PolicyObject
from controller.kube.client import Client
from controller.kube.errors import KubeError
from controller.operate.answers import explained
from controller.operate.caches import Caches, policy_resource
from controller.operate.events import Events
from controller.operate.options import Options
from controller.operate.policies import Policies
from controller.operate.rollout import Rollout
from controller.upgrade.actions import Decision
from controller.upgrade.assign import contenders
from controller.upgrade.conditions import Finding, conditions, ignored, status_of
from controller.upgrade.fleet import Tally
from controller.upgrade.keys import keys_for
from controller.upgrade.pace import Progress, is_under_way, progress
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Record, decode_record
from controller.upgrade.revision import split_target
from controller.upgrade.states import State
from controller.upgrade.summary import (
    active_item,
    active_names,
    bounded,
    failed_item,
    failed_names,
    stamp,
    targets,
    waiting_for,
)

INTERVAL = 1.0
RETRY_SECONDS = 15.0
"""How soon a refused write is tried again where nothing else changes."""
ON_DELETE = "OnDelete"

logger = logging.getLogger(__name__)


class StatusMetrics(Protocol):
    """What the writer tells."""

    def status(self, outcome: str) -> None:
        """One write was answered: written or refused."""


class StatusWriter:
    """Tells every policy of our kinds how it stands."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        policies: Policies,
        rollout: Rollout,
        decisions: Mapping[tuple[str, str], Decision],
        events: Events,
        options: Options,
        metrics: StatusMetrics,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._caches = caches
        self._policies = policies
        self._rollout = rollout
        self._decisions = decisions
        self._events = events
        self._namespaces = options.driver_namespaces
        self._domain = options.domain
        self._poke = asyncio.Event()
        # What is remembered of policies is kept by uid: one that is made anew under its name is told everything again.
        # What each policy was last told, so that a write that changes nothing is not sent while its echo is on the way.
        self._told: dict[str, Mapping[str, Any]] = {}
        # Why a policy's status could not be written, so that a refusal that only repeats is not logged again.
        self._refused: dict[str, str] = {}
        # What was last found about each foreign policy, so that it is logged once.
        self._said: dict[str, tuple[Finding, ...]] = {}
        # The conditions of each policy that Events were last told of.
        self._heard: dict[str, list[dict[str, Any]]] = {}
        # Since when each policy has had a rollout under way, as far as we have seen it.
        self._began: dict[str, float] = {}
        # When each estimate passes: it must not stand there as a promise that was not kept.
        self._passes: dict[str, float] = {}

    def looked_at(self, driver: str) -> None:
        """A node of a driver was counted: note when a rollout begins, which may be over before the next write."""
        for policy in self._policies.of_driver(driver):
            if not is_under_way(policy, self._rollout.fleet.tally(driver, policy.full_name)):
                self._began.pop(policy.uid, None)
            elif policy.uid not in self._began:
                self._began[policy.uid] = self._client.now()
        self.poke()

    def poke(self) -> None:
        """Something changed that a status may tell."""
        self._poke.set()

    async def run(self) -> None:
        """Write until cancelled. One policy that cannot be written does not delay the others."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_estimate_passes()):
                    await self._poke.wait()
            self._poke.clear()
            present = (*self._policies.all(), *self._policies.ignored.values())
            self._forget_all_but(present)
            for policy in present:
                try:
                    await self._tell(policy)
                except Exception:  # a defect met on one policy must not end the telling of all others
                    logger.exception("status crashed", extra={"policy": policy.full_name})
            await asyncio.sleep(INTERVAL)

    async def _tell(self, policy: Policy) -> None:
        if policy.source.ours:
            await self._write(policy)
        else:
            self._say(policy)

    def _forget_all_but(self, present: Iterable[Policy]) -> None:
        uids = {policy.uid for policy in present}
        for known in (self._told, self._refused, self._said, self._heard, self._began, self._passes):
            for uid in known.keys() - uids:
                del known[uid]

    def _until_estimate_passes(self) -> float | None:
        first = min(self._passes.values(), default=None)
        return None if first is None else max(0.0, first - self._client.now())

    def _say(self, policy: Policy) -> None:
        """Tell by log and Events what a foreign policy's status would tell: nothing else is written there."""
        counts = policy.full_name not in self._policies.ignored
        tally = self._rollout.fleet.tally(policy.driver, policy.full_name)
        found = tuple(self._findings(policy, tally.total)) if counts else ()
        for finding in found:
            if finding not in self._said.get(policy.uid, ()):
                extra = {"policy": policy.full_name, "reason": finding.reason, "detail": finding.message}
                logger.warning("policy hindered", extra=extra)
        self._said[policy.uid] = found
        judged = conditions(policy, tally, found) if counts else ignored(self._namespaces)
        obj = self._object(policy)
        if obj is not None:
            self._announce(policy, obj, [msgspec.to_builtins(c) for c in judged], [])

    def _announce(
        self, policy: Policy, obj: PolicyObject, found: list[dict[str, Any]], earlier: list[Mapping[str, Any]]
    ) -> None:
        """Tell by Events which conditions changed; ``earlier`` are those that somebody was told of before us."""
        self._events.conditions(policy, obj, self._heard.get(policy.uid, earlier), found)
        self._heard[policy.uid] = found

    def _object(self, policy: Policy) -> PolicyObject | None:
        """Return the custom resource; a cluster-scoped one has no namespace, whatever namespace it counts in."""
        store = self._caches.policies[policy.source].store
        return store.get(f"{policy.namespace}/{policy.name}" if policy.source.namespaced else policy.name)

    async def _write(self, policy: Policy) -> None:
        obj = self._object(policy)
        if obj is None:
            return
        status = self._status(policy, obj)
        self._announce(policy, obj, status["conditions"], (obj.status or {}).get("conditions") or [])
        if status == self._told.get(policy.uid, obj.status):
            return
        try:
            await self._client.patch(
                policy_resource(policy.source),
                policy.name,
                {"status": _replacing(status, obj.status or {})},
                namespace=policy.namespace,
                subresource="status",
            )
        except KubeError as error:
            self._metrics.status("refused")
            text = explained(error, f"patch on {policy.source.plural}/status")
            if self._refused.get(policy.uid) != text:
                logger.warning("status not written", extra={"policy": policy.full_name, "error": text})
            self._refused[policy.uid] = text
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._poke.set)
        else:
            self._metrics.status("written")
            self._refused.pop(policy.uid, None)
            self._told[policy.uid] = status

    def _status(self, policy: Policy, obj: PolicyObject) -> dict[str, Any]:
        earlier = self._told.get(policy.uid, obj.status) or {}
        if policy.full_name in self._policies.ignored:
            found = [msgspec.to_builtins(c) for c in ignored(self._namespaces)]
            status: dict[str, Any] = {
                "observedGeneration": policy.generation,
                "state": str(Reason.NAMESPACE_NOT_ALLOWED),
                "conditions": found,
            }
        else:
            tally = self._rollout.fleet.tally(policy.driver, policy.full_name)
            status = status_of(policy, tally, self._findings(policy, tally.total))
            status |= self._lists(policy, tally)
            status |= self._times(policy, tally, status, earlier)
        _keep_times(status["conditions"], earlier.get("conditions") or [], self._client.now(), policy.generation)
        return status

    def _lists(self, policy: Policy, tally: Tally) -> dict[str, Any]:
        """What nodes do and wait for. Costs as much as there are nodes in progress or failed, at most once a second."""
        active = bounded(self._active(policy.driver, active_names(tally)))
        failed = bounded(self._failed(policy.driver, failed_names(tally)))
        uids = {split_target(target)[0] for target in tally.targets}
        sets = (d for uid in uids if (d := self._caches.daemonset_by_uid(uid)))
        known = {d.uid: (d.name, newest[0]) for d in sets if (newest := self._caches.revisions(d).newest)}
        found = {
            "targets": targets(tally, known),
            "active": active,
            "failed": failed,
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

    def _times(self, policy: Policy, tally: Tally, status: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
        """When the rollout began and when it will end. What was told last is where it began, also after a restart."""
        now, uid = self._client.now(), policy.uid
        started, told = _seconds(earlier.get("startedAt")), _seconds(earlier.get("estimatedCompletion"))
        if started is not None and not _versions(status) <= _versions(earlier):
            self._began[uid], started = now, None
        before = Progress(self._began.get(uid, now)) if started is None else Progress(started, told)
        found = progress(policy, tally, before, now)
        self._passes.pop(uid, None)
        if found is None:
            return {}
        if found.completion is not None:
            self._passes[uid] = found.completion
        times = {"startedAt": stamp(found.started), "estimatedCompletion": stamp(found.completion)}
        return {key: value for key, value in times.items() if value}

    def _findings(self, policy: Policy, total: int) -> Iterator[Finding]:
        """What a person who wrote this policy would want to be told first."""
        if not policy.enabled or policy.pods is None:
            return
        daemonsets = self._caches.driver_daemonsets(policy.namespace, policy.pods)
        nodes = self._caches.nodes.store.list()
        selected = [node for node in nodes if policy.selects(node.labels)] if not total else []
        if not total and not selected:
            text = f"nodeSelector {policy.nodes} matches none of {len(nodes)} nodes: compare it with the nodes' labels"
            yield Finding("NoNodesSelected", text)
        elif not daemonsets:
            text = f"podSelector {policy.pods} matches the pods of no DaemonSet in namespace {policy.namespace}"
            yield Finding("NoDaemonSet", f"{text}: compare it with the template's labels")
        yield from _not_on_delete((d.name, d.spec.update_strategy.type) for d in daemonsets)
        yield from self._conflicts(policy)

    def _conflicts(self, policy: Policy) -> Iterator[Finding]:
        rivals = self._policies.of_driver(policy.driver)
        if len(rivals) < 2:  # noqa: PLR2004 - a conflict takes two
            return
        lost = [
            (node.name, held[0].full_name)
            for node in self._caches.nodes.store.list()
            if policy in (held := contenders(node, rivals)) and _takes(held[0], policy)
        ]
        if lost:
            text = f"{len(lost)} nodes, such as {lost[0][0]}, belong to {lost[0][1]}, which is older: narrow nodeSelector"
            yield Finding("PolicyConflict", text)


def _takes(winner: Policy, loser: Policy) -> bool:
    """Whether one policy has another's node by age; that a fallback gives way is no conflict."""
    return winner.full_name != loser.full_name and winner.fallback == loser.fallback


def _not_on_delete(strategies: Iterator[tuple[str, str]]) -> Iterator[Finding]:
    for name, strategy in strategies:
        if strategy != ON_DELETE:
            text = (
                f"DaemonSet {name} has updateStrategy {strategy}: its controller replaces driver pods without a drain; "
                "set spec.updateStrategy.type to OnDelete"
            )
            yield Finding("DaemonSetNotOnDelete", text)


def _keep_times(conditions: list[dict[str, Any]], earlier: list[Mapping[str, Any]], now: float, generation: int) -> None:
    """Give each condition the time of its last transition, and the generation that it was judged for."""
    before = {c.get("type"): c for c in earlier}
    for condition in conditions:
        last = before.get(condition["type"], {})
        same = last.get("status") == condition["status"]
        condition["lastTransitionTime"] = last.get("lastTransitionTime", stamp(now)) if same else stamp(now)
        condition["observedGeneration"] = generation


def _versions(status: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Return the driver versions that a status is about: where there is a new one, a new rollout begins."""
    return {(str(t.get("uid")), int(t.get("revision", 0))) for t in status.get("targets") or ()}


def _seconds(text: object) -> float | None:
    """Read a time that we wrote; what a person may have made of it is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _replacing(status: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Return a merge patch that leaves nothing of the old maps behind: keys that are gone are set to null."""
    patch: dict[str, Any] = {key: None for key in old if key not in status}
    for key, value in status.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            patch[key] = {**{k: None for k in before if k not in value}, **value}
        else:
            patch[key] = value
    return patch
