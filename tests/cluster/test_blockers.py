"""Pods that do not leave, each for a reason of its own, and how soon a drain goes on when the reason is gone."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from controller.operate.answers import BUDGET_RETRY, SLOW_RETRY
from tests.cluster.fence import accepted, deleted, evicted, refused
from tests.cluster.process import Line
from tests.cluster.story import SUCCESS, seconds_of
from tests.cluster.test_cli import explained
from tests.cluster.test_interventions import held_in_drain
from tests.cluster.world import DONE, DRAIN, FAST_WORK, World
from tests.controlplane import namespace_ready
from tools.controlplane import scene
from tools.controlplane.audit import Request
from tools.controlplane.resources import NAMESPACES, POD_DISRUPTION_BUDGETS, PODS, Object

HOLD = "driver-upgrade.test/hold"
UNHELD: Object = {"metadata": {"finalizers": None}}


async def seen_on_the_watch(cluster: World, waits: Line, allows: Callable[[Request], bool], retry: float) -> None:
    """The eviction followed the first write that allows it, and did not wait for the time to look again.

    That time passes from when the controller said that it waits; a tenth less is asked for here. How long the budget's
    controller took to count does not enter; where that is most of the time, half of it is allowed for. All clocks are this
    machine's, and what it lost does not count.
    """
    if not cluster.control_plane.components:
        pytest.skip("the cluster was given: there is no audit log")
    mine = sorted((r for r in await cluster.witnessed() if r.namespace == cluster.work), key=lambda r: r.answered)
    allowed = seconds_of(next(r for r in mine if r.code in SUCCESS and allows(r)).answered)
    accepted = seconds_of(next(r for r in mine if r.subresource == "eviction" and r.code in SUCCESS).received)
    took = accepted - allowed - cluster.evidence.breath.between(allowed, accepted)
    assert took < max(0.5 * retry, seconds_of(waits["time"]) + 0.9 * retry - allowed)


def counted_anew(request: Request) -> bool:
    """The budget's controller says that a pod may go."""
    status = (request.response or {}).get("status") or {} if request.subresource == "status" else {}
    return request.resource == "poddisruptionbudgets" and bool(status.get("disruptionsAllowed"))


def taken_away(request: Request) -> bool:
    """A budget is deleted."""
    return request.resource == "poddisruptionbudgets" and request.verb == "delete"


async def test_a_budget_that_allows_it_again_is_seen_on_the_watch(cluster: World):
    """Looking again after five seconds, as kubectl drain does, would come later."""
    async with held_in_drain(cluster, 1) as (controller, node):
        waits, *_ = controller.found(msg="node waits", node=node, reason="PodDisruptionBudget")
        await cluster.api.patch(POD_DISRUPTION_BUDGETS, "hold", {"spec": {"minAvailable": 0}}, cluster.work)
        await cluster.done("2")
    await seen_on_the_watch(cluster, waits, counted_anew, BUDGET_RETRY)


async def test_one_budget_less_of_two_is_seen_on_the_watch(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.workload("web", labels={"tier": "front"})
    await cluster.api.create(scene.budget("web", cluster.work, max_unavailable=1))
    await cluster.api.create(scene.budget("front", cluster.work, labels={"tier": "front"}, max_unavailable=1))
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", node=node, reason="MultiplePodDisruptionBudgets")
        await cluster.api.delete(POD_DISRUPTION_BUDGETS, "front", cluster.work)
        await cluster.done("2")
    await seen_on_the_watch(cluster, waits, taken_away, SLOW_RETRY)


async def test_a_finalizer_is_named_and_holds_no_longer_than_the_containers_run(cluster: World):
    """kubectl drain waits until the object is gone; what uses the driver is gone when the containers are."""
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    held = scene.pod_spec() | {"nodeSelector": cluster.selector(node)}
    notes = FAST_WORK | scene.stage(stuck="true")
    await cluster.api.create(scene.pod("held", cluster.work, annotations=notes, finalizers=[HOLD], spec=held))
    await cluster.ready(1, "", cluster.work)
    (other,) = await cluster.workload("web")
    await cluster.policy(drain={"force": True})
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.gone(other)
        await cluster.api.wait_for_object(PODS, "held", lambda pod: pod["metadata"].get("deletionTimestamp"), cluster.work)
        await cluster.state(DRAIN)
        (blocker,) = (await explained(cluster, node))["blockers"]
        assert (blocker["reason"], blocker["name"]) == ("PodTerminating", "held")
        assert blocker["message"] == f"held by finalizer {HOLD}"
        unstuck = {"metadata": {"annotations": {f"{scene.STAGE_PREFIX}stuck": None}}}
        await cluster.api.patch(PODS, "held", unstuck, cluster.work)
        await cluster.done("2")
    ended = await cluster.api.get(PODS, "held", cluster.work)
    assert ended["status"]["phase"] in {"Succeeded", "Failed"}
    await cluster.api.patch(PODS, "held", UNHELD, cluster.work)


async def test_a_namespace_that_is_being_deleted_is_waited_for(cluster: World):
    """No eviction is accepted any more, and its pods are deleted a while later: here, when the controller has said so.

    Its own controller leaves its pods alone for five seconds; what keeps it from them for longer is an admission policy.
    """
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    going = f"{cluster.pool}-going"
    await cluster.api.create(scene.namespace(going))
    await namespace_ready(cluster.api, going)
    spec = scene.pod_spec() | {"nodeSelector": cluster.selector(node)}
    await cluster.api.create(scene.pod("held", going, annotations=FAST_WORK, finalizers=[HOLD], spec=spec))
    await cluster.ready(1, "", going)
    await cluster.policy(drain={"force": True})
    nobody_deletes = deleted(PODS.path(going, "held"))
    async with cluster.controller() as controller, forbidden(cluster, going, "DELETE", "pods") as text:
        await cluster.state(DONE)
        await refused(lambda: nobody_deletes.by(cluster.api), text)
        await cluster.api.delete(NAMESPACES, going)
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", node=node, reason="NamespaceTerminating")
        assert f"{going}/held" in waits["blockers"]
    async with cluster.controller():
        await accepted(lambda: nobody_deletes.by(cluster.api), text)
        await cluster.api.delete(PODS, "held", going)
        await cluster.done("2")
    await cluster.api.patch(PODS, "held", UNHELD, going)


async def test_a_stateful_set_s_pod_that_returns_under_its_name_to_the_same_node_is_another_pod(cluster: World):
    """Made again at once, it waits for its node to be open: it is not drained a second time, and holds nothing up."""
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    spec = scene.pod_spec() | {"nodeSelector": cluster.selector(node)}
    await cluster.api.create(scene.stateful_set("db", cluster.work, annotations=FAST_WORK, spec=spec))
    (before,) = await cluster.ready(1, "app=db", cluster.work)
    await cluster.policy()
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.gone(before)
        await cluster.done("2")
        (after,) = await cluster.ready(1, "app=db", cluster.work)
    assert after["metadata"]["name"] == before["metadata"]["name"]
    assert after["spec"]["nodeName"] == node
    assert cluster.evicted() == ["db-0"]


@asynccontextmanager
async def forbidden(cluster: World, namespace: str, operation: str, resource: str) -> AsyncIterator[str]:
    """An admission policy that lets nobody do something in a namespace; yields what it says. In force a moment later."""
    name, text = f"{cluster.pool}-freeze", "not on a Friday"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": [resource]}
    space = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": text}],
    }
    bound = {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": space}}
    objects = [
        await cluster.api.create({**kind, "kind": "ValidatingAdmissionPolicy", "spec": spec}),
        await cluster.api.create({**kind, "kind": "ValidatingAdmissionPolicyBinding", "spec": bound}),
    ]
    try:
        yield text
    finally:
        for obj in objects:
            await cluster.api.delete(await cluster.api.resource(obj["apiVersion"], obj["kind"]), name)


async def test_a_refusal_of_the_admission_is_told_in_its_own_words(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    (pod,) = await cluster.workload("web")
    async with forbidden(cluster, cluster.work, "CREATE", "pods/eviction") as text:
        await refused(lambda: evicted(pod).by(cluster.api), text)
        await cluster.policy()
        async with cluster.controller() as controller:
            await cluster.roll("2")
            waits = await controller.logged(msg="node waits", node=node, reason="EvictionDenied")
            assert text in waits["blockers"]
            await cluster.api.delete(PODS, pod["metadata"]["name"], cluster.work)
            await cluster.done("2")
    assert cluster.evicted() == []
