"""Other operators' resources, as their API server hands them out, taken for policies; and sources that cannot be used.

Kinds, paths, field names and defaults are those of the CRDs in NVIDIA/gpu-operator (config/crd/bases) and
Mellanox/network-operator (config/crd/bases).
"""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from controller.api.meta import ObjectMeta
from controller.api.policy import PolicyObject, UpgradePolicySpec
from controller.upgrade.assign import assign
from controller.upgrade.keys import keys_for
from controller.upgrade.policy import Policy, full_name, resolve
from controller.upgrade.snapshot import Released
from controller.upgrade.sourcecheck import SourceError, check, check_distinct, check_domain, describe
from controller.upgrade.sources import (
    FOREIGN,
    GPU_CLUSTER_POLICY,
    GPU_NVIDIA_DRIVER,
    NIC_CLUSTER_POLICY,
    NIC_NODE_POLICY,
    OWN_KIND,
    Source,
    seed_kind,
)
from controller.upgrade.states import State
from tests.unit.upgrade.builders import node, record

DOMAIN = "upgrade.example.com"
KEYS = keys_for("gpu", DOMAIN)

# What the GPU Operator's chart writes, and what the CRD's defaults make of it.
GPU_UPGRADE: dict[str, Any] = {
    "autoUpgrade": False,
    "maxParallelUpgrades": 4,
    "maxUnavailable": "10%",
    "waitForCompletion": {"timeoutSeconds": 600, "podSelector": "kind=training"},
    "podDeletion": {"force": True, "timeoutSeconds": 120, "deleteEmptyDir": True},
    "drain": {"enable": True, "force": False, "podSelector": "team=a", "timeoutSeconds": 200, "deleteEmptyDir": False},
}
NIC_UPGRADE: dict[str, Any] = {
    "autoUpgrade": False,
    "maxParallelUpgrades": 0,
    "safeLoad": False,
    "waitForCompletion": {"podSelector": "app=myapp", "timeoutSeconds": 300},
    "drain": {"enable": True, "force": True, "podSelector": "", "timeoutSeconds": 300, "deleteEmptyDir": True},
}


def cluster_policy(upgrade: Any = None, **driver: Any) -> dict[str, Any]:
    return {
        "operator": {"defaultRuntime": "containerd"},
        "daemonsets": {"updateStrategy": "RollingUpdate"},
        "driver": {
            "enabled": True,
            "repository": "nvcr.io/nvidia",
            "image": "driver",
            "version": "580.95.05",
            "manager": {"env": [{"name": "ENABLE_AUTO_DRAIN", "value": "false"}]},
            **({} if upgrade is None else {"upgradePolicy": upgrade}),
            **driver,
        },
    }


def nvidia_driver(upgrade: Any = None, **spec: Any) -> dict[str, Any]:
    block = {} if upgrade is None else {"upgradePolicy": upgrade}
    return {"default": False, "driverType": "gpu", "image": "nvcr.io/nvidia/driver", "version": "580.95.05", **block, **spec}


def nic_policy(upgrade: Any = None, **spec: Any) -> dict[str, Any]:
    block = {} if upgrade is None else {"upgradePolicy": upgrade}
    return {"ofedDriver": {"image": "doca-driver", "version": "25.07-0.9.7.0-0", **block}, **spec}


def resolved(
    source: Source, spec: Any, name: str = "p", created: int = 0, annotations: dict[str, str] | None = None
) -> Policy:
    meta = ObjectMeta(
        name=name,
        uid=name,
        annotations=annotations,
        creation_timestamp=datetime.fromtimestamp(created, UTC),
    )
    return resolve(PolicyObject(metadata=meta, spec=spec), source, domain=DOMAIN)


@pytest.mark.parametrize(
    ("source", "spec"),
    [
        (GPU_CLUSTER_POLICY, cluster_policy(GPU_UPGRADE)),
        (GPU_NVIDIA_DRIVER, nvidia_driver(GPU_UPGRADE)),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_gpu_policy_means_here_what_it_meant_there(source: Source, spec: dict[str, Any]):
    found = resolved(source, spec)
    assert found.errors == ()
    assert found.enabled, "their autoUpgrade is false, as it must be, and says nothing"
    assert (found.full_name, found.driver) == (f"{source.kind}/gpu-operator/p", "gpu")
    assert str(found.pods) == "app.kubernetes.io/component=nvidia-driver"
    assert found.nodes.empty
    assert (found.spec.max_parallel_upgrades, found.spec.max_unavailable) == (4, "10%")
    assert (str(found.jobs), found.spec.wait_for_completion.timeout_seconds) == ("kind=training", 600)
    deletion = found.spec.pod_deletion
    assert deletion.resource_names == ("nvidia.com/gpu*", "nvidia.com/mig-*", "gpu.nvidia.com")
    assert (deletion.force, deletion.timeout_seconds, deletion.delete_empty_dir) == (True, 120, True)
    assert (found.spec.drain.enable, found.spec.drain.timeout_seconds) == (True, 200)
    assert str(found.drain) == "team=a,nvidia.com/gpu-driver-upgrade-drain.skip!=true"
    assert (str(found.validators), found.spec.validation.timeout_seconds) == ("app=nvidia-operator-validator", 600)
    assert found.spec.pod_restart.unchanged_env == "DRIVER_CONFIG_DIGEST"


@pytest.mark.parametrize("source", [NIC_CLUSTER_POLICY, NIC_NODE_POLICY], ids=lambda source: source.kind)
def test_a_nic_policy_means_here_what_it_meant_there(source: Source):
    found = resolved(source, nic_policy(NIC_UPGRADE))
    assert found.errors == ()
    assert found.enabled
    assert (found.full_name, found.driver) == (f"{source.kind}/nvidia-network-operator/p", "ofed")
    assert str(found.pods) == "nvidia.com/ofed-driver"
    assert (found.spec.max_parallel_upgrades, found.spec.max_unavailable) == (0, None)
    assert (str(found.jobs), found.spec.wait_for_completion.timeout_seconds) == ("app=myapp", 300)
    assert (found.spec.drain.enable, found.spec.drain.force, found.spec.drain.delete_empty_dir) == (True, True, True)
    assert str(found.drain) == "nvidia.com/ofed-driver-upgrade-drain.skip!=true"
    assert (found.deletion, found.spec.pod_deletion.resource_names, found.validators) == (None, (), None)


@pytest.mark.parametrize(
    ("source", "spec", "cap"),
    [
        (GPU_CLUSTER_POLICY, cluster_policy(), "25%"),
        (GPU_NVIDIA_DRIVER, nvidia_driver(), "25%"),
        (NIC_CLUSTER_POLICY, nic_policy(), None),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_without_an_upgrade_policy_their_defaults_hold(source: Source, spec: dict[str, Any], cap: str | None):
    found = resolved(source, spec)
    assert (found.enabled, found.errors) == (True, ())
    assert (found.spec.max_parallel_upgrades, found.spec.max_unavailable, found.spec.drain.enable) == (1, cap, False)


@pytest.mark.parametrize(
    ("source", "spec"),
    [
        (GPU_CLUSTER_POLICY, cluster_policy(GPU_UPGRADE, enabled=False)),
        (GPU_CLUSTER_POLICY, cluster_policy(GPU_UPGRADE, useNvidiaDriverCRD=True)),
        (GPU_CLUSTER_POLICY, cluster_policy(GPU_UPGRADE) | {"sandboxWorkloads": {"enabled": True}}),
        (GPU_NVIDIA_DRIVER, nvidia_driver(GPU_UPGRADE, driverType="vgpu-host-manager")),
        (NIC_CLUSTER_POLICY, {"rdmaSharedDevicePlugin": {}}),
        (NIC_NODE_POLICY, {"nodeSelector": {"pool": "a"}}),
        (replace(GPU_CLUSTER_POLICY, enabled=False), cluster_policy({**GPU_UPGRADE, "autoUpgrade": True})),
        (replace(GPU_CLUSTER_POLICY, enabled=False), {"driver": "on"}),
    ],
)
def test_a_resource_that_has_no_such_driver_is_no_policy(source: Source, spec: dict[str, Any]):
    found = resolved(source, spec)
    assert not found.enabled
    mine = node(notes={KEYS.record: ""}, labels={KEYS.state: "upgrade-done"})
    assert assign(mine, KEYS, [found]) == (None, None)


def test_a_node_of_a_policy_that_was_switched_off_is_released():
    off = resolved(GPU_CLUSTER_POLICY, cluster_policy(GPU_UPGRADE, useNvidiaDriverCRD=True), "cluster-policy")
    kept = record(State.UPGRADE_DONE, policy="ClusterPolicy/cluster-policy", namespace="gpu-operator")
    text = node(State.UPGRADE_DONE, kept).annotations
    mine = node(notes={KEYS.record: next(iter(text.values()))})
    assert assign(mine, KEYS, [off]) == (None, Released.DISABLED)


def test_pools_are_a_plain_map_of_labels():
    found = resolved(GPU_NVIDIA_DRIVER, nvidia_driver(GPU_UPGRADE, nodeSelector={"pool": "a100", "zone": "z1"}))
    assert str(found.nodes) == "pool=a100,zone=z1"
    assert found.selects({"pool": "a100", "zone": "z1"})
    assert not found.selects({"pool": "a100"})


def test_of_two_pools_that_overlap_the_older_has_the_node_and_a_default_driver_only_what_is_left():
    default = resolved(GPU_NVIDIA_DRIVER, nvidia_driver(default=True), "default", created=1)
    older = resolved(GPU_NVIDIA_DRIVER, nvidia_driver(nodeSelector={"pool": "a"}), "older", created=2)
    younger = resolved(GPU_NVIDIA_DRIVER, nvidia_driver(nodeSelector={"zone": "z"}), "younger", created=3)
    ordered = sorted([default, younger, older], key=lambda p: p.age_order)
    assert [p.name for p in ordered] == ["older", "younger", "default"]
    owners = {
        "both": assign(node(labels={"pool": "a", "zone": "z"}), KEYS, ordered)[0],
        "zone": assign(node(labels={"zone": "z"}), KEYS, ordered)[0],
        "neither": assign(node(), KEYS, ordered)[0],
    }
    assert {where: p.name if p else None for where, p in owners.items()} == {
        "both": "older",
        "zone": "younger",
        "neither": "default",
    }


def test_a_nic_cluster_policy_gives_way_to_node_policies_of_any_age():
    cluster = resolved(NIC_CLUSTER_POLICY, nic_policy(NIC_UPGRADE), "nic-cluster-policy", created=1)
    pool = resolved(NIC_NODE_POLICY, nic_policy(NIC_UPGRADE, nodeSelector={"pool": "a"}), "a", created=9)
    assert sorted([cluster, pool], key=lambda p: p.age_order) == [pool, cluster]


@pytest.mark.parametrize(
    ("source", "spec", "field"),
    [
        (
            GPU_CLUSTER_POLICY,
            cluster_policy(GPU_UPGRADE | {"maxUnavailable": "150%"}),
            "spec.driver.upgradePolicy.maxUnavailable",
        ),
        (
            GPU_CLUSTER_POLICY,
            cluster_policy(GPU_UPGRADE | {"drain": {"enable": True, "timeoutSeconds": 9_999_999}}),
            "spec.driver.upgradePolicy.drain.timeoutSeconds",
        ),
        (
            GPU_CLUSTER_POLICY,
            cluster_policy(GPU_UPGRADE | {"drain": {"enable": True, "podSelector": "a in"}}),
            "spec.driver.upgradePolicy.drain.podSelector",
        ),
        (GPU_CLUSTER_POLICY, {"driver": "on"}, "spec.driver"),
        (
            GPU_NVIDIA_DRIVER,
            nvidia_driver({"waitForCompletion": {"podSelector": "("}}),
            "spec.upgradePolicy.waitForCompletion.podSelector",
        ),
        (GPU_NVIDIA_DRIVER, nvidia_driver(nodeSelector={"-": "a"}), "spec.nodeSelector"),
        (NIC_CLUSTER_POLICY, nic_policy({"maxParallelUpgrades": "2"}), "spec.ofedDriver.upgradePolicy.maxParallelUpgrades"),
    ],
)
def test_a_bad_field_of_theirs_is_named_by_its_own_path(source: Source, spec: dict[str, Any], field: str):
    found = resolved(source, spec)
    assert [e.field for e in found.errors] == [field]
    assert found.enabled, "what is under way goes on"
    assert not found.usable


def test_their_auto_upgrade_is_not_even_read():
    assert resolved(GPU_CLUSTER_POLICY, cluster_policy({"autoUpgrade": "perhaps"})).errors == ()


def test_a_pool_whose_selector_cannot_be_read_takes_no_node_from_others():
    broken = resolved(GPU_NVIDIA_DRIVER, nvidia_driver(nodeSelector={"-": "a"}), "broken", created=1)
    good = resolved(GPU_NVIDIA_DRIVER, nvidia_driver(nodeSelector={"pool": "a"}), "good", created=2)
    assert sorted([broken, good], key=lambda p: p.age_order) == [good, broken]


def test_the_annotation_of_our_domain_pauses_and_of_theirs_does_not():
    ours, theirs = {f"{DOMAIN}/driver-upgrade.paused": "true"}, {"nvidia.com/driver-upgrade.paused": "true"}
    assert resolved(GPU_CLUSTER_POLICY, cluster_policy(), annotations=ours).paused
    assert not resolved(GPU_CLUSTER_POLICY, cluster_policy(), annotations=theirs).paused


def test_a_cluster_scoped_policy_counts_in_the_namespace_of_its_source():
    source = replace(GPU_CLUSTER_POLICY, namespace="drivers")
    obj = PolicyObject(metadata=ObjectMeta(name="cluster-policy"), spec=cluster_policy())
    found = resolve(obj, source)
    assert found.namespace == "drivers"
    assert full_name(source, obj) == found.full_name == "ClusterPolicy/drivers/cluster-policy"


def test_a_file_may_change_a_preset():
    source = describe(
        {
            "preset": "gpu-cluster-policy",
            "namespace": "nvidia",
            "podSelector": "openshift.driver-toolkit=true",
            "defaults": {"failureThreshold": 3, "podDeletion": {"timeoutSeconds": 60}},
            "overrides": {"maxParallelUpgrades": 2, "drain": {"enable": False}},
        }
    )
    found = resolved(source, cluster_policy(GPU_UPGRADE))
    assert (found.namespace, str(found.pods)) == ("nvidia", "openshift.driver-toolkit=true")
    assert (found.spec.failure_threshold, found.spec.max_parallel_upgrades) == (3, 2), "a default; an override"
    assert (found.spec.drain.enable, found.spec.drain.timeout_seconds) == (False, 200), "overrides merge field by field"
    assert found.spec.pod_deletion.resource_names == ("nvidia.com/gpu*", "nvidia.com/mig-*", "gpu.nvidia.com"), (
        "defaults are added to"
    )
    assert found.spec.pod_deletion.timeout_seconds == 120, "what the resource says goes before a default"


def test_a_file_may_describe_any_operator():
    """As for AMD's DeviceConfig, whose names differ."""
    source = describe(
        {
            "kind": "DeviceConfig",
            "plural": "deviceconfigs",
            "group": "amd.com",
            "version": "v1alpha1",
            "path": "spec.driver.upgradePolicy",
            "nodeLabels": "spec.selector",
            "driver": "amdgpu",
            "podSelector": "daemonset-name",
            "aliases": {"maxUnavailableNodes": "maxUnavailable", "nodeDrainPolicy": "drain"},
            "overrides": {"drain": {"enable": True}},
        }
    )
    upgrade = {
        "maxUnavailableNodes": "25%",
        "nodeDrainPolicy": {"force": True, "timeoutSeconds": 60},
        "rebootRequired": True,
    }
    spec = {"selector": {"amd.com/gpu": "true"}, "driver": {"enable": True, "upgradePolicy": upgrade}}
    found = resolved(source, spec)
    assert (found.errors, found.enabled, found.driver) == ((), True, "amdgpu")
    assert (found.spec.max_unavailable, found.spec.drain.force, found.spec.drain.timeout_seconds) == ("25%", True, 60)
    assert str(found.nodes) == "amd.com/gpu=true"
    upgrade["nodeDrainPolicy"] = {"timeoutSeconds": -1}
    assert resolved(source, spec).errors[0].field == "spec.driver.upgradePolicy.nodeDrainPolicy.timeoutSeconds"


GOOD: dict[str, Any] = {"kind": "Thing", "plural": "things", "group": "example.com", "version": "v1", "driver": "x"}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "must hold one object"),
        ({"plural": "things"}, "kind"),
        (GOOD | {"kind": 7}, "kind: Expected `str`"),
        (GOOD | {"colour": "red"}, "colour"),
        (GOOD | {"ours": True}, "ours: no other kind is"),
        ({"preset": "gpu"}, "preset: 'gpu' is none of gpu-cluster-policy"),
        (GOOD | {"plural": "../nodes"}, "plural: '../nodes' is no legal plural"),
        (GOOD | {"driver": "A"}, "driver: 'A' is no legal driver name"),
        (GOOD | {"podSelector": "a in"}, "podSelector: "),
        (GOOD | {"drainExempt": "("}, "drainExempt: "),
        (GOOD | {"path": "status.policy"}, "path: 'status.policy' must be a dotted path that begins with spec."),
        (GOOD | {"path": ""}, "path: "),
        (GOOD | {"nodeLabels": "nodes"}, "nodeLabels: "),
        (GOOD | {"nodeLabels": "spec.a", "nodeSelector": "spec.b"}, "nodeLabels: give it or nodeSelector, not both"),
        (GOOD | {"namespace": "x"}, "namespace: only cluster-scoped kinds take one"),
        (GOOD | {"namespaced": False}, "namespace: is required for a cluster-scoped kind"),
        (GOOD | {"namespaced": False, "namespace": "a.b"}, "namespace: 'a.b' is no legal namespace"),
        (GOOD | {"defaults": {"autoUpgrade": True}}, "defaults.autoUpgrade: use enabled"),
        (GOOD | {"defaults": {"drain": {"enabled": True}}}, "defaults.drain.enabled: is no field of upgradePolicy"),
        (GOOD | {"overrides": {"drain": {"timeoutSeconds": -1}}}, "overrides.drain.timeoutSeconds: "),
        (GOOD | {"aliases": {"limit": "maximum"}}, "aliases.limit: 'maximum' is no field of upgradePolicy"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_by_field(said: Any, message: str):
    with pytest.raises(SourceError) as caught:
        describe(said)
    assert message in str(caught.value)


def test_a_usable_source_is_accepted():
    assert describe(GOOD) == Source(kind="Thing", plural="things", group="example.com", driver="x")


@pytest.mark.parametrize("source", [OWN_KIND, seed_kind(), *FOREIGN.values()], ids=lambda source: source.kind)
def test_presets_are_usable_and_hashable(source: Source):
    check(source)
    assert {source: 1}[replace(source, namespace=source.namespace)] == 1
    assert source.ours is (source.group == "nvidia.com" and source.kind in {"DriverUpgradePolicy", "CustomResource"})


@pytest.mark.parametrize(("name", "source"), FOREIGN.items())
def test_foreign_presets_refuse_the_domain_that_their_operator_strips(name: str, source: Source):
    with pytest.raises(
        SourceError, match=rf"{name} needs a --label-domain other than nvidia\.com.*removes nvidia\.com/{source.driver}-"
    ):
        check_domain({name: source}, "nvidia.com")
    check_domain({name: source}, DOMAIN)
    check_domain({"driver-upgrade-policy": OWN_KIND, "custom-resource": seed_kind()}, "nvidia.com")


def test_one_kind_is_one_source():
    with pytest.raises(SourceError, match="b and a are both of kind ClusterPolicy"):
        check_distinct({"a": GPU_CLUSTER_POLICY, "b": replace(GPU_CLUSTER_POLICY, namespace="other")})


def test_our_own_kind_goes_by_its_auto_upgrade_and_takes_no_defaults():
    spec = {"driver": {"podSelector": {"matchLabels": {"a": "b"}}}}
    found = resolve(PolicyObject(metadata=ObjectMeta(name="gpu", namespace="ops"), spec=spec), OWN_KIND)
    assert not found.enabled
    assert found.spec == UpgradePolicySpec()
