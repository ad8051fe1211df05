"""The controller under test: rolled as users would roll it, watched from outside while it does."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.upgrade.keys import keys_for
from controller.upgrade.states import State
from tools import controllerprocess
from tools.account import installed
from tools.bench.setting import POLICY, Size, change_version, confirm, policy
from tools.bench.witness import Evidence, evidence_of
from tools.controllerprocess import Labels, Samples
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.audit import AuditLog
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import NODES, Object

STATE_LABEL = keys_for(POLICY).state


@dataclass(frozen=True)
class Run:
    """What a rollout by the controller took."""

    evidence: Evidence
    peak_rss_mib: float | None
    """Most memory held, from the process's start; None where the system does not tell."""
    cpu_seconds: float
    """User and system, from the version's change to the end."""
    state_seconds: dict[str, tuple[int, float]]
    """By state: how often it was left, and the seconds spent in it, summed over nodes."""
    throttled: tuple[int, float]
    """Requests, and the seconds that they waited for the client's own rate limiter."""


async def roll(cp: ControlPlane, api: Api, size: Size, *flags: str, timeout: float) -> Run:  # noqa: ASYNC109
    """Runs the controller, changes the version, waits until all nodes are done, and reads what it took.

    Raises:
        ControllerError: the controller ended.
        TimeoutError: not done within `timeout` seconds.
    """
    for crd in controllerprocess.CRDS:
        await api.apply(crd.read_text())
    await api.create(policy(size))
    flags = ("--driver-namespaces", scene.NAMESPACE, "--log-level", "info", *flags)
    log = cp.directory / "controller.log"
    ours = await installed(api, cp.access, scene.NAMESPACE, cp.directory)
    async with controllerprocess.running(ours, log, *flags) as controller:
        await controller.alongside(api.wait_for(NODES, _done, timeout=timeout))
        audit, before = AuditLog(cp.audit_log), await controller.metrics()
        audit.skip()
        await controller.alongside(_rollout(api, size, timeout))
        grown = controllerprocess.difference(before, await controller.metrics())
        memory = controller.peak_memory_mib()
    await confirm(api, size)
    return Run(
        evidence_of(audit.read(), controllerprocess.USER_AGENT),
        memory,
        sum(grown["process_cpu_seconds_total"].values()),
        _by_state(grown),
        _throttled(grown),
    )


async def _rollout(api: Api, size: Size, timeout: float) -> None:  # noqa: ASYNC109
    """Changes the version and waits until the policy's status tells that all nodes have it.

    One object is watched and not all nodes: whoever watches takes from the two cores that are measured. The status is the
    last word on a rollout, and part of its cost; whether it is true is looked at afterwards.
    """
    resource = await api.resource("nvidia.com/v1", "DriverUpgradePolicy")
    before = await api.wait_for_object(resource, POLICY, _targets, scene.NAMESPACE, what="first status")
    generation = (await change_version(api))["metadata"]["generation"]
    assert generation > 1, "the version did not change"

    def complete(obj: Object) -> bool:
        status = obj.get("status", {})
        nodes = status.get("nodes", {})
        counts = (nodes.get("upToDate"), nodes.get("inProgress"), nodes.get("unavailable"))
        return counts == (size.nodes, 0, 0) and _targets(obj) != _targets(before)

    await api.wait_for_object(resource, POLICY, complete, scene.NAMESPACE, timeout=timeout, what="final status")


def _targets(policy: Object) -> list[int]:
    """The driver's revisions that a policy's status names."""
    return [target["revision"] for target in policy.get("status", {}).get("targets", ())]


def _done(nodes: Sequence[Object]) -> bool:
    return all(map(is_done, nodes))


def is_done(node: Object) -> bool:
    """Whether a node's upgrade is done and the node given back."""
    return node["metadata"]["labels"].get(STATE_LABEL) == State.UPGRADE_DONE and not node["spec"].get("unschedulable")


def _by_state(grown: Samples) -> dict[str, tuple[int, float]]:
    counts = grown.get("driver_upgrade_state_seconds_count", {})
    sums = grown.get("driver_upgrade_state_seconds_sum", {})
    found: dict[str, tuple[int, float]] = {}
    for labels, count in counts.items():
        if count:
            nodes, seconds = found.get(_state(labels), (0, 0.0))
            found[_state(labels)] = (nodes + int(count), seconds + sums[labels])
    return found


def _state(labels: Labels) -> str:
    return dict(labels)["state"]


def _throttled(grown: Samples) -> tuple[int, float]:
    name = "rest_client_rate_limiter_duration_seconds"
    return int(sum(grown.get(f"{name}_count", {}).values())), sum(grown.get(f"{name}_sum", {}).values())
