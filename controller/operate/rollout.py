"""The one task that gives slots away: serial over all policies, on counts that hold every own write (design, section 4).

Each pass first brings the counts up to date with the caches, then admits, then writes the grants. A grant counts as in
progress from the moment it is decided until its answer is in the cache, so two passes never give the same slot twice;
and a failure counts against the threshold from the moment it is decided, whatever becomes of its answer.
Where no answer comes, the grant may still be carried out later: the slot stays taken until the server must have dropped
the request, and the node is read before it counts as free again. A node whose grant is refused steps aside
(:mod:`controller.operate.holdback`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from controller.api.node import Node
from controller.kube.client import TIMEOUT, Client
from controller.kube.errors import Conflict, KubeError, NetworkError, ServerError
from controller.kube.resources import NODES
from controller.kube.store import Store
from controller.logs import reconcile_scope
from controller.operate.answers import error_kind, explained
from controller.operate.effects import Effects
from controller.operate.holdback import HoldBack
from controller.operate.policies import Policies
from controller.operate.views import Views
from controller.upgrade.actions import PatchNode
from controller.upgrade.admission import admit, grants_new, why_waiting
from controller.upgrade.decide import grant, grant_validation
from controller.upgrade.facts import Ask, Facts, facts_of, failing
from controller.upgrade.fleet import Fleet
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Record
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State

UNKNOWN_OUTCOME_SECONDS = TIMEOUT + 5
"""How long a request without an answer may still be carried out: the server drops it after its own time-out."""

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
        # Nodes whose counts are behind the caches.
        self._stale: set[str] = set()
        # Grants on their way, by driver and node: they count as in progress whatever the cache says.
        self._granting: set[tuple[str, str]] = set()
        # Failures on their way: the version of the node that each was decided on, and the record that was sent.
        self._failing: dict[tuple[str, str], tuple[str, Record]] = {}
        self._poke = asyncio.Event()
        self._held_back = HoldBack(self.touch, self._poke.set)
        effects.before_transition(self._deciding)

    def _deciding(self, view: NodeView, patch: PatchNode) -> None:
        """Count a failure from the moment it is decided, so that no grant slips past the threshold while it is written."""
        if patch.state is State.UPGRADE_FAILED and patch.record is not None:
            self._failing[view.keys.driver, view.node.name] = (view.node.metadata.resource_version, patch.record)
            self.refresh(view.keys.driver, view.node.name, view)

    def _counted(self, view: NodeView) -> Facts:
        """A node's facts, failed already where its failure is on the way, blocked while its grant is refused.

        Any newer version breaks the precondition of that write: it was carried out, and is seen, or never will be.
        """
        facts, key = facts_of(view, self._client.now()), (view.keys.driver, view.node.name)
        version, record = self._failing.get(key, ("", None))
        if record is not None and version == view.node.metadata.resource_version:
            return failing(facts, record)
        self._failing.pop(key, None)
        if facts.ask is Ask.GRANT and self._held_back.stands_aside(key) and (why := self._held_back.why(key)):
            return replace(facts, blocked=facts.blocked or why[0])
        return facts

    def touch(self, node: str) -> None:
        """Something about a node changed: count it anew before the next grant."""
        self._stale.add(node)
        self._poke.set()

    def poke(self) -> None:
        """Something other than a node changed: look whether anything can be granted."""
        self._poke.set()

    def refresh(self, driver: str, node: str, view: NodeView | None) -> None:
        """Count a node by a fresh view."""
        if (driver, node) in self._granting:
            return
        if view is None:
            self._failing.pop((driver, node), None)
            self._held_back.forget((driver, node))
        facts = self._counted(view) if view else None
        if self.fleet.update(driver, node, facts):
            self._poke.set()

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
                        self._pass(tasks)
        finally:
            self._held_back.close()

    def _pass(self, tasks: asyncio.TaskGroup) -> None:
        self._bring_up_to_date()
        if self._held_back.resting:
            return
        for driver, policy, names, validating in self._admissions():
            for name in names:
                self._reserve(driver, name)
                tasks.create_task(self._grant(driver, policy, name, validating), name=f"grant of {name}")

    def _bring_up_to_date(self) -> None:
        stale, self._stale = self._stale, set()
        for name in stale:
            try:
                self._count(name)
            except Exception:  # a defect met on one node must not stop the rollout of all others
                logger.exception("node not counted", extra={"node": name})

    def _count(self, name: str) -> None:
        node = self._nodes.get(name)
        drivers = self._views.drivers_of(node) if node else []
        for driver in drivers:
            self.refresh(driver, name, self._views.view(node, driver) if node else None)
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
        try:
            await self._write(driver, policy, name, validating)
        except (NetworkError, ServerError) as error:
            logger.warning("grant without an answer", extra={"node": name, "driver": driver, "error": str(error)})
            self._refused(driver, name, error)
            # By this reason the server itself tells that it, or a webhook it asked, gave up: nothing is on the way any more.
            over = isinstance(error, ServerError) and error.reason == "InternalError"
            await (self._read_again(name) if over else self._settled(name))
        except Conflict as error:
            # The cache is behind, and a watch that hangs would leave it so.
            logger.info("grant not written", extra={"node": name, "driver": driver, "error": str(error)})
            self._refused(driver, name, error)
            await self._read_again(name)
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

    async def _settled(self, name: str) -> None:
        """Keep the slot until the unanswered write can no longer happen, then read what became of the node."""
        changed = asyncio.Event()

        def look(old: Node | None, _new: Node | None) -> None:
            # Any newer version breaks the write's precondition: it was carried out, or never will be.
            if old is not None and old.name == name:
                changed.set()

        stop = self._nodes.add_handler(look)
        try:
            async with asyncio.timeout(UNKNOWN_OUTCOME_SECONDS):
                await changed.wait()
                return
        except TimeoutError:
            pass
        finally:
            stop()
        await self._read_again(name)

    async def _read_again(self, name: str) -> None:
        try:
            node = await self._client.look_up(NODES, name)
        except KubeError as error:
            logger.warning("node could not be read again", extra={"node": name, "error": str(error)})
        else:
            if node is not None:
                self._nodes.observe_write(node)
