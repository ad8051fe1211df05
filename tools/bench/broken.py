"""What broken nodes cost the others: one rollout with a broken node of each kind beside the healthy ones, and one without.

Broken are: a driver version that crashes, one whose image cannot be pulled, a workload that never ends, a bare pod (nobody
said force), a budget that never allows anything, and a node that is not ready. They never end, and all but the last hold
a slot, as they should; so the limit is raised by their number, and what is left to measure is whether they delay anybody.
Their names sort first: they are granted before all others. They are tainted, so that the healthy nodes carry the same
workload in both rollouts. The failure threshold is above their number.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

from tools import controllerprocess
from tools.bench import setting
from tools.bench.setting import NEW_VERSION, PODS_PER_NODE, SETTLE_SECONDS, IncompleteError, Size
from tools.bench.subject import STATE_LABEL, is_done
from tools.bench.witness import evidence_of
from tools.controllerprocess import ControllerProcess
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.audit import AuditLog
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import DAEMON_SETS, NODES, POD_DISRUPTION_BUDGETS, PODS, Object
from tools.controlplane.terminal import Reporter

SIZE = Size(24, 6)
"""The healthy nodes, and how many of them at a time."""
GROUP = "bench.driver-upgrade.test/group"
"""Node label: which DaemonSet the node's driver comes from. Its value ends the version that is rolled out there."""
BROKEN = "bench.driver-upgrade.test/broken"
"""Node label and taint, with the kind."""
GOOD = "good"
KINDS: Mapping[str, str] = {
    "bare": GOOD,
    "budget": GOOD,
    "crash": "crash",
    "nopull": "nopull",
    "notready": GOOD,
    "stuck": GOOD,
}
"""Each kind of broken node, with its group."""
PAIRS = 3
"""At least so many rollouts of each: one differs from the next by as much as may be told here."""
WITHOUT_SLOT = 1
"""A node that is not ready is not begun."""


@dataclass(frozen=True)
class Isolation:
    """How long until all healthy nodes were done, in seconds."""

    beside: float
    alone: float

    @property
    def ratio(self) -> float:
        """1 is: the broken ones delayed nobody."""
        return self.beside / self.alone

    def __str__(self) -> str:
        return (
            f"Isolation: {SIZE.nodes} healthy nodes were done after {self.beside:.2f} s beside {len(KINDS)} broken ones, "
            f"after {self.alone:.2f} s without them: ratio {self.ratio:.3f}"
        )


async def isolation(repeat: int, flags: Sequence[str], timeout: float, report: Reporter) -> Isolation:  # noqa: ASYNC109
    """Rolls both in turn, each on a fresh control plane, `repeat` times but at least three times; medians.

    Raises:
        IncompleteError: a broken node was not broken.
        TimeoutError: the healthy ones were not done within `timeout` seconds.
    """
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * max(repeat, PAIRS)):
        kinds = KINDS if turn % 2 else {}
        name = f"{SIZE.nodes} healthy nodes beside {len(kinds)} broken ones"
        with report.task(name):
            async with ControlPlane.start(report=report) as cp, Api(cp.access) as api:
                seconds[bool(kinds)].append(await _measured(cp, api, kinds, flags, timeout))
    return Isolation(median(seconds[True]), median(seconds[False]))


async def _measured(
    cp: ControlPlane,
    api: Api,
    kinds: Mapping[str, str],
    flags: Sequence[str],
    timeout: float,  # noqa: ASYNC109
) -> float:
    audit = AuditLog(cp.audit_log)
    await _install(api, kinds)
    await api.create(policy(kinds))
    async with _controller(cp, flags) as controller:
        await controller.alongside(api.wait_for(NODES, _all_done, timeout=timeout, what="nodes done"))
        await _lose(api, kinds)
        audit.skip()
        await _change_versions(api, kinds)
        await controller.alongside(_healthy_done(api, timeout))
        await _confirm(api, kinds)
    broken = set(map(_name, kinds))
    return evidence_of((r for r in audit.read() if r.name not in broken), controllerprocess.USER_AGENT).makespan


@asynccontextmanager
async def _controller(cp: ControlPlane, flags: Sequence[str]) -> AsyncIterator[ControllerProcess]:
    flags = ("--driver-namespaces", scene.NAMESPACE, "--log-level", "info", *flags)
    async with controllerprocess.running(cp.kubeconfig, cp.directory / "controller.log", *flags) as controller:
        yield controller


async def _install(api: Api, kinds: Mapping[str, str]) -> None:
    for crd in controllerprocess.CRDS:
        await api.apply(crd.read_text())
    await api.create(scene.namespace(scene.NAMESPACE))
    await api.create_many(nodes(kinds))
    await api.create_many(_daemon_set(group) for group in {GOOD, *kinds.values()})
    await api.wait_for(PODS, scene.all_ready(SIZE.nodes + len(kinds)), scene.NAMESPACE, timeout=SETTLE_SECONDS)
    workload = [*setting.workload(SIZE), *_obstacles(kinds)]
    pods = PODS_PER_NODE * SIZE.nodes + sum(obj["kind"] in {"Pod", "Deployment"} for obj in _obstacles(kinds))
    await api.create_many(workload)
    await api.wait_for(PODS, scene.all_ready(pods), "default", timeout=SETTLE_SECONDS)
    await api.wait_for(POD_DISRUPTION_BUDGETS, setting.budgets_settled, timeout=SETTLE_SECONDS)


def _name(kind: str) -> str:
    return f"a-broken-{kind}"


def nodes(kinds: Mapping[str, str]) -> Iterable[Object]:
    """The healthy nodes, and a tainted one of each kind, which comes before them in the order of names."""
    yield from scene.nodes(SIZE.nodes, zones=3, labels={GROUP: GOOD})
    for kind, group in kinds.items():
        made = scene.node(_name(kind), labels={GROUP: group, BROKEN: kind})
        yield made | {"spec": {"taints": [{"key": BROKEN, "value": kind, "effect": "NoSchedule"}]}}


def _daemon_set(group: str) -> Object:
    """One DaemonSet for each group; all are the driver's, by their pods' label."""
    made = scene.driver_daemon_set("1", node_selector={GROUP: group})
    made["metadata"]["name"] = _daemon_set_name(group)
    return made


def _daemon_set_name(group: str) -> str:
    return scene.DRIVER if group == GOOD else f"{scene.DRIVER}-{group}"


def _obstacles(kinds: Mapping[str, str]) -> Iterable[Object]:
    """What is in the way on the broken nodes whose driver is good."""

    def spec(kind: str) -> Object:
        tolerations = [{"key": BROKEN, "operator": "Exists"}]
        return scene.pod_spec() | {"nodeSelector": {BROKEN: kind}, "tolerations": tolerations}

    if kinds:
        yield scene.pod("bare", spec=spec("bare"))
        yield scene.deployment("guarded", spec=spec("budget"))
        yield scene.budget("guarded", min_available=1)
        yield scene.deployment("stuck", annotations=scene.stage(stuck="true"), spec=spec("stuck"))


def policy(kinds: Mapping[str, str]) -> Object:
    """Slots for the healthy nodes, and one for each broken one that keeps one; nothing of theirs ends by itself."""
    held = max(0, len(kinds) - WITHOUT_SLOT)
    made = setting.policy(Size(SIZE.nodes, SIZE.parallel + held))
    patience = {"drain": {"enable": True, "timeoutSeconds": 0}, "podRestart": {"timeoutSeconds": 0, "maxRestarts": 1000}}
    made["spec"]["driver"]["upgradePolicy"] |= {"failureThreshold": len(KINDS) + 1, **patience}
    return made


async def _lose(api: Api, kinds: Mapping[str, str]) -> None:
    if "notready" in kinds:
        name = _name("notready")
        await api.patch(NODES, name, {"metadata": {"annotations": {scene.NOT_READY: ""}}})
        await api.wait_for_object(NODES, name, lambda node: not scene.is_ready(node))


async def _change_versions(api: Api, kinds: Mapping[str, str]) -> None:
    for group in sorted(set(kinds.values()) - {GOOD}):
        container = {"name": "driver", "image": f"{scene.DRIVER_IMAGE}:{NEW_VERSION}-{group}"}
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await api.patch(DAEMON_SETS, _daemon_set_name(group), body, scene.NAMESPACE, kind="strategic")
    await setting.change_version(api)


async def _healthy_done(api: Api, timeout: float) -> None:  # noqa: ASYNC109
    labels = f"!{BROKEN}"
    await api.wait_for(NODES, lambda nodes: not _all_done(nodes), labels=labels, timeout=timeout)
    await api.wait_for(NODES, _all_done, labels=labels, timeout=timeout, what="healthy nodes done")


async def _confirm(api: Api, kinds: Mapping[str, str]) -> None:
    """A broken node that is done, or has failed and given its slot away, would have made it too easy."""
    ended = {"upgrade-done", "upgrade-failed"}
    nodes = await api.list(NODES, labels=BROKEN)
    wrong = {node["metadata"]["name"]: node["metadata"]["labels"].get(STATE_LABEL) for node in nodes}
    if len(wrong) != len(kinds) or ended & set(wrong.values()):
        raise IncompleteError(f"the broken nodes are not as they should be: {wrong}")


def _all_done(nodes: Sequence[Object]) -> bool:
    return all(map(is_done, nodes))
