"""What is going on, from outside: nodes and budgets by watches, and what the controller says in its log.

The state of a node is its label. Why it does not move is what the controller logged last (`node waits`) about the state
that the node is in. Everything that the summary tells is counted here as it happens: nothing is made up afterwards.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from controller.upgrade.keys import keys_for
from controller.upgrade.states import IN_PROGRESS, State, parse_state
from tools.controlplane.api import Api
from tools.controlplane.resources import NODES, POD_DISRUPTION_BUDGETS, Object
from tools.demo.stage import POLICY

KEYS = keys_for(POLICY)
ZONE = "topology.kubernetes.io/zone"
NODE_WAITS = "node waits"


@dataclass
class NodeCell:
    """One node."""

    name: str
    zone: str
    state: State = State.UNKNOWN
    cordoned: bool = False
    safe_load: bool = False
    """Its driver waits to be loaded."""
    started: float | None = None
    """When it was granted, in seconds of the rollout."""
    finished: float | None = None
    reason: str = ""
    """Why it does not move, as the controller said; empty where it moves."""
    reason_state: State | None = None

    @property
    def blocked_by(self) -> str:
        """The reason, if it is about the state that the node is in."""
        return self.reason if self.reason_state is self.state else ""

    @property
    def seconds(self) -> float | None:
        """From grant to end."""
        return None if self.started is None or self.finished is None else self.finished - self.started


@dataclass
class Budget:
    """One PodDisruptionBudget: what its status says now, and the worst that it said."""

    name: str
    allowed: int = 0
    healthy: int = 0
    needed: int = 0
    lowest: int = 1 << 30

    def see(self, status: Mapping[str, Any]) -> None:
        """Takes over a status."""
        self.allowed, self.healthy = status.get("disruptionsAllowed", 0), status.get("currentHealthy", 0)
        self.needed = status.get("desiredHealthy", 0)
        self.lowest = min(self.lowest, self.healthy)


@dataclass
class Fleet:
    """Everything that is shown, kept up to date by `follow`; `changed` is called after every change."""

    limit: int
    changed: Callable[[NodeCell], None] = lambda _cell: None
    nodes: dict[str, NodeCell] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    held: dict[str, set[str]] = field(default_factory=dict)
    """By reason: nodes that the controller ever gave it for."""
    most_out: int = 0
    """Most nodes that were cordoned at once."""
    most_in_progress: int = 0
    began: float | None = None
    """When the version changed, by the monotonic clock."""
    ended: float | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """All nodes are done and schedulable again, or one has failed."""
    _version: str = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the version changed."""
        return 0.0 if self.began is None else (self.ended or monotonic()) - self.began

    @property
    def states(self) -> Counter[State]:
        """Nodes by state."""
        return Counter(cell.state for cell in self.nodes.values())

    @property
    def slots(self) -> int:
        """Nodes being upgraded."""
        return sum(cell.state in IN_PROGRESS for cell in self.nodes.values())

    @property
    def upgraded(self) -> int:
        """Nodes that were granted and are done."""
        return sum(cell.finished is not None for cell in self.nodes.values())

    @property
    def failed(self) -> list[str]:
        """Names of nodes that failed."""
        return [cell.name for cell in self.nodes.values() if cell.state is State.UPGRADE_FAILED]

    def begin(self) -> None:
        """The version changes now."""
        self.began = monotonic()

    async def look(self, api: Api) -> None:
        """Learns which nodes there are, before anything begins."""
        listing = await api.request("GET", NODES.path())
        for node in listing["items"]:
            self.see_node(node)
        self._version = str(listing["metadata"]["resourceVersion"])

    async def follow(self, api: Api) -> None:
        """Watches until cancelled, from where `look` looked."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_nodes(api))
            group.create_task(self._follow_budgets(api))

    def hear(self, line: Mapping[str, Any]) -> None:
        """Takes a line of the controller's log."""
        cell = self.nodes.get(str(line.get("node", "")))
        if cell is None or line.get("msg") != NODE_WAITS:
            return
        cell.reason = str(line.get("reason", ""))
        self.held.setdefault(cell.reason, set()).add(cell.name)
        state = line.get("state")
        cell.reason_state = State.UNKNOWN if state == "unknown" else parse_state(state)
        if cell.blocked_by:
            self.changed(cell)

    def see_node(self, node: Object) -> None:
        """Takes over a node."""
        metadata = node["metadata"]
        labels = metadata.get("labels", {})
        cell = self.nodes.setdefault(metadata["name"], NodeCell(metadata["name"], labels.get(ZONE, "")))
        before = (cell.state, cell.cordoned, cell.safe_load)
        cell.state = parse_state(labels.get(KEYS.state)) or State.UNKNOWN
        cell.cordoned = bool(node["spec"].get("unschedulable"))
        cell.safe_load = KEYS.safe_load in metadata.get("annotations", {})
        if before != (cell.state, cell.cordoned, cell.safe_load):
            self._count(cell)
            self.changed(cell)

    def _count(self, cell: NodeCell) -> None:
        self.most_out = max(self.most_out, sum(each.cordoned for each in self.nodes.values()))
        self.most_in_progress = max(self.most_in_progress, self.slots)
        if self.began is None:
            return
        if cell.state in IN_PROGRESS and cell.started is None:
            cell.started = self.elapsed
        if cell.state is State.UPGRADE_DONE and cell.started is not None and not cell.cordoned and cell.finished is None:
            cell.finished = self.elapsed
        if self.failed or self.upgraded == len(self.nodes):
            self.ended = self.ended or monotonic()
            self.finished.set()

    async def _follow_nodes(self, api: Api) -> None:
        async for kind, node in api.watch(NODES, version=self._version):
            if kind != "DELETED":
                self.see_node(node)

    async def _follow_budgets(self, api: Api) -> None:
        async for budgets in api.follow(POD_DISRUPTION_BUDGETS, "default"):
            for budget in budgets.values():
                name = budget["metadata"]["name"]
                self.budgets.setdefault(name, Budget(name)).see(budget.get("status", {}))
