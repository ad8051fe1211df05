"""A driver whose init container waits for safe load, and the workload that must leave before: real containers, real signals.

The order of what happened is read from the API server's audit log, whoever did it.
"""

from collections.abc import Callable

import pytest

from tests.e2e.site import NAMESPACE, POLICIES, ROOT, TIMEOUT, USER, Site, state
from tests.e2e.work import REAL, WORK, diary, the_pod, workload
from tools.controlplane import scene
from tools.controlplane.audit import Request
from tools.controlplane.resources import DAEMON_SETS, NODES, PODS
from tools.e2e import node

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAFE_LOAD = "nvidia.com/gpu-driver-upgrade.driver-wait-for-safe-load"
INIT_USER = f"system:serviceaccount:{scene.NAMESPACE}:driver-safe-load"
EXAMPLE = ROOT / "manifests" / "examples" / "safe-load-daemonset.yaml"


async def apply_driver(site: Site) -> None:
    """The example, on the real node alone; fake nodes of later tests have another driver."""
    folder = site.cp.directory / "safe-load"
    folder.mkdir()
    (folder / "driver.yaml").write_text(EXAMPLE.read_text())
    (folder / "kustomization.yaml").write_text("resources: [driver.yaml]\n")
    for obj in await site.kustomize(folder):
        if obj["kind"] == "DaemonSet":
            obj["spec"]["template"]["spec"]["nodeSelector"] = REAL
        await site.api.apply([obj])


def position(requests: list[Request], what: str, matches: Callable[[Request], object]) -> int:
    """Where the first such request is in the order of arrival."""
    found = next((index for index, request in enumerate(requests) if 200 <= request.code < 300 and matches(request)), None)
    assert found is not None, f"never: {what}"
    return found


def on_node(request: Request) -> bool:
    return request.verb == "patch" and request.resource == "nodes" and request.name == node.NAME and not request.subresource


def ends(request: Request) -> bool:
    """Whether a pod has ended with this: its containers have, which the kubelet reports, or it is deleted."""
    if request.verb == "patch" and request.subresource == "status":
        return request.response["status"]["phase"] in ("Succeeded", "Failed")
    return request.verb == "delete"


async def test_the_driver_waits_in_its_init_container(site: Site) -> None:
    await site.api.create(scene.namespace(WORK))
    await site.api.create(workload("trainer"))
    await the_pod(site, WORK, "trainer")
    site.say("a workload runs on the real node")
    await apply_driver(site)

    def waits(pods: object) -> bool:
        assert isinstance(pods, list)
        return any("running" in s["state"] for pod in pods for s in pod["status"].get("initContainerStatuses", ()))

    await site.api.wait_for(PODS, waits, scene.NAMESPACE, labels=f"app={scene.DRIVER}", timeout=TIMEOUT)
    marked = await site.real_node(lambda n: n["metadata"].get("annotations", {}).get(SAFE_LOAD) == "true", "marked")
    assert not marked["spec"].get("unschedulable")

    def marks(requests: list[Request]) -> list[Request]:
        return [r for r in requests if r.user == INIT_USER and r.verb == "patch" and r.code == 200]

    marked_by = marks(await site.audited(lambda requests: bool(marks(requests))))
    assert [r.name for r in marked_by] == [node.NAME], "the container itself set the annotation, on its node"
    site.say("the driver's init container runs, has marked its node, and blocks")


def opened_again(requests: list[Request]) -> bool:
    """Whether the log has the node's cordon, and after it the write that opens it."""
    ours = [r for r in requests if on_node(r) and r.user == USER and r.code == 200]
    closed = [bool(r.response["spec"].get("unschedulable")) for r in ours]
    return any(closed) and not closed[-1]


async def test_it_loads_on_a_node_that_was_cordoned_and_emptied(site: Site) -> None:
    trainer = await the_pod(site, WORK, "trainer")
    upgrade = {"autoUpgrade": True, "drain": {"enable": True}}
    driver = {"name": "gpu", "podSelector": {"matchLabels": {"app": scene.DRIVER}}, "upgradePolicy": upgrade}
    metadata = {"name": "gpu", "namespace": scene.NAMESPACE}
    policy = {"apiVersion": "nvidia.com/v1", "kind": "DriverUpgradePolicy", "metadata": metadata, "spec": {"driver": driver}}
    await site.api.create(policy)
    pod = await the_pod(site, scene.NAMESPACE, scene.DRIVER)
    await site.real_node(lambda n: state(n) == "upgrade-done" and not n["spec"].get("unschedulable"), "done and open")
    (waited,) = pod["status"]["initContainerStatuses"]
    assert (waited["state"]["terminated"]["exitCode"], waited["restartCount"]) == (0, 0)
    site.say("the driver is loaded and the node is open again")

    name, requests = trainer["metadata"]["name"], await site.audited(opened_again)
    cordoned = position(
        requests, "the cordon", lambda r: on_node(r) and r.user == USER and r.response["spec"].get("unschedulable")
    )
    evicted = position(requests, "the eviction", lambda r: r.subresource == "eviction" and r.name == name and r.user == USER)
    gone = position(
        requests, "the end of the workload", lambda r: r.resource == "pods" and r.name == name and r.user != USER and ends(r)
    )
    unblocked = position(
        requests[gone:],
        "the release of the driver",
        lambda r: on_node(r) and r.user == USER and SAFE_LOAD not in r.response["metadata"].get("annotations", {}),
    )
    opened = position(
        requests[gone + unblocked :],
        "the uncordon",
        lambda r: on_node(r) and r.user == USER and not r.response["spec"].get("unschedulable"),
    )
    assert cordoned < evicted < gone <= gone + unblocked <= gone + unblocked + opened
    early = [r for r in requests[:gone] if on_node(r) and r.user == USER and r.code == 200]
    assert not [r.body for r in early if SAFE_LOAD not in r.response["metadata"].get("annotations", {})]
    site.say("in this order: cordon, eviction, end of the workload, release of the driver, uncordon")

    assert diary(trainer) == ["began", "asked to end", "saved"]
    site.say("the workload got SIGTERM and the time to save")


async def test_an_upgrade_goes_the_same_way(site: Site) -> None:
    trainer = await the_pod(site, WORK, "trainer")  # the one that came after the uncordon
    before = await the_pod(site, scene.NAMESPACE, scene.DRIVER)
    body = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "local/driver:2"}]
    await site.api.patch(DAEMON_SETS, scene.DRIVER, body, scene.NAMESPACE, kind="json")
    await site.api.wait_gone(
        PODS, before["metadata"]["name"], scene.NAMESPACE, uid=before["metadata"]["uid"], timeout=TIMEOUT
    )
    await site.real_node(lambda n: state(n) == "upgrade-done" and not n["spec"].get("unschedulable"), "done and open")
    after = await the_pod(site, scene.NAMESPACE, scene.DRIVER)
    assert after["spec"]["containers"][0]["image"] == "local/driver:2"
    assert diary(trainer) == ["began", "asked to end", "saved"]
    deletions = [r for r in site.writes() if r.verb == "delete" and r.resource == "pods"]
    assert [r.name for r in deletions] == [before["metadata"]["name"]], "it deletes the outdated driver pod and nothing else"
    site.say("upgraded the driver to version 2: drained, replaced, released, open")


async def test_the_status_says_so(site: Site) -> None:
    found = await site.api.wait_for_object(
        POLICIES,
        "gpu",
        lambda p: p.get("status", {}).get("nodes", {}).get("upToDate") == 1,
        scene.NAMESPACE,
        timeout=TIMEOUT,
        what="one node up to date",
    )
    assert found["status"]["nodes"]["total"] == 1
    assert (await site.api.get(NODES, node.NAME))["spec"].get("unschedulable") is None
    assert {pod["metadata"]["uid"] for pod in await site.controllers()} == {
        pod["metadata"]["uid"] for pod in await site.deployed()
    }
    assert all(pod["metadata"]["namespace"] == NAMESPACE for pod in await site.controllers())
