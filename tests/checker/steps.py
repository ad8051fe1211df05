"""No step of an upgrade is late (L4): what nothing stands in the way of is done within half a minute, whatever is wrong
with other nodes.

When a step could be made is seen from outside only where it hangs on the node and its pods alone, so that much is judged:
the cordon, the end of a drain that has left no pod, the restart of an outdated driver on an empty node, the step after a
driver that is ready, the end. A node that is not ready, has another driver in progress, or was put where it is by others, is
not looked at.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.checker.events import Obj
from tests.checker.names import cordoned
from tests.sim.objects import annotations, controller_of, ready_node, terminal

if TYPE_CHECKING:
    from tests.checker.checker import Checker
    from tests.checker.judge import Judge

LATE = 30.0
AT_ONCE = frozenset({"cordon-required", "uncordon-required"})
Allowance = Callable[[float, float], float | None]


class Steps:
    """Looks at every node after every event.

    Args:
        checker: What is seen.
        allowance: How many seconds more a step may take that was due from one moment to another; None where nobody was
            there to make it all the time.
    """

    def __init__(self, checker: "Checker", allowance: Allowance) -> None:
        self._checker = checker
        self._allowance = allowance
        self._due: dict[tuple[str, str], tuple[str, float]] = {}

    def look(self, now: float) -> None:
        """Judge one moment."""
        due: dict[tuple[str, str], tuple[str, float]] = {}
        for judge in self._checker.judges:
            for node in judge.nodes():
                name, state = node["metadata"]["name"], judge.names.state(node)
                if self._may_step(judge, node, state):
                    where = judge.names.label, name
                    before = self._due.get(where, ("", now))
                    due[where] = before if before[0] == state else (state, now)
        self._due = due
        for (_, name), (state, since) in due.items():
            begin = max(since, self._checker.disturbed)
            more = self._allowance(begin, now)
            if more is not None and now - begin > LATE + more:
                self._checker.violate("L4", name, f"could leave {state} for {now - begin:.0f} s, and does not")
                self._checker.disturb(now)  # said once

    def _may_step(self, judge: "Judge", node: Obj, state: str) -> bool:
        name = node["metadata"]["name"]
        theirs = not judge.labelled_by_us.get(name) or sum(j.names.held(node) for j in self._checker.judges) != 1
        if theirs or not judge.holds(node) or not judge.enabled() or not ready_node(node):
            return False
        if state in AT_ONCE:
            return True
        if not cordoned(node) or judge.names.safe_load in annotations(node) or self._occupied(judge, name):
            return False
        return state == "drain-required" or (state == "pod-restart-required" and self._settled(judge, node))

    @staticmethod
    def _settled(judge: "Judge", node: Obj) -> bool:
        """Whether the driver is as it should be, or is to be replaced and stands."""
        name = node["metadata"]["name"]
        going = any("deletionTimestamp" in pod["metadata"] for pod in judge.pods.drivers(name))
        return not going and judge.wanted(node) and (judge.rest.current(name) or judge.rest.outdated(name))

    @staticmethod
    def _occupied(judge: "Judge", name: str) -> bool:
        """Whether any pod is left that a drain might ask about."""
        found = (pod for pod in judge.sight.pods_on(name) if not terminal(pod) and not judge.pods.is_driver(pod))
        return any((owner := controller_of(pod)) is None or owner["kind"] != "DaemonSet" for pod in found)
