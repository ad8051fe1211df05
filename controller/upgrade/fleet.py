"""All nodes of all drivers as the budget sees them: tallies kept up with every change, never recounted.

One change costs the same whether the cluster has ten nodes or ten thousand. Candidates are kept in order, grouped by what
decides whether a whole group may go: their target (a target may be halted), whether they retry (retries go on when it is),
and whether they are available now (those need room as well as a slot).
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from heapq import merge
from typing import TypeVar

from controller.upgrade.facts import RETRY, Ask, Facts
from controller.upgrade.reasons import PASSING, Reason
from controller.upgrade.states import IN_PROGRESS, State

LEFT_SOON = IN_PROGRESS | {State.UPGRADE_REQUIRED, State.UPGRADE_FAILED}
"""States that somebody waits for a node to leave: for these it is known since when each node is there."""
Place = tuple[int, str]
"""Rank and node name: the order of candidates."""
Group = tuple[str, bool, bool]
"""Target, exempt from a halt, available now."""

T = TypeVar("T")
P = TypeVar("P", Place, tuple[float, str])


class Tally:
    """The counts of one policy for one driver."""

    def __init__(self) -> None:
        self.total = 0
        self.in_progress = 0
        self.unavailable = 0
        self.states: Counter[State] = Counter()
        self.blocked: Counter[Reason] = Counter()
        # Of these, nodes that are to be upgraded and will not be while that lasts.
        self.stuck: Counter[Reason] = Counter()
        self.failures: Counter[str] = Counter()
        self.targets: Counter[str] = Counter()
        self.validations: list[Place] = []
        self.groups: dict[Group, list[Place]] = {}
        # How many nodes run their target, by target.
        self.current: Counter[str] = Counter()
        # Nodes that something of their own holds where they are, by what.
        self.held: dict[Reason, list[Place]] = {}
        # When each node that is done became so, in order.
        self.finished: list[tuple[float, str]] = []
        # Since when nodes are in a state that they are meant to leave, by state and node.
        self.since: dict[State, dict[str, float]] = {}

    @property
    def empty(self) -> bool:
        """Whether no node counts here any more."""
        return not (self.total or self.in_progress or self.groups or self.validations or self.blocked)

    def candidates(self, halted: frozenset[str], most: int, *, room: bool) -> Iterator[tuple[Place, bool]]:
        """Yield at most ``most`` candidates of each group in order, each with whether it takes room.

        Groups that may not go are left out whole, so that a thousand halted nodes cost nothing.
        """
        runs = [
            [(place, available) for place in places[:most]]
            for (target, exempt, available), places in self.groups.items()
            if (exempt or target not in halted) and (room or not available)
        ]
        return iter(merge(*runs))

    def waiting(self) -> int:
        """How many candidates wait for a grant."""
        return sum(len(places) for places in self.groups.values())

    def oldest(self, state: State) -> float | None:
        """When the node that has been in a state for longest entered it; None where none is. For :data:`LEFT_SOON` only."""
        return min(self.since.get(state, {}).values(), default=None)

    def count(self, name: str, facts: Facts, sign: int) -> None:
        """Add (1) or take away (-1) one node."""
        self.in_progress += sign * facts.in_progress
        if facts.managed:
            self.total += sign
            self.unavailable += sign * (not facts.available)
            _bump(self.states, facts.state, sign)
            self._count_targets(facts, sign)
        if facts.blocked:
            _bump(self.blocked, facts.blocked, sign)
            _keep_under(self.held, facts.blocked, (facts.rank, name), sign)
            if facts.outstanding and facts.blocked not in PASSING:
                _bump(self.stuck, facts.blocked, sign)
        if facts.managed and facts.state is State.UPGRADE_DONE:
            self._finish(name, facts, sign)
        if facts.since and facts.state in LEFT_SOON and (facts.managed or facts.in_progress):
            self._date(name, facts, sign)
        self._place(name, facts, sign)

    def _finish(self, name: str, facts: Facts, sign: int) -> None:
        if facts.target:
            _bump(self.current, facts.target, sign)
        if facts.since:
            _keep(self.finished, (facts.since, name), sign)

    def _date(self, name: str, facts: Facts, sign: int) -> None:
        dates = self.since.setdefault(facts.state, {})
        if sign > 0:
            dates[name] = facts.since
        else:
            del dates[name]
        if not dates:
            del self.since[facts.state]

    def _count_targets(self, facts: Facts, sign: int) -> None:
        if facts.target:
            _bump(self.targets, facts.target, sign)
        if facts.failed_target:
            _bump(self.failures, facts.failed_target, sign)

    def _place(self, name: str, facts: Facts, sign: int) -> None:
        place = (facts.rank, name)
        if facts.ask is Ask.VALIDATION:
            _keep(self.validations, place, sign)
        elif facts.ask is Ask.GRANT and facts.blocked is None:
            _keep_under(self.groups, group_of(facts), place, sign)


class Fleet:
    """Facts by driver and node, and the tallies that they make up."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, str], Facts] = {}
        self._tallies: dict[tuple[str, str], Tally] = {}
        # How many nodes count for each driver.
        self._drivers: Counter[str] = Counter()

    def update(self, driver: str, node: str, facts: Facts | None) -> bool:
        """Replace what is known of a node; None forgets it. Returns whether anything changed."""
        old = self._facts.get((driver, node))
        if old == facts:
            return False
        if old is not None:
            _bump(self._drivers, driver, -1)
            self._count(driver, node, old, -1)
        if facts is None:
            del self._facts[(driver, node)]
        else:
            self._facts[(driver, node)] = facts
            _bump(self._drivers, driver, 1)
            self._count(driver, node, facts, 1)
        return True

    def facts(self, driver: str, node: str) -> Facts | None:
        """Return what is known of a node."""
        return self._facts.get((driver, node))

    def members(self) -> Iterator[tuple[str, str, Facts]]:
        """Yield driver, node and facts of every node that counts."""
        for (driver, node), facts in self._facts.items():
            yield driver, node, facts

    def tally(self, driver: str, policy: str) -> Tally:
        """Return the counts of a policy; empty ones where it has no nodes."""
        return self._tallies.get((driver, policy)) or Tally()

    def tallies(self) -> Iterator[tuple[str, str, Tally]]:
        """Yield driver, policy and counts."""
        for (driver, policy), tally in self._tallies.items():
            yield driver, policy, tally

    def drivers_of(self, node: str) -> list[str]:
        """Return the drivers that a node counts for."""
        return [driver for driver in self._drivers if (driver, node) in self._facts]

    def _count(self, driver: str, node: str, facts: Facts, sign: int) -> None:
        key = (driver, facts.policy)
        tally = self._tallies.setdefault(key, Tally())
        tally.count(node, facts, sign)
        if tally.empty:
            del self._tallies[key]


def group_of(facts: Facts) -> Group:
    """The group that a candidate waits in. Retries and nodes that failed for another target may go while halted."""
    return (facts.target, facts.rank <= RETRY, facts.available)


def _bump(counter: Counter[T], key: T, sign: int) -> None:
    counter[key] += sign
    if not counter[key]:
        del counter[key]


def _keep(places: list[P], place: P, sign: int) -> None:
    if sign > 0:
        insort(places, place)
        return
    at = bisect_left(places, place)
    if at < len(places) and places[at] == place:
        del places[at]


def _keep_under(places: dict[T, list[Place]], key: T, place: Place, sign: int) -> None:
    _keep(places.setdefault(key, []), place, sign)
    if not places[key]:
        del places[key]
