"""Rows from the empty node to the one given back: pod restart, validation, uncordon."""

from typing import Any

from controller.api.pod import Pod
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from tests.unit.upgrade.builders import (
    ENTERED,
    KEYS,
    NEW,
    NOW,
    OLD,
    STARTING,
    at,
    driver_pod,
    driver_set,
    orphan,
    other,
    pod,
    policy,
    workload,
)
from tests.unit.upgrade.cases import Case

S, R = State, Reason
DRAINED = policy(drain={"enable": True})
VALIDATED = policy(validation={"podSelector": "app=check"})
SAFE_LOAD = {KEYS.safe_load: "drv"}
KEEP = {KEYS.initial_unschedulable: "true"}
LONG_AGO: dict[str, Any] = {"entered": {S.POD_RESTART_REQUIRED: NOW - 1800, S.VALIDATION_REQUIRED: NOW - 600}}
CHECK = pod("check", labels={"app": "check"})
CHECK_BAD = pod("check-2", labels={"app": "check"}, ready=False)
RESTARTED: dict[str, Any] = {"rec": {"replace": "drv-new"}}
NOT_OBSERVED = (driver_set(observed=False),)
UNKNOWN_HASH = driver_pod("drv-new", 7)
GOING = driver_pod("drv-old", 1, terminating=True)
SAME = policy(drain={"enable": True}, podRestart={"unchangedEnv": "DIGEST"})
SAME_OLD = driver_pod("drv-old", 1, env={"DIGEST": "d1"})
SAME_SET = (driver_set(env={"DIGEST": "d1"}),)
OTHER_SET = (driver_set(env={"DIGEST": "d2"}),)


def restart(*pods: Pod, **changes: Any) -> NodeView:
    return at(S.POD_RESTART_REQUIRED, *pods, **changes)


def validate(*pods: Pod, **changes: Any) -> NodeView:
    return at(S.VALIDATION_REQUIRED, *pods, **{"policy": VALIDATED, **changes})


def uncordon(*pods: Pod, **changes: Any) -> NodeView:
    return at(S.UNCORDON_REQUIRED, *pods, **changes)


REPLACE = (
    Case("outdated pod", restart(OLD), why=R.DRIVER_POD_TERMINATING, does="delete drv-old", deadline=ENTERED + 1800),
    Case("recorded pod, though current", restart(NEW, **RESTARTED), why=R.DRIVER_POD_TERMINATING, does="delete drv-new"),
    Case(
        "recorded orphan",
        restart(orphan(), rec={"replace": "drv-orphan"}),
        why=R.DRIVER_POD_TERMINATING,
        does="delete drv-orphan",
    ),
    Case("orphan that nobody asked about", restart(NEW, orphan()), why=R.DRIVER_POD_NOT_READY),
    Case(
        "both pods outdated", restart(OLD, driver_pod("b", 1)), why=R.DRIVER_POD_TERMINATING, does="delete drv-old, delete b"
    ),
    Case("old pod going", restart(GOING), why=R.DRIVER_POD_TERMINATING),
    Case(
        "old pod held",
        restart(driver_pod("drv-old", 1, terminating=True, finalizers=("a/b",))),
        why=R.DRIVER_POD_TERMINATING,
        look_again=ENTERED + 1800,
    ),
    Case("safe load", restart(STARTING, notes=SAFE_LOAD), does="-safe-load"),
    Case("safe load in an outdated pod", restart(OLD, notes=SAFE_LOAD), why=R.DRIVER_POD_TERMINATING, does="delete drv-old"),
    Case("workload came back", restart(OLD, policy=DRAINED, workload=(workload(),)), S.DRAIN_REQUIRED),
    Case(
        "workload came back while the pod is going",
        restart(GOING, policy=DRAINED, workload=(workload(),)),
        S.DRAIN_REQUIRED,
    ),
    Case(
        "workload before a safe load",
        restart(STARTING, policy=DRAINED, notes=SAFE_LOAD, workload=(workload(),)),
        S.DRAIN_REQUIRED,
    ),
    Case(
        "workload is left where there is no drain",
        restart(OLD, workload=(workload(),)),
        why=R.DRIVER_POD_TERMINATING,
        does="delete drv-old",
    ),
    Case(
        "workload of the skip label stays",
        restart(OLD, policy=DRAINED, workload=(workload(labels={KEYS.drain_skip: "true"}),)),
        why=R.DRIVER_POD_TERMINATING,
        does="delete drv-old",
    ),
    Case(
        "pods not listed",
        restart(OLD, policy=DRAINED, workload=None),
        why=R.PODS_NOT_LISTED,
        deadline=ENTERED + 1800,
        look_again=ENTERED + 1800,
    ),
    Case("a pod that cannot be read", restart(OLD, policy=DRAINED, unreadable={"ml/odd": "no"}), S.DRAIN_REQUIRED),
    Case("emptiness unconfirmed", restart(OLD, policy=DRAINED, confirmed=False), why=R.PODS_NOT_LISTED, does="confirm"),
    Case("empty", restart(OLD, policy=DRAINED), why=R.DRIVER_POD_TERMINATING, does="delete drv-old"),
    Case(
        "restart only, workload stays",
        restart(SAME_OLD, policy=SAME, rec={"restart_only": True}, sets=SAME_SET, workload=(workload(),)),
        why=R.DRIVER_POD_TERMINATING,
        does="delete drv-old",
    ),
    Case(
        "restart only judged again: the driver changed",
        restart(SAME_OLD, policy=SAME, rec={"restart_only": True}, sets=OTHER_SET, workload=(workload(),)),
        S.DRAIN_REQUIRED,
    ),
    Case(
        "hash unknown", restart(UNKNOWN_HASH), why=R.REVISION_UNKNOWN, does="list revisions of ds", deadline=ENTERED + 1800
    ),
    Case("DaemonSet not observed", restart(OLD, sets=NOT_OBSERVED), why=R.REVISION_UNKNOWN),
    Case(
        "new target half-way",
        restart(NEW, sets=(driver_set(newest=3),)),
        why=R.DRIVER_POD_TERMINATING,
        does="delete drv-new",
    ),
)

AWAIT = (
    Case("no new pod", restart(), why=R.DRIVER_POD_MISSING, deadline=ENTERED + 1800, look_again=ENTERED + 1800),
    Case("starting", restart(STARTING), why=R.DRIVER_POD_NOT_READY),
    Case("pending", restart(driver_pod("drv-new", 2, phase="Pending", ready=False)), why=R.DRIVER_POD_PENDING),
    Case("image", restart(driver_pod("drv-new", 2, phase="Pending", waiting="ImagePullBackOff")), why=R.IMAGE_PULL_FAILED),
    Case("crashing", restart(driver_pod("drv-new", 2, waiting="CrashLoopBackOff", restarts=10)), why=R.DRIVER_POD_CRASHING),
    Case(
        "crashed too often",
        restart(driver_pod("drv-new", 2, ready=False, restarts=11)),
        S.UPGRADE_FAILED,
        R.DRIVER_POD_CRASHING,
    ),
    Case("crashed often, ready now", restart(driver_pod("drv-new", 2, restarts=11)), S.UNCORDON_REQUIRED),
    Case("new pod going", restart(driver_pod("drv-new", 2, terminating=True)), why=R.DRIVER_POD_TERMINATING),
    Case("one of two ready", restart(NEW, driver_pod("b", 2, ready=False)), why=R.DRIVER_POD_NOT_READY),
    Case("not ready in time", restart(STARTING, rec=LONG_AGO), S.UPGRADE_FAILED, R.DRIVER_POD_NOT_READY),
    Case("no pod in time", restart(rec=LONG_AGO), S.UPGRADE_FAILED, R.DRIVER_POD_MISSING),
    Case("old pod held for too long", restart(GOING, rec=LONG_AGO), S.UPGRADE_FAILED, R.DRIVER_POD_TERMINATING),
    Case("not observed in time", restart(OLD, rec=LONG_AGO, sets=NOT_OBSERVED), S.UPGRADE_FAILED, R.REVISION_UNKNOWN),
    Case("ready past the time: ready", restart(NEW, rec=LONG_AGO), S.UNCORDON_REQUIRED),
    Case(
        "for ever",
        restart(STARTING, policy=policy(podRestart={"timeoutSeconds": 0})),
        why=R.DRIVER_POD_NOT_READY,
        deadline=0,
        look_again=0,
        now=NOW + 1e7,
    ),
    Case("ready, to validation", restart(NEW, policy=VALIDATED), S.VALIDATION_REQUIRED),
    Case("ready, our cordon", restart(NEW), S.UNCORDON_REQUIRED),
    Case("ready, foreign cordon", restart(NEW, rec={"claim": False}, notes=KEEP), S.UPGRADE_DONE, does="-keep"),
    Case("ready, cordon to be kept", restart(NEW, notes=KEEP), S.UPGRADE_DONE, does="unclaim, -keep"),
    Case(
        "ready, the other driver claims too",
        restart(NEW, others=(other(S.DRAIN_REQUIRED, claim=True),)),
        S.UPGRADE_DONE,
        does="unclaim",
    ),
)

VALIDATION = (
    Case("valid, our cordon", validate(NEW, workload=(CHECK,)), S.UNCORDON_REQUIRED),
    Case("valid, foreign cordon", validate(NEW, workload=(CHECK,), rec={"claim": False}), S.UPGRADE_DONE),
    Case("validation taken out of the policy", validate(NEW, policy=policy()), S.UNCORDON_REQUIRED),
    Case(
        "one of two not ready",
        validate(NEW, workload=(CHECK, CHECK_BAD)),
        why=R.VALIDATION_NOT_READY,
        deadline=ENTERED + 600,
    ),
    Case("none there", validate(NEW), why=R.VALIDATION_POD_MISSING, look_again=ENTERED + 600),
    Case("not listed", validate(NEW, workload=None), why=R.PODS_NOT_LISTED, deadline=ENTERED + 600),
    Case("none in time (P6)", validate(NEW, rec=LONG_AGO), S.UPGRADE_FAILED, R.VALIDATION_POD_MISSING),
    Case("not ready in time", validate(NEW, rec=LONG_AGO, workload=(CHECK_BAD,)), S.UPGRADE_FAILED, R.VALIDATION_NOT_READY),
    Case("not listed in time", validate(NEW, rec=LONG_AGO, workload=None), S.UPGRADE_FAILED, R.PODS_NOT_LISTED),
    Case("valid past the time", validate(NEW, rec=LONG_AGO, workload=(CHECK,)), S.UNCORDON_REQUIRED),
    Case("driver not ready any more", validate(STARTING, workload=(CHECK,)), S.POD_RESTART_REQUIRED),
    Case("driver outdated", validate(OLD, workload=(CHECK,)), S.POD_RESTART_REQUIRED),
    Case("driver gone", validate(workload=(CHECK,)), S.POD_RESTART_REQUIRED),
    Case("safe load appears", validate(NEW, workload=(CHECK,), notes=SAFE_LOAD), S.POD_RESTART_REQUIRED),
    Case(
        "hash unknown", validate(UNKNOWN_HASH), why=R.REVISION_UNKNOWN, does="list revisions of ds", deadline=ENTERED + 600
    ),
    Case("not observed in time", validate(NEW, rec=LONG_AGO, sets=NOT_OBSERVED), S.UPGRADE_FAILED, R.VALIDATION_POD_MISSING),
    Case(
        "cordon lifted during the validation: accepted",
        validate(NEW, workload=(CHECK,), cordoned=False),
        S.UPGRADE_DONE,
        does="unclaim",
    ),
)

UNCORDON = (
    Case("uncordon", uncordon(NEW), S.UPGRADE_DONE, does="uncordon, unclaim"),
    Case("uncordon, cordon to be kept", uncordon(NEW, notes=KEEP), S.UPGRADE_DONE, does="unclaim, -keep"),
    Case("uncordon, already lifted", uncordon(NEW, cordoned=False), S.UPGRADE_DONE, does="unclaim"),
    Case(
        "uncordon, the other driver claims",
        uncordon(NEW, others=(other(S.UPGRADE_FAILED, claim=True),)),
        S.UPGRADE_DONE,
        does="unclaim",
    ),
    Case(
        "uncordon, the other driver claims, key 5 moves",
        uncordon(NEW, notes=KEEP, others=(other(S.UPGRADE_FAILED, claim=True),)),
        S.UPGRADE_DONE,
        does="unclaim, -keep, +ofed-keep",
    ),
    Case("uncordon, driver not ready any more", uncordon(STARTING), S.POD_RESTART_REQUIRED),
    Case("uncordon, driver outdated", uncordon(OLD), S.POD_RESTART_REQUIRED),
    Case("uncordon, the pod's DaemonSet is gone", uncordon(NEW, sets=(driver_set("another"),)), S.POD_RESTART_REQUIRED),
    Case(
        "validation off, the pod's DaemonSet is gone",
        validate(NEW, policy=policy(), sets=(driver_set("another"),)),
        S.POD_RESTART_REQUIRED,
    ),
    Case("uncordon, safe load appears", uncordon(NEW, notes=SAFE_LOAD), S.POD_RESTART_REQUIRED),
    Case(
        "uncordon, valid still", uncordon(NEW, policy=VALIDATED, workload=(CHECK,)), S.UPGRADE_DONE, does="uncordon, unclaim"
    ),
    Case("uncordon, valid no more", uncordon(NEW, policy=VALIDATED, workload=(CHECK, CHECK_BAD)), S.POD_RESTART_REQUIRED),
    Case("uncordon, nothing validates any more", uncordon(NEW, policy=VALIDATED), S.POD_RESTART_REQUIRED),
    Case(
        "uncordon, not listed yet",
        uncordon(NEW, policy=VALIDATED, workload=None),
        why=R.PODS_NOT_LISTED,
        deadline=ENTERED + 600,
    ),
    Case(
        "uncordon, not listed in time",
        uncordon(NEW, policy=VALIDATED, workload=None, rec={"entered": {S.UNCORDON_REQUIRED: NOW - 600}}),
        S.POD_RESTART_REQUIRED,
    ),
    Case(
        "uncordon, not listed, for ever",
        uncordon(NEW, policy=policy(validation={"podSelector": "app=check", "timeoutSeconds": 0}), workload=None),
        why=R.PODS_NOT_LISTED,
        deadline=0,
        now=NOW + 1e7,
    ),
    Case(
        "uncordon, not listed, and nothing to validate",
        uncordon(NEW, workload=None),
        S.UPGRADE_DONE,
        does="uncordon, unclaim",
    ),
    Case(
        "uncordon, hash unknown", uncordon(UNKNOWN_HASH), why=R.REVISION_UNKNOWN, does="list revisions of ds", look_again=0
    ),
)

ROWS = (*REPLACE, *AWAIT, *VALIDATION, *UNCORDON)
