"""What `kubectl apply -k` makes of the manifests on a real API server: accepted strictly, the same twice, pods admitted.

`manifests/monitoring` meets the definitions that the Prometheus operator publishes, the recipe for TLS cert-manager's, too.
"""

import asyncio
import base64
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from tests.cluster.fence import anchor
from tests.cluster.test_metrics_auth import AUTHENTICATED, scrape
from tests.cluster.test_recipes import rendered, written
from tests.cluster.world import World
from tools import manifests
from tools.account import permitted
from tools.controlplane import foreign, scene
from tools.controlplane.api import Api, ApiError
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import CRDS, NAMESPACES, PODS, SERVICE_ACCOUNTS, Object, Resource
from tools.controlplane.terminal import Reporter
from tools.manifests import NAME, built, containers, of_kinds, one

FOLDERS = ["base", *(f"overlays/{path.name}" for path in sorted((manifests.MANIFESTS / "overlays").iterdir()))]
DRIVERS = ["nvidia-operator", "gpu-operator", "nvidia-network-operator"]
POLICIES = Resource(
    "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
SECRETS = Resource("v1", "secrets", "Secret")
SPARED = {"CustomResourceDefinition"}
"""Kinds that other tests go on using."""


async def kubectl(control_plane: ControlPlane, *words: str) -> str:
    command = [manifests.kubectl(), "--kubeconfig", str(control_plane.kubeconfig), *words]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


async def applied(control_plane: ControlPlane, folder: str | Path) -> list[str]:
    """Applies a folder, and returns kubectl's line for each object."""
    flags = ("--server-side", "--validate=strict")
    return (await kubectl(control_plane, "apply", *flags, "-k", str(manifests.MANIFESTS / folder))).splitlines()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def base(control_plane: ControlPlane, crds: None) -> AsyncIterator[None]:
    """The base, applied beside the namespaces of the drivers. What is applied over it goes with it after the last test."""
    async with Api(control_plane.access) as api:
        await api.apply([scene.namespace(name) for name in DRIVERS])
        await anchor(api)
        lines = await applied(control_plane, "base")
        assert len(lines) == len(built())
        assert all(line.endswith(" serverside-applied") for line in lines)
        yield
        for folder in FOLDERS:
            for obj in built(folder):
                if obj["kind"] not in SPARED | {"Lease", "Namespace"}:
                    await remove(api, obj)
        await api.delete(NAMESPACES, NAME)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def operators(control_plane: ControlPlane, base: None) -> AsyncIterator[None]:
    """The definitions of other operators' kinds, beside the base; those that a given cluster has stay as they are."""
    files = await asyncio.to_thread(foreign.definitions, Reporter())
    async with Api(control_plane.access) as api:
        there = {crd["metadata"]["name"] for crd in await api.list(CRDS)}
        ours = [crd for file in files if (crd := yaml.safe_load(file.read_text()))["metadata"]["name"] not in there]
        await api.apply(ours)
        yield
        for obj in [*built("monitoring"), *ours]:
            await remove(api, obj)


async def remove(api: Api, obj: Object) -> None:
    resource = await api.resource(obj["apiVersion"], obj["kind"])
    try:
        await api.delete(resource, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
    except ApiError as error:
        if error.code != 404:
            raise


async def versions(api: Api, objects: Sequence[Object]) -> dict[str, object]:
    """What changes when an object is really changed: its generation, or where it has none, its resourceVersion."""
    found = {}
    for obj in objects:
        resource = await api.resource(obj["apiVersion"], obj["kind"])
        metadata = (await api.get(resource, obj["metadata"]["name"], obj["metadata"].get("namespace", "")))["metadata"]
        if obj["kind"] not in {"Namespace", "PodDisruptionBudget"}:  # controllers write these, too
            found[f"{obj['kind']} {obj['metadata']['name']}"] = metadata.get("generation", metadata["resourceVersion"])
    return found


async def test_its_pods_come_into_being_where_nothing_unrestricted_may(api: Api, control_plane: ControlPlane, base: None):
    def ours(pods: Sequence[Object]) -> list[Object]:
        return [pod for pod in pods if pod["metadata"]["labels"].get("app.kubernetes.io/name") == NAME]

    pods = await api.wait_for(PODS, ours, NAME)
    assert all(pod["spec"]["priority"] == 100000000 for pod in pods)
    assert not [volume for pod in pods for volume in pod["spec"]["volumes"] if volume["name"].startswith("kube-api-access")]
    privileged = scene.pod("x", NAME)
    privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(ApiError, match='violates PodSecurity "restricted') as refused:
        await api.create(privileged)
    assert refused.value.code == 403


async def test_the_api_server_has_no_complaint_about_the_fence(api: Api, base: None):
    """Its type checker reads every expression against the kinds that it will be asked about."""
    for policy in of_kinds(built(), {"ValidatingAdmissionPolicy"}):
        checked = await api.wait_for_object(
            POLICIES,
            policy["metadata"]["name"],
            lambda p: p.get("status", {}).get("observedGeneration") == p["metadata"]["generation"],
        )
        assert not checked["status"].get("typeChecking", {}).get("expressionWarnings"), checked["metadata"]["name"]


@pytest.mark.parametrize("folder", FOLDERS[1:])
async def test_an_overlay_is_accepted_strictly_over_the_base(api: Api, control_plane: ControlPlane, base: None, folder: str):
    assert len(await applied(control_plane, folder)) == len(built(folder))


async def test_a_second_time_changes_nothing(api: Api, control_plane: ControlPlane, base: None):
    lines = await applied(control_plane, "base")
    before = await versions(api, built())
    assert await applied(control_plane, "base") == lines
    assert await versions(api, built()) == before


async def test_every_field_of_a_node_that_the_fence_must_guard_is_in_it(api: Api, crds: None):
    """A field that a newer Kubernetes adds to NodeSpec would be the controller's to write: it has to be named."""
    schemas = (await api.request("GET", "/openapi/v3/api/v1"))["components"]["schemas"]
    fields = set(schemas["io.k8s.api.core.v1.NodeSpec"]["properties"])
    text = (manifests.MANIFESTS / "admission" / "nodes.yaml").read_text()
    guarded = set(re.findall(r"object\.spec\.\?(\w+) == oldObject\.spec\.\?\1\b", text))
    assert guarded == fields - {"unschedulable"}


async def test_the_controller_accepts_the_flags_of_every_overlay(cluster: World):
    """It starts with them, but for what only a pod has: addresses of its own and the account's files."""
    for folder in FOLDERS[1:]:
        (container,) = containers(built(folder))
        ours = ("--listen=", "--metrics-listen=", "--pod-", "--log-format=", "--driver-namespaces=")
        flags = [arg for arg in container["args"][1:] if not arg.startswith(ours)]
        _, drivers_flag = next(arg for arg in container["args"] if arg.startswith("--driver-namespaces=")).split("=")
        flags += ["--driver-namespaces", drivers_flag, "--metrics-listen=127.0.0.1:0"]
        async with cluster.controller(*flags) as controller:
            line = await controller.logged(msg="starting")
            assert line["namespaces"] == drivers_flag.split(",")
            assert (await controller.get("/healthz"))[0] == 200


async def test_the_account_has_no_token_but_the_mounted_one(api: Api, base: None):
    account = await api.get(SERVICE_ACCOUNTS, NAME, NAME)
    assert account["automountServiceAccountToken"] is False
    (volume,) = one(built(), "Deployment", NAME)["spec"]["template"]["spec"]["volumes"]
    seconds = [
        s["serviceAccountToken"]["expirationSeconds"]
        for s in volume["projected"]["sources"]
        if len(s) == 1 and "serviceAccountToken" in s
    ]
    assert seconds == [3600]


async def test_the_token_of_the_monitoring_reads_the_metrics(
    api: Api, cluster: World, control_plane: ControlPlane, operators: None
):
    """The one that the PodMonitor gives to Prometheus: its Secret is filled, and its account may."""
    assert len(await applied(control_plane, "monitoring")) == len(built("monitoring"))
    (endpoint,) = one(built("monitoring"), "PodMonitor", NAME)["spec"]["podMetricsEndpoints"]
    told = endpoint["authorization"]["credentials"]
    secret = await api.wait_for_object(SECRETS, told["name"], lambda s: told["key"] in s.get("data", {}), NAME)
    user = f"system:serviceaccount:{NAME}:{secret['metadata']['annotations']['kubernetes.io/service-account.name']}"
    await permitted(api, {"user": user, "nonResourceAttributes": {"path": "/metrics", "verb": "get"}})
    async with cluster.controller(*AUTHENTICATED) as controller:
        code, text = await scrape(controller, base64.b64decode(secret["data"][told["key"]]).decode())
        assert (code, "driver_upgrade_build_info" in text) == (200, True)


async def test_the_recipe_for_tls_is_accepted_strictly(control_plane: ControlPlane, operators: None, tmp_path: Path):
    recipe = "metrics-access.md:with-tls"
    assert len(await applied(control_plane, written(recipe, tmp_path))) == len(rendered(recipe, tmp_path))
