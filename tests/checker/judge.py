"""One policy's nodes: budgets, edges, grants, identity, thrift (S1, S2, S7, S8, S14-S16, and L1's clock)."""

import math
from typing import TYPE_CHECKING, Any

from tests.checker.deadlines import STEPS, Deadlines
from tests.checker.events import Event, Obj, Subject
from tests.checker.names import ACT, Names, cordoned
from tests.checker.podrules import PodRules
from tests.checker.policies import scaled, step, valid
from tests.checker.putback import PutBacks
from tests.checker.rest import Rest
from tests.sim.objects import annotations, labels, ready_node
from tests.sim.selectors import from_object

if TYPE_CHECKING:
    from tests.checker.checker import Checker

MOST_WRITES = 16
MOST_VERSIONS = 512
"""Versions of a policy that are remembered; no window has as many."""
FAILED, DONE, REQUIRED = "upgrade-failed", "upgrade-done", "upgrade-required"
_AFTER_CORDON = {"wait-for-jobs-required", "pod-deletion-required", "drain-required", "pod-restart-required"}
EDGES: dict[str, set[str]] = {
    "": {REQUIRED, DONE},
    DONE: {REQUIRED},
    REQUIRED: {"cordon-required", DONE},
    "cordon-required": _AFTER_CORDON,
    "wait-for-jobs-required": _AFTER_CORDON - {"wait-for-jobs-required"},
    "pod-deletion-required": {"drain-required", "pod-restart-required", FAILED},
    "drain-required": {"pod-restart-required", FAILED},
    "pod-restart-required": {"drain-required", "validation-required", "uncordon-required", DONE, FAILED},
    "validation-required": {"uncordon-required", DONE, FAILED, "pod-restart-required"},
    "uncordon-required": {DONE, "pod-restart-required"},
    FAILED: {"validation-required", REQUIRED},
    "node-maintenance-required": {"drain-required"},
    "post-maintenance-required": {"pod-restart-required"},
}


class Judge:
    """Judges one subject."""

    def __init__(self, checker: "Checker", subject: Subject) -> None:
        self.checker = checker
        self.subject = subject
        self._also = from_object({"matchExpressions": subject.pool_expressions})
        self.names = Names(subject)
        self.sight = checker.sight
        self.pods = PodRules(self)
        self.rest = Rest(self)
        self.deadlines = Deadlines(self)
        self.putbacks = PutBacks(self)
        self.upgrades = 0
        self.granted: dict[str, float] = {}
        self.entered: dict[tuple[str, str], tuple[float, float, str]] = {}
        """By node and state: when it was first entered in this upgrade, how far the server's clock had run, and by whom."""
        self.labelled_by_us: dict[str, bool] = {}
        self._held_by_us: dict[str, bool] = {}
        self._failed_by: dict[str, str] = {}
        """Who wrote the failure that is in the node's record."""
        self._good_policy: dict[str, Any] = {}
        # By resourceVersion: what a version of the policy meant when it was written.
        self._meant: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._last_edge: dict[str, tuple[float, str, str]] = {}

    def violate(self, rule: str, node: str, text: str) -> None:
        self.checker.violate(rule, node, text)

    # What is whose.

    def mine(self, node: Obj | None) -> bool:
        """Whether the node is of this policy: its record's while it is in progress, else the first's that wants it.

        What is in progress stays its record's whatever selects the node by then: it holds a slot until it is put back.
        """
        if node is None:
            return False
        if self.subject.named and self.names.held(node) and (policy := self.names.record(node).get("policy")):
            return bool(policy == self.subject.named)
        if not (rivals := self._rivals()):
            return self.selects(node)
        selecting = [judge for judge in rivals if judge.selects(node)]
        wanting = [judge for judge in selecting if judge.enabled()]
        return (wanting or selecting)[:1] == [self]

    def selects(self, node: Obj) -> bool:
        return all(labels(node).get(k) == v for k, v in self.subject.pool.items()) and self._also(labels(node))

    def _rivals(self) -> "list[Judge]":
        """All policies of this driver, the first one first, where there are several."""
        if len(self.checker.judges) == 1:
            return []
        found = [j for j in self.checker.judges if j.names.label == self.names.label]
        return found if len(found) > 1 else []

    def enabled(self) -> bool:
        """Whether the policy is there and means to upgrade."""
        return bool(self.policy().get("autoUpgrade"))

    def nodes(self) -> list[Obj]:
        return [n for n in self.sight.all("nodes") if self.mine(n)]

    def holds(self, node: Obj) -> bool:
        """Whether this subject has the node in progress."""
        return self.mine(node) and self.names.held(node)

    def foreign_label(self, node: Obj) -> bool:
        """Whether the state is one that we leave alone."""
        return self.names.state(node) not in EDGES

    def wants(self, node: Obj, daemonset: Obj | None) -> bool:
        """Whether the DaemonSet wants a pod on the node, by its nodeSelector (affinity and taints are not looked at)."""
        if daemonset is None:
            return False
        selector = daemonset["spec"]["template"]["spec"].get("nodeSelector") or {}
        return all(labels(node).get(k) == v for k, v in selector.items())

    def wanted(self, node: Obj) -> bool:
        return any(self.wants(node, self.sight.get("daemonsets", key)) for key in self.subject.daemonset_keys)

    def managed(self, node: Obj) -> bool:
        pods = any(True for _ in self.pods.drivers(node["metadata"]["name"]))
        return self.mine(node) and self.selects(node) and (self.wanted(node) or bool(self.names.record(node)) or pods)

    # What the policy says, now and in the window.

    def policies(self, since: float) -> list[dict[str, Any]]:
        """The upgradePolicy in every version of the window; empty where it was not there.

        In place of one that cannot be understood the last good one counts, and it grants nothing.
        """
        kind, key = self.subject.kind, self.subject.policy_key
        found = self.checker.unread(kind, key, self.sight.during(kind, key, since))
        return [self._meaning(p) if p else {} for p in found]

    def policy(self) -> dict[str, Any]:
        return self.policies(math.inf)[-1]

    def _meaning(self, policy: Obj) -> dict[str, Any]:
        """What a version means, or meant: one that cannot be understood what the last good one before it did."""
        return self._meant.get(policy["metadata"]["resourceVersion"]) or self._understood(upgrade_policy(policy))

    def _understood(self, policy: dict[str, Any]) -> dict[str, Any]:
        understood = valid(policy) or not policy.get("autoUpgrade")
        return policy if understood else {**self._good_policy, "paused": True}

    # Listening.

    def notice(self, entry: Event) -> None:
        """Any write: what it means for what is judged later."""
        self.putbacks.notice(entry)
        if entry.kind == self.subject.kind and entry.key == self.subject.policy_key and entry.new is not None:
            policy = upgrade_policy(entry.new)
            self._good_policy = policy if valid(policy) else self._good_policy
            self._meant[entry.new["metadata"]["resourceVersion"]] = self._understood(policy)
            if len(self._meant) > MOST_VERSIONS:
                del self._meant[next(iter(self._meant))]

    def remember(self, entry: Event) -> None:
        """A change of a node, after it was judged."""
        if entry.new is None:
            self._counts.pop(entry.key, None)
            self._last_edge.pop(entry.key, None)
            return
        if self.names.state(entry.new) != self.names.state(entry.old):
            self.labelled_by_us[entry.key] = entry.ours
            if not entry.ours:
                self.deadlines.relabelled(entry.key, self.names.state(entry.new))
        if not entry.ours and annotations(entry.new).get(self.names.note) != annotations(entry.old or {"metadata": {}}).get(
            self.names.note
        ):
            self.deadlines.changed(entry.key)
        if self.names.record(entry.new).get("failure") != self.names.record(entry.old).get("failure"):
            self._failed_by[entry.key] = entry.actor
        if self.names.held(entry.new) != self.names.held(entry.old):
            self._held_by_us[entry.key] = entry.ours
        if entry.ours is False and entry.key in self._counts and entry.actor == "admin":
            self._counts[entry.key] -= 3

    def concerns(self, old: Obj, new: Obj) -> bool:
        """Whether one of our PATCHes was about this driver's marks on a node of this policy."""
        if not self.mine(old):
            return False
        if len(self.checker.judges) == 1 or self.names.state(old) != self.names.state(new):
            return True
        keys = self.names.annotations
        return any(annotations(old).get(k) != annotations(new).get(k) for k in keys)

    # Our PATCHes.

    def node(self, entry: Event, old: Obj, new: Obj, since: float) -> None:
        """Judge one of our PATCHes."""
        name, was, now = entry.key, self.names.state(old), self.names.state(new)
        if self._untouchable(name, since):
            self.violate("S8", name, "written although another operator upgrades it")
        if was != now:
            self._edge(entry, old, new, since)
        if self.names.safe_load in annotations(old) and self.names.safe_load not in annotations(new):
            self.pods.unblocked(name, old, since)
        self.deadlines.wrote(name, old, new)
        if now == DONE:
            self._clean(name, new, ended=was in ACT)
        self._identity(name, old, new)
        self._thrash(name, was, now)

    def _edge(self, entry: Event, old: Obj, new: Obj, since: float) -> None:
        name, was, now = entry.key, self.names.state(old), self.names.state(new)
        self._allowed(entry, old, now, since)
        restored = was == "" and self.names.record(old).get("state") == now
        if (now == "cordon-required" and not restored) or (was, now) == (FAILED, "validation-required"):
            self._granted(entry, old, since)
            self._by_whom(name, new, since)
        if was == "wait-for-jobs-required" and now != "":
            self.pods.left_jobs(entry, old, since)
        if now in {"uncordon-required", DONE} and was in ACT:
            self.pods.done(name, since, validated=self.labelled_by_us.get(name, True))
        if was in ACT and now in {DONE, FAILED}:
            self.upgrades += 1
        self._to_and_fro(entry, was, now, since)
        # What is written counts from when it was sent: the writer cannot know when it arrives.
        self.entered.setdefault((name, now), (entry.sent, entry.ran, entry.actor))

    def _allowed(self, entry: Event, old: Obj, now: str, since: float) -> None:
        name, was, why = entry.key, self.names.state(old), ""
        allowed = now in EDGES.get(was, set())
        if now == "":
            allowed, why = self.putbacks.due(entry, old, since), self.putbacks.premature(entry, old, since)
        elif was == "":
            recorded = self.names.record(old).get("state", "")
            allowed = allowed or now == recorded or now in EDGES.get(recorded, ())
        elif now == FAILED:
            allowed, why = allowed or was in ACT, self.deadlines.premature(entry, old, since)
        if not allowed or why:
            self.violate("S7", name, f"{was or 'unknown'} -> {now or 'unknown'}{why and ': '}{why}")

    def _to_and_fro(self, entry: Event, was: str, now: str, since: float) -> None:
        """Never A to B to A while nobody else did anything. What ends by a deadline is no way back."""
        at, before, after = self._last_edge.get(entry.key, (0.0, "", ""))
        turned = (before, after) == (now, was) and FAILED not in {now, was}
        if turned and self.checker.stirred(entry.key) < at:
            self.violate("S15", entry.key, f"{now} -> {was} -> {now}, and nothing had changed")
        # Where a person put it, or took the label off, is not where it came from by our hand.
        ours = self.labelled_by_us.get(entry.key, True)
        self._last_edge[entry.key] = (since, was, now) if ours else (since, "", "")

    def _granted(self, entry: Event, old: Obj, since: float) -> None:
        name = entry.key
        self._counts[name] = 0
        self.granted[name] = entry.at
        self.deadlines.begin(name)
        for known in [k for k in self.entered if k[0] == name]:
            del self.entered[known]
        self._slots(name, since)
        for other in self.checker.judges:
            if other.subject.driver != self.subject.driver and other.names.held(old):
                self.violate("S8", name, f"granted although {other.subject.driver} is in progress there")
        if self.names.state(old) == FAILED:
            return
        self._room(name, old, since)
        self._barred(entry, old, since)

    def theirs(self, node: Obj | None) -> bool:
        """Whether another operator upgrades the node: what we had begun before it said so is ended first."""
        engaged = self.names.held(node) or self.names.state(node) == FAILED
        return node is not None and self.names.requestor in annotations(node) and not engaged

    def _untouchable(self, name: str, since: float) -> bool:
        return all(map(self.theirs, self.before(name, since)))

    def before(self, name: str, since: float) -> list[Obj | None]:
        """Every version of a node in the window before our present PATCH of it."""
        return self.sight.during("nodes", name, since)[:-1]

    def _by_whom(self, name: str, new: Obj, since: float) -> None:
        """Of several policies of a driver, the one that has the node is the one that grants it (S8)."""
        rivals = self._rivals()
        settled = all(p == j.policy() for j in rivals for p in j.policies(since))
        by = self.names.record(new).get("policy", "")
        if rivals and settled and by != self.subject.named:
            self.violate("S8", name, f"granted by {by}, and {self.subject.named} has it")

    def _barred(self, entry: Event, old: Obj, since: float) -> None:
        """Halt, skip, foreign cordon, pause (S8)."""
        name = entry.key
        failed = [n for n in self.nodes() if self._failed_since(n["metadata"]["name"], entry, since)]
        policies = self.policies(since)
        if all(p == policies[-1] for p in policies) and self.rest.halted(old, failed, self.policy()):
            self.violate("S8", name, "granted although the rollout is halted")
        if labels(old).get(self.names.skip) == "true":
            self.violate("S8", name, "granted although skipped")
        foreign = cordoned(old) and self.checker.cordons.by(name) == "other" and not self.checker.cordons.claimed(old)
        if foreign and all(p.get("cordonedNodes") == "Skip" for p in self.policies(since)):
            self.violate("S8", name, "granted although cordoned by someone else, and cordonedNodes is Skip")
        versions = self.before(name, since)
        exempt = self.names.record(old).get("failure") or self.names.safe_load in annotations(old)
        if not exempt and not any(n and ready_node(n) for n in versions):
            self.violate("S8", name, "granted although not ready")
        if not any(map(self.pods.is_driver, (*self.sight.pods_on(name), *self.sight.gone_from(name, since)))):
            self.violate("S8", name, "granted although it has no driver pod")
        if not any(p.get("autoUpgrade") and not p.get("paused") for p in self.policies(since)):
            self.violate("S8", name, "granted although the policy is paused, disabled or gone")

    def _failed_since(self, name: str, entry: Event, since: float) -> bool:
        """Whether the node's failure must have been known to who sent the grant.

        Who fails a node knows it before the answer, so a failure counts that the same process wrote before it sent the
        grant, less what two connections may be apart. Of two writes on their way at once the grant may be the later one to
        arrive, and was decided first all the same. Another's failure counts once any view must have shown it.
        """
        mine = self._failed_by.get(name) == entry.actor
        found = self.sight.during("nodes", name, entry.sent - self.checker.disorder if mine else since)
        return all(n and self.names.record(n).get("failure") for n in found)

    def _slots(self, name: str, since: float) -> None:
        limits = [p.get("maxParallelUpgrades", 1) for p in self.policies(since) if p]
        if not limits or 0 in limits:
            return
        busy = [
            n["metadata"]["name"] for n in self.nodes() if n["metadata"]["name"] == name or self._counts_as_held(n, since)
        ]
        if len(busy) > max(limits):
            self.violate("S1", name, f"{len(busy)} in progress {busy}, maxParallelUpgrades {max(limits)}")

    def _counts_as_held(self, node: Obj, since: float) -> bool:
        name = node["metadata"]["name"]
        if not self.names.held(node):
            return False
        versions = self.sight.during("nodes", name, since)
        return self._held_by_us.get(name, False) or all(v and self.names.held(v) for v in versions)

    def _room(self, name: str, old: Obj, since: float) -> None:
        limits = [p.get("maxUnavailable") for p in self.policies(since) if p]
        if not limits or None in limits or cordoned(old) or not ready_node(old):
            return
        managed = [n for n in self.nodes() if self._always_managed(n, since)]
        versions = (self.sight.during("nodes", key, since) for key in self.sight.keys("nodes", since))
        total = sum(any(v and self.managed(v) for v in one) for one in versions)  # also what went, or was lost, meanwhile
        most = max(scaled(limit, total) for limit in limits if limit is not None)
        out = [n["metadata"]["name"] for n in managed if n["metadata"]["name"] == name or self._unavailable(n, since)]
        if len(out) > most:
            self.violate("S2", name, f"{len(out)} of {total} unavailable {out}, maxUnavailable {limits[-1]}")

    def _always_managed(self, node: Obj, since: float) -> bool:
        return all(n is not None and self.managed(n) for n in self._versions(node, since))

    def _versions(self, node: Obj, since: float) -> list[Obj | None]:
        return self.sight.during("nodes", node["metadata"]["name"], since)

    def _unavailable(self, node: Obj, since: float) -> bool:
        if self._counts_as_held(node, since):
            return True
        return all(
            v and (cordoned(v) or not ready_node(v) or self.names.state(v) == FAILED or self.names.held(v))
            for v in self._versions(node, since)
        )

    def _clean(self, name: str, new: Obj, *, ended: bool) -> None:
        left = [k for k in (self.names.keep, *self.names.clocks) if k in annotations(new)] if ended else []
        if left or self.names.claims(new):
            self.violate("S16", name, f"done with {left or 'a claim'} left")

    def _identity(self, name: str, old: Obj, new: Obj) -> None:
        """A node of another uid than its record's begins anew."""
        if self.names.any_record(new) and not self.names.record(new):
            self.violate("S14", name, "wrote the record of another node of this name")
        if self.names.any_record(old) and not self.names.record(old) and self.names.state(new) in ACT:
            self.violate("S14", name, "went on with an upgrade of another node of this name")

    def _thrash(self, name: str, was: str, now: str) -> None:
        if name not in self._counts:
            return
        self._counts[name] += 1
        if self._counts[name] > MOST_WRITES:
            self.violate("S15", name, f"{self._counts[name]} writes in one upgrade")
        if now not in ACT and was in ACT:
            del self._counts[name]

    def overdue(self, now: float) -> bool:
        """Whether a node has been in progress for longer than all time-outs together, and two minutes."""
        policy = self.policy()
        timeouts = [step(policy, name).get("timeoutSeconds", default) for name, default in STEPS if name in policy]
        longest = sum(timeouts) + 120.0 + self.checker.set_back
        busy = [n["metadata"]["name"] for n in self.nodes() if self.names.held(n)]
        return any(now - max(self.granted.get(name, 0.0), self.checker.disturbed) > longest for name in busy)


def upgrade_policy(obj: Obj) -> dict[str, Any]:
    """The upgradePolicy of a policy object, however odd it is. A field that is null is absent."""
    driver = (obj.get("spec") or {}).get("driver")
    found = driver.get("upgradePolicy") if isinstance(driver, dict) else None
    return {name: value for name, value in found.items() if value is not None} if isinstance(found, dict) else {}
