"""The upgrade policy as it stands in custom resources: shape, defaults and bounds (design, section 2).

The same shape is read from our own kind, from the seed's ``CustomResource`` and from other operators' resources. The
CRDs in ``manifests/crd`` state the same defaults and bounds; a test holds the two against each other. Validation that a
schema cannot do (a selector that does not parse) belongs to ``controller.upgrade.policy``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from controller.api.meta import KubeObject, Trimmed
from controller.api.selectors import LabelSelector

GROUP = "nvidia.com"
VERSION = "v1"
MAX_PARALLEL = 100_000
MAX_TIMEOUT_SECONDS = 604_800
MAX_SELECTOR = 1024
MAX_RESOURCES = 64
PERCENT = r"^(100|[0-9]{1,2})%\Z"
DRIVER_NAME = r"^[a-z0-9]([-a-z0-9]{0,11}[a-z0-9])?\Z"
RESOURCE_NAME = r"^[A-Za-z0-9]([-A-Za-z0-9_./*]*[A-Za-z0-9*])?\Z"

Seconds = Annotated[int, Meta(ge=0, le=MAX_TIMEOUT_SECONDS)]
# A resource's name is a DNS name of up to 253 characters, a slash, and up to 63 more; ``*`` is the one wildcard. It cannot
# come first: every pod asks for cpu or memory, so that "*" alone would evict them all.
ResourceName = Annotated[str, Meta(min_length=1, max_length=317, pattern=RESOURCE_NAME)]
SelectorText = Annotated[str, Meta(max_length=MAX_SELECTOR)]
IntOrPercent = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=PERCENT)]


class WaitForCompletion(Trimmed, frozen=True, gc=False):
    """Jobs to let finish before anything is evicted. Off where ``pod_selector`` is empty."""

    pod_selector: SelectorText = ""
    timeout_seconds: Seconds = 0


class PodDeletion(Trimmed, frozen=True, gc=False):
    """Device users to evict before the drain, by selector or by resource name. Off where both are empty."""

    pod_selector: SelectorText = ""
    resource_names: Annotated[tuple[ResourceName, ...], Meta(max_length=MAX_RESOURCES)] = ()
    force: bool = False
    timeout_seconds: Seconds = 300
    delete_empty_dir: bool = False


class Drain(Trimmed, frozen=True, gc=False):
    """How the node is drained. ``grace_period_seconds`` -1 leaves each pod its own."""

    enable: bool = False
    force: bool = False
    pod_selector: SelectorText = ""
    timeout_seconds: Seconds = 300
    delete_empty_dir: bool = False
    grace_period_seconds: Annotated[int, Meta(ge=-1, le=MAX_TIMEOUT_SECONDS)] = -1


class PodRestart(Trimmed, frozen=True, gc=False):
    """How long and how often the new driver pod may try, and what marks an unchanged driver."""

    timeout_seconds: Seconds = 1800
    max_restarts: Annotated[int, Meta(ge=0, le=1000)] = 10
    unchanged_env: Annotated[str, Meta(max_length=253)] = ""


class Validation(Trimmed, frozen=True, gc=False):
    """Pods on the node that must be ready before it is given back. Off where ``pod_selector`` is empty."""

    pod_selector: SelectorText = ""
    timeout_seconds: Seconds = 600


class UpgradePolicySpec(Trimmed, frozen=True, gc=False):
    """``upgradePolicy``. Where ``auto_upgrade`` is false everything else is ignored.

    ``max_parallel_upgrades`` 0 is no limit. ``max_unavailable`` is a number of nodes or a percentage of the managed
    ones, rounded up; unset is no further cap. ``failure_threshold`` unset is ``max_parallel_upgrades``, or 1 where that
    is 0.
    """

    auto_upgrade: bool = False
    paused: bool = False
    max_parallel_upgrades: Annotated[int, Meta(ge=0, le=MAX_PARALLEL)] = 1
    max_unavailable: IntOrPercent | None = None
    failure_threshold: Annotated[int, Meta(ge=1, le=MAX_PARALLEL)] | None = None
    cordoned_nodes: Literal["Upgrade", "Skip"] = "Upgrade"
    wait_for_completion: WaitForCompletion = WaitForCompletion()
    pod_deletion: PodDeletion = PodDeletion()
    drain: Drain = Drain()
    pod_restart: PodRestart = PodRestart()
    validation: Validation = Validation()


class DriverSpec(Trimmed, frozen=True, gc=False):
    """``spec.driver`` of our kinds. Repository, image and version are the DaemonSet owner's business, not ours.

    ``name`` not set is the policy's name, which the CRD then holds to the same pattern.
    """

    name: Annotated[str, Meta(max_length=13, pattern=DRIVER_NAME)] = ""
    pod_selector: LabelSelector | None = None
    node_selector: LabelSelector | None = None


class PolicyObject(KubeObject, frozen=True, gc=False):
    """Any custom resource that holds an upgrade policy.

    Its content is read field by field, so that one bad field is one reported error and not an object that cannot be
    decoded.
    """

    spec: Mapping[str, Any] | None = None
    status: Mapping[str, Any] | None = None
