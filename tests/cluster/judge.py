"""The checker's judgement of one world, from its evidence: S1 to S16 always, L1 to L6 where they can be judged.

What they are judged by here, and what in the simulator alone, says docs/development.md.

That a rollout is at rest (L1 to L3, L5) is known by what the test has awaited: all its nodes done, and nobody but the
controller has written anything since. Who could have led next, and when no controller ran at all, is known by the processes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.checker import Checker, Event
from tests.checker.steps import Steps
from tests.cluster.evidence import Evidence
from tests.cluster.process import Process
from tools.controlplane.audit import Request

LEASE = "driver-upgrade"
MARK = "driver-upgrade.test/mark"
BAD_REQUEST = 400
SLOW = 5.0
"""Seconds: a standby's two requests may be slow where our own loop is not. In tests/sim the bound is exact."""


@dataclass(frozen=True)
class Case:
    """A world, to be judged."""

    evidence: Evidence
    requests: Sequence[Request]
    namespace: str
    processes: Sequence[Process]
    done: int
    """The resourceVersion at which all nodes were last seen done; 0 where they never were."""
    done_at: float = 0.0
    """When that was, in seconds since the epoch."""

    def lease(self) -> str:
        """The Lease that every controller of this world takes part in; empty where one acts without."""
        elected = all("--leader-elect" in process.flags for process in self.processes)
        return f"{self.namespace}/{LEASE}" if self.processes and elected else ""

    def running(self, moment: float) -> bool:
        """Whether some controller ran then, and knew the cluster."""
        return any(p.synced <= moment < p.over for p in self.processes)

    def stopped(self, moment: float) -> list[Process]:
        """Who had been asked to stop by then, and had nothing in its way."""
        return [p for p in self.processes if p.asked and p.over <= moment] if not self.evidence.lag else []

    def acting(self, begin: float, end: float) -> float | None:
        """What a step due between two moments may take longer; None where nobody was there all the time to make it.

        One process is, and nobody else: which of several acts, and when, is for L6 to say.
        """
        ran = [p for p in self.processes if p.synced < end and p.over > begin]
        one = len(ran) == 1 and ran[0].synced < begin and end < ran[0].signalled
        return SLOW + self.evidence.lost(begin, end) if one and not self.evidence.lag else None

    def quiet(self, moment: float) -> bool:
        """Whether nobody has come since all nodes were seen done, who might see things otherwise."""
        return not any(self.done_at < p.synced <= moment for p in self.processes)

    def standby(self, begin: float, end: float) -> float | None:
        """What a succession between two moments may take longer; None where nobody stood by all the time, undisturbed."""
        stood = any(p.synced < begin and end < min(p.over, p.signalled) for p in self.processes)
        return SLOW + self.evidence.lost(begin, end) if stood and not self.evidence.lag else None


def judge(case: Case, *, at_rest: bool = False) -> list[str]:
    """The violations, each with what happened to its node shortly before; none is good.

    Args:
        case: The world.
        at_rest: Whether all that could be done must be done, though the nodes were never seen to be (L1-L3, L5).
    """
    evidence = case.evidence
    requests = [request for request in case.requests if evidence.concerns(request)]
    subjects = evidence.subjects(requests)
    if not subjects:
        return []
    checker = Checker(subjects, window=evidence.window, lease=case.lease(), causal=True)
    checker.leaders.standby = case.standby
    steps, quiet = Steps(checker, case.acting), _Quiet(case, checker)
    told: list[Event] = []
    stories: list[str] = []
    for event in evidence.events(requests):
        if event.kind == "leases" and not event.ours:
            continue  # nobody can know at once of a person's edit; judged is that nobody else acts meanwhile
        if not case.running(event.at):
            checker.disturb(event.at)
        for process in case.stopped(event.at):
            checker.leaders.asked(process.identity)
        before = len(checker.violations)
        quiet.listen(event)
        checker.take(event)
        checker.look(event.at)
        steps.look(event.at)
        told.append(event)
        stories += [_with_story(text, told) for text in checker.violations[before:]]
    if told and (at_rest or (case.done and not quiet.touched and not checker.in_progress())):
        before = len(checker.violations)
        checker.rest(told[-1].at)
        stories += [_with_story(text, told) for text in checker.violations[before:]]
    return stories


class _Quiet:
    """What comes after all nodes were seen done (L3)."""

    def __init__(self, case: Case, checker: Checker) -> None:
        self._case = case
        self._checker = checker
        self.touched = False
        """Whether people have changed anything since."""
        self._acted = False
        """Whether the controller has done anything since people last did: then it has known of that."""
        self._rested: bool | None = None

    def listen(self, event: Event) -> None:
        """One event, before the checker is told of it."""
        after, people, effect = 0 < self._case.done < _number(event), _by_people(event), _is_effect(event)
        if after and self._rested is None:
            self._rested = self._acted and self._at_rest(event.at)
        if effect and self._rested and not self.touched and self._case.quiet(event.at):
            self._checker.now = event.at
            self._checker.violate("L3", event.key, "written after everything was done, and nobody had changed anything")
        self._acted = effect or (self._acted and not people)
        self.touched = self.touched or (after and people)

    def _at_rest(self, now: float) -> bool:
        """Whether nothing is left to do; if something is, the end of the story says so."""
        before = len(self._checker.violations)
        self._checker.rest(now)
        left = self._checker.violations[before:]
        del self._checker.violations[before:]
        return not left and not self._checker.in_progress()


def rule_of(violation: str) -> str:
    """Which rule was broken: S1, say. The time comes first."""
    return violation.split()[1]


def _is_effect(event: Event) -> bool:
    """Whether it is a write of ours that did something to a node or a pod."""
    return event.ours and event.kind in {"nodes", "pods"} and event.code < BAD_REQUEST


def _by_people(event: Event) -> bool:
    """Whether somebody meant something: not the marks by which a recorder knows how far it is."""
    if event.actor != "admin" or event.key.partition("/")[2].startswith("mark-"):
        return False
    return _plain(event.old) != _plain(event.new)


def _plain(obj: object) -> object:
    if not isinstance(obj, dict):
        return obj
    meta = {k: v for k, v in obj["metadata"].items() if k not in {"resourceVersion", "managedFields"}}
    meta["annotations"] = {k: v for k, v in (meta.get("annotations") or {}).items() if k != MARK}
    return {**obj, "metadata": meta}


def _number(event: Event) -> int:
    return int(((event.new or event.old or {}).get("metadata") or {}).get("resourceVersion") or 0)


def _with_story(violation: str, told: Iterable[Event]) -> str:
    shown = [_line(event) for event in told if event.ours or event.kind == "nodes"][-12:]
    return "\n    ".join([violation, *shown])


def _line(event: Event) -> str:
    node = event.new or event.old or {}
    labels = {k: v for k, v in (node.get("metadata", {}).get("labels") or {}).items() if "driver-upgrade" in k}
    spec = node.get("spec") or {}
    cordon = " cordoned" if spec.get("unschedulable") else ""
    return f"{event.at:.3f} {event.actor} {event.verb} {event.kind}/{event.key} {event.code}{cordon} {labels or ''}"
