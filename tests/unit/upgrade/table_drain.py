"""Rows until the node is empty: pod deletion, drain, and cordons lifted meanwhile."""

from typing import Any

from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import Attempt, NodeView
from controller.upgrade.states import State
from tests.unit.upgrade.builders import (
    ENTERED,
    KEYS,
    NEW,
    NOW,
    OLD,
    STARTING,
    at,
    driver_set,
    orphan,
    pod,
    policy,
    workload,
)
from tests.unit.upgrade.cases import Case
from tests.unit.upgrade.table_vacate import (
    ALL,
    DELETION,
    DIGEST,
    DRAIN,
    DRAINED,
    GPU,
    JOB,
    KEEP,
    LONG_AGO,
    RESTART_ONLY,
    SAFE_LOAD,
    SAME,
    SAME_OLD,
    SAME_SET,
    UNKNOWN_HASH,
    UNREADABLE,
)

S, R = State, Reason
DELETION_ROWS = (
    Case(
        "device user",
        at(S.POD_DELETION_REQUIRED, OLD, policy=ALL, workload=(GPU, JOB)),
        why=R.EVICTING,
        does="evict gpu",
        deadline=ENTERED + 300,
    ),
    Case(
        "device user by init container",
        at(S.POD_DELETION_REQUIRED, OLD, policy=ALL, workload=(workload("i", init_resource="nvidia.com/gpu"),)),
        why=R.EVICTING,
        does="evict i",
    ),
    Case(
        "device user by selector",
        at(S.POD_DELETION_REQUIRED, OLD, policy=policy(podDeletion={"podSelector": "job"}), workload=(GPU, JOB)),
        why=R.EVICTING,
        does="evict job",
    ),
    Case("device users gone, drain", at(S.POD_DELETION_REQUIRED, OLD, policy=ALL, workload=(JOB,)), S.DRAIN_REQUIRED),
    Case("device users gone, no drain", at(S.POD_DELETION_REQUIRED, OLD, policy=policy(**DELETION)), S.POD_RESTART_REQUIRED),
    Case(
        "device users gone, unconfirmed",
        at(S.POD_DELETION_REQUIRED, OLD, policy=ALL, confirmed=False, rec=LONG_AGO),
        why=R.PODS_NOT_LISTED,
        does="confirm",
    ),
    Case(
        "device users gone, but for a pod that cannot be read",
        at(S.POD_DELETION_REQUIRED, OLD, policy=policy(**DELETION), unreadable=UNREADABLE),
        why=R.PODS_NOT_LISTED,
        deadline=ENTERED + 300,
    ),
    Case(
        "device user out of time, drain",
        at(S.POD_DELETION_REQUIRED, OLD, policy=ALL, workload=(GPU,), rec=LONG_AGO),
        S.DRAIN_REQUIRED,
        R.DEADLINE_EXCEEDED,
    ),
    Case(
        "device user out of time, no drain",
        at(S.POD_DELETION_REQUIRED, OLD, policy=policy(**DELETION), workload=(GPU,), rec=LONG_AGO),
        S.UPGRADE_FAILED,
        R.DEADLINE_EXCEEDED,
    ),
    Case(
        "device user, restart only since",
        at(
            S.POD_DELETION_REQUIRED,
            SAME_OLD,
            policy=policy(**DIGEST, **DELETION),
            rec=RESTART_ONLY,
            sets=SAME_SET,
            workload=(GPU,),
        ),
        S.POD_RESTART_REQUIRED,
    ),
    Case(
        "pod deletion no longer configured",
        at(S.POD_DELETION_REQUIRED, OLD, policy=DRAINED, workload=(GPU,)),
        S.DRAIN_REQUIRED,
    ),
    Case(
        "device user, upgrade no longer wanted",
        at(S.POD_DELETION_REQUIRED, NEW, policy=ALL, workload=(GPU,)),
        S.POD_RESTART_REQUIRED,
    ),
    Case(
        "device user that just finished is no failure",
        at(S.POD_DELETION_REQUIRED, OLD, policy=ALL, workload=(workload("g", resource="nvidia.com/gpu", phase="Failed"),)),
        S.DRAIN_REQUIRED,
    ),
)

TWO = (workload("a"), workload("b"))
DRAIN_ROWS = (
    Case(
        "drain",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=(OLD, *TWO)),
        why=R.EVICTING,
        does="evict a, evict b",
        deadline=ENTERED + 300,
        look_again=ENTERED + 300,
    ),
    Case(
        "drain, one blocked does not delay the other",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=TWO, attempts={"a": Attempt(NOW + 5, R.POD_DISRUPTION_BUDGET)}),
        why=R.POD_DISRUPTION_BUDGET,
        does="evict b",
        look_again=NOW + 5,
    ),
    Case(
        "drain, all blocked",
        at(
            S.DRAIN_REQUIRED,
            OLD,
            policy=DRAINED,
            workload=TWO[:1],
            attempts={"a": Attempt(NOW + 5, R.POD_DISRUPTION_BUDGET)},
        ),
        why=R.POD_DISRUPTION_BUDGET,
        look_again=NOW + 5,
    ),
    Case(
        "drain, time to try again: what holds it up has not changed",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=TWO[:1], attempts={"a": Attempt(NOW, R.POD_DISRUPTION_BUDGET)}),
        why=R.POD_DISRUPTION_BUDGET,
        does="evict a",
    ),
    Case(
        "drain, its time is up before the blocked pod may be tried again",
        at(
            S.DRAIN_REQUIRED,
            OLD,
            policy=DRAINED,
            workload=TWO[:1],
            attempts={"a": Attempt(NOW + 1000, R.POD_DISRUPTION_BUDGET)},
        ),
        why=R.POD_DISRUPTION_BUDGET,
        deadline=ENTERED + 300,
        look_again=ENTERED + 300,
    ),
    Case(
        "drain, shutting down",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=(workload("a", terminating=True),)),
        why=R.POD_TERMINATING,
    ),
    Case("drain over", at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=(OLD,)), S.POD_RESTART_REQUIRED),
    Case(
        "drain over, past its time but over", at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, rec=LONG_AGO), S.POD_RESTART_REQUIRED
    ),
    Case(
        "drain over, unconfirmed",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, confirmed=False, rec=LONG_AGO),
        why=R.PODS_NOT_LISTED,
        does="confirm",
        deadline=0,
    ),
    Case(
        "drain, pods not listed",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=None),
        why=R.PODS_NOT_LISTED,
        deadline=ENTERED + 300,
    ),
    Case(
        "drain, pods never listed in time",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=None, rec=LONG_AGO),
        S.UPGRADE_FAILED,
        R.DEADLINE_EXCEEDED,
    ),
    Case(
        "drain, a pod cannot be read",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=(), unreadable=UNREADABLE),
        why=R.PODS_NOT_LISTED,
        deadline=ENTERED + 300,
    ),
    Case(
        "drain, nothing is evicted beside a pod that cannot be read",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=TWO, unreadable=UNREADABLE),
        why=R.PODS_NOT_LISTED,
    ),
    Case(
        "drain, a pod could not be read in time",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=(), unreadable=UNREADABLE, rec=LONG_AGO),
        S.UPGRADE_FAILED,
        R.DEADLINE_EXCEEDED,
    ),
    Case(
        "drain out of time",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=TWO, rec=LONG_AGO),
        S.UPGRADE_FAILED,
        R.DEADLINE_EXCEEDED,
    ),
    Case(
        "drain, for ever",
        at(S.DRAIN_REQUIRED, OLD, policy=policy(drain={"enable": True, "timeoutSeconds": 0}), workload=TWO),
        why=R.EVICTING,
        does="evict a, evict b",
        deadline=0,
        look_again=0,
        now=NOW + 1e6,
    ),
    Case(
        "drain, bare pod blocks all",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=(*TWO, workload("bare", owner=None))),
        why=R.UNMANAGED_POD,
    ),
    Case(
        "drain, emptyDir blocks all",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=(*TWO, workload("e", empty_dir=True))),
        why=R.EMPTY_DIR_POD,
    ),
    Case(
        "drain, the orphaned driver pod is not workload",
        at(S.DRAIN_REQUIRED, orphan("drv-old"), policy=DRAINED, workload=(orphan("drv-old"),)),
        S.POD_RESTART_REQUIRED,
    ),
    Case(
        "drain, no longer wanted: nothing is evicted",
        at(S.DRAIN_REQUIRED, STARTING, policy=DRAINED, workload=TWO),
        S.POD_RESTART_REQUIRED,
    ),
    Case(
        "drain of a request goes on",
        at(S.DRAIN_REQUIRED, NEW, policy=DRAINED, rec={"replace": "drv-new"}, workload=TWO[:1]),
        why=R.EVICTING,
        does="evict a",
    ),
    Case(
        "drain of a safe load goes on",
        at(S.DRAIN_REQUIRED, STARTING, policy=DRAINED, notes=SAFE_LOAD, workload=TWO[:1]),
        why=R.EVICTING,
        does="evict a",
    ),
    Case("drain, driver pod gone", at(S.DRAIN_REQUIRED, policy=DRAINED, workload=TWO[:1]), why=R.EVICTING, does="evict a"),
    Case("drain, switched off", at(S.DRAIN_REQUIRED, OLD, workload=TWO), S.POD_RESTART_REQUIRED),
    Case(
        "drain, paused and skipped: goes on",
        at(S.DRAIN_REQUIRED, OLD, policy=policy(**DRAIN, paused=True), labels={KEYS.skip: "true"}, workload=TWO[:1]),
        why=R.EVICTING,
        does="evict a",
    ),
    Case(
        "drain, policy broken since",
        at(S.DRAIN_REQUIRED, OLD, policy=policy(drain={"enable": True, "podSelector": "("}, last=DRAINED), workload=TWO[:1]),
        why=R.EVICTING,
        does="evict a",
    ),
    Case(
        "drain, policy broken from the start",
        at(S.DRAIN_REQUIRED, OLD, policy=policy(drain={"enable": True, "podSelector": "("}), workload=TWO, rec=LONG_AGO),
        why=R.POLICY_INVALID,
        look_again=0,
    ),
    Case(
        "drain, hash unknown",
        at(S.DRAIN_REQUIRED, UNKNOWN_HASH, policy=DRAINED, workload=TWO),
        why=R.REVISION_UNKNOWN,
        does="list revisions of ds",
        deadline=ENTERED + 300,
    ),
    Case(
        "drain, the cache is behind the target granted (P7)",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=TWO, sets=(driver_set(newest=1),)),
        why=R.REVISION_UNKNOWN,
        does="list revisions of ds",
    ),
    Case(
        "drain, DaemonSet not observed for too long",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, workload=TWO, sets=(driver_set(observed=False),), rec=LONG_AGO),
        S.UPGRADE_FAILED,
        R.DEADLINE_EXCEEDED,
    ),
    Case(
        "drain, restart only since",
        at(S.DRAIN_REQUIRED, SAME_OLD, policy=SAME, rec=RESTART_ONLY, sets=SAME_SET, workload=TWO),
        S.POD_RESTART_REQUIRED,
    ),
    Case(
        "drain, key 9 appears: counts from the end",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, notes={KEYS.requestor_mode: "true"}, workload=TWO[:1]),
        why=R.EVICTING,
        does="evict a",
    ),
)


def lifted(state: State, **rec: Any) -> NodeView:
    return at(state, OLD, policy=ALL, cordoned=False, workload=(pod("a"),), rec=rec)


RECORDON_ROWS = (
    *(
        Case(f"cordon lifted in {state}", lifted(state, recordons=4), why=R.CORDON_LIFTED, does="cordon")
        for state in (S.WAIT_FOR_JOBS_REQUIRED, S.POD_DELETION_REQUIRED, S.DRAIN_REQUIRED, S.POD_RESTART_REQUIRED)
    ),
    *(
        Case(
            f"cordon lifted for the sixth time in {state}",
            lifted(state, recordons=5),
            S.UPGRADE_FAILED,
            R.CORDON_LIFTED,
            "unclaim",
        )
        for state in (S.WAIT_FOR_JOBS_REQUIRED, S.POD_DELETION_REQUIRED, S.DRAIN_REQUIRED, S.POD_RESTART_REQUIRED)
    ),
    Case(
        "foreign cordon lifted: ours now",
        at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, cordoned=False, rec={"claim": False}, notes=KEEP),
        why=R.CORDON_LIFTED,
        does="cordon, claim, -keep",
    ),
)

ROWS = (*DELETION_ROWS, *DRAIN_ROWS, *RECORDON_ROWS)
