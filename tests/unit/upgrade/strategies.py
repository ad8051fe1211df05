"""Random views for the properties: every label, record, annotation and pod that a cluster, or a person in it, can bring."""

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from controller.api.node import Node
from controller.api.pod import Pod
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure, Record, encode_record
from controller.upgrade.revision import DriverSet
from controller.upgrade.snapshot import Attempt, NodeView, OtherDriver, Released
from controller.upgrade.states import PEER_STATES, State
from tests.unit.upgrade.builders import (
    KEYS,
    NEW,
    NOW,
    OFED,
    OLD,
    PLAIN,
    STARTING,
    UID,
    driver_pod,
    driver_set,
    node,
    orphan,
    pod,
    policy,
    view,
    workload,
)

LABELS = (*State, *PEER_STATES, "upgrade-somehow", "Upgrade-Done")
TIMES = st.sampled_from([0.0, 1.5, NOW - 10_000, NOW - 700, NOW - 120, NOW - 10, NOW, NOW + 5_000, 2e11])
TARGETS = st.sampled_from(["", "ds@2", "ds@1", "ds@9", "ds@²", "ds", "other@3", "@", "ds@99999999999999999999"])
UIDS = st.sampled_from(["", "drv-old", "drv-new", "drv-orphan", "elsewhere"])

failures = st.builds(
    Failure,
    reason=st.sampled_from(Reason),
    state=st.sampled_from(State),
    target=TARGETS,
    pod=UIDS,
    message=st.text(max_size=160),
    earlier=st.booleans(),
)
records = st.builds(
    Record,
    state=st.sampled_from(State),
    since=TIMES,
    node=st.sampled_from([UID, UID, UID, "", "the-node-before"]),
    policy=st.sampled_from(["DriverUpgradePolicy/gpu", "", "/", "nonsense"]),
    namespace=st.sampled_from(["ops", ""]),
    target=TARGETS,
    replace=UIDS,
    restart_only=st.booleans(),
    attempt=st.integers(0, 3),
    claim=st.booleans(),
    recordons=st.integers(0, 6),
    entered=st.dictionaries(st.sampled_from(State), TIMES, max_size=4),
    gone=TIMES,
    failure=st.none() | failures,
)
GARBAGE = (
    "",
    "{}",
    "null",
    "[]",
    "{",
    '{"state":"drain-required"',
    '{"state":"nowhere"}',
    '{"state":"drain-required","since":"soon"}',
    '{"state":"drain-required","since":-1}',
    '{"state":"drain-required","since":1e308}',
    '{"state":"drain-required","attempt":1e400}',
    '{"state":"drain-required","attempt":99999999999999999999}',
    '{"state":"drain-required","entered":{"drain-required":null}}',
    '{"state":"drain-required","node":7}',
    '{"x":' + "[" * 4000,
    "\ud800",
    "x" * 100_000,
)
record_texts = st.none() | records.map(encode_record) | st.sampled_from(GARBAGE) | st.text(max_size=60)

VALUES = st.sampled_from(["true", "", "false", "drv", str(int(NOW) - 50), "-1", "1e9", "99999999999999999999", "٣"])
notes = st.dictionaries(
    st.sampled_from(
        [
            KEYS.safe_load,
            KEYS.initial_unschedulable,
            KEYS.jobs_start,
            KEYS.validation_start,
            KEYS.requested,
            KEYS.requestor_mode,
        ]
    ),
    VALUES,
    max_size=3,
)


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    """A node; half of them have a record that says what the label says."""
    text = draw(record_texts)
    label = draw(st.sampled_from(LABELS))
    if draw(st.booleans()):
        agreed = draw(records)
        label, text = agreed.state, encode_record(agreed)
    return node(
        label,
        text,
        cordoned=draw(st.booleans()),
        ready=draw(st.booleans()),
        labels=draw(st.sampled_from([{}, {KEYS.skip: "true"}])),
        notes=draw(notes),
    )


DRIVER_PODS: tuple[Pod, ...] = (
    OLD,
    NEW,
    STARTING,
    driver_pod("drv-old", 1, terminating=True),
    driver_pod("drv-new", 2, terminating=True, finalizers=("a/b",)),
    driver_pod("drv-new", 2, waiting="CrashLoopBackOff", restarts=12),
    driver_pod("drv-old", 1, env={"DIGEST": "d1"}),
    driver_pod("drv-odd", 7),
    driver_pod("drv-stray", 1, owner="gone"),
    driver_pod("drv-third", 1, owner="ds-2"),
    orphan(),
    pod("drv-new", owner=("apps/v1", "ReplicaSet", "rs"), labels={"app": "driver"}),
    msgspec.convert({"metadata": {"name": "bare", "uid": "bare"}}, Pod),
)
SETS: tuple[DriverSet, ...] = (
    driver_set(),
    driver_set(wants=False),
    driver_set(observed=False),
    driver_set(newest=1),
    driver_set(newest=3),
    driver_set(newest=0),
    driver_set(absent={"hash7"}),
    driver_set(env={"DIGEST": "d1"}),
)
WORKLOADS: tuple[Pod, ...] = (
    workload("a"),
    workload("job", labels={"app": "job"}),
    workload("check", labels={"app": "check"}),
    workload("check-bad", labels={"app": "check"}, ready=False),
    workload("gpu", resource="nvidia.com/gpu"),
    workload("kept", labels={KEYS.drain_skip: "true"}),
    workload("going", terminating=True),
    workload("ended", phase="Succeeded"),
    workload("bare", owner=None),
    workload("scratch", empty_dir=True),
    workload("static", notes={"kubernetes.io/config.mirror": "x"}),
    workload("agent", owner=("apps/v1", "DaemonSet", "agent")),
)
POLICIES: tuple[Policy | None, ...] = (
    None,
    PLAIN,
    policy(drain={"enable": True}),
    policy(
        waitForCompletion={"podSelector": "app=job", "timeoutSeconds": 100},
        podDeletion={"resourceNames": ["nvidia.com/gpu*"]},
        drain={"enable": True, "force": True, "deleteEmptyDir": True},
        validation={"podSelector": "app=check"},
        cordonedNodes="Skip",
    ),
    policy(podDeletion={"podSelector": "app=job", "timeoutSeconds": 0}, paused=True),
    policy(drain={"enable": True, "timeoutSeconds": 0}, podRestart={"unchangedEnv": "DIGEST", "timeoutSeconds": 0}),
    policy(validation={"podSelector": "app=check", "timeoutSeconds": 0}),
    policy(drain={"podSelector": "("}),
    policy(drain={"enable": "yes"}, last=policy(drain={"enable": True})),
)
others: SearchStrategy[tuple[OtherDriver, ...]] = st.lists(
    st.builds(
        OtherDriver,
        keys=st.just(OFED),
        state=st.sampled_from(State),
        claim=st.booleans(),
        in_progress=st.booleans(),
        keeps_cordon=st.booleans(),
    ),
    max_size=1,
).map(tuple)
attempts = st.dictionaries(
    st.sampled_from(["a", "gpu", "job"]),
    st.builds(Attempt, again=st.sampled_from([NOW - 1, NOW, NOW + 5]), reason=st.none() | st.sampled_from(Reason)),
    max_size=2,
)


@st.composite
def views(draw: st.DrawFn) -> NodeView:
    """A view; often an ordinary one, since hostile ones seldom get far."""
    chosen = draw(st.sampled_from(POLICIES))
    second = (driver_set("ds-2", newest=draw(st.integers(0, 2))),) if draw(st.booleans()) else ()
    first = (draw(st.sampled_from(SETS)),) if draw(st.integers(0, 5)) else ()
    pods = draw(st.lists(st.sampled_from(DRIVER_PODS), max_size=2, unique_by=lambda p: p.uid))
    return view(
        draw(nodes()),
        *pods,
        policy=chosen,
        released=draw(st.none() | st.sampled_from(Released)) if chosen is None else None,
        sets=(*first, *second),
        workload=draw(st.none() | st.lists(st.sampled_from(WORKLOADS), max_size=4, unique_by=lambda p: p.uid).map(tuple)),
        unreadable=draw(st.sampled_from([{}, {}, {}, {"ml/odd": "no"}])),
        confirmed=draw(st.booleans()),
        attempts=draw(attempts),
        others=draw(others),
        own_uid=draw(st.sampled_from(["", "a"])),
    )
