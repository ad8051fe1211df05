"""Where policies are read from: kinds of custom resources, as configuration.

A source says which kind to watch and where in it things are. Our own kind and the seed's are sources like any other. The
kinds of other operators are *foreign*: their own upgrade controller must be off, so whether we act is this
configuration's to say and never their ``autoUpgrade``; what they do not say, defaults and overrides do; nothing of theirs
is written but Events and the annotation that pauses.

The presets were checked against the custom resource definitions and controllers of NVIDIA/gpu-operator v26.7,
Mellanox/network-operator of August 2026 and NVIDIA/k8s-operator-libs; ``docs/operators.md`` tells what each means to an
administrator.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controller.api.policy import GROUP, VERSION
from controller.upgrade.keys import DEFAULT_DOMAIN

DRIVER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,11}[a-z0-9])?")


class Source(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A kind of custom resource that holds upgrade policies. Paths are dotted and begin with ``spec``."""

    kind: str
    plural: str
    group: str = GROUP
    version: str = VERSION
    namespaced: bool = True
    namespace: str = ""
    """Cluster-scoped kinds: where the driver's DaemonSets run, and where the policy counts."""
    path: str = "spec.driver.upgradePolicy"
    """The block of upgradePolicy. A driver's name and podSelector, where the kind has them, stand beside it."""
    node_selector: str = ""
    """Path of a label selector for nodes; empty where the kind has none."""
    node_labels: str = ""
    """The same, as a plain map of labels, which other operators prefer."""
    driver: str = ""
    """The driver's name, where the kind does not say it."""
    pod_selector: str = ""
    """Which pods are the driver's, where the kind does not say it."""
    enabled: bool = True
    """Foreign kinds: whether we act on it. Ours say so by autoUpgrade."""
    off_when: Mapping[str, Any] = {}
    """Foreign kinds: values, by path, at which an object is no policy in force; null stands for absent."""
    defaults: Mapping[str, Any] = {}
    """Fields of upgradePolicy for what an object does not say."""
    overrides: Mapping[str, Any] = {}
    """Fields of upgradePolicy that hold whatever an object says."""
    aliases: Mapping[str, str] = {}
    """Their names for fields of upgradePolicy, to ours."""
    drain_exempt: str = ""
    """A selector that drains obey besides the policy's own: what the operator keeps on its nodes."""
    fallback: bool = False
    """Whether a policy of this kind gives way to every other: it takes the nodes that none of them selects."""
    fallback_when: str = ""
    """Path of the boolean that makes a single policy such a fallback."""
    stripped_domain: str = ""
    """The label domain whose state labels the kind's own controller removes while its autoUpgrade is false."""
    ours: bool = False
    """Whether status may be written, and autoUpgrade decides."""

    def __hash__(self) -> int:
        return hash((self.group, self.plural))

    @property
    def beside(self) -> str:
        """Path of the block that upgradePolicy stands in."""
        return self.path.rpartition(".")[0]

    def is_off(self, root: Mapping[str, Any]) -> bool:
        """Whether a foreign object is no policy in force: switched off here, or by what it says of itself."""
        return not self.enabled or any(value_at(root, path) == value for path, value in self.off_when.items())

    def is_fallback(self, root: Mapping[str, Any]) -> bool:
        """Whether this object only takes nodes that no other policy selects."""
        return self.fallback or (self.fallback_when != "" and value_at(root, self.fallback_when) is True)

    def fields(self, block: Mapping[str, Any]) -> dict[str, Any]:
        """Return upgradePolicy in our names, with defaults beneath it and overrides above."""
        named = {self.aliases.get(name, name): value for name, value in block.items()}
        return overlay(overlay(self.defaults, named), self.overrides)

    def theirs(self, name: str) -> str:
        """Return the kind's own name for one of our fields."""
        return next((alias for alias, ours in self.aliases.items() if ours == name), name)


def value_at(root: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path; None where there is none."""
    found: Any = root
    for part in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge, key by key; what is null above counts as not said."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = overlay(merged[key], value)
        elif value is not None:
            merged[key] = value
    return merged


OWN_KIND: Final = Source(
    kind="DriverUpgradePolicy",
    plural="driverupgradepolicies",
    node_selector="spec.driver.nodeSelector",
    ours=True,
)


def seed_kind(driver: str = "gpu", pod_selector: str = "app=nvidia-driver-daemonset") -> Source:
    """Return the preset for the seed's ``CustomResource``, which names neither its driver nor its pods."""
    return Source(
        kind="CustomResource",
        plural="customresources",
        node_selector="spec.driver.nodeSelector",
        driver=driver,
        pod_selector=pod_selector,
        ours=True,
    )


# What k8s-operator-libs gets from the GPU Operator's code, and not from the resource.
_GPU: Final[Mapping[str, Any]] = {
    "maxUnavailable": "25%",
    "podDeletion": {"resourceNames": ["nvidia.com/gpu*", "nvidia.com/mig-*", "gpu.nvidia.com"]},
    "podRestart": {"unchangedEnv": "DRIVER_CONFIG_DIGEST"},
    "validation": {"podSelector": "app=nvidia-operator-validator"},
}
GPU_CLUSTER_POLICY: Final = Source(
    kind="ClusterPolicy",
    plural="clusterpolicies",
    namespaced=False,
    namespace="gpu-operator",
    driver="gpu",
    pod_selector="app.kubernetes.io/component=nvidia-driver",
    off_when={"spec.driver.enabled": False, "spec.driver.useNvidiaDriverCRD": True, "spec.sandboxWorkloads.enabled": True},
    defaults=_GPU,
    drain_exempt="nvidia.com/gpu-driver-upgrade-drain.skip!=true",
    stripped_domain=DEFAULT_DOMAIN,
)
GPU_NVIDIA_DRIVER: Final = Source(
    kind="NVIDIADriver",
    plural="nvidiadrivers",
    version="v1alpha1",
    namespaced=False,
    namespace="gpu-operator",
    path="spec.upgradePolicy",
    node_labels="spec.nodeSelector",
    driver="gpu",
    pod_selector="app.kubernetes.io/component=nvidia-driver",
    off_when={"spec.driverType": "vgpu-host-manager"},
    defaults=_GPU,
    drain_exempt="nvidia.com/gpu-driver-upgrade-drain.skip!=true",
    fallback_when="spec.default",
    stripped_domain=DEFAULT_DOMAIN,
)
NIC_CLUSTER_POLICY: Final = Source(
    kind="NicClusterPolicy",
    plural="nicclusterpolicies",
    group="mellanox.com",
    version="v1alpha1",
    namespaced=False,
    namespace="nvidia-network-operator",
    path="spec.ofedDriver.upgradePolicy",
    driver="ofed",
    pod_selector="nvidia.com/ofed-driver",
    off_when={"spec.ofedDriver": None},
    drain_exempt="nvidia.com/ofed-driver-upgrade-drain.skip!=true",
    fallback=True,
    stripped_domain=DEFAULT_DOMAIN,
)
NIC_NODE_POLICY: Final = msgspec.structs.replace(
    NIC_CLUSTER_POLICY,
    kind="NicNodePolicy",
    plural="nicnodepolicies",
    node_labels="spec.nodeSelector",
    fallback=False,
)
FOREIGN: Final[Mapping[str, Source]] = {
    "gpu-cluster-policy": GPU_CLUSTER_POLICY,
    "gpu-nvidia-driver": GPU_NVIDIA_DRIVER,
    "nic-cluster-policy": NIC_CLUSTER_POLICY,
    "nic-node-policy": NIC_NODE_POLICY,
}
"""The presets of other operators' kinds, by the name that ``--source`` takes."""
