"""Judges the controller from outside, by who wrote what and when: reliability invariants S1-S16 and L1-L6.

It knows the names of labels and annotations and the policy's meaning, and nothing of the controller's code. What it sees
of the cluster is :class:`~tests.checker.sight.Sight`. The rules about one policy's nodes are in :mod:`~tests.checker.judge`,
those about its pods in :mod:`~tests.checker.podrules`, about the end of a run in :mod:`~tests.checker.rest`; what concerns
a node whoever's it is - cordons, the footprint, evictions, the leader - is in this module and those that it makes use of.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from tests.checker.cordons import Cordons
from tests.checker.events import Event, Obj, Subject
from tests.checker.evictions import EvictionRules
from tests.checker.judge import Judge
from tests.checker.leaders import Leaders
from tests.checker.names import cordoned
from tests.checker.sight import Sight
from tests.sim.objects import annotations, labels

WINDOW = 2.0
"""Seconds that any view may be old while nothing is wrong."""
DISORDER = 0.1
"""Seconds by which two requests that one process sends over two connections may arrive in the wrong order."""
IDLE, IDLE_UNSURE = 30.0, 45.0
"""Seconds after which a node that may go is to have been granted (L2); the second where times are not exact, and what one
looks at may be the machine's slowness as well as the controller's."""


class Checker:
    """Takes every write, in the order of resourceVersion.

    Args:
        subjects: The policies and drivers.
        window: How old the view may be that one of our writes was decided on: seconds, or what says so of a write.
        lease: Key of the Lease whose holder alone may write; empty where there is no election.
        ages: The same by kind, where it is known of each: what a view of policies missed is no excuse for one of nodes. A
            kind that is not among them was never looked at, or is up to date.
        disorder: Seconds that lie between sending a request and what is told as that; 0 where that is exact.
        causal: Whether a process that has told of a policy's generation is known to have read it; a process is known by
            its pod's uid, which must be another one after a restart, and is never shown the past.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        window: float | Callable[[Event], float] = WINDOW,
        lease: str = "",
        disorder: float = DISORDER,
        *,
        ages: Callable[[Event], Mapping[str, float]] | None = None,
        causal: bool = False,
    ) -> None:
        self.sight = Sight()
        self.violations: list[str] = []
        self.judges = [Judge(self, subject) for subject in subjects]
        self.cordons = Cordons(self)
        self.evictions = EvictionRules(self)
        self.leaders = Leaders(self, lease)
        self._causal = causal
        self._writing: Event | None = None
        self._read: dict[tuple[str, str, str], tuple[float, str, int]] = {}
        """By policy and process: when it told of the newest generation that it had read, of which object, and which."""
        self._window = window
        self._ages = ages
        self.disorder = disorder
        self.exact = disorder == 0.0
        self._idle = IDLE if self.exact else IDLE_UNSURE
        self.now = 0.0
        self.writes = 0
        """Our writes to nodes and pods."""
        self.last_write = 0.0
        self.said = 0
        """Our other writes, but the Lease's and Events: what tells of an upgrade."""
        self.disturbed = 0.0
        """When a person last interfered, or faults ended: L1 counts from there."""
        self.set_back = 0.0
        """Seconds by which the server's clock was set back: deadlines are later by as much."""
        self._stirred: dict[str, float] = {}
        self._ours_keys = frozenset[str]().union(*(j.names.annotations for j in self.judges))
        self._others_keys = frozenset[str]().union(*(j.names.removed for j in self.judges))
        self._ours_labels = frozenset(j.names.label for j in self.judges)
        self._may_go: dict[tuple[Judge, str], float] = {}
        self._left = 0

    def follow(self, subject: Subject) -> Judge:
        """Judge one more subject from now on, when nothing of it has happened yet."""
        judge = Judge(self, subject)
        self.judges.append(judge)
        self._ours_keys |= judge.names.annotations
        self._others_keys |= judge.names.removed
        self._ours_labels |= {judge.names.label}
        return judge

    def leave(self, judge: Judge) -> None:
        """Nothing will happen to a subject any more."""
        self.judges.remove(judge)
        self._left += judge.upgrades

    @property
    def upgrades(self) -> int:
        """How many upgrades have ended, well or not."""
        return self._left + sum(judge.upgrades for judge in self.judges)

    def violate(self, rule: str, node: str, text: str) -> None:
        """Note a violation."""
        self.violations.append(f"{self.now:.3f} {rule} {node}: {text}")

    def since(self, entry: Event) -> float:
        """The oldest moment that the view may have been of which this write was decided on."""
        return entry.sent - (self._window if isinstance(self._window, float) else self._window(entry))

    def _earliest(self, entry: Event) -> Callable[[str], float]:
        if self._ages is None or not entry.ours:
            return lambda _kind: -math.inf
        ages = self._ages(entry)
        return lambda kind: entry.sent - ages.get(kind, WINDOW)

    def unread(self, kind: str, key: str, versions: list[Obj | None]) -> list[Obj | None]:
        """What may be the view, of the versions of a policy in the window: what the process told of it has read."""
        entry, now = self._writing, versions[-1]
        if entry is None or now is None:
            return versions
        at, uid, generation = self._read.get((kind, key, entry.pod), (math.inf, "", 0))
        if at + self.disorder > entry.sent or uid != now["metadata"]["uid"]:
            return versions
        return [v for v in versions if v and v["metadata"]["uid"] == uid and v["metadata"]["generation"] >= generation]

    def take(self, entry: Event) -> None:
        """Judge one write."""
        self.now = entry.at
        self.sight.earliest = self._earliest(entry)
        before = self.sight.get(entry.kind, entry.key)
        self.sight.take(entry)
        for judge in self.judges:
            judge.notice(entry)
        if entry.kind == "poddisruptionbudgets":
            self.evictions.budget_changed(entry)
        if entry.kind == "leases":
            self.leaders.renewed(entry)
        elif entry.ours:
            self._ours(entry, before)
        else:
            self._foreign(entry)
        if entry.kind == "nodes" and entry.code < 400:
            for judge in self.judges:
                judge.remember(entry)
            self.cordons.remember(entry)

    def _foreign(self, entry: Event) -> None:
        if entry.actor == "admin":
            self.disturbed = max(self.disturbed, entry.at)
        where = entry.key if entry.kind == "nodes" else ""
        if entry.kind == "pods":
            where = str(((entry.new or entry.old or {}).get("spec") or {}).get("nodeName") or "")
        if entry.kind != "poddisruptionbudgets":
            self._stirred[where] = entry.at

    def stirred(self, node: str) -> float:
        """When anyone else last changed the node, a pod on it, or what concerns all nodes."""
        return max(self._stirred.get(node, 0.0), self._stirred.get("", 0.0))

    def _ours(self, entry: Event, before: Obj | None) -> None:
        since = self.since(entry)
        self._writing = entry
        self.leaders.wrote(entry)
        if self._causal and entry.sub == "status" and entry.code < 400 and entry.new is not None:
            generation = ((entry.body or {}).get("status") or {}).get("observedGeneration") or 0
            uid = entry.new["metadata"]["uid"]
            told = self._read.get((entry.kind, entry.key, entry.pod), (0.0, "", 0))
            if (told[1], told[2]) != (uid, generation):
                self._read[entry.kind, entry.key, entry.pod] = (entry.sent, uid, generation)
        if entry.kind == "nodes" and entry.verb == "PATCH" and entry.sub == "":
            if entry.code < 400 and entry.old is not None and entry.new is not None:
                self._node(entry, entry.old, entry.new, since)
        elif entry.kind == "pods" and entry.verb == "EVICT":
            self.evictions.asked(entry, since)
        elif entry.kind == "pods" and entry.verb == "DELETE":
            self._deletion(entry, since)
        elif self._about(entry):
            self.said += entry.code < 400 and entry.kind != "events"
        else:
            self.violate("S9", "", f"{entry.verb} of {entry.kind}/{entry.key} is none of our business")
        if entry.code < 400 and entry.kind in {"nodes", "pods"}:
            self.writes += 1
            self.last_write = entry.at

    @staticmethod
    def _about(entry: Event) -> bool:
        """What tells of an upgrade, and does nothing to it."""
        ours = {"driverupgradepolicies", "customresources"}
        return (entry.kind in ours and entry.sub == "status") or entry.kind == "events"

    def _deletion(self, entry: Event, since: float) -> None:
        pod = entry.old
        if entry.code >= 400 or pod is None:
            return
        judge = next((j for j in self.judges if j.pods.is_driver(pod) and j.pods.at_home(pod)), None)
        if judge is None:
            node = str((pod.get("spec") or {}).get("nodeName") or "")
            self.violate("S9", node, f"deleted {entry.key}, which is no driver pod")
        else:
            judge.pods.deletion(entry, pod, since)

    def _node(self, entry: Event, old: Obj, new: Obj, since: float) -> None:
        name = entry.key
        if not (entry.body.get("metadata") or {}).get("resourceVersion"):
            self.violate("S15", name, "a PATCH without resourceVersion")
        if old is new:
            self.violate("S15", name, "a PATCH that changed nothing")
            return
        self._footprint(name, old, new)
        concerned = [j for j in self.judges if j.concerns(old, new)]
        for judge in concerned:
            judge.node(entry, old, new, since)
        if cordoned(old) and not cordoned(new):
            self.cordons.lifted(entry, old, new, since, concerned)

    def _footprint(self, name: str, old: Obj, new: Obj) -> None:
        if _rest(old) != _rest(new) or _spec(old) != _spec(new):
            self.violate("S11", name, "more than unschedulable was written")
        changed = {k for k in {*labels(old), *labels(new)} if labels(old).get(k) != labels(new).get(k)}
        noted = {k for k in {*annotations(old), *annotations(new)} if annotations(old).get(k) != annotations(new).get(k)}
        added = {k for k in noted if k in annotations(new)}
        if foreign := (changed - self._ours_labels) | (noted - self._ours_keys):
            self.violate("S11", name, f"wrote {sorted(foreign)}")
        if others := added & self._others_keys:
            self.violate("S11", name, f"wrote {sorted(others)}, which are others' to set")

    # While it runs, and the end.

    def disturb(self, until: float) -> None:
        """Something from outside is, or was, wrong until then."""
        self.disturbed = max(self.disturbed, until)

    def in_progress(self) -> list[str]:
        """The nodes that some driver has in progress."""
        return [n["metadata"]["name"] for n in self.sight.all("nodes") if any(j.holds(n) for j in self.judges)]

    def overdue(self, now: float) -> bool:
        """Whether a node has been in progress for longer than all time-outs together, and two minutes."""
        return any(judge.overdue(now) for judge in self.judges)

    def waiting_for(self) -> list[str]:
        """Nodes that could go on, were the controller to do anything."""
        return [name for judge in self.judges for name in judge.rest.eligible()]

    def look(self, now: float) -> None:
        """Look every few seconds: whether a node that may go has been left waiting (L2). Only while nothing is wrong."""
        calm = now > self.disturbed + self._idle
        waiting = [(judge, name) for judge in self.judges for name in judge.rest.eligible()] if calm else []
        self._may_go = {who: self._may_go.get(who, now) for who in waiting}
        for judge in self.judges:
            # Any grant shows that its rollout goes on: what is left waits for a slot that was free for a moment.
            last = max(judge.granted.values(), default=0.0)
            late = [node for (of, node), at in self._may_go.items() if of is judge and now - max(at, last) > self._idle]
            if late:
                self.violate("L2", late[0], f"could be granted for {self._idle:.0f} s, and is not")
                self._may_go.clear()

    def rest(self, now: float) -> None:
        """Judge a world in which nothing has happened for a while."""
        self.now = now
        for judge in self.judges:
            judge.rest.judge()


def _rest(node: Obj) -> Obj:
    return {k: v for k, v in node.items() if k not in {"metadata", "spec"}}


def _spec(node: Obj) -> Obj:
    return {k: v for k, v in node["spec"].items() if k != "unschedulable"}
