"""The leader is killed and the controller itself is rolled, in the middle of a rollout: nothing lost, nothing done twice.

The fleet is the real node and fake ones beside it. The fake nodes are tainted, so that the controller stays where it really
runs. A budget that allows nothing holds one fake node in its drain, and with it the rollout in its middle, until everything
was done to the controller that was to be done.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from tests.e2e.site import NAMESPACE, TIMEOUT, USER, Site, state
from tests.e2e.work import WORK, diary, the_pod
from tools.controlplane import scene
from tools.controlplane.audit import Request
from tools.controlplane.resources import DAEMON_SETS, DEPLOYMENTS, LEASES, NODES, POD_DISRUPTION_BUDGETS, PODS, Object
from tools.e2e import node

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNT = 12
POOL = {"pool": "fake"}
TAINT = "driver-upgrade.test/fake"
DRIVER = "nic-driver"
DRIVERS = {"gpu": [node.NAME], "nic": [one["metadata"]["name"] for one in scene.nodes(COUNT, prefix="fake")]}
ORDER = (
    *("", "upgrade-done", "upgrade-required", "cordon-required", "wait-for-jobs-required", "pod-deletion-required"),
    *("drain-required", "pod-restart-required", "validation-required", "uncordon-required"),
)
"""The states of an upgrade in which nothing goes wrong; after the last comes upgrade-done."""


def fake_nodes() -> list[Object]:
    """Nodes that only what tolerates them may run on."""
    made = scene.nodes(COUNT, prefix="fake", labels=POOL)
    return [one | {"spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]}} for one in made]


def fake_work(name: str, replicas: int) -> Object:
    """A Deployment on the fake nodes."""
    spec = scene.pod_spec(grace=1)
    spec |= {"nodeSelector": POOL, "tolerations": [{"key": TAINT, "operator": "Exists"}]}
    return scene.deployment(name, WORK, replicas, spec=spec)


async def build_fleet(site: Site) -> None:
    await site.api.create_many(fake_nodes())
    await site.api.wait_for(NODES, scene.all_ready(COUNT), labels="pool=fake", timeout=TIMEOUT)
    await site.api.create(scene.driver_daemon_set(name=DRIVER, node_selector=POOL))
    await site.api.wait_for(PODS, scene.all_ready(COUNT), scene.NAMESPACE, labels=f"app={DRIVER}", timeout=TIMEOUT)
    await site.api.create(fake_work("workers", 2 * COUNT))
    await site.api.create(fake_work("held", 1))
    await site.api.create(scene.budget("held", WORK, max_unavailable=0))
    for name, count in (("workers", 2 * COUNT), ("held", 1)):
        await site.api.wait_for(PODS, scene.all_ready(count), WORK, labels=f"app={name}", timeout=TIMEOUT)
    await site.api.wait_for_object(
        POD_DISRUPTION_BUDGETS, "held", lambda b: b.get("status", {}).get("expectedPods") == 1, WORK, timeout=TIMEOUT
    )
    driver = {
        "name": "nic",
        "podSelector": {"matchLabels": {"app": DRIVER}},
        "nodeSelector": {"matchLabels": POOL},
        "upgradePolicy": {"autoUpgrade": True, "maxParallelUpgrades": 4, "drain": {"enable": True, "timeoutSeconds": 0}},
    }
    metadata = {"name": "nic", "namespace": scene.NAMESPACE}
    await site.api.create(
        {"apiVersion": "nvidia.com/v1", "kind": "DriverUpgradePolicy", "metadata": metadata, "spec": {"driver": driver}}
    )
    await site.api.wait_for(
        NODES, lambda found: all(state(one, "nic") == "upgrade-done" for one in found), labels="pool=fake", timeout=TIMEOUT
    )


async def change_driver(site: Site, name: str, version: str) -> None:
    body = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"local/driver:{version}"}]
    await site.api.patch(DAEMON_SETS, name, body, scene.NAMESPACE, kind="json")


async def test_leader_killed_and_controller_rolled_in_the_middle_of_a_rollout(site: Site) -> None:
    await build_fleet(site)
    site.say(f"{COUNT} fake nodes beside the real one, each with a driver and work")
    start = site.requests()[-1].received
    trainer = await the_pod(site, WORK, "trainer")
    (held,) = await site.api.list(PODS, WORK, labels="app=held")
    leader = await site.leader()

    await asyncio.gather(change_driver(site, scene.DRIVER, "3"), change_driver(site, DRIVER, "2"))
    holding = held["spec"]["nodeName"]
    await site.api.wait_for_object(NODES, holding, lambda n: state(n, "nic") == "drain-required", timeout=TIMEOUT)
    site.say(f"the rollout of both drivers is under way, and {holding} is held in its drain by a budget")

    await crash(site, leader)
    await fail_over(site)
    old = frozenset(pod["metadata"]["uid"] for pod in await site.controllers())
    restart = {"spec": {"template": {"metadata": {"annotations": {"restarted-at": datetime.now(UTC).isoformat()}}}}}
    await site.api.patch(DEPLOYMENTS, "driver-upgrade", restart, NAMESPACE)
    await site.deployed(without=old)
    await site.leader(lambda uid: uid not in old)
    site.say("the Deployment is rolled, and a new replica leads")

    assert state(await site.api.get(NODES, holding), "nic") == "drain-required", "all that happened in the middle"
    assert scene.is_ready(await site.api.get(PODS, held["metadata"]["name"], WORK)), "the budget was kept"
    await site.api.delete(POD_DISRUPTION_BUDGETS, "held", WORK)
    await finished(site)
    site.say("the budget is gone, and the rollout has finished")

    judge([r for r in await site.audited(all_done) if r.received > start])
    assert diary(trainer) == ["began", "asked to end", "saved"]
    site.say("nothing was lost, nothing was done twice")


async def crash(site: Site, leader: str) -> None:
    """Kills the leading process; its container is started again in the same pod, which still holds the Lease."""
    os.kill(site.process_of(leader), signal.SIGKILL)

    def restarted(pod: Object) -> bool:
        (container,) = pod["status"]["containerStatuses"]
        return pod["metadata"]["uid"] == leader and container["restartCount"] == 1 and scene.is_ready(pod)

    name = next(pod["metadata"]["name"] for pod in await site.controllers() if pod["metadata"]["uid"] == leader)
    await site.api.wait_for_object(PODS, name, restarted, NAMESPACE, timeout=TIMEOUT, what="the leader's container, again")
    version = (await site.api.get(LEASES, "driver-upgrade", NAMESPACE))["metadata"]["resourceVersion"]
    await site.api.wait_for_object(
        LEASES, "driver-upgrade", lambda lease: lease["metadata"]["resourceVersion"] != version, NAMESPACE, timeout=TIMEOUT
    )
    site.say("killed the leading process; the kubelet has started it again, and somebody renews the Lease")


async def fail_over(site: Site) -> None:
    """Kills the leading process for good, its pod with it, as a machine that burns; the other replica takes over."""
    leader = await site.leader()
    name = next(pod["metadata"]["name"] for pod in await site.controllers() if pod["metadata"]["uid"] == leader)
    await site.api.delete(PODS, name, NAMESPACE, grace=0, uid=leader)
    with suppress(ProcessLookupError, AssertionError):  # the kubelet may have been quicker
        os.kill(site.process_of(leader), signal.SIGKILL)
    await site.leader(lambda uid: uid != leader)
    site.say("killed the leader with its pod; the other replica has taken over")


async def finished(site: Site) -> None:
    """Every node is done and open, with its driver at the new version."""

    def done(nodes: Iterable[Object]) -> bool:
        states = {one["metadata"]["name"]: (one["spec"].get("unschedulable"), one) for one in nodes}
        return all(
            states[name][0] is None and state(states[name][1], driver) == "upgrade-done"
            for driver, names in DRIVERS.items()
            for name in names
        )

    def current(pods: Iterable[Object]) -> bool:
        images = [pod["spec"]["containers"][0]["image"] for pod in pods if scene.is_ready(pod)]
        return Counter(images) == {"local/driver:3": 1, "local/driver:2": COUNT}

    await site.api.wait_for(PODS, current, scene.NAMESPACE, timeout=TIMEOUT, what="every driver at its new version")
    await site.api.wait_for(NODES, done, timeout=TIMEOUT, what="every node done and open")


def all_done(requests: list[Request]) -> bool:
    """Whether the log has come to the end of every node's upgrade."""
    ours = [r for r in requests if r.user == USER and r.is_write and r.code == 200]
    last = {r.name: r.response for r in ours if r.resource == "nodes"}
    return all(
        name in last and state(last[name], driver) == "upgrade-done" and not last[name]["spec"].get("unschedulable")
        for driver, names in DRIVERS.items()
        for name in names
    )


def judge(requests: list[Request]) -> None:
    """From the audit log: each workload evicted once, each driver pod deleted once, each node through its states once."""
    done = [r for r in requests if r.user == USER and r.is_write and 200 <= r.code < 300]
    evicted = Counter(r.name for r in done if r.subresource == "eviction")
    assert set(evicted.values()) == {1}, f"evicted twice: {evicted}"
    assert not [r.name for r in done if r.subresource == "eviction" and r.namespace != WORK]
    deleted = [r for r in done if r.verb == "delete"]
    assert {r.namespace for r in deleted} == {scene.NAMESPACE}
    assert len(deleted) == len({r.name for r in deleted}) == COUNT + 1, "each outdated driver pod, once"
    for driver, names in DRIVERS.items():
        for name in names:
            check_path(driver, name, [r for r in done if r.resource == "nodes" and r.name == name])


def check_path(driver: str, name: str, patches: list[Request]) -> None:
    """One node was cordoned once, opened once, and went forward through the states."""
    states = [state(r.response, driver) for r in patches]
    path = [one for index, one in enumerate(states) if index == 0 or states[index - 1] != one]
    assert path[-1] == "upgrade-done", f"{name}: {path}"
    places = [ORDER.index(one) for one in path[:-1]]
    assert places == sorted(set(places)), f"{name} went back: {path}"
    closed = [bool(r.response["spec"].get("unschedulable")) for r in patches]
    turns = [one for index, one in enumerate(closed) if index == 0 or closed[index - 1] != one]
    assert turns in ([False, True, False], [True, False]), f"{name} was cordoned or opened twice: {turns}"
