"""Rows for marks that a person or another program made: relabelled, label vanished, taken over, put back."""

from typing import Any

from controller.api.pod import Pod
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure
from controller.upgrade.snapshot import NodeView, Released
from controller.upgrade.states import IN_PROGRESS, State
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
    node,
    orphan,
    other,
    policy,
    record,
    view,
    workload,
)
from tests.unit.upgrade.cases import PUT_BACK, Case

S, R = State, Reason
DRAINED = policy(drain={"enable": True})
KEEP = {KEYS.initial_unschedulable: "true"}
SAFE_LOAD = {KEYS.safe_load: "drv"}
EVERY = tuple(s for s in State if s is not S.UNKNOWN)
EARLY = tuple(
    s for s in EVERY if s in IN_PROGRESS and s not in {S.POD_RESTART_REQUIRED, S.VALIDATION_REQUIRED, S.UNCORDON_REQUIRED}
)
LATE = (S.POD_RESTART_REQUIRED, S.VALIDATION_REQUIRED, S.UNCORDON_REQUIRED)
GOING = driver_pod("drv-old", 1, terminating=True)


def relabelled(label: State | str, was: State, *pods: Pod, **changes: Any) -> NodeView:
    """A node whose label and record differ."""
    cordoned = changes.pop("cordoned", was is not S.UPGRADE_DONE)
    rec, notes = changes.pop("rec", {}), changes.pop("notes", None)
    return view(node(label, record(was, **rec), cordoned=cordoned, notes=notes), *pods, **changes)


RELABELLED = (
    *(
        Case(
            f"label vanished in {s}: restored",
            view(node(record=record(s), cordoned=s in IN_PROGRESS | {S.UPGRADE_FAILED}), OLD),
        )
        for s in EVERY
    ),
    Case("failed, relabelled required: retry", relabelled(S.UPGRADE_REQUIRED, S.UPGRADE_FAILED, OLD)),
    Case("failed, relabelled restart", relabelled(S.POD_RESTART_REQUIRED, S.UPGRADE_FAILED, OLD)),
    Case("done, relabelled drain: begun by hand", relabelled(S.DRAIN_REQUIRED, S.UPGRADE_DONE, OLD, cordoned=False)),
    Case("drain, relabelled failed", relabelled(S.UPGRADE_FAILED, S.DRAIN_REQUIRED, OLD)),
    Case("drain, relabelled required", relabelled(S.UPGRADE_REQUIRED, S.DRAIN_REQUIRED, OLD)),
    Case("drain, relabelled done", relabelled(S.UPGRADE_DONE, S.DRAIN_REQUIRED, OLD), does="put back, uncordon, unclaim"),
    Case(
        "drain, relabelled done, key 5",
        relabelled(S.UPGRADE_DONE, S.DRAIN_REQUIRED, OLD, notes=KEEP),
        does="put back, unclaim, -keep",
    ),
    Case(
        "drain of a foreign cordon, relabelled done",
        relabelled(S.UPGRADE_DONE, S.DRAIN_REQUIRED, OLD, rec={"claim": False}, notes=KEEP),
        does="-keep",
    ),
    Case(
        "failed, relabelled done",
        relabelled(S.UPGRADE_DONE, S.UPGRADE_FAILED, NEW),
        does="put back, uncordon, unclaim",
    ),
    Case("relabelled to what we do not know", relabelled("done", S.DRAIN_REQUIRED, OLD), why=R.INVALID_STATE),
)

PEER = {s: view(node(s, cordoned=True), OLD) for s in EVERY}
CLOCKS = {KEYS.jobs_start: str(int(NOW) - 50), KEYS.validation_start: "nonsense"}

TAKEN_OVER = (
    *(
        Case(f"the peer's {s}, cordoned: ours", PEER[s], does="claim")
        for s in EVERY
        if s in (IN_PROGRESS | {S.UPGRADE_FAILED}) - {S.CORDON_REQUIRED}
    ),
    Case("the peer's cordon-required: not ours yet", PEER[S.CORDON_REQUIRED]),
    Case("the peer's done", view(node(S.UPGRADE_DONE), NEW)),
    Case("the peer's drain, key 5: foreign", view(node(S.DRAIN_REQUIRED, cordoned=True, notes=KEEP), OLD)),
    Case("the peer's drain, not cordoned", view(node(S.DRAIN_REQUIRED), OLD)),
    Case("node-maintenance-required", view(node("node-maintenance-required", cordoned=True), OLD), does="claim"),
    Case("post-maintenance-required", view(node("post-maintenance-required", cordoned=True), OLD), does="claim"),
    Case(
        "node-maintenance-required, key 9 still there",
        view(node("node-maintenance-required", cordoned=True, notes={KEYS.requestor_mode: "true"}), OLD),
        why=R.OTHER_OPERATOR,
    ),
    Case(
        "the peer's clocks",
        view(node(S.WAIT_FOR_JOBS_REQUIRED, cordoned=True, notes=CLOCKS), OLD),
        does="claim, -validation-clock, -jobs-clock",
    ),
)

WITHOUT = tuple(Released)
SETTLED = {
    S.UPGRADE_DONE: "put back",
    S.UPGRADE_REQUIRED: "put back",
    S.CORDON_REQUIRED: "put back",
}
PUT_BACK_ROWS = (
    *(
        Case(f"{why}, {s}", at(s, OLD, policy=None, released=why), does=SETTLED.get(s, "put back, uncordon, unclaim"))
        for why in WITHOUT
        for s in EVERY
        if s is not S.UPGRADE_FAILED
    ),
    Case("disabled, failed: stays", at(S.UPGRADE_FAILED, OLD, policy=None, released=Released.DISABLED), why=R.FAILED),
    Case(
        "disabled, failed and uncordoned",
        at(S.UPGRADE_FAILED, OLD, policy=None, released=Released.DISABLED, cordoned=False),
        does="put back, unclaim",
    ),
    Case(
        "disabled, key 5",
        at(S.DRAIN_REQUIRED, OLD, policy=None, released=Released.DISABLED, notes=KEEP),
        does="put back, unclaim, -keep",
    ),
    Case(
        "disabled, safe load waits: key 4 stays",
        at(S.POD_RESTART_REQUIRED, STARTING, policy=None, released=Released.DISABLED, notes=SAFE_LOAD, rec={"replace": ""}),
        does="put back, uncordon, unclaim",
    ),
    Case(
        "disabled, the other driver claims",
        at(S.DRAIN_REQUIRED, OLD, policy=None, released=Released.DISABLED, others=(other(S.DRAIN_REQUIRED, claim=True),)),
        does="put back, unclaim",
    ),
    Case(
        "disabled, old pod going: finished",
        at(S.POD_RESTART_REQUIRED, GOING, policy=None, released=Released.DISABLED),
        why=R.DRIVER_POD_TERMINATING,
        deadline=ENTERED + 1800,
    ),
    Case(
        "disabled, old pod gone: finished",
        at(S.POD_RESTART_REQUIRED, STARTING, policy=None, released=Released.DISABLED),
        why=R.DRIVER_POD_NOT_READY,
    ),
    Case(
        "disabled, old pod gone, the new one waits for safe load: finished",
        at(S.POD_RESTART_REQUIRED, STARTING, policy=None, released=Released.DISABLED, notes=SAFE_LOAD),
        does="-safe-load",
    ),
    Case(
        "disabled, new pod ready: finished without validation",
        at(S.POD_RESTART_REQUIRED, NEW, policy=None, released=Released.GONE),
        S.UNCORDON_REQUIRED,
    ),
    Case(
        "disabled in validation: finished",
        at(S.VALIDATION_REQUIRED, NEW, policy=None, released=Released.GONE),
        S.UNCORDON_REQUIRED,
    ),
    Case(
        "disabled in uncordon: finished",
        at(S.UNCORDON_REQUIRED, NEW, policy=None, released=Released.GONE),
        S.UPGRADE_DONE,
        does="uncordon, unclaim",
    ),
    Case(
        "disabled, old pod gone, another outdated one runs",
        at(S.POD_RESTART_REQUIRED, NEW, driver_pod("b", 1), policy=None, released=Released.GONE),
        does="put back, uncordon, unclaim",
    ),
    Case(
        "disabled, old pod gone, DaemonSet gone",
        at(S.POD_RESTART_REQUIRED, policy=None, released=Released.GONE, sets=()),
        does="put back, uncordon, unclaim",
    ),
)

NO_SET = (driver_set(wants=False),)
DAEMONSET_GONE = (
    *(
        Case(f"DaemonSet gone, {s}: noted", at(s, orphan(), sets=(), policy=DRAINED, workload=(workload(),)))
        for s in EVERY
        if s is not S.UPGRADE_FAILED
    ),
    Case(
        "DaemonSet does not want the node, 119 s",
        at(S.DRAIN_REQUIRED, OLD, sets=NO_SET, rec={"gone": NOW - 119}, workload=(workload(),)),
        why=R.DAEMONSET_GONE,
        look_again=NOW + 1,
    ),
    Case(
        "DaemonSet does not want the node, 120 s",
        at(S.DRAIN_REQUIRED, OLD, sets=NO_SET, rec={"gone": NOW - 120}),
        does="put back, uncordon, unclaim",
    ),
    Case("DaemonSet gone for 2 min, done", at(S.UPGRADE_DONE, orphan(), sets=(), rec={"gone": NOW - 120}), does=PUT_BACK),
    Case(
        "DaemonSet gone for 2 min, finishing: nothing to finish with",
        at(S.POD_RESTART_REQUIRED, sets=(), rec={"gone": NOW - 120}),
        does="put back, uncordon, unclaim",
    ),
    Case("DaemonSet back", at(S.DRAIN_REQUIRED, OLD, policy=DRAINED, rec={"gone": NOW - 60})),
    Case(
        "DaemonSet gone, failed: stays",
        at(S.UPGRADE_FAILED, orphan(), sets=(), rec={"gone": NOW - 500, "failure": Failure(R.FAILED)}),
        why=R.FAILED,
    ),
    Case(
        "DaemonSet gone, failed and uncordoned",
        at(S.UPGRADE_FAILED, orphan(), sets=(), cordoned=False, rec={"gone": NOW - 120, "claim": False}),
        does=PUT_BACK,
    ),
)

ROWS = (*RELABELLED, *TAKEN_OVER, *PUT_BACK_ROWS, *DAEMONSET_GONE)
