"""The kinds of broken nodes, with what the controller is to say of each; their nodes, drivers and policies.

They are tainted, so that the healthy nodes carry the same workload whether they are there or not. None of them ends by
itself. Their driver comes from other DaemonSets than that of the healthy nodes, so that it can be rolled before: a broken
driver from one of its own, a good one, on a node that is broken otherwise, from one that those nodes share.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.upgrade.reasons import Reason
from tools.bench import setting
from tools.bench.setting import NEW_VERSION, POLICY, Size
from tools.controlplane import scene
from tools.controlplane.resources import Object

GROUP = "bench.driver-upgrade.test/group"
"""Node label: which DaemonSet the node's driver comes from."""
BROKEN = "bench.driver-upgrade.test/broken"
"""Node label and taint, with the kind."""
GOOD, SOUND = "good", "sound"
"""The groups of the healthy nodes, and of the broken ones whose driver is none the worse."""
JOB = "bench-job"
"""Pod label: what waitForCompletion waits for."""
VALIDATED = "gpu-validated"
"""The policy of the node that is to be validated: of the same driver, for this node alone."""
NO_ROOM = {"requests": {"cpu": "1000"}}
NO_CLASS = "bench-no-such-class"
"""The API server makes no pod of a priority class that there is none of."""


@dataclass(frozen=True)
class Kind:
    """One way to be broken."""

    reason: Reason
    """What the policy's status is to say of the node."""
    words: str = ""
    """A part of its message, or of a blocker's, where several kinds share the reason."""
    driver: bool = False
    """Whether it is the driver that is broken."""
    keeps_slot: bool = True
    """Whether it holds one of the slots that the healthy nodes compete for."""


KINDS: Mapping[str, Kind] = {
    "bare": Kind(Reason.UNMANAGED_POD),
    "budget": Kind(Reason.POD_DISRUPTION_BUDGET),
    "budgets": Kind(Reason.MULTIPLE_POD_DISRUPTION_BUDGETS),
    "crash": Kind(Reason.DRIVER_POD_CRASHING, driver=True),
    "denied": Kind(Reason.EVICTION_DENIED),
    "emptydir": Kind(Reason.EMPTY_DIR_POD),
    "finalizer": Kind(Reason.POD_TERMINATING, "held by finalizer"),
    "going": Kind(Reason.NAMESPACE_TERMINATING),
    "job": Kind(Reason.JOBS_RUNNING),
    "lifted": Kind(Reason.POD_DISRUPTION_BUDGET),
    "missing": Kind(Reason.DRIVER_POD_MISSING, driver=True),
    "nopull": Kind(Reason.IMAGE_PULL_FAILED, driver=True),
    "notready": Kind(Reason.DRIVER_POD_NOT_READY, driver=True),
    "pending": Kind(Reason.DRIVER_POD_PENDING, "Unschedulable", driver=True),
    "refused": Kind(Reason.FORBIDDEN, keeps_slot=False),
    "stuck": Kind(Reason.POD_TERMINATING),
    "terminating": Kind(Reason.DRIVER_POD_TERMINATING, "still shutting down", driver=True),
    "unready": Kind(Reason.NODE_NOT_READY, keeps_slot=False),
    "validation": Kind(Reason.VALIDATION_POD_MISSING, keeps_slot=False),
}
"""One node of each. `lifted` is one whose drain is held up while somebody lifts its cordon, as often as is borne."""


def name_of(kind: str) -> str:
    """The node of a kind."""
    return f"a-broken-{kind}"


def nodes(size: Size, kinds: Mapping[str, Kind]) -> Iterator[Object]:
    """The healthy nodes, and a broken one of each kind."""
    yield from scene.nodes(size.nodes, zones=3, labels={GROUP: GOOD})
    for kind, each in kinds.items():
        made = scene.node(name_of(kind), labels={GROUP: kind if each.driver else SOUND, BROKEN: kind})
        yield made | {"spec": {"taints": [{"key": BROKEN, "value": kind, "effect": "NoSchedule"}]}}


def groups(kinds: Mapping[str, Kind]) -> list[str]:
    """Where the drivers of the broken nodes come from."""
    return [*([SOUND] if kinds else []), *(kind for kind, each in kinds.items() if each.driver)]


def daemon_set_of(group: str) -> str:
    """The name of a group's DaemonSet."""
    return scene.DRIVER if group == GOOD else f"{scene.DRIVER}-{group}"


def daemon_set(group: str) -> Object:
    """One DaemonSet for each group; all are the driver's, by their pods' label."""
    notes = {"terminating": scene.stage(stuck="true"), "crash": scene.stage(crash_back_off="5s")}
    made = scene.driver_daemon_set("1", node_selector={GROUP: group}, annotations=notes.get(group, {}))
    made["metadata"]["name"] = daemon_set_of(group)
    return made


def new_version(group: str) -> Object:
    """The patch that rolls a group: an image tag says what is wrong with the driver, or its pod cannot be made or placed."""
    bad_image = {"crash", "nopull", "notready"}
    tag = f"{NEW_VERSION}-{group}" if group in bad_image else NEW_VERSION
    container: Object = {"name": "driver", "image": f"{scene.DRIVER_IMAGE}:{tag}"}
    if group == "pending":
        container["resources"] = NO_ROOM
    spec: Object = {"containers": [container]}
    if group == "missing":
        spec["priorityClassName"] = NO_CLASS
    return {"spec": {"template": {"spec": spec}}}


def policies(size: Size, kinds: Mapping[str, Kind]) -> Iterator[Object]:
    """Slots for the healthy nodes, and one for each broken one that keeps one; and the policy that validates."""
    held = sum(kind.keeps_slot for kind in kinds.values())
    yield _policy(Size(size.nodes, size.parallel + held), POLICY, "NotIn")
    validated = _policy(Size(1, 1), VALIDATED, "In")
    validated["spec"]["driver"]["upgradePolicy"]["validation"] = {"podSelector": "app=bench-nobody", "timeoutSeconds": 0}
    yield validated


def _policy(size: Size, name: str, operator: str) -> Object:
    """Nothing that it waits for has an end, and no number of failed nodes halts it."""
    made = setting.policy(size)
    made["metadata"]["name"] = name
    chosen = {"key": BROKEN, "operator": operator, "values": ["validation"]}
    made["spec"]["driver"] |= {"name": POLICY, "nodeSelector": {"matchExpressions": [chosen]}}
    made["spec"]["driver"]["upgradePolicy"] |= {
        "failureThreshold": len(KINDS) + 1,
        "drain": {"enable": True, "timeoutSeconds": 0},
        "podRestart": {"timeoutSeconds": 0, "maxRestarts": 1000},
        "waitForCompletion": {"podSelector": f"{JOB}=yes", "timeoutSeconds": 0},
    }
    return made
