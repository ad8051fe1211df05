"""The one task that gives slots away: serial over all policies, on counts that hold every own write (design, section 4).

Each pass first brings the counts up to date with the caches, then admits in the same breath, then writes the grants. A
grant counts as in progress from the moment it is decided until its answer is in the cache, so two passes never give the
same slot twice; and a failure counts against the threshold from the moment it is decided, whatever becomes of its answer.
Where no answer comes, the grant may still be carried out later: the slot stays taken until the server must have dropped
the request, and the node is read before it counts as free again. A node whose grant is refused steps aside
(:mod:`controller.operate.holdback`).
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable

from msgspec.structs import replace

from controller.api.node import Node
from controller.kube.client import TIMEOUT, Client
from controller.kube.errors import Conflict, KubeError, NetworkError, NotFound, ServerError
from controller.kube.store import Store
from controller.logs import reconcile_scope
from controller.operate.answers import error_kind, explained
from controller.operate.effects import Effects
from controller.operate.holdback import HoldBack
from controller.operate.policies import Policies
from controller.operate.reread import read_again
from controller.operate.views import Views
from controller.upgrade.actions import Decision, PatchNode
from controller.upgrade.admission import admit, grants_new, why_waiting
from controller.upgrade.decide import grant, grant_validation
from controller.upgrade.facts import Ask, Facts, Unlisted, facts_of, facts_unlisted, failing
from controller.upgrade.fleet import Fleet
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Record
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State

UNKNOWN_OUTCOME_SECONDS = TIMEOUT + 5
"""How long a request without an answer may still be carried out: the server drops it after its own time-out."""
SLICE = 64
"""Nodes that are counted before others have their turn, which is some milliseconds: the Lease must be renewed meanwhile."""

logger = logging.getLogger(__name__)


class Rollout:
    """Keeps the fleet's counts and admits.

    Args:
        client: For server time and re-reads.
        nodes: The cache of nodes.
        views: Makes the core's input.
        policies: The policies in force.
        effects: Writes the grants.
        granted: Called with a node's name when its grant was written, or was not.
        failed: Called with the kind of error that a grant ended in, as the worker's.
    """

    def __init__(
        self,
        client: Client,
        nodes: Store[Node],
        views: Views,
        policies: Policies,
        effects: Effects,
        granted: Callable[[str], None],
        failed: Callable[[str], None],
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._views = views
        self._policies = policies
        self._effects = effects
        self._granted = granted
        self._failed = failed
        self.fleet = Fleet()
        # Nodes whose counts are behind the caches, each with those of its drivers that have been counted since.
        self._stale: dict[str, set[str]] = {}
        # Grants on their way, by driver and node: they count as in progress whatever the cache says.
        self._granting: set[tuple[str, str]] = set()
        # Failures on their way: the version of the node that each was decided on, and the record that was sent.
        self._failing: dict[tuple[str, str], tuple[str, Record]] = {}
        # Nodes whose grant had no answer: set when anything newer than what it was decided on is seen.
        self._unanswered: dict[str, asyncio.Event] = {}
        self._poke = asyncio.Event()
        self._held_back = HoldBack(self.touch, self._poke.set)
        effects.before_transition(self._deciding)
        nodes.add_handler(self._node_seen)

    def _deciding(self, view: NodeView, patch: PatchNode) -> None:
        """Count a failure from the moment it is decided, so that no grant slips past the threshold while it is written."""
        if patch.state is State.UPGRADE_FAILED and patch.record is not None:
            self._failing[view.keys.driver, view.node.name] = (view.node.metadata.resource_version, patch.record)
            self.refresh(view.keys.driver, view.node.name, view)

    def _counted(self, key: tuple[str, str], seen: NodeView | Unlisted, decision: Decision | None) -> Facts:
        """A node's facts, failed already where its failure is on the way, blocked while its grant is refused.

        Any newer version breaks the precondition of that write: it was carried out, and is seen, or never will be.
        """
        now, view = self._client.now(), seen.half if isinstance(seen, Unlisted) else seen
        facts = facts_unlisted(seen, now) if isinstance(seen, Unlisted) else facts_of(seen, now, decision)
        version, record = self._failing.get(key, ("", None))
        if record is not None and version == view.node.metadata.resource_version:
            return failing(facts, record)
        self._failing.pop(key, None)
        if facts.ask is Ask.NOTHING and seen is view:
            self._held_back.forget(key)
        if facts.ask is Ask.GRANT and self._held_back.stands_aside(key) and (why := self._held_back.why(key)):
            return replace(facts, blocked=facts.blocked or why[0])
        return facts

    def touch(self, node: str) -> None:
        """Something about a node changed: count it anew before the next grant."""
        self._stale[node] = set()
        self._poke.set()

    def poke(self) -> None:
        """Something other than a node changed: look whether anything can be granted."""
        self._poke.set()

    def refresh(self, driver: str, node: str, seen: NodeView | Unlisted | None, decision: Decision | None = None) -> None:
        """Count a node by a fresh look at it.

        Args:
            driver: The driver that was looked at.
            node: The node's name.
            seen: What was seen; None where the node is none of the driver's business.
            decision: What was decided on that, where it was decided.
        """
        key = driver, node
        if node in self._stale:
            self._stale[node].add(driver)
        if key in self._granting:
            return
        if seen is None:
            self._failing.pop(key, None)
            self._held_back.forget(key)
        if self.fleet.update(driver, node, self._counted(key, seen, decision) if seen else None):
            self._poke.set()

    def looked_at(self, node: str) -> None:
        """A look at a node is over: where it refreshed every driver since the last change, nothing is left to be counted."""
        counted = self._stale.get(node)
        if counted is None or not counted.issuperset(drivers := self._drivers(node)):
            return
        self._forget_all_but(drivers, node)
        del self._stale[node]

    def why_waiting(self, driver: str, node: str) -> tuple[Reason, str] | None:
        """Say why a node has not been granted; None where it does not wait for that."""
        facts = self.fleet.facts(driver, node)
        policy = self._policies.get(facts.policy) if facts else None
        if facts is not None and facts.ask is not Ask.NOTHING and (refused := self._held_back.why((driver, node))):
            return refused
        return why_waiting(policy, self.fleet.tally(driver, policy.full_name), facts) if facts and policy else None

    async def run(self) -> None:
        """Admit whenever something changed, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._poke.wait()
                    self._poke.clear()
                    with reconcile_scope("rollout"):
                        await self._pass(tasks)
        finally:
            self._held_back.close()

    async def _pass(self, tasks: asyncio.TaskGroup) -> None:
        await self._bring_up_to_date()
        if self._held_back.resting:
            return
        for driver, policy, names, validating in self._admissions():
            for name in names:
                self._reserve(driver, name)
                tasks.create_task(self._grant(driver, policy, name, validating), name=f"grant of {name}")

    async def _bring_up_to_date(self) -> None:
        """Count, a slice at a time, until nothing is stale.

        Workers look at the same nodes, longest stale first; here it is the other way round, so few are counted twice.
        """
        while self._stale:
            for _ in range(min(SLICE, len(self._stale))):
                name, _ = self._stale.popitem()
                try:
                    self._count(name)
                except Exception:  # a defect met on one node must not stop the rollout of all others
                    logger.exception("node not counted", extra={"node": name})
            if self._stale:
                await asyncio.sleep(0)

    def _drivers(self, name: str) -> list[str]:
        node = self._nodes.get(name)
        return self._views.drivers_of(node) if node else []

    def _count(self, name: str) -> None:
        node, drivers = self._nodes.get(name), self._drivers(name)
        for driver in drivers:
            self.refresh(driver, name, self._views.look(node, driver) if node else None)
        self._forget_all_but(drivers, name)

    def _forget_all_but(self, drivers: Collection[str], name: str) -> None:
        for driver in self.fleet.drivers_of(name):
            if driver not in drivers:
                self.refresh(driver, name, None)

    def _admissions(self) -> Iterable[tuple[str, Policy, tuple[str, ...], bool]]:
        """Decide over all policies, drivers in their order; a node is given to one driver at a time."""
        taken: set[str] = {node for _, node in self._granting} | self._held_back.nodes()
        for driver in sorted(self._policies.drivers(), key=self._views.order):
            for policy in self._policies.of_driver(driver):
                grants = admit(policy, self.fleet.tally(driver, policy.full_name), taken)
                taken.update(grants.validations, grants.upgrades)
                if grants.validations:
                    yield driver, policy, grants.validations, True
                if grants.upgrades:
                    yield driver, policy, grants.upgrades, False

    def _reserve(self, driver: str, name: str) -> None:
        facts = self.fleet.facts(driver, name)
        self._granting.add((driver, name))
        if facts is not None:
            taken = replace(facts, in_progress=True, available=False, ask=Ask.NOTHING, blocked=None)
            self.fleet.update(driver, name, taken)

    async def _grant(self, driver: str, policy: Policy, name: str, validating: bool) -> None:
        held = self._nodes.get(name)
        version = held.metadata.resource_version if held else ""
        try:
            await self._write(driver, policy, name, validating)
        except (NetworkError, ServerError) as error:
            logger.warning("grant without an answer", extra={"node": name, "driver": driver, "error": str(error)})
            self._refused(driver, name, error)
            # By this reason the server itself tells that it, or a webhook it asked, gave up: nothing is on the way any more.
            over = isinstance(error, ServerError) and error.reason == "InternalError"
            if not over:
                await self._settled(name, version)
            elif not self._seen_newer(name, version):
                await read_again(self._client, self._nodes, name)
        except (Conflict, NotFound) as error:
            # The cache is behind, and a watch that hangs would leave it so.
            logger.info("grant not written", extra={"node": name, "driver": driver, "error": str(error)})
            self._refused(driver, name, error)
            if not self._seen_newer(name, version):
                await read_again(self._client, self._nodes, name)
        except KubeError as error:
            fields = {"node": name, "driver": driver, "error": explained(error, "patch on nodes")}
            logger.warning("grant not written", extra=fields)
            self._refused(driver, name, error)
        except Exception as error:  # a defect met on one node must not stop the rollout of all others
            logger.exception("grant crashed", extra={"node": name, "driver": driver})
            self._refused(driver, name, error)
        else:
            self._held_back.forget((driver, name))
        finally:
            self._granting.discard((driver, name))
            self.touch(name)
            self._granted(name)

    def _refused(self, driver: str, name: str, error: Exception) -> None:
        self._held_back.refused((driver, name), error)
        self._failed(error_kind(error))

    async def _write(self, driver: str, policy: Policy, name: str, validating: bool) -> None:
        node = self._nodes.get(name)
        view = self._views.view(node, driver) if node else None
        if view is None or view.policy is None or view.policy.full_name != policy.full_name:
            return
        ask = facts_of(view, self._client.now()).ask
        if ask is not (Ask.VALIDATION if validating else Ask.GRANT):
            return
        if not validating and not grants_new(view.policy):
            return
        decision = (grant_validation if validating else grant)(view, view.policy, self._client.now())
        if decision.patch is not None:
            await self._effects.patch_node(view, decision.patch)

    async def _settled(self, name: str, version: str) -> None:
        """Keep the slot until the unanswered write can no longer happen, then read what became of the node."""
        if self._seen_newer(name, version):
            return
        seen = self._unanswered[name] = asyncio.Event()
        try:
            async with asyncio.timeout(UNKNOWN_OUTCOME_SECONDS):
                await seen.wait()
                return
        except TimeoutError:
            pass
        finally:
            del self._unanswered[name]
        await read_again(self._client, self._nodes, name)

    def _seen_newer(self, name: str, version: str) -> bool:
        """Whether a version was seen that breaks the precondition of a write: it was carried out, or never will be."""
        held = self._nodes.get(name)
        return held is None or held.metadata.resource_version != version

    def _node_seen(self, old: Node | None, _new: Node | None) -> None:
        if old is not None and (seen := self._unanswered.get(old.name)):
            seen.set()
