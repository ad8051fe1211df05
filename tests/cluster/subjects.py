"""What a world's policies mean to the checker: who is judged, and other operators' resources put into our kind's words.

Written apart from the controller's presets, from the custom resource definitions of NVIDIA/gpu-operator and
Mellanox/network-operator and from docs/operators.md. Whether such a resource is acted on says the controller's command
line, and never its `autoUpgrade`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.checker import Subject
from tests.sim.selectors import from_object
from tools.controlplane.resources import Object

PLURAL = "driverupgradepolicies"
SEEDS = "customresources"
FIRST, LAST = 0, 1


@dataclass(frozen=True)
class Foreign:
    """A kind of another operator."""

    plural: str
    kind: str
    driver: str
    app: Mapping[str, str]
    path: tuple[str, ...]
    """Where its upgradePolicy is, below spec."""
    says: Mapping[str, Any] = field(default_factory=dict)
    """What its operator's code says where the resource is silent."""
    gives_way: bool = False
    """Whether every other policy of the driver has a node before it."""

    @property
    def spares(self) -> str:
        """What its drains leave alone whatever the label domain: its operator marks its own pods so."""
        return f"nvidia.com/{self.driver}-driver-upgrade-drain.skip!=true"


_GPU_APP = {"app.kubernetes.io/component": "nvidia-driver"}
_GPU_SAYS = {
    "maxUnavailable": "25%",
    "podDeletion": {"resourceNames": ["nvidia.com/gpu*", "nvidia.com/mig-*", "gpu.nvidia.com"]},
    "podRestart": {"unchangedEnv": "DRIVER_CONFIG_DIGEST"},
    "validation": {"podSelector": "app=nvidia-operator-validator"},
}
FOREIGN: Mapping[str, Foreign] = {
    "gpu-cluster-policy": Foreign(
        "clusterpolicies", "ClusterPolicy", "gpu", _GPU_APP, ("driver", "upgradePolicy"), _GPU_SAYS
    ),
    "gpu-nvidia-driver": Foreign("nvidiadrivers", "NVIDIADriver", "gpu", _GPU_APP, ("upgradePolicy",), _GPU_SAYS),
    "nic-cluster-policy": Foreign(
        "nicclusterpolicies",
        "NicClusterPolicy",
        "ofed",
        {"nvidia.com/ofed-driver": ""},
        ("ofedDriver", "upgradePolicy"),
        gives_way=True,
    ),
}
"""By the name that `--source` takes."""


def translated(kind: Foreign, obj: Object, domain: str, *, enabled: bool) -> Object:
    """A resource of another operator as if it were a policy of ours."""
    block: Any = obj.get("spec") or {}
    for name in kind.path:
        block = (block or {}).get(name)
    upgrade = {**kind.says, **(block or {})}
    for name, value in kind.says.items():
        if isinstance(value, Mapping):
            upgrade[name] = {**value, **(upgrade[name] or {})}
    if isinstance(drain := upgrade.get("drain"), Mapping):
        upgrade["drain"] = {**drain, "podSelector": ",".join(filter(None, (drain.get("podSelector"), kind.spares)))}
    notes = obj["metadata"].get("annotations") or {}
    upgrade |= {"autoUpgrade": enabled, "paused": notes.get(f"{domain}/driver-upgrade.paused") == "true"}
    return {"metadata": obj["metadata"], "spec": {"driver": {"upgradePolicy": upgrade}}}


@dataclass(frozen=True)
class Policy:
    """A policy that a world has, or had: its kind, its namespace, or that in which it counts, and the object."""

    plural: str
    namespace: str
    obj: Object
    foreign: Foreign | None = None

    def subject(self, daemonsets: Iterable[Object], domain: str) -> Subject:
        """Whom to judge."""
        meta, spec = self.obj["metadata"], self.obj.get("spec") or {}
        driver = spec.get("driver") or {}
        app: Mapping[str, str] = self._app(driver)
        selector = driver.get("nodeSelector") or {}
        expressions = () if self.foreign else (driver.get("podSelector") or {}).get("matchExpressions") or ()
        pool = selector.get("matchLabels") or {}
        if self.foreign:
            pool = spec.get("nodeSelector") or {}
        kind = self.foreign.kind if self.foreign else "CustomResource" if self.plural == SEEDS else "DriverUpgradePolicy"
        fitting = sorted({d["metadata"]["name"] for d in daemonsets if self._fits(d, app, expressions)}) or ["there is none"]
        return Subject(
            driver=self._driver(driver),
            namespace=self.namespace,
            daemonset=fitting[0],
            others=tuple(fitting[1:]),
            policy=meta["name"],
            kind=self.plural,
            app=app,
            pool=pool,
            app_expressions=expressions,
            pool_expressions=() if self.foreign else selector.get("matchExpressions") or (),
            named=f"{kind}/{meta['name']}",
            domain=domain,
            may_fail=True,
        )

    @property
    def age(self) -> tuple[int, str, str]:
        """In this order policies have a node that several of them select."""
        meta = self.obj["metadata"]
        last = self.foreign is not None and (self.foreign.gives_way or bool((self.obj.get("spec") or {}).get("default")))
        return LAST if last else FIRST, meta["creationTimestamp"], f"{self.namespace}/{meta['name']}"

    def _app(self, driver: Mapping[str, Any]) -> Mapping[str, str]:
        if self.foreign:
            return self.foreign.app
        if self.plural == SEEDS:
            return {"app": "nvidia-driver-daemonset"}
        return (driver.get("podSelector") or {}).get("matchLabels") or {}

    def _driver(self, driver: Mapping[str, Any]) -> str:
        if self.foreign:
            return self.foreign.driver
        return "gpu" if self.plural == SEEDS else str(driver.get("name") or self.obj["metadata"]["name"])

    def _fits(self, daemonset: Object, app: Mapping[str, str], expressions: Sequence[Mapping[str, Any]]) -> bool:
        found = daemonset["spec"]["template"]["metadata"].get("labels") or {}
        fits = from_object({"matchLabels": app, "matchExpressions": expressions})
        return bool(daemonset["metadata"]["namespace"] == self.namespace and fits(found))
