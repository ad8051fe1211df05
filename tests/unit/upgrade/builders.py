"""A small vocabulary for the core's tests: a node, its driver pods, a policy and a view, each with what matters said.

Unless told otherwise there is one DaemonSet ``ds`` whose newest revision is 2, and ``now`` is :data:`NOW`.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from controller.api.meta import ObjectMeta, OwnerReference
from controller.api.node import Node, NodeCondition, NodeSpec, NodeStatus, Taint
from controller.api.pod import (
    Container,
    ContainerState,
    ContainerStateWaiting,
    ContainerStatus,
    EnvVar,
    Pod,
    PodCondition,
    PodSpec,
    PodStatus,
    ResourceRequirements,
    Volume,
)
from controller.api.policy import PolicyObject
from controller.api.selectors import LabelSelector
from controller.api.workloads import DaemonSet, DaemonSetSpec, DaemonSetStatus, PodTemplate, PodTemplateSpec
from controller.upgrade.actions import PatchNode, merge_body
from controller.upgrade.keys import keys_for
from controller.upgrade.policy import Policy, resolve
from controller.upgrade.record import Record, encode_record
from controller.upgrade.revision import DriverSet, Revisions
from controller.upgrade.snapshot import NodeView, OtherDriver
from controller.upgrade.sources import OWN_KIND, Source
from controller.upgrade.states import IN_PROGRESS, State

NOW = 1_000_000.0
ENTERED = NOW - 10
KEYS = keys_for("gpu")
OFED = keys_for("ofed")
UID = "node-uid"
DELETED = datetime(2026, 1, 1, tzinfo=UTC)


def node(
    label: State | str = State.UNKNOWN,
    record: Record | str | None = None,
    *,
    name: str = "n1",
    uid: str = UID,
    cordoned: bool = False,
    ready: bool = True,
    labels: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    taints: tuple[Taint, ...] = (),
) -> Node:
    """A node with a state label, a record, and further labels and annotations."""
    text = encode_record(record) if isinstance(record, Record) else record
    return Node(
        metadata=ObjectMeta(
            name=name,
            uid=uid,
            resource_version="1",
            labels={**({KEYS.state: str(label)} if label else {}), **(labels or {})},
            annotations={**({KEYS.record: text} if text is not None else {}), **(notes or {})},
        ),
        spec=NodeSpec(unschedulable=cordoned, taints=taints),
        status=NodeStatus(conditions=(NodeCondition(type="Ready", status="True" if ready else "False"),)),
    )


def record(state: State, **changes: Any) -> Record:
    """The record of an attempt that replaces ``drv-old``; from the cordon on it claims the node."""
    base = Record(state=state, since=ENTERED, node=UID, policy="DriverUpgradePolicy/gpu", namespace="ops", target="ds@2")
    if state in IN_PROGRESS | {State.UPGRADE_FAILED}:
        claim = state is not State.CORDON_REQUIRED
        base = replace(base, replace="drv-old", attempt=1, claim=claim, entered={state: ENTERED})
    return replace(base, **changes)


def pod(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    owner: tuple[str, str, str] | None = ("apps/v1", "ReplicaSet", "rs"),
    phase: str = "Running",
    ready: bool = True,
    terminating: bool = False,
    restarts: int = 0,
    waiting: str = "",
    empty_dir: bool = False,
    resource: str = "",
    init_resource: str = "",
    env: Mapping[str, str] | None = None,
    finalizers: tuple[str, ...] = (),
    conditions: tuple[PodCondition, ...] = (),
) -> Pod:
    """A pod with one container; its uid is its name. ``owner`` is apiVersion, kind and uid of its controller."""
    state = ContainerState(waiting=ContainerStateWaiting(reason=waiting)) if waiting else None
    owners = (OwnerReference(api_version=owner[0], kind=owner[1], uid=owner[2], controller=True),) if owner else ()
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace="ops",
            uid=name,
            labels=labels,
            annotations=notes,
            deletion_timestamp=DELETED if terminating else None,
            owner_references=owners,
            finalizers=finalizers,
        ),
        spec=PodSpec(
            node_name="n1",
            containers=(container(resource, env),),
            init_containers=(container(init_resource),) if init_resource else None,
            volumes=(Volume(name="scratch", empty_dir={}),) if empty_dir else None,
        ),
        status=PodStatus(
            phase=phase,
            conditions=conditions,
            container_statuses=(
                ContainerStatus(name="main", ready=ready and not waiting, restart_count=restarts, state=state),
            ),
        ),
    )


def container(resource: str = "", env: Mapping[str, str] | None = None) -> Container:
    """A container that asks for a resource and has literal environment variables."""
    return Container(
        name="main",
        resources=ResourceRequirements(limits={resource: "1"}) if resource else None,
        env=tuple(EnvVar(name=k, value=v) for k, v in (env or {}).items()),
    )


def driver_pod(uid: str, revision: int, *, owner: str = "ds", **changes: Any) -> Pod:
    """A pod that revision ``revision`` of a driver DaemonSet made."""
    labels = {"app": "driver", "controller-revision-hash": f"hash{revision}"}
    return pod(uid, labels=labels, owner=("apps/v1", "DaemonSet", owner), **changes)


def orphan(uid: str = "drv-orphan", **changes: Any) -> Pod:
    """A driver pod that nothing owns."""
    return pod(uid, labels={"app": "driver"}, owner=None, **changes)


def workload(name: str = "train", **changes: Any) -> Pod:
    """A pod of a ReplicaSet on the node."""
    return pod(name, **changes)


OLD = driver_pod("drv-old", 1)
NEW = driver_pod("drv-new", 2)
STARTING = driver_pod("drv-new", 2, ready=False)


def daemonset(uid: str = "ds", *, observed: bool = True, env: Mapping[str, str] | None = None) -> DaemonSet:
    """A driver DaemonSet; not observed means that its controller is behind its spec."""
    return DaemonSet(
        metadata=ObjectMeta(name=uid, namespace="ops", uid=uid, generation=2),
        spec=DaemonSetSpec(
            selector=LabelSelector(match_labels={"app": "driver"}),
            template=PodTemplate(spec=PodTemplateSpec(containers=(container(env=env),))),
        ),
        status=DaemonSetStatus(observed_generation=2 if observed else 1),
    )


def driver_set(
    uid: str = "ds",
    *,
    newest: int = 2,
    wants: bool = True,
    absent: Iterable[str] = (),
    observed: bool = True,
    env: Mapping[str, str] | None = None,
) -> DriverSet:
    """A DaemonSet whose revisions 1 to ``newest`` the cache knows, as one node sees it."""
    known = {f"hash{r}": r for r in range(1, newest + 1)}
    return DriverSet(daemonset(uid, observed=observed, env=env), Revisions(known, frozenset(absent)), wants)


def policy(
    *,
    name: str = "gpu",
    last: Policy | None = None,
    source: Source = OWN_KIND,
    notes: Mapping[str, str] | None = None,
    driver: Mapping[str, Any] | None = None,
    created: int = 0,
    **upgrade: Any,
) -> Policy:
    """An enabled policy in namespace ops, its upgradePolicy said as in YAML."""
    obj = PolicyObject(
        metadata=ObjectMeta(
            name=name,
            namespace="ops",
            uid=f"{name}-uid",
            creation_timestamp=datetime.fromtimestamp(created, UTC),
            annotations=notes,
        ),
        spec={
            "driver": {
                "name": "gpu",
                "podSelector": {"matchLabels": {"app": "driver"}},
                **(driver or {}),
                "upgradePolicy": {"autoUpgrade": True, **upgrade},
            },
        },
    )
    return resolve(obj, source, last=last)


PLAIN = policy()


def other(state: State = State.UPGRADE_DONE, *, claim: bool = False, keeps: bool = False) -> OtherDriver:
    """The ofed driver's stake in the node."""
    return OtherDriver(OFED, state, claim, state in IN_PROGRESS, keeps)


def view(on: Node, *pods: Pod, policy: Policy | None = PLAIN, **changes: Any) -> NodeView:
    """What a decision sees; no workload is on the node unless it is said."""
    given = {"sets": (driver_set(),), "workload": (), **changes}
    return NodeView(node=on, keys=KEYS, policy=policy, driver_pods=pods, **given)


def at(state: State, *pods: Pod, cordoned: bool | None = None, **changes: Any) -> NodeView:
    """A node in a state by label and record alike, cordoned where the state wants it; ``rec`` changes the record."""
    held = state in IN_PROGRESS | {State.UPGRADE_FAILED} and state is not State.CORDON_REQUIRED
    rec, notes = changes.pop("rec", {}), changes.pop("notes", None)
    labels, ready = changes.pop("labels", None), changes.pop("ready", True)
    on = node(
        state,
        record(state, **rec),
        cordoned=held if cordoned is None else cordoned,
        notes=notes,
        labels=labels,
        ready=ready,
    )
    return view(on, *pods, **changes)


def merged(target: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def patched(seen: NodeView, patch: PatchNode) -> NodeView:
    """The view after the API server took a PATCH."""
    body = merge_body(patch, seen.keys.state, seen.keys.record, seen.node.metadata.resource_version)
    after = msgspec.convert(merged(msgspec.to_builtins(seen.node), body), Node)
    return replace(seen, node=after)
