"""What broken nodes cost the others: one rollout with a broken node of each kind beside the healthy ones, and one without.

They are thirty in all, see `kinds` for the broken ones; the healthy ones, their workload and the policy are the same in both
rollouts. Most of the broken ones hold a slot for good, as they should; so the limit is raised by their number, and they are
rolled just before the healthy ones and have their slots when those begin: else the healthy ones would take them at first,
and be faster for it. What is left to measure is whether the broken ones delay anybody while they are tried again and again.
The failure threshold is above their number. At the end the policies' status must say of each what is wrong with it, and that
is printed: one that was not broken in its own way would prove nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from controller.upgrade.states import IN_PROGRESS
from controller.upgrade.vacate import MAX_RECORDONS
from tools import controllerprocess
from tools.account import installed
from tools.bench import setting
from tools.bench.kinds import (
    BROKEN,
    GOOD,
    KINDS,
    Kind,
    daemon_set,
    daemon_set_of,
    groups,
    name_of,
    new_version,
    nodes,
    policies,
)
from tools.bench.obstacles import denials_in_force, namespace_of, obstacles, pods_of
from tools.bench.setting import PODS_PER_NODE, SETTLE_SECONDS, IncompleteError, Size
from tools.bench.subject import STATE_LABEL, is_done
from tools.bench.witness import evidence_of
from tools.controllerprocess import ControllerProcess
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.audit import AuditLog, Request
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import DAEMON_SETS, NAMESPACES, NODES, POD_DISRUPTION_BUDGETS, PODS, Object
from tools.controlplane.terminal import Reporter

IN_ALL = 30
SIZE = Size(IN_ALL - len(KINDS), 1)
"""The healthy nodes, one at a time: so every delay adds to the whole, and that lasts long enough to tell a tenth of it.

What the broken ones cost once, when all begin together, weighs the less for it: two at a time it weighs twice as much.
"""
PAIRS = 3
"""At least so many rollouts of each: one differs from the next by as much as may be told here."""
LIMIT = 1.10
"""What the ratio is to stay below."""
STATUS_SECONDS = 15.0
"""How long the policies' statuses may take to tell what became of the nodes."""
_WORDS = 70


@dataclass(frozen=True)
class Isolation:
    """How long until all healthy nodes were done, in seconds, each time, and what became of the broken ones."""

    beside: Sequence[float]
    alone: Sequence[float]
    fates: Mapping[str, str] = field(default_factory=dict)
    """By kind: state, reason, and a few words of the policy's status."""

    @property
    def ratio(self) -> float:
        """Of the medians. 1 is: the broken ones delayed nobody."""
        return median(self.beside) / median(self.alone)

    def __str__(self) -> str:
        first = (
            f"Isolation: {SIZE.nodes} healthy nodes were done after {median(self.beside):.2f} s beside {len(KINDS)} broken, "
            f"after {median(self.alone):.2f} s without them: ratio {self.ratio:.3f}, "
            f"{'within' if self.ratio <= LIMIT else 'ABOVE'} the limit of {LIMIT:.2f}"
        )
        beside, alone = (", ".join(f"{each:.2f}" for each in seen) for seen in (self.beside, self.alone))
        medians = f"  medians: beside {beside}; without {alone}"
        return "\n".join([first, medians, *(f"  {kind:<12} {fate}" for kind, fate in self.fates.items())])


async def isolation(repeat: int, flags: Sequence[str], timeout: float, report: Reporter) -> Isolation:  # noqa: ASYNC109
    """Rolls both in turn, each on a fresh control plane, `repeat` times but at least three times; medians.

    Raises:
        IncompleteError: a broken node was not broken in its own way.
        TimeoutError: the healthy ones were not done within `timeout` seconds.
    """
    seconds: dict[bool, list[float]] = {True: [], False: []}
    fates: dict[str, str] = {}
    for turn in range(2 * max(repeat, PAIRS)):
        kinds = KINDS if turn % 2 else {}
        name = f"{SIZE.nodes} healthy nodes beside {len(kinds)} broken ones"
        with report.task(name):
            async with ControlPlane.start(report=report) as cp, Api(cp.access) as api:
                took, told = await measured(cp, api, kinds, flags, timeout)
        seconds[bool(kinds)].append(took)
        fates |= told
    return Isolation(seconds[True], seconds[False], fates)


async def measured(
    cp: ControlPlane,
    api: Api,
    kinds: Mapping[str, Kind],
    flags: Sequence[str],
    timeout: float,  # noqa: ASYNC109
) -> tuple[float, dict[str, str]]:
    """One rollout: how long the healthy nodes took, and what the controller said of the broken ones."""
    audit = AuditLog(cp.audit_log)
    await _install(api, kinds)
    await api.create_many(policies(SIZE, kinds))
    async with _controller(cp, api, flags) as controller, asyncio.TaskGroup() as group:
        await controller.alongside(api.wait_for(NODES, _all_done, timeout=timeout, what="nodes done"))
        await _break(api, kinds)
        await controller.alongside(_roll_broken(api, kinds))
        audit.skip()
        await setting.change_version(api)
        lifts = group.create_task(_lift_cordons(api)) if "lifted" in kinds else None
        await controller.alongside(_healthy_done(api, timeout))
        fates = await controller.alongside(_told(api, kinds))
        if lifts:
            async with asyncio.timeout(STATUS_SECONDS):
                await lifts
            fates["lifted"] += f"; and cordoned again {MAX_RECORDONS} times"
        await _confirm(api, kinds)
    return evidence_of(_of_the_healthy(audit, kinds), controllerprocess.USER_AGENT).makespan, fates


def _of_the_healthy(audit: AuditLog, kinds: Mapping[str, Kind]) -> list[Request]:
    """The rollout begins with their own DaemonSet, and ends with their last node."""
    others = {*map(name_of, kinds), *map(daemon_set_of, groups(kinds))}
    return [request for request in audit.read() if request.name not in others]


@asynccontextmanager
async def _controller(cp: ControlPlane, api: Api, flags: Sequence[str]) -> AsyncIterator[ControllerProcess]:
    flags = ("--driver-namespaces", scene.NAMESPACE, "--log-level", "info", *flags)
    ours = await installed(api, cp.access, scene.NAMESPACE, cp.directory)
    async with controllerprocess.running(ours, cp.directory / "controller.log", *flags) as controller:
        yield controller


async def _install(api: Api, kinds: Mapping[str, Kind]) -> None:
    for crd in controllerprocess.CRDS:
        await api.apply(crd.read_text())
    await api.create(scene.namespace(scene.NAMESPACE))
    await api.create_many(nodes(SIZE, kinds))
    await api.create_many(map(daemon_set, (GOOD, *groups(kinds))))
    drivers = SIZE.nodes + len(kinds)
    await api.wait_for(PODS, scene.all_ready(drivers), scene.NAMESPACE, timeout=SETTLE_SECONDS)
    in_the_way = obstacles(kinds)
    await api.create_many(obj for obj in in_the_way if obj["kind"] == "Namespace")
    await api.create_many([*setting.workload(SIZE), *(obj for obj in in_the_way if obj["kind"] != "Namespace")])
    pods = drivers + PODS_PER_NODE * SIZE.nodes + pods_of(in_the_way)
    await api.wait_for(PODS, scene.all_ready(pods), timeout=SETTLE_SECONDS)
    await api.wait_for(POD_DISRUPTION_BUDGETS, setting.budgets_settled, timeout=SETTLE_SECONDS)
    await denials_in_force(api, kinds)


async def _break(api: Api, kinds: Mapping[str, Kind]) -> None:
    """What would have kept the controller from knowing its nodes at all, had it been so from the start."""
    if "unready" in kinds:
        name = name_of("unready")
        await api.patch(NODES, name, {"metadata": {"annotations": {scene.NOT_READY: ""}}})
        await api.wait_for_object(NODES, name, lambda node: not scene.is_ready(node))
    if "going" in kinds:
        await api.delete(NAMESPACES, namespace_of("going"))


async def _lift_cordons(api: Api) -> None:
    """Uncordons a node as soon as it is cordoned, as often as is borne: once more, and it would fail and yield its slot."""
    name = name_of("lifted")
    for _ in range(MAX_RECORDONS):
        await api.wait_for_object(NODES, name, lambda node: node["spec"].get("unschedulable"))
        await api.patch(NODES, name, {"spec": {"unschedulable": None}})
    await api.wait_for_object(NODES, name, lambda node: node["spec"].get("unschedulable"))


async def _roll_broken(api: Api, kinds: Mapping[str, Kind]) -> None:
    """Changes the version of the broken nodes' drivers, and waits until all have the slots that they keep."""
    for group in groups(kinds):
        await api.patch(DAEMON_SETS, daemon_set_of(group), new_version(group), scene.NAMESPACE, kind="strategic")
    holders = {name_of(name) for name, kind in kinds.items() if kind.keeps_slot}

    def all_held(nodes: Sequence[Object]) -> bool:
        begun = {n["metadata"]["name"] for n in nodes if n["metadata"]["labels"].get(STATE_LABEL) in IN_PROGRESS}
        return begun >= holders

    await api.wait_for(NODES, all_held, labels=BROKEN, timeout=SETTLE_SECONDS, what="broken nodes in progress")


async def _healthy_done(api: Api, timeout: float) -> None:  # noqa: ASYNC109
    labels = f"!{BROKEN}"
    await api.wait_for(NODES, lambda nodes: not _all_done(nodes), labels=labels, timeout=timeout)
    await api.wait_for(NODES, _all_done, labels=labels, timeout=timeout, what="healthy nodes done")


async def _told(api: Api, kinds: Mapping[str, Kind]) -> dict[str, str]:
    """Waits until the policies' status has said of every broken node what is wrong with it.

    Raises:
        IncompleteError: it does not say so.
    """
    fates: dict[str, str] = {}

    def all_told(policies: Sequence[Object]) -> bool:
        told = [item for policy in policies for item in said_of_nodes(policy.get("status", {}))]
        for name, kind in kinds.items():
            found = [item for item in told if item["node"] == name_of(name) and kind.reason == item.get("reason")]
            if text := next((words for item in found if kind.words in (words := _words(item))), ""):
                fates[name] = f"{found[0]['state']:<22} {kind.reason}: {text[:_WORDS].rstrip('; ')}"
        return fates.keys() == kinds.keys()

    resource = await api.resource("nvidia.com/v1", "DriverUpgradePolicy")
    try:
        await api.wait_for(resource, all_told, scene.NAMESPACE, timeout=STATUS_SECONDS)
    except TimeoutError:
        seen = await api.list(resource, scene.NAMESPACE)
        said = [item for policy in seen for item in said_of_nodes(policy.get("status", {}))]
        raise IncompleteError(f"not broken as they should be: {sorted(kinds.keys() - fates.keys())}; {said}") from None
    return {kind: fates[kind] for kind in kinds}


def said_of_nodes(status: Object) -> list[dict[str, Any]]:
    """Every node that a policy's status names, with its state and reason."""
    waiting = ({**item, "node": item.get("example", "")} for item in status.get("blocked", ()))
    return [*status.get("active", ()), *({"state": "upgrade-required", **item} for item in waiting)]


def _words(item: Mapping[str, Any]) -> str:
    texts = [item.get("message", ""), *(blocker.get("message", "") for blocker in item.get("blockers", ()))]
    return "; ".join(text for text in reversed(texts) if text) or "(no more is said)"


async def _confirm(api: Api, kinds: Mapping[str, Kind]) -> None:
    """A broken node that is done, or has failed and given its slot away, would have made it too easy."""
    ended = {"upgrade-done", "upgrade-failed"}
    nodes = await api.list(NODES, labels=BROKEN)
    wrong = {node["metadata"]["name"]: node["metadata"]["labels"].get(STATE_LABEL) for node in nodes}
    if len(wrong) != len(kinds) or ended & set(wrong.values()):
        raise IncompleteError(f"the broken nodes are not as they should be: {wrong}")


def _all_done(nodes: Sequence[Object]) -> bool:
    return all(map(is_done, nodes))
