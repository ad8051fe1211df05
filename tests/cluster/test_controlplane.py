"""The local control plane: our stages behave as the controller's tests rely on, judged on the real API server."""

import asyncio
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from tests.controlplane import namespace_ready
from tools.controlplane import commands, scene
from tools.controlplane.api import PATIENCE, Api, ApiError
from tools.controlplane.audit import AuditLog, Request, count
from tools.controlplane.cluster import KUBECONFIG_VARIABLE, ControlPlane
from tools.controlplane.process import ComponentError
from tools.controlplane.resources import DAEMON_SETS, NODES, POD_DISRUPTION_BUDGETS, PODS, Object
from tools.controlplane.safeload import annotation

ROOT = Path(__file__).parents[2]
PARENT = """
import asyncio, signal
from tools.controlplane.cluster import ControlPlane
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored
async def main():
    async with ControlPlane.start() as cp:
        print(cp.directory, *(c.pid for c in cp.components.values()), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest_asyncio.fixture
async def node(api: Api, namespace: str) -> AsyncIterator[str]:
    """A fake node of the test's own, ready; it bears the name of the test's namespace as label `pool`."""
    name = f"node-of-{namespace}"
    await api.create(scene.node(name, labels={"pool": namespace}))
    await api.wait_for_object(NODES, name, scene.is_ready)
    yield name
    await api.delete(NODES, name)


def driver(namespace: str, version: str = "1", safe_load: str = "", annotations: dict[str, str] | None = None) -> Object:
    return scene.driver_daemon_set(
        version,
        namespace=namespace,
        safe_load=safe_load,
        node_selector={"pool": namespace},
        annotations=annotations or {},
    )


@asynccontextmanager
async def seen(api: Api, namespace: str) -> AsyncIterator[AsyncIterator[Object]]:
    """Every version of a namespace's pods from now on, however soon it is followed by another."""
    version = (await api.request("GET", PODS.path(namespace)))["metadata"]["resourceVersion"]
    async with asyncio.timeout(PATIENCE), aclosing(api.watch(PODS, namespace, version=version)) as events:
        yield (obj async for _, obj in events)


async def until(versions: AsyncIterator[Object], last: Callable[[Object], bool]) -> AsyncIterator[Object]:
    """The versions up to the first that is so."""
    async for version in versions:
        yield version
        if last(version):
            return


def waiting(reason: str) -> Callable[[list[Object]], list[Object]]:
    def found(pods: list[Object]) -> list[Object]:
        return [
            pod
            for pod in pods
            for status in pod["status"].get("containerStatuses", ())
            if status["state"].get("waiting", {}).get("reason") == reason
        ]

    return found


async def set_version(api: Api, namespace: str, version: str) -> None:
    container = [{"name": "driver", "image": f"{scene.DRIVER_IMAGE}:{version}"}]
    body = {"spec": {"template": {"spec": {"containers": container}}}}
    await api.patch(DAEMON_SETS, scene.DRIVER, body, namespace, kind="strategic")


async def test_driver_pods_are_unready_before_they_are_ready(api: Api, node: str, namespace: str) -> None:
    async with seen(api, namespace) as versions:
        await api.create(driver(namespace))
        story = [pod async for pod in until(versions, scene.is_ready) if pod["status"]["phase"] == "Running"]
    assert not scene.is_ready(story[0]), "compiling and loading takes a while"
    assert story[-1]["spec"]["nodeName"] == node


async def test_crashing_version_restarts_again_and_again_and_a_good_one_heals(api: Api, node: str, namespace: str) -> None:
    await api.create(driver(namespace, "2-crash"))
    await api.wait_for(
        PODS,
        lambda pods: [
            p for p in waiting("CrashLoopBackOff")(list(pods)) if p["status"]["containerStatuses"][0]["restartCount"] >= 2
        ],
        namespace,
    )
    await set_version(api, namespace, "3")
    (bad,) = await api.list(PODS, namespace)
    assert bad["spec"]["nodeName"] == node, "OnDelete leaves the bad pod where it is"
    assert not scene.is_ready(bad)
    await api.delete(PODS, bad["metadata"]["name"], namespace)
    good = await api.wait_for(PODS, scene.all_ready(1), namespace)
    assert good


async def test_image_that_cannot_be_pulled(api: Api, node: str, namespace: str) -> None:
    await api.create(driver(namespace, "2-nopull"))
    pulling = await api.wait_for(PODS, lambda pods: waiting("ImagePullBackOff")(list(pods)), namespace)
    assert pulling[0]["status"]["phase"] == "Pending"
    assert pulling[0]["spec"]["nodeName"] == node


async def test_behaviour_annotated_on_a_living_pod(api: Api, node: str, namespace: str) -> None:
    await api.create(scene.pod("p", namespace, spec=scene.pod_spec(on_node=node)))
    await api.wait_for_object(PODS, "p", scene.is_ready, namespace)
    await api.patch(PODS, "p", {"metadata": {"annotations": scene.stage(behaviour="notready")}}, namespace)
    await api.wait_for_object(PODS, "p", lambda pod: not scene.is_ready(pod), namespace)
    await api.patch(PODS, "p", {"metadata": {"annotations": scene.stage(behaviour="ready")}}, namespace)
    await api.wait_for_object(PODS, "p", scene.is_ready, namespace)


async def test_init_container_waits_until_the_safe_load_annotation_goes(api: Api, node: str, namespace: str) -> None:
    key = annotation("gpu")
    await api.create(driver(namespace, safe_load="gpu"))
    await api.wait_for_object(NODES, node, lambda n: key in n["metadata"]["annotations"])
    (pod,) = await api.list(PODS, namespace)
    assert pod["status"]["phase"] == "Pending"
    await api.patch(NODES, node, {"metadata": {"annotations": {key: None}}})
    await api.wait_for(PODS, scene.all_ready(1), namespace)
    assert key not in (await api.get(NODES, node))["metadata"]["annotations"]


async def test_init_containers_run_one_after_the_other(api: Api, node: str, namespace: str) -> None:
    spec = scene.pod_spec(on_node=node)
    spec["initContainers"] = [{"name": name, "image": "local/init:1"} for name in ("one", "two", "three")]

    def running(pod: Object) -> list[str]:
        return [s["name"] for s in pod["status"].get("initContainerStatuses", ()) if "running" in s["state"]]

    async with seen(api, namespace) as versions:
        await api.create(scene.pod("p", namespace, spec=spec, annotations=scene.stage(init_delay="100ms")))
        story = [running(pod) async for pod in until(versions, scene.is_ready)]
    assert [names for names, _ in itertools.groupby(story) if names] == [["one"], ["two"], ["three"]]


async def test_stuck_pod_goes_when_its_annotation_goes(api: Api, node: str, namespace: str) -> None:
    stuck = scene.pod("stuck", namespace, spec=scene.pod_spec(on_node=node), annotations=scene.stage(stuck="true"))
    free = scene.pod("free", namespace, spec=scene.pod_spec(on_node=node), annotations=scene.stage(delete_delay="1s"))
    await api.create_many([stuck, free])
    await api.wait_for(PODS, scene.all_ready(2), namespace)
    for name in ("stuck", "free"):
        await api.delete(PODS, name, namespace)
    await api.wait_gone(PODS, "free", namespace)
    assert "deletionTimestamp" in (await api.get(PODS, "stuck", namespace))["metadata"]
    await api.patch(PODS, "stuck", {"metadata": {"annotations": {"stage.driver-upgrade.test/stuck": None}}}, namespace)
    await api.wait_gone(PODS, "stuck", namespace)


async def test_finalizer_keeps_a_stopped_pod(api: Api, node: str, namespace: str) -> None:
    pod = scene.pod("p", namespace, spec=scene.pod_spec(on_node=node), finalizers=["example.com/hold"])
    await api.create(pod)
    await api.wait_for_object(PODS, "p", scene.is_ready, namespace)
    await api.delete(PODS, "p", namespace)
    await api.wait_for_object(PODS, "p", lambda pod: pod["status"]["phase"] == "Failed", namespace)
    await api.patch(PODS, "p", {"metadata": {"finalizers": None}}, namespace)
    await api.wait_gone(PODS, "p", namespace)


async def test_job_completes(api: Api, node: str, namespace: str) -> None:
    spec = scene.pod_spec(restart="Never") | {"nodeSelector": {"pool": namespace}}
    await api.create(scene.job("j", namespace, duration="300ms", spec=spec))
    ended = await api.wait_for(PODS, lambda pods: [p for p in pods if p["status"]["phase"] == "Succeeded"], namespace)
    assert ended[0]["spec"]["nodeName"] == node


async def test_budget_refuses_an_eviction_and_allows_another(api: Api, node: str, namespace: str) -> None:
    spec = scene.pod_spec() | {"nodeSelector": {"pool": namespace}}
    await api.create(scene.deployment("web", namespace, 2, spec=spec))
    await api.create(scene.budget("web", namespace, min_available=2))
    pods = await api.wait_for(PODS, lambda pods: list(pods) if scene.all_ready(2)(pods) else [], namespace)
    name = pods[0]["metadata"]["name"]
    assert pods[0]["spec"]["nodeName"] == node
    with pytest.raises(ApiError) as refused:
        await api.evict(name, namespace)
    assert refused.value.code == 429
    await api.patch(POD_DISRUPTION_BUDGETS, "web", {"spec": {"minAvailable": 1}}, namespace)
    await api.wait_for_object(
        POD_DISRUPTION_BUDGETS, "web", lambda pdb: pdb["status"].get("disruptionsAllowed") == 1, namespace
    )
    await api.evict(name, namespace, uid=pods[0]["metadata"]["uid"])
    await api.wait_gone(PODS, name, namespace)


async def test_node_told_to_be_unready_and_back(api: Api, node: str) -> None:
    await api.patch(NODES, node, {"metadata": {"annotations": {scene.NOT_READY: "true"}}})
    await api.wait_for_object(
        NODES, node, lambda n: any(t["key"] == "node.kubernetes.io/not-ready" for t in n["spec"].get("taints", ()))
    )
    await api.patch(NODES, node, {"metadata": {"annotations": {scene.NOT_READY: None}}})
    await api.wait_for_object(NODES, node, lambda n: scene.is_ready(n) and not n["spec"].get("taints"))


async def test_unknown_fields_are_refused(api: Api, namespace: str) -> None:
    with pytest.raises(ApiError, match="unknown field"):
        await api.create({**scene.pod("p", namespace), "specs": {}})


async def test_audit_log_has_every_write(control_plane: ControlPlane, namespace: str) -> None:
    if not control_plane.components:
        pytest.skip("the cluster was given: there is no audit log")
    log = AuditLog(control_plane.audit_log)
    log.skip()
    async with Api(control_plane.access, user_agent="witness/1") as api:
        await api.create(scene.pod("p", namespace, annotations=scene.stage(behaviour="ready")))
        await api.delete(PODS, "p", namespace)
    found: list[Request] = []
    async with asyncio.timeout(PATIENCE):  # a line is written when its answer is, by another thread
        while (counted := count(found))["witness", "delete", "pods"] == 0:
            found += log.read()
            await asyncio.sleep(0.02)
    assert counted["witness", "create", "pods"] == 1
    assert counted["witness", "delete", "pods"] == 1


async def test_watches_survive_a_restart_of_the_api_server(control_plane: ControlPlane, api: Api, namespace: str) -> None:
    if not control_plane.components:
        pytest.skip("the cluster was given: it is not ours to restart")
    await control_plane.restart_component("kube-apiserver")
    await namespace_ready(api, namespace)
    await api.create(scene.pod("p", namespace))
    await api.wait_for_object(PODS, "p", lambda pod: pod["status"]["phase"] == "Pending", namespace)
    with pytest.raises(ComponentError, match="no component 'kubelet'"):
        control_plane.kill("kubelet")


async def test_a_program_that_dies_at_the_start_is_told_with_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KUBECONFIG_VARIABLE, raising=False)
    whole = commands.kube_apiserver
    monkeypatch.setattr(commands, "kube_apiserver", lambda *arguments: [*whole(*arguments), "--no-such-flag"])
    with pytest.raises(ComponentError, match=r"(?s)kube-apiserver ended with status 1.*unknown flag: --no-such-flag"):
        async with ControlPlane.start():
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_its_owner(number: signal.Signals) -> None:
    """A second control plane, beside the session's, whose owner is interrupted, terminated, killed."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            directory, *pids = owner.stdout.readline().split()
            assert len(pids) == 6
            handles = [os.pidfd_open(int(pid)) for pid in pids]
            owner.send_signal(number)
            owner.wait(timeout=PATIENCE)
        finally:
            owner.kill()
    ended = [_ends(handle, time.monotonic() + PATIENCE) for handle in handles]
    for handle in handles:
        os.close(handle)
    assert all(ended), f"processes of {directory} outlive signal {number}"
    assert number != signal.SIGINT or not Path(directory).exists()


def _ends(handle: int, deadline: float) -> bool:
    return bool(select.select([handle], [], [], max(0, deadline - time.monotonic()))[0])


async def test_kubeconfig_of_another_user(control_plane: ControlPlane, api: Api, namespace: str) -> None:
    await api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": namespace}})
    path = control_plane.kubeconfig_for(await api.service_account_token("nobody", namespace), "nobody")
    command = ["kubectl", "--kubeconfig", str(path), "auth", "whoami", "-o", "json"]
    answer = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert orjson.loads(answer.stdout)["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:nobody"
