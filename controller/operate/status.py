"""Writes the policies' status: on change only, and each at most once a second.

The answer to each write enters the cache, so the next one clears exactly what there is. Where an answer does not come, or
tells that more stands there than was known, the status is written again, whatever the cache says.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from controller.api.policy import PolicyObject
from controller.kube.client import Client
from controller.kube.errors import KubeError, NetworkError, ServerError
from controller.operate.answers import explained
from controller.operate.caches import Caches, policy_resource
from controller.operate.events import Events
from controller.operate.options import Options
from controller.operate.policies import Policies
from controller.operate.rollout import Rollout
from controller.operate.statusmaker import StatusMaker
from controller.upgrade.actions import Decision
from controller.upgrade.conditions import Finding
from controller.upgrade.policy import Policy
from controller.upgrade.rollouttimes import RolloutTimes
from controller.upgrade.statuspatch import Status, left_behind, replacing

INTERVAL = 1.0
RETRY_SECONDS = 15.0
"""How soon a refused write is tried again where nothing else changes."""

logger = logging.getLogger(__name__)


class StatusMetrics(Protocol):
    """What the writer tells."""

    def status(self, outcome: str) -> None:
        """One write was answered: written or refused."""


class _Memory:
    """What is remembered of one policy, by uid: one that is made anew under its name is told everything again."""

    def __init__(self) -> None:
        self.times = RolloutTimes()
        # What was last written, and what the server made of it.
        self.told: Status | None = None
        self.answer: Status = {}
        # Whether more may stand there than is known.
        self.unsure = False
        # What the last write left standing. What stays all the same is the server's own, and is not written against again.
        self._left: frozenset[str] = frozenset()
        # Why the status could not be written, so that a refusal that only repeats is not logged again.
        self.refused = ""
        # What was last found about a foreign policy, so that it is logged once.
        self.said: tuple[Finding, ...] = ()
        # The conditions that Events were last told of.
        self.heard: list[dict[str, Any]] | None = None

    def is_told(self, status: Status, held: Status) -> bool:
        """Whether a status stands there, or what the server makes of it; ``held`` is what the cache has."""
        return not self.unsure and (status == held or (status == self.told and held == self.answer))

    def written(self, status: Status, answer: Status) -> None:
        """A write was answered."""
        left = left_behind(status, answer)
        self.unsure = bool(left) and left != self._left
        self.told, self._left, self.refused = status, left, ""
        self.answer = status if answer == status else answer  # one copy where the server kept it as it was

    def failed(self, error: KubeError) -> None:
        """A write was refused, or what became of it is not known."""
        if isinstance(error, ServerError) or (isinstance(error, NetworkError) and error.maybe_applied):
            self.unsure = True


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
        self._fleet = rollout.fleet
        self._events = events
        self._maker = StatusMaker(caches, policies, rollout.fleet, decisions, options, client.now)
        self._poke = asyncio.Event()
        self._memories: dict[str, _Memory] = {}
        policies.on_change(self.poke)

    def looked_at(self, driver: str) -> None:
        """A node of a driver was counted."""
        for policy in self._policies.of_driver(driver):
            tally = self._fleet.tally(driver, policy.full_name)
            self._memory(policy).times.look(policy, tally, self._client.now())
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
        obj = self._policies.object_of(policy)
        if policy.source.ours and obj is not None:
            await self._write(policy, obj)
        elif not policy.source.ours:
            self._say(policy, obj)

    def _memory(self, policy: Policy) -> _Memory:
        return self._memories.setdefault(policy.uid, _Memory())

    def _forget_all_but(self, present: Iterable[Policy]) -> None:
        for uid in self._memories.keys() - {policy.uid for policy in present}:
            del self._memories[uid]

    def _until_estimate_passes(self) -> float | None:
        passes = (memory.times.passes for memory in self._memories.values())
        first = min((at for at in passes if at is not None), default=None)
        return None if first is None else max(0.0, first - self._client.now())

    def _say(self, policy: Policy, obj: PolicyObject | None) -> None:
        """Tell by log and Events what a foreign policy's status would tell: nothing else is written there."""
        memory, found = self._memory(policy), self._maker.findings(policy)
        for finding in found:
            if finding not in memory.said:
                extra = {"policy": policy.full_name, "reason": finding.reason, "detail": finding.message}
                logger.warning("policy hindered", extra=extra)
        memory.said = found
        if obj is not None:
            self._announce(policy, obj, [msgspec.to_builtins(c) for c in self._maker.judge(policy, found)], [])

    def _announce(self, policy: Policy, obj: PolicyObject, found: list[dict[str, Any]], earlier: list[Status]) -> None:
        """Tell by Events which conditions changed; ``earlier`` are those that somebody was told of before us."""
        memory = self._memory(policy)
        self._events.conditions(policy, obj, earlier if memory.heard is None else memory.heard, found)
        memory.heard = found

    async def _write(self, policy: Policy, obj: PolicyObject) -> None:
        memory, held = self._memory(policy), obj.status or {}
        status = self._maker.make(policy, memory.told or held, memory.times)
        self._announce(policy, obj, status["conditions"], held.get("conditions") or [])
        if memory.is_told(status, held):
            return
        try:
            answer = await self._client.patch(
                policy_resource(policy.source),
                policy.name,
                {"status": replacing(status, held)},
                namespace=policy.namespace,
                subresource="status",
            )
        except KubeError as error:
            self._metrics.status("refused")
            self._refused(policy, memory, error)
        else:
            self._metrics.status("written")
            memory.written(status, answer.status or {})
            self._caches.policies[policy.source].store.observe_write(answer)
            if memory.unsure:
                self.poke()

    def _refused(self, policy: Policy, memory: _Memory, error: KubeError) -> None:
        memory.failed(error)
        text = explained(error, f"patch on {policy.source.plural}/status")
        if memory.refused != text:
            logger.warning("status not written", extra={"policy": policy.full_name, "error": text})
        memory.refused = text
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._poke.set)
