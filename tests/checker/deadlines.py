"""What ends by a deadline ends no sooner: nothing fails before its time is up, and jobs are waited for (S7, S12)."""

from typing import TYPE_CHECKING, Any

from tests.checker.events import Event, Obj
from tests.checker.names import cordoned
from tests.checker.policies import step
from tests.sim.objects import node_of

if TYPE_CHECKING:
    from tests.checker.judge import Judge

SLACK = 1.5
"""Seconds by which server time, told in whole ones, may be misjudged."""
SET = 10.0
"""The same where somebody set the server's clock while it drifted: how much was which, nobody can tell."""
STEPS = (("waitForCompletion", 0), ("podDeletion", 300), ("drain", 300), ("podRestart", 1800), ("validation", 600))
"""The steps that have a time-out, and the seconds of each that does not say."""
TIMED = {
    "pod-deletion-required": "podDeletion",
    "drain-required": "drain",
    "pod-restart-required": "podRestart",
    "validation-required": "validation",
}
"""The states that may end in failure, and the step whose time must be up."""
VACATED = frozenset({"wait-for-jobs-required", "pod-deletion-required", "drain-required", "pod-restart-required"})
"""The states in which the cordon is taken again when someone lifts it."""
RECORDONS = 5
MAX_RESTARTS = 10


class Deadlines:
    """How long one subject's nodes have been where they are, and how often they were cordoned again."""

    def __init__(self, judge: "Judge") -> None:
        self._judge = judge
        self._names = judge.names
        self._sight = judge.sight
        self._recordons: dict[str, int] = {}
        self._rewritten: set[str] = set()
        self._relabelled: set[tuple[str, str]] = set()
        """By node and state: a person set it in this upgrade, and its time counts from there."""

    def begin(self, name: str) -> None:
        """An upgrade, or another try, begins."""
        self._recordons[name] = 0
        self._rewritten.discard(name)
        self._relabelled = {known for known in self._relabelled if known[0] != name}

    def wrote(self, name: str, old: Obj, new: Obj) -> None:
        """One of our PATCHes."""
        if cordoned(new) and not cordoned(old) and self._names.state(old) in VACATED:
            self._recordons[name] = self._recordons.get(name, 0) + 1

    def relabelled(self, name: str, state: str) -> None:
        """A person put the node there."""
        self._relabelled.add((name, state))

    def changed(self, name: str) -> None:
        """Somebody else wrote the record, and what it says of times."""
        self._rewritten.add(name)

    def rewritten(self, name: str) -> bool:
        return name in self._rewritten

    def waited(self, entry: Event, old: Obj, state: str) -> float:
        """Seconds since a state was entered, ours or the server's.

        Who was there counts on when the server's clock is set. Who was not goes by the record.
        """
        at, ran, actor = self._judge.entered.get((entry.key, state), (entry.sent, entry.ran, entry.actor))
        recorded = (self._names.record(old).get("entered") or {}).get(state, entry.clock)
        return max(entry.at - at, entry.ran - ran, entry.clock - recorded if entry.actor != actor else 0.0)

    def premature(self, entry: Event, old: Obj, since: float) -> str:
        """Why a node may not fail yet; empty where it may."""
        name, state = entry.key, self._names.state(old)
        if state in VACATED and self._lifted_too_often(name, since):
            return ""
        if state not in TIMED:
            return "has no end of its own"
        policies = self._judge.policies(since)
        if state == "pod-deletion-required" and all(step(p, "drain").get("enable") for p in policies):
            return "the drain is still to come"
        if self.rewritten(name) or (name, state) in self._relabelled or (name, state) not in self._judge.entered:
            return ""
        if state == "pod-restart-required" and self._restarted_too_often(name, policies, since):
            return ""
        waited, default = self.waited(entry, old, state), dict(STEPS)[TIMED[state]]
        timeouts = [step(p, TIMED[state]).get("timeoutSeconds", default) for p in policies]
        slack = SET if entry.set_by else SLACK
        return "" if any(t and waited >= t - slack for t in timeouts) else f"after {waited:.1f} s of {timeouts}"

    def _lifted_too_often(self, name: str, since: float) -> bool:
        lifted = any(n and not cordoned(n) for n in self._sight.during("nodes", name, since))
        return lifted and self._recordons.get(name, 0) >= RECORDONS

    def _restarted_too_often(self, name: str, policies: list[dict[str, Any]], since: float) -> bool:
        most = min(step(p, "podRestart").get("maxRestarts", MAX_RESTARTS) for p in policies)
        keys = [f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in self._judge.pods.drivers(name)]
        pods = [p for key in keys for p in self._sight.during("pods", key, since) if p and node_of(p) == name]
        return any(_restarts(p) > most for p in (*pods, *self._sight.gone_from(name, since)))


def _restarts(pod: Obj) -> int:
    status = pod.get("status") or {}
    found = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return max((int(s.get("restartCount") or 0) for s in found), default=0)
