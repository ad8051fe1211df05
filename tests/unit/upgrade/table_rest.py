"""Rows for nodes that hold no slot: unknown, done, upgrade-required, failed, and the two grants."""

from typing import Any

from controller.api.pod import Pod
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from tests.unit.upgrade.builders import (
    KEYS,
    NEW,
    OLD,
    STARTING,
    at,
    driver_pod,
    driver_set,
    node,
    orphan,
    other,
    pod,
    policy,
    record,
    view,
)
from tests.unit.upgrade.cases import Case, granted, validation_granted

S, R = State, Reason
SAFE_LOAD = {KEYS.safe_load: "drv"}
REQUESTED = {KEYS.requested: "true"}
KEEP = {KEYS.initial_unschedulable: "true"}
UNKNOWN_HASH = driver_pod("drv-new", 7)
FOREIGN = record(S.DRAIN_REQUIRED, node="the-node-before")
BROKEN = policy(drain={"podSelector": "("})

AT_REST = (
    Case("unknown, pod current", view(node(), NEW), S.UPGRADE_DONE),
    Case("unknown, pod outdated", view(node(), OLD), S.UPGRADE_REQUIRED),
    Case("unknown, no pod yet", view(node()), why=R.DRIVER_POD_MISSING),
    Case("marks of an earlier node, no pod yet", view(node(S.DRAIN_REQUIRED, FOREIGN)), does="put back"),
    Case(
        "marks of an earlier node that no DaemonSet wants",
        view(node(S.DRAIN_REQUIRED, FOREIGN, cordoned=True), sets=(driver_set(wants=False),)),
        does="put back",
    ),
    Case(
        "policy never understood, cordon lifted",
        at(S.DRAIN_REQUIRED, OLD, cordoned=False, policy=BROKEN),
        why=R.CORDON_LIFTED,
        does="unclaim",
    ),
    Case("unknown, nothing of the driver should be here", view(node(), sets=(driver_set(wants=False),))),
    Case("unknown, pods of a DaemonSet that is gone", view(node(), orphan(), sets=()), why=R.DAEMONSET_GONE),
    Case(
        "unknown, safe load but the DaemonSet does not want the node",
        view(node(notes=SAFE_LOAD), NEW, sets=(driver_set(wants=False),)),
        why=R.DAEMONSET_GONE,
    ),
    Case("unknown, left-over key 5", view(node(notes=KEEP), NEW), S.UPGRADE_DONE, does="-keep"),
    Case("record and label of another node uid", view(node(S.DRAIN_REQUIRED, FOREIGN), OLD), S.UPGRADE_REQUIRED),
    Case("record and label of another node uid, pod current", view(node(S.DRAIN_REQUIRED, FOREIGN), NEW), S.UPGRADE_DONE),
    Case("done, pod current", at(S.UPGRADE_DONE, NEW)),
    Case("done, pod current but not ready", at(S.UPGRADE_DONE, STARTING)),
    Case("done, no pod", at(S.UPGRADE_DONE), why=R.DRIVER_POD_MISSING),
    Case("done, pod outdated", at(S.UPGRADE_DONE, OLD), S.UPGRADE_REQUIRED),
    Case("done, one of two pods outdated", at(S.UPGRADE_DONE, NEW, OLD), S.UPGRADE_REQUIRED),
    Case("done, safe load", at(S.UPGRADE_DONE, NEW, notes=SAFE_LOAD), S.UPGRADE_REQUIRED),
    Case("done, requested", at(S.UPGRADE_DONE, NEW, notes=REQUESTED), S.UPGRADE_REQUIRED),
    Case("done, requested in other words", at(S.UPGRADE_DONE, NEW, notes={KEYS.requested: "yes"})),
    Case("done, requested without a pod", at(S.UPGRADE_DONE, notes=REQUESTED), why=R.DRIVER_POD_MISSING),
    Case("done, orphan", at(S.UPGRADE_DONE, orphan())),
    Case("done, orphan requested", at(S.UPGRADE_DONE, orphan(), notes=REQUESTED), S.UPGRADE_REQUIRED),
    Case("done, hash unknown", at(S.UPGRADE_DONE, UNKNOWN_HASH), why=R.REVISION_UNKNOWN, does="list revisions of ds"),
    Case(
        "done, hash proved absent",
        at(S.UPGRADE_DONE, UNKNOWN_HASH, sets=(driver_set(absent={"hash7"}),)),
        S.UPGRADE_REQUIRED,
    ),
    Case(
        "done, DaemonSet not observed", at(S.UPGRADE_DONE, OLD, sets=(driver_set(observed=False),)), why=R.REVISION_UNKNOWN
    ),
    Case("done, policy invalid", at(S.UPGRADE_DONE, OLD, policy=BROKEN), why=R.POLICY_INVALID),
    Case("unknown label", view(node("upgrade-somehow"), OLD), why=R.INVALID_STATE),
    Case("another operator's node", view(node(notes={KEYS.requestor_mode: "true"}), OLD), why=R.OTHER_OPERATOR),
    Case(
        "another operator's node, our record at rest",
        at(S.UPGRADE_DONE, OLD, notes={KEYS.requestor_mode: "true"}),
        why=R.OTHER_OPERATOR,
    ),
    Case("no policy, no record: not ours", view(node(S.UPGRADE_REQUIRED), OLD, policy=None)),
)

REQUIRED = (
    Case("required, pod outdated", at(S.UPGRADE_REQUIRED, OLD), why=R.NO_SLOT),
    Case("required, safe load and not ready", at(S.UPGRADE_REQUIRED, NEW, notes=SAFE_LOAD, ready=False), why=R.NO_SLOT),
    Case("required, pod current", at(S.UPGRADE_REQUIRED, NEW), S.UPGRADE_DONE),
    Case("required, pod current, the peer's key 5", at(S.UPGRADE_REQUIRED, NEW, notes=KEEP), S.UPGRADE_DONE, does="-keep"),
    Case("required, current, claim", at(S.UPGRADE_REQUIRED, NEW, cordoned=True, rec={"claim": True}), why=R.NO_SLOT),
    Case(
        "required, hash unknown", at(S.UPGRADE_REQUIRED, UNKNOWN_HASH), why=R.REVISION_UNKNOWN, does="list revisions of ds"
    ),
    Case(
        "required, outdated, and the hash of another pod unknown",
        at(S.UPGRADE_REQUIRED, OLD, UNKNOWN_HASH),
        why=R.REVISION_UNKNOWN,
        does="list revisions of ds",
    ),
    Case("required, no pod", at(S.UPGRADE_REQUIRED), why=R.DRIVER_POD_MISSING),
    Case("required, skipped", at(S.UPGRADE_REQUIRED, OLD, labels={KEYS.skip: "true"}), why=R.SKIPPED),
    Case("required, skip says something else", at(S.UPGRADE_REQUIRED, OLD, labels={KEYS.skip: "1"}), why=R.NO_SLOT),
    Case("required, not ready", at(S.UPGRADE_REQUIRED, OLD, ready=False), why=R.NODE_NOT_READY),
    Case(
        "required, not ready since the upgrade failed",
        at(S.UPGRADE_REQUIRED, OLD, ready=False, rec={"failure": Failure(R.DRIVER_POD_PENDING)}),
        why=R.NO_SLOT,
    ),
    Case(
        "required, other driver in progress",
        at(S.UPGRADE_REQUIRED, OLD, others=(other(S.DRAIN_REQUIRED, claim=True),), cordoned=True),
        why=R.OTHER_DRIVER_IN_PROGRESS,
    ),
    Case(
        "required, other driver failed and holding the cordon",
        at(S.UPGRADE_REQUIRED, OLD, others=(other(S.UPGRADE_FAILED, claim=True),), cordoned=True),
        why=R.NO_SLOT,
    ),
    Case("required, foreign cordon", at(S.UPGRADE_REQUIRED, OLD, cordoned=True), why=R.NO_SLOT),
    Case(
        "required, foreign cordon to skip",
        at(S.UPGRADE_REQUIRED, OLD, cordoned=True, policy=policy(cordonedNodes="Skip")),
        why=R.NODE_CORDONED,
    ),
    Case(
        "required, our own cordon is not foreign",
        at(S.UPGRADE_REQUIRED, OLD, cordoned=True, rec={"claim": True}, policy=policy(cordonedNodes="Skip")),
        why=R.NO_SLOT,
    ),
    Case("required, policy invalid", at(S.UPGRADE_REQUIRED, OLD, policy=BROKEN), why=R.POLICY_INVALID),
    Case(
        "required by hand while in progress", view(node(S.UPGRADE_REQUIRED, record(S.DRAIN_REQUIRED)), OLD, policy=policy())
    ),
    Case("required by the peer, without a record", view(node(S.UPGRADE_REQUIRED), OLD), why=R.NO_SLOT),
)

GRANTS = (
    Case("grant", at(S.UPGRADE_REQUIRED, OLD), S.CORDON_REQUIRED, by=granted),
    Case(
        "grant of a request", at(S.UPGRADE_REQUIRED, NEW, notes=REQUESTED), S.CORDON_REQUIRED, does="-requested", by=granted
    ),
    Case("grant of a safe load", at(S.UPGRADE_REQUIRED, NEW, notes=SAFE_LOAD), S.CORDON_REQUIRED, by=granted),
    Case("grant without a record", view(node(S.UPGRADE_REQUIRED), OLD), S.CORDON_REQUIRED, by=granted),
    Case("grant too late: skipped", at(S.UPGRADE_REQUIRED, OLD, labels={KEYS.skip: "true"}), why=R.SKIPPED, by=granted),
    Case("validation granted", at(S.UPGRADE_FAILED, NEW), S.VALIDATION_REQUIRED, by=validation_granted),
)


BUSY, STUCK = (other(S.DRAIN_REQUIRED, claim=True),), (other(S.UPGRADE_FAILED, claim=True),)


def failed(*pods: Pod, **changes: Any) -> NodeView:
    failure = Failure(R.DRIVER_POD_PENDING, S.POD_RESTART_REQUIRED, "ds@2", changes.pop("failed_pod", "drv-new"), "image?")
    rec = {"failure": failure, **changes.pop("rec", {})}
    return at(S.UPGRADE_FAILED, *pods, rec=rec, **changes)


VALIDATED = policy(validation={"podSelector": "app=check"})
CHECK = pod("check", labels={"app": "check"})
CHECK_BAD = pod("check", labels={"app": "check"}, ready=False)

FAILED = (
    Case("failed, nothing changed", failed(STARTING), why=R.DRIVER_POD_PENDING),
    Case("failed, no pod", failed(), why=R.DRIVER_POD_PENDING),
    Case("failed, reason forgotten", at(S.UPGRADE_FAILED, STARTING), why=R.FAILED),
    Case("failed, pod outdated for the same target", failed(OLD), why=R.DRIVER_POD_PENDING),
    Case("failed, pod outdated for another target", failed(NEW, sets=(driver_set(newest=3),)), S.UPGRADE_REQUIRED),
    Case(
        "failed, safe load in another pod",
        failed(driver_pod("drv-newer", 2, ready=False), notes=SAFE_LOAD),
        S.UPGRADE_REQUIRED,
    ),
    Case("failed, safe load in the failed pod", failed(STARTING, notes=SAFE_LOAD), why=R.DRIVER_POD_PENDING),
    Case("failed, requested", failed(STARTING, notes=REQUESTED), why=R.DRIVER_POD_PENDING),
    Case("failed, same pod ready, validation off", failed(NEW), why=R.NO_SLOT),
    Case("failed, ready again beside another driver", failed(NEW, others=BUSY), why=R.OTHER_DRIVER_IN_PROGRESS),
    Case("failed, ready again beside a driver that failed", failed(NEW, others=STUCK), why=R.NO_SLOT),
    Case("failed, same pod ready, no validation pod", failed(NEW, policy=VALIDATED), why=R.DRIVER_POD_PENDING),
    Case(
        "failed, same pod ready, not valid", failed(NEW, policy=VALIDATED, workload=(CHECK_BAD,)), why=R.DRIVER_POD_PENDING
    ),
    Case("failed, same pod ready, pods not listed", failed(NEW, policy=VALIDATED, workload=None), why=R.DRIVER_POD_PENDING),
    Case("failed, same pod ready and valid", failed(NEW, policy=VALIDATED, workload=(CHECK,)), why=R.NO_SLOT),
    Case("failed, another pod ready, not valid yet", failed(NEW, policy=VALIDATED, failed_pod="drv-x"), why=R.NO_SLOT),
    Case(
        "failed, old version put back, its pod ready",
        failed(driver_pod("drv-new", 3), policy=VALIDATED, sets=(driver_set(newest=3),)),
        why=R.NO_SLOT,
    ),
    Case(
        "failed, the pod to replace is current and ready", failed(NEW, rec={"replace": "drv-new"}), why=R.DRIVER_POD_PENDING
    ),
    Case("failed, another pod, not ready", failed(STARTING, failed_pod="drv-x"), why=R.DRIVER_POD_PENDING),
    Case("failed, cordon lifted: theirs", failed(STARTING, cordoned=False), why=R.CORDON_LIFTED, does="unclaim"),
    Case("failed, hash unknown", failed(UNKNOWN_HASH), why=R.REVISION_UNKNOWN, does="list revisions of ds"),
    Case("failed, key 9 counts after it", failed(STARTING, notes={KEYS.requestor_mode: ""}), why=R.DRIVER_POD_PENDING),
    Case("failed, policy invalid", failed(NEW, policy=BROKEN), why=R.POLICY_INVALID),
)

ROWS = (*AT_REST, *REQUIRED, *GRANTS, *FAILED)
