"""Every request that the controller makes, and what may be answered to it: the rows and columns of the error matrix.

A row is a verb and a resource, with the situations in which such requests are sent: worlds that are arranged so that one
is sent for sure. ``test_matrix.py`` compares the rows with what all scenes really send and with what the manifests grant,
so that a new kind of request without a row fails a test.
"""

from collections.abc import Callable

from tests.sim.leaderworld import Election
from tests.sim.network import FINE, Verdict, error_answer
from tests.sim.objects import Obj
from tests.sim.scenes import DRAIN, RESTART, scene
from tests.sim.trouble import ANSWERS, GARBLED, WRITES
from tests.sim.workloads import Workload
from tests.sim.world import DRIVERS, Plan, World

Call = tuple[str, str]
"""Verb and resource."""
TIMES = 3
"""So many requests of the kind, from the rollout on, are answered so."""
DEVICE = "gpu.nvidia.com"


def refusal(code: int, reason: str, retry: int = 0, *, applied: bool = False) -> Verdict:
    """An answer in the server's place."""
    return Verdict(answer=error_answer(code, reason, "injected", retry), applied=applied)


def verdicts(verb: str) -> list[Verdict]:
    """Everything that may come of a request of this verb. A write may have been carried out whatever is answered."""
    found = [refusal(*answer) for answer in ANSWERS]
    found += [Verdict(garble=how) for how in GARBLED] + [Verdict(lost=True), Verdict(unanswered=True)]
    return found + ([refusal(*answer, applied=True) for answer in ANSWERS] if verb in WRITES else [])


# Situations.


def ordinary() -> Plan:
    """A rollout in which every watch is begun again at once."""
    return scene("matrix")


def restarted() -> Plan:
    """The process is killed at its first write: what is asked for only at the start is asked for again."""
    plan = scene("drain")
    plan.crashes = {1: "after"}
    return plan


def without_watch_list(kind: str) -> Callable[[], Plan]:
    """The server does not know WatchList for a resource: it is listed instead."""

    def build() -> Plan:
        plan = restarted()
        plan.verdicts = {("WATCH", kind): [refusal(400, "BadRequest")]}
        return plan

    return build


def unknown_grant() -> Plan:
    """A grant is lost on its way: once nothing can come of it any more, the node is read again."""
    plan = scene("restart")
    plan.nodes = 1
    plan.verdicts = {("PATCH", "nodes"): [FINE, Verdict(lost=True)]}
    return plan


def doubted(verb: str) -> Callable[[], Plan]:
    """A pod's deletion or eviction is answered by a conflict that is none: the pod is read again."""

    def build() -> Plan:
        plan = scene("matrix")
        plan.verdicts = {(verb, "pods"): [refusal(409, "Conflict")]}
        return plan

    return build


def pods_before_revisions() -> Plan:
    """While nodes are upgraded the version changes again, and pods of it are seen before its revision is."""
    plan = scene("restart")
    plan.lags = {"controllerrevisions": 8.0}
    plan.script = [(9.0, lambda world: world.set_version("v3"))]
    return plan


def claimed_devices() -> Plan:
    """Pods hold devices by ResourceClaims, which only the claims tell."""
    deletion = {"resourceNames": [DEVICE], "timeoutSeconds": 60}
    policy: Obj = {"autoUpgrade": True, "maxParallelUpgrades": 1, "podRestart": RESTART, "podDeletion": deletion}
    return Plan(nodes=2, policy={**policy, "drain": DRAIN}, workloads=[Workload("w0", 3, claim=DEVICE), Workload("w1", 2)])


def two_kinds() -> Plan:
    """A policy of the seed's kind as well, which selects the nodes of an older one and is told so."""

    def create(world: World) -> None:
        spec = {"driver": {"upgradePolicy": {"autoUpgrade": True}}}
        meta = {"name": "late", "namespace": DRIVERS}
        made = {"kind": "CustomResource", "apiVersion": "nvidia.com/v1", "metadata": meta, "spec": spec}
        world.server.apply("admin", "customresources", made)

    plan = scene("matrix")
    plan.script.append((0.5, create))
    return plan


def told_again() -> Plan:
    """Events that are told again are counted on the first one."""
    return scene("safe load")


WATCHED = (
    "nodes",
    "pods",
    "daemonsets",
    "controllerrevisions",
    "poddisruptionbudgets",
    "driverupgradepolicies",
    "customresources",
)
Situations = dict[str, Callable[[], Plan]]
ROWS: dict[Call, Situations] = {
    ("PATCH", "nodes"): {"ordinary": ordinary},
    ("EVICT", "pods"): {"ordinary": ordinary},
    ("DELETE", "pods"): {"ordinary": ordinary},
    ("PATCH", "driverupgradepolicies"): {"ordinary": ordinary},
    ("PATCH", "customresources"): {"two kinds": two_kinds},
    ("POST", "events"): {"ordinary": ordinary},
    ("PATCH", "events"): {"told again": told_again},
    ("GET", "resourceclaims"): {"claimed devices": claimed_devices},
    **{("WATCH", kind): {"begun again": ordinary, "at the start": restarted} for kind in WATCHED},
    **{("LIST", kind): {"no WatchList": without_watch_list(kind)} for kind in WATCHED},
}
ROWS["LIST", "nodes"] |= {"a new leader's first look": restarted, "a grant without an answer": unknown_grant}
ROWS["LIST", "pods"] |= {"a deletion in doubt": doubted("DELETE"), "an eviction in doubt": doubted("EVICT")}
ROWS["LIST", "controllerrevisions"] |= {"an unknown hash": pods_before_revisions}

LEASE_ROWS: tuple[Call, ...] = (("GET", "leases"), ("POST", "leases"), ("PUT", "leases"))
"""The election's requests, met by several replicas from their start on."""


def met(call: Call, situation: str, verdict: Verdict, times: int = TIMES) -> Plan:
    """A plan in which the first requests of a row meet a verdict."""
    plan = ROWS[call][situation]()
    plan.verdicts = {**plan.verdicts, call: [*plan.verdicts.get(call, ()), *[verdict] * times]}
    return plan


def election(call: Call, verdict: Verdict) -> Election:
    """Two replicas whose first such requests for the Lease meet a verdict."""
    return Election(scene("restart"), verdicts={call: [verdict] * TIMES})
