"""Rows from the grant to the first eviction: cordon, passing states, wait for jobs."""

from typing import Any

from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from tests.unit.upgrade.builders import (
    ENTERED,
    KEYS,
    NEW,
    NOW,
    OLD,
    at,
    driver_pod,
    driver_set,
    other,
    policy,
    workload,
)
from tests.unit.upgrade.cases import Case

S, R = State, Reason
JOBS: dict[str, Any] = {"waitForCompletion": {"podSelector": "job=train", "timeoutSeconds": 100}}
DELETION: dict[str, Any] = {"podDeletion": {"resourceNames": ["nvidia.com/gpu*"]}}
DRAIN: dict[str, Any] = {"drain": {"enable": True}}
ALL = policy(**JOBS, **DELETION, **DRAIN)
DRAINED = policy(**DRAIN)
KEEP = {KEYS.initial_unschedulable: "true"}
SAFE_LOAD = {KEYS.safe_load: "drv"}
JOB = workload("job", labels={"job": "train"})
ENDED = workload("job", labels={"job": "train"}, phase="Succeeded")
GPU = workload("gpu", resource="nvidia.com/gpu")
UNREADABLE = {"ml/odd": "Expected `array`, got `str`"}
UNKNOWN_HASH = driver_pod("drv-old", 7)
DIGEST: dict[str, Any] = {**DRAIN, "podRestart": {"unchangedEnv": "DIGEST"}}
SAME = policy(**DIGEST)
SAME_OLD = driver_pod("drv-old", 1, env={"DIGEST": "d1"})
SAME_SET = (driver_set(env={"DIGEST": "d1"}),)
OTHER_SET = (driver_set(env={"DIGEST": "d2"}),)
RESTART_ONLY: dict[str, Any] = {"restart_only": True}
LONG_AGO: dict[str, Any] = {
    "entered": {S.WAIT_FOR_JOBS_REQUIRED: NOW - 100, S.POD_DELETION_REQUIRED: NOW - 300, S.DRAIN_REQUIRED: NOW - 300}
}

CORDON = (
    Case("cordon, then jobs", at(S.CORDON_REQUIRED, OLD, policy=ALL), S.WAIT_FOR_JOBS_REQUIRED, does="cordon, claim"),
    Case(
        "cordon, passing jobs",
        at(S.CORDON_REQUIRED, OLD, policy=policy(**DELETION, **DRAIN)),
        S.POD_DELETION_REQUIRED,
        does="cordon, claim",
    ),
    Case(
        "cordon, pod deletion by selector alone",
        at(S.CORDON_REQUIRED, OLD, policy=policy(podDeletion={"podSelector": "gpu"})),
        S.POD_DELETION_REQUIRED,
        does="cordon, claim",
    ),
    Case("cordon, passing both", at(S.CORDON_REQUIRED, OLD, policy=DRAINED), S.DRAIN_REQUIRED, does="cordon, claim"),
    Case("cordon, passing all", at(S.CORDON_REQUIRED, OLD), S.POD_RESTART_REQUIRED, does="cordon, claim"),
    Case(
        "cordon, restart only",
        at(S.CORDON_REQUIRED, SAME_OLD, policy=SAME, rec=RESTART_ONLY, sets=SAME_SET),
        S.POD_RESTART_REQUIRED,
        does="cordon, claim",
    ),
    Case(
        "cordon, driver changed: no restart only",
        at(S.CORDON_REQUIRED, SAME_OLD, policy=SAME, rec=RESTART_ONLY, sets=OTHER_SET),
        S.DRAIN_REQUIRED,
        does="cordon, claim",
    ),
    Case(
        "cordon, variable empty: no restart only",
        at(S.CORDON_REQUIRED, OLD, policy=SAME, rec=RESTART_ONLY),
        S.DRAIN_REQUIRED,
        does="cordon, claim",
    ),
    Case(
        "cordon, not granted as restart only (request, orphan)",
        at(S.CORDON_REQUIRED, SAME_OLD, policy=SAME, sets=SAME_SET),
        S.DRAIN_REQUIRED,
        does="cordon, claim",
    ),
    Case(
        "cordon, safe load: no restart only",
        at(S.CORDON_REQUIRED, SAME_OLD, policy=SAME, rec=RESTART_ONLY, sets=SAME_SET, notes=SAFE_LOAD),
        S.DRAIN_REQUIRED,
        does="cordon, claim",
    ),
    Case("cordon, no longer wanted", at(S.CORDON_REQUIRED, NEW, policy=ALL), S.POD_RESTART_REQUIRED, does="cordon, claim"),
    Case("cordon, foreign", at(S.CORDON_REQUIRED, OLD, policy=DRAINED, cordoned=True), S.DRAIN_REQUIRED, does="+keep"),
    Case(
        "cordon, foreign and known to be",
        at(S.CORDON_REQUIRED, OLD, policy=DRAINED, cordoned=True, notes=KEEP),
        S.DRAIN_REQUIRED,
    ),
    Case(
        "cordon, claimed by the other driver",
        at(S.CORDON_REQUIRED, OLD, policy=DRAINED, cordoned=True, others=(other(S.UPGRADE_FAILED, claim=True),)),
        S.DRAIN_REQUIRED,
        does="claim",
    ),
    Case(
        "cordon, kept by a retry, and to be left at the end",
        at(S.CORDON_REQUIRED, OLD, policy=DRAINED, cordoned=True, rec={"claim": True}, notes=KEEP),
        S.DRAIN_REQUIRED,
    ),
    Case(
        "cordon, key 5 left over on a schedulable node (P2)",
        at(S.CORDON_REQUIRED, OLD, policy=DRAINED, notes=KEEP),
        S.DRAIN_REQUIRED,
        does="cordon, claim, -keep",
    ),
)

JOBS_ROWS = (
    Case(
        "jobs run",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, workload=(JOB,)),
        why=R.JOBS_RUNNING,
        deadline=ENTERED + 100,
        look_again=ENTERED + 100,
    ),
    Case(
        "jobs pending",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, workload=(workload("j", labels={"job": "train"}, phase="Pending"),)),
        why=R.JOBS_RUNNING,
    ),
    Case(
        "jobs, for ever",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=policy(waitForCompletion={"podSelector": "job"}), workload=(JOB,)),
        why=R.JOBS_RUNNING,
        deadline=0,
        now=NOW + 1e6,
    ),
    Case("jobs ended", at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, workload=(ENDED, GPU)), S.POD_DELETION_REQUIRED),
    Case(
        "jobs ended, passing pod deletion",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=policy(**JOBS, **DRAIN)),
        S.DRAIN_REQUIRED,
    ),
    Case("jobs ended, passing all", at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=policy(**JOBS)), S.POD_RESTART_REQUIRED),
    Case(
        "jobs ended, unconfirmed",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, confirmed=False, rec=LONG_AGO),
        why=R.PODS_NOT_LISTED,
        does="confirm",
    ),
    Case(
        "jobs out of time",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, workload=(JOB,), rec=LONG_AGO),
        S.POD_DELETION_REQUIRED,
        R.DEADLINE_EXCEEDED,
    ),
    Case(
        "jobs a moment before",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, workload=(JOB,), rec=LONG_AGO),
        why=R.JOBS_RUNNING,
        deadline=NOW,
        now=NOW - 0.001,
    ),
    Case(
        "jobs, pods not listed",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, workload=None),
        why=R.PODS_NOT_LISTED,
        deadline=ENTERED + 100,
    ),
    Case(
        "jobs, pods never listed in time",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, workload=None, rec=LONG_AGO),
        S.POD_DELETION_REQUIRED,
        R.DEADLINE_EXCEEDED,
    ),
    Case(
        "jobs ended, but for a pod that cannot be read",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, unreadable=UNREADABLE),
        why=R.PODS_NOT_LISTED,
        deadline=ENTERED + 100,
    ),
    Case(
        "jobs ended, but for a pod that could not be read in time",
        at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=ALL, unreadable=UNREADABLE, rec=LONG_AGO),
        S.POD_DELETION_REQUIRED,
        R.DEADLINE_EXCEEDED,
    ),
    Case(
        "jobs run, upgrade no longer wanted",
        at(S.WAIT_FOR_JOBS_REQUIRED, NEW, policy=ALL, workload=(JOB,)),
        S.POD_RESTART_REQUIRED,
    ),
    Case("jobs, selector taken away", at(S.WAIT_FOR_JOBS_REQUIRED, OLD, policy=DRAINED, workload=(JOB,)), S.DRAIN_REQUIRED),
    Case(
        "jobs run, restart only since",
        at(
            S.WAIT_FOR_JOBS_REQUIRED,
            SAME_OLD,
            policy=policy(**DIGEST, **JOBS),
            rec=RESTART_ONLY,
            sets=SAME_SET,
            workload=(JOB,),
        ),
        why=R.JOBS_RUNNING,
    ),
)

ROWS = (*CORDON, *JOBS_ROWS)
