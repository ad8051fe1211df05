"""Objects as an API server sends them, decoded: what is kept, what may be absent or null, and what is refused."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from controller.api.meta import KubeObject, ObjectMeta, timestamp
from controller.api.node import Node
from controller.api.pod import Pod, ResourceRequirements
from controller.api.policy import Drain, PodDeletion, PolicyObject, UpgradePolicySpec
from controller.api.workloads import ControllerRevision, DaemonSet, PodDisruptionBudget

DRIVER_POD = b"""{"apiVersion": "v1", "kind": "Pod",
 "metadata": {"name": "driver-x7k2p", "generateName": "driver-", "namespace": "nvidia-operator", "uid": "u1",
  "resourceVersion": "4711", "creationTimestamp": "2026-11-22T10:00:00Z", "deletionTimestamp": "2026-11-22T11:00:00Z",
  "deletionGracePeriodSeconds": 30, "labels": {"app": "driver", "controller-revision-hash": "abc"},
  "ownerReferences": [
   {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u2"},
   {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "driver", "uid": "u3", "controller": true}],
  "finalizers": ["example.com/hold"], "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]},
 "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 60,
  "initContainers": [{"name": "wait", "image": "w:1", "env": [{"name": "NODE", "valueFrom": {"fieldRef": {}}}]}],
  "containers": [{"name": "driver", "image": "d:2", "env": [{"name": "DRIVER_CONFIG_DIGEST", "value": "d1"}],
   "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": 2}, "requests": {"memory": "1Gi", "cpu": 0.5}}}],
  "volumes": [{"name": "run", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/run"}}],
  "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpus"}]},
 "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False", "lastProbeTime": null}],
  "initContainerStatuses": [{"name": "wait", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
  "containerStatuses": [{"name": "driver", "ready": false, "restartCount": 3,
   "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}}],
  "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "driver-gpu-1"}]}}"""


def decode(kind: type[Any], **fields: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode({"metadata": {"name": "x"}, **fields}), type=kind)


def test_a_driver_pod():
    pod = msgspec.json.decode(DRIVER_POD, type=Pod)
    assert (pod.key, pod.uid, pod.node_name, pod.phase) == ("nvidia-operator/driver-x7k2p", "u1", "n1", "Running")
    assert pod.metadata.creation_timestamp == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert pod.terminating
    assert not pod.terminal
    assert pod.controller_ref is not None
    assert (pod.controller_ref.kind, pod.controller_ref.uid) == ("DaemonSet", "u3")
    assert pod.metadata.finalizers == ("example.com/hold",)
    (driver,) = pod.spec.containers or ()
    assert [(v.name, v.value) for v in driver.env or ()] == [("DRIVER_CONFIG_DIGEST", "d1")]
    assert driver.resources is not None
    assert driver.resources.names == {"nvidia.com/gpu", "cpu", "memory"}
    assert [(v.name, v.empty_dir is not None) for v in pod.spec.volumes or ()] == [("run", True), ("host", False)]
    assert pod.status.resource_claim_statuses is not None
    assert pod.status.resource_claim_statuses[0].resource_claim_name == "driver-gpu-1"
    (status,) = pod.status.container_statuses or ()
    assert status.restart_count == 3
    assert status.state is not None
    assert status.state.waiting is not None
    assert status.state.waiting.reason == "CrashLoopBackOff"


def made_for(*names: str, key: str = "metadata.name", operator: str = "In") -> dict[str, Any]:
    term = {"matchFields": [{"key": key, "operator": operator, "values": list(names)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


@pytest.mark.parametrize(
    ("spec", "node"),
    [
        ({"affinity": made_for("n1")}, "n1"),
        ({"affinity": made_for("n1"), "nodeName": "n2"}, "n2"),
        ({"affinity": made_for("n1", "n2")}, ""),
        ({"affinity": made_for("n1", operator="NotIn")}, ""),
        ({"affinity": made_for("n1", key="spec.nodeName")}, ""),
        ({"affinity": {"podAffinity": {}}}, ""),
        ({"affinity": {"nodeAffinity": {}}}, ""),
        ({}, ""),
    ],
)
def test_the_node_that_a_pod_is_made_for(spec: dict[str, Any], node: str):
    assert decode(Pod, spec=spec).target_node == node


def test_what_is_absent_or_null_is_empty():
    nulls = {"labels": None, "annotations": None, "ownerReferences": None, "finalizers": None, "creationTimestamp": None}
    for metadata in ({"name": "x"}, {"name": "x", **nulls}):
        obj = msgspec.convert({"metadata": metadata}, KubeObject)
        assert (obj.key, obj.labels, obj.annotations, obj.controller_ref, obj.terminating) == ("x", {}, {}, None, False)
    pod = decode(Pod, spec={"containers": None, "volumes": None}, status={"containerStatuses": None, "conditions": None})
    assert pod == decode(Pod)
    assert (pod.node_name, pod.phase, pod.terminal) == ("", "", False)
    assert ResourceRequirements().names == frozenset()


def test_an_owner_that_does_not_control_is_no_controller():
    owners = [{"kind": "Node", "uid": "u"}, {"kind": "ReplicaSet", "uid": "v", "controller": False}]
    assert decode(Pod, metadata={"name": "x", "ownerReferences": owners}).controller_ref is None


@pytest.mark.parametrize(
    ("phase", "terminal"), [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True), ("", False)]
)
def test_terminal_pods(phase: str, terminal: bool):
    assert decode(Pod, status={"phase": phase}).terminal == terminal


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ([{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}], True),
        ([{"type": "Ready", "status": "False", "reason": "KubeletNotReady"}], False),
        ([{"type": "Ready", "status": "Unknown"}], False),
        ([{"type": "MemoryPressure", "status": "True"}], False),
        ([], False),
        (None, False),
    ],
)
def test_node_readiness(conditions: Any, ready: bool):
    assert decode(Node, status={"conditions": conditions}).ready == ready


def test_a_node():
    taints = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule", "timeAdded": "2026-11-22T10:00:00Z"}]
    node = decode(
        Node, spec={"unschedulable": True, "taints": taints, "podCIDR": "10.0.0.0/24"}, status={"images": [{"names": None}]}
    )
    assert node.unschedulable
    assert node.spec.taints is not None
    assert (node.spec.taints[0].key, node.spec.taints[0].value) == ("node.kubernetes.io/unschedulable", "")
    assert not decode(Node, spec={}).unschedulable


def test_a_daemon_set():
    spec = {
        "selector": {"matchLabels": {"app": "driver"}},
        "updateStrategy": {"type": "OnDelete"},
        "template": {
            "metadata": {"creationTimestamp": None, "labels": {"app": "driver"}},
            "spec": {
                "nodeSelector": {"gpu": "true"},
                "tolerations": [{"operator": "Exists"}, {"key": "gpu"}],
                "affinity": {
                    "podAntiAffinity": {},
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
                        }
                    },
                },
            },
        },
    }
    found: DaemonSet = decode(
        DaemonSet, metadata={"name": "d", "generation": 3}, spec=spec, status={"observedGeneration": 2}
    )
    assert not found.observed
    assert found.spec.update_strategy.type == "OnDelete"
    template = found.spec.template.spec
    assert [(t.key, t.operator) for t in template.tolerations or ()] == [("", "Exists"), ("gpu", "Equal")]
    assert template.affinity is not None
    assert template.affinity.node_affinity is not None
    required = template.affinity.node_affinity.required_during_scheduling_ignored_during_execution
    assert required is not None
    assert required.node_selector_terms is not None
    assert required.node_selector_terms[0].match_expressions is not None
    assert decode(DaemonSet, metadata={"name": "d", "generation": 3}, status={"observedGeneration": 3}).observed


def test_a_revision_and_a_budget():
    assert decode(ControllerRevision, revision=12, data={"spec": {"template": {"$patch": "replace"}}}).revision == 12
    everything = decode(PodDisruptionBudget, spec={"selector": {}}, status={"disruptionsAllowed": 1, "expectedPods": 3})
    assert everything.spec.selector is not None
    assert everything.spec.selector.empty
    assert everything.status.disruptions_allowed == 1
    assert decode(PodDisruptionBudget, spec={"maxUnavailable": "10%"}).spec.selector is None


def test_objects_are_frozen_and_carry_no_unread_fields():
    pod = msgspec.json.decode(DRIVER_POD, type=Pod)
    with pytest.raises(AttributeError):
        pod.status = pod.status  # type: ignore[misc]
    assert b"managedFields" not in msgspec.json.encode(pod)
    assert msgspec.json.decode(msgspec.json.encode(pod), type=Pod) == pod


@pytest.mark.parametrize(
    "metadata", [None, [], {"labels": {"a": 1}}, {"ownerReferences": [None]}, {"creationTimestamp": "soon"}]
)
def test_a_malformed_object_is_refused(metadata: Any):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"metadata": metadata}, KubeObject, strict=True)


def test_a_policy_object_keeps_its_content_unread():
    wrong = {"driver": {"upgradePolicy": {"maxUnavailable": {"not": "a number"}}}}
    assert decode(PolicyObject, spec=wrong).spec == wrong
    assert decode(PolicyObject, spec=None).spec is None


@pytest.mark.parametrize(
    "value",
    [
        {"maxUnavailable": 0},
        {"maxUnavailable": "0%"},
        {"maxUnavailable": "100%"},
        {"maxUnavailable": None},
        {"failureThreshold": None},
        {"maxParallelUpgrades": 100_000},
        {"drain": {"timeoutSeconds": 604_800, "gracePeriodSeconds": -1}},
        {"podDeletion": {"resourceNames": ["nvidia.com/gpu", "nvidia.com/mig-*", "gpu.nvidia.com"]}},
    ],
)
def test_policy_values_in_bounds(value: dict[str, Any]):
    msgspec.convert(value, UpgradePolicySpec)


@pytest.mark.parametrize(
    "value",
    [
        {"maxUnavailable": -1},
        {"maxUnavailable": "101%"},
        {"maxUnavailable": "7"},
        {"maxUnavailable": "25%\n"},
        {"maxUnavailable": 1.5},
        {"failureThreshold": 0},
        {"maxParallelUpgrades": 100_001},
        {"maxParallelUpgrades": None},
        {"cordonedNodes": "Ignore"},
        {"drain": {"timeoutSeconds": 604_801}},
        {"drain": {"timeoutSeconds": -1}},
        {"drain": {"gracePeriodSeconds": -2}},
        {"drain": {"podSelector": "a" * 1025}},
        {"podRestart": {"maxRestarts": -1}},
        {"podDeletion": {"resourceNames": ["*"]}},
        {"podDeletion": {"resourceNames": [""]}},
        {"podDeletion": {"resourceNames": ["a"] * 65}},
    ],
)
def test_policy_values_out_of_bounds(value: dict[str, Any]):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, UpgradePolicySpec)


def test_policy_defaults():
    policy = msgspec.convert({}, UpgradePolicySpec)
    assert (policy.auto_upgrade, policy.paused, policy.max_parallel_upgrades, policy.cordoned_nodes) == (
        False,
        False,
        1,
        "Upgrade",
    )
    assert (policy.max_unavailable, policy.failure_threshold) == (None, None)
    assert policy.wait_for_completion.timeout_seconds == 0
    assert policy.pod_deletion == PodDeletion("", (), force=False, timeout_seconds=300, delete_empty_dir=False)
    assert policy.drain == Drain(timeout_seconds=300, grace_period_seconds=-1)
    assert (policy.pod_restart.timeout_seconds, policy.pod_restart.max_restarts) == (1800, 10)
    assert policy.validation.timeout_seconds == 600


def test_defaults_are_left_out_when_encoded():
    assert msgspec.json.encode(ObjectMeta(name="x")) == b'{"name":"x"}'


def test_a_time_is_written_in_whole_seconds():
    assert timestamp(1_000_000.4) == "1970-01-12T13:46:40Z"


@pytest.mark.parametrize("at", [None, 0.0, -5.0, 253_402_300_799.9 + 604_800, float("inf")])
def test_a_time_that_is_none_is_left_out(at):
    assert timestamp(at) == ""
