"""A real API server judges policies: the seed's example is accepted verbatim, and bad input is refused by its field."""

import copy
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tools.controlplane.api import Api, ApiError
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import Object, Resource

ROOT = Path(__file__).resolve().parents[2]
SEED_EXAMPLE = ROOT / "tests" / "fixtures" / "seed-custom-resource.yaml"
POLICIES = Resource("nvidia.com/v1", "driverupgradepolicies", "DriverUpgradePolicy")
SEEDS = Resource("nvidia.com/v1", "customresources", "CustomResource")
NAMESPACE = "nvidia-operator"
MINIMAL = {"podSelector": {"matchLabels": {"app": "driver"}}}
FILLED_IN = {"autoUpgrade": False, "paused": False, "maxParallelUpgrades": 1, "cordonedNodes": "Upgrade"}
UNSET = object()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def policies_on(page: Path) -> list[Object]:
    """The policies that a page shows."""
    blocks = [found for block in YAML_BLOCK.findall(page.read_text()) for found in yaml.safe_load_all(block)]
    return [found for found in blocks if isinstance(found, dict) and found.get("kind") == POLICIES.kind]


def policy(name: str = "gpu", /, **driver: Any) -> Object:
    return {
        "apiVersion": POLICIES.api_version,
        "kind": POLICIES.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"driver": {**copy.deepcopy(MINIMAL), **driver}},
    }


def with_field(path: str, value: Any) -> Object:
    """A policy whose field below spec.driver has a value, or has none (UNSET)."""
    found = policy()
    *parents, last = path.split(".")
    block = found["spec"]["driver"]
    for parent in parents:
        block = block.setdefault(parent, {})
    block.pop(last, None)
    if value is not UNSET:
        block[last] = value
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installed(control_plane: ControlPlane) -> None:
    """Our CRDs and the namespace, for all tests."""
    async with Api(control_plane.access) as api:
        for path in sorted((ROOT / "manifests" / "crd").glob("*.nvidia.com.yaml")):
            await api.apply(path.read_text())
        await api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])


@pytest.fixture
def served(api: Api, installed: None) -> Api:
    """The API server that knows our kinds."""
    return api


@pytest_asyncio.fixture
async def stored(served: Api) -> AsyncIterator[Object]:
    """A policy in the API server, without the optional name."""
    created = await served.create(policy("stored"))
    yield created
    await served.delete(POLICIES, "stored", NAMESPACE)


async def dry_run(api: Api, obj: Object) -> Object:
    """What the API server would store, as kubectl would ask for it."""
    return await api.request("POST", POLICIES.path(NAMESPACE), obj, fieldValidation="Strict", dryRun="All")


async def test_the_seeds_example_is_accepted_verbatim(served: Api):
    headers, query = {"Content-Type": "application/yaml"}, {"fieldValidation": "Strict"}
    path = SEEDS.path(NAMESPACE)
    async with served.session.post(path, data=SEED_EXAMPLE.read_bytes(), headers=headers, params=query) as response:
        answer = await response.json()
        assert response.status == 201, answer["message"]
    try:
        example = yaml.safe_load(SEED_EXAMPLE.read_text())["spec"]["driver"]["upgradePolicy"]
        read = (await served.get(SEEDS, answer["metadata"]["name"], NAMESPACE))["spec"]["driver"]["upgradePolicy"]
        assert read == {**FILLED_IN, **example, "drain": {**example["drain"], "gracePeriodSeconds": -1}}
    finally:
        await served.delete(SEEDS, answer["metadata"]["name"], NAMESPACE)


@pytest.mark.parametrize("name", ["driverupgradepolicy.yaml", "driverupgradepolicy-full.yaml"])
async def test_examples_are_accepted_and_read_back_with_every_field(served: Api, name: str):
    example = yaml.safe_load((ROOT / "manifests" / "examples" / name).read_text())
    read = await dry_run(served, example)
    for field, value in example["spec"]["driver"].items():
        if field != "upgradePolicy" or name.endswith("-full.yaml"):
            assert read["spec"]["driver"][field] == value


@pytest.mark.parametrize("page", [p for p in PAGES if policies_on(p)], ids=lambda page: page.name)
async def test_every_policy_on_a_page_is_accepted(served: Api, page: Path):
    for shown in policies_on(page):
        shown["metadata"]["namespace"] = NAMESPACE
        read = await served.request("POST", POLICIES.path(NAMESPACE), shown, fieldValidation="Strict", dryRun="All")
        assert read["spec"]["driver"]["podSelector"]


async def test_a_minimal_policy_reads_back_with_its_defaults_and_no_steps(served: Api):
    read = await dry_run(served, policy())
    assert read["spec"]["driver"] == {**MINIMAL, "upgradePolicy": FILLED_IN}


async def test_a_step_reads_back_with_its_defaults(served: Api):
    read = await dry_run(served, with_field("upgradePolicy.podDeletion", {}))
    assert read["spec"]["driver"]["upgradePolicy"]["podDeletion"] == {
        "podSelector": "",
        "resourceNames": [],
        "force": False,
        "timeoutSeconds": 300,
        "deleteEmptyDir": False,
    }


@pytest.mark.parametrize("value", [0, 5, "0%", "7%", "100%", None])
async def test_max_unavailable_accepted(served: Api, value: Any):
    read = await dry_run(served, with_field("upgradePolicy.maxUnavailable", value))
    assert read["spec"]["driver"]["upgradePolicy"]["maxUnavailable"] == value


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("podSelector", UNSET, "Required value"),
        ("podSelector", {}, "is empty and would match every pod"),
        ("podSelector", {"matchLabels": {}, "matchExpressions": []}, "is empty and would match every pod"),
        ("podSelector", "app=driver", "must be of type object"),
        ("podSelector.matchLabels", {"a b": "c"}, "a key is at most 63 letters"),
        ("podSelector.matchLabels.app", "a b", "should match"),
        ("nodeSelector.matchLabels.app", "a" * 64, "may not be more than 63"),
        ("nodeSelector.matchExpressions", [{"key": "a", "operator": "Is"}], 'supported values: "In", "NotIn"'),
        ("nodeSelector.matchExpressions", [{"key": "a", "operator": "In"}], "In and NotIn need at least one value"),
        ("nodeSelector.matchExpressions", [{"key": "a", "operator": "Exists", "values": ["b"]}], "take none"),
        ("name", "GPU", "should match"),
        ("name", "", "should match"),
        ("name", "fourteen-chars", "may not be more than 13"),
        ("version", 580, "must be of type string"),
        ("upgradePolicies", {}, "unknown field"),
        ("upgradePolicy.drain.enabled", True, "unknown field"),
        ("upgradePolicy.autoUpgrade", "yes", "must be of type boolean"),
        ("upgradePolicy.maxParallelUpgrades", -1, "greater than or equal to 0"),
        ("upgradePolicy.maxParallelUpgrades", 100_001, "less than or equal to 100000"),
        ("upgradePolicy.maxUnavailable", "101%", "a percentage from 0% to 100%"),
        ("upgradePolicy.maxUnavailable", "-5%", "a percentage from 0% to 100%"),
        ("upgradePolicy.maxUnavailable", "7", "a percentage from 0% to 100%"),
        ("upgradePolicy.maxUnavailable", -1, "a whole number of nodes, 0 or more"),
        ("upgradePolicy.maxUnavailable", 1.5, "must be of type integer,string"),
        ("upgradePolicy.failureThreshold", 0, "greater than or equal to 1"),
        ("upgradePolicy.cordonedNodes", "Ignore", 'supported values: "Upgrade", "Skip"'),
        ("upgradePolicy.waitForCompletion.timeoutSeconds", 604_801, "less than or equal to 604800"),
        ("upgradePolicy.podDeletion.timeoutSeconds", -1, "greater than or equal to 0"),
        ("upgradePolicy.podDeletion.resourceNames", ["*"], "should match"),
        ("upgradePolicy.podDeletion.resourceNames", ["a", "a"], "Duplicate value"),
        ("upgradePolicy.podDeletion.resourceNames", [f"a{n}" for n in range(65)], "must have at most 64 items"),
        ("upgradePolicy.drain.timeoutSeconds", "5m", "must be of type integer"),
        ("upgradePolicy.drain.gracePeriodSeconds", -2, "greater than or equal to -1"),
        ("upgradePolicy.drain.podSelector", "a" * 1025, "may not be more than 1024"),
        ("upgradePolicy.podRestart.maxRestarts", -1, "greater than or equal to 0"),
        ("upgradePolicy.podRestart.unchangedEnv", "A" * 254, "may not be more than 253"),
        ("upgradePolicy.validation.timeoutSeconds", 604_801, "less than or equal to 604800"),
    ],
)
async def test_bad_input_is_refused_by_its_field(served: Api, field: str, value: Any, says: str):
    with pytest.raises(ApiError) as refused:
        await dry_run(served, with_field(field, value))
    assert f"spec.driver.{field}" in refused.value.message
    assert says in refused.value.message


async def test_a_policy_without_spec_is_refused(served: Api):
    with pytest.raises(ApiError, match="spec: Required value"):
        await dry_run(served, {name: value for name, value in policy().items() if name != "spec"})


@pytest.mark.parametrize("name", ["fourteen-chars", "a.b", "a-gpu-of-a-kind"])
async def test_a_name_that_no_driver_may_have_needs_a_driver_name(served: Api, name: str):
    with pytest.raises(ApiError, match=r"spec\.driver\.name is not set.*set spec\.driver\.name, or rename the policy"):
        await dry_run(served, policy(name))
    await dry_run(served, policy(name, name="gpu"))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": "gpu"}),
        ("podSelector", {"podSelector": {"matchLabels": {"app": "other"}}}),
        ("podSelector", {"podSelector": {"matchLabels": {"also": "this"}}}),
    ],
)
async def test_what_cannot_be_changed(served: Api, stored: Object, field: str, change: Object):
    with pytest.raises(ApiError, match=rf"spec\.driver\.{field} cannot be changed.*create another policy"):
        await served.patch(POLICIES, "stored", {"spec": {"driver": change}}, NAMESPACE)


@pytest.mark.parametrize("change", [{"name": "ofed"}, {"name": None}])
async def test_a_given_name_cannot_be_changed_or_removed(served: Api, change: Object):
    await served.create(policy("named", name="gpu"))
    try:
        with pytest.raises(ApiError, match=r"spec\.driver\.name cannot be changed"):
            await served.patch(POLICIES, "named", {"spec": {"driver": change}}, NAMESPACE)
    finally:
        await served.delete(POLICIES, "named", NAMESPACE)


async def test_all_else_can_be_changed(served: Api, stored: Object):
    change = {"nodeSelector": {"matchLabels": {"pool": "a"}}, "version": "2", "upgradePolicy": {"paused": True}}
    read = await served.patch(POLICIES, "stored", {"spec": {"driver": change}}, NAMESPACE)
    assert read["metadata"]["generation"] == stored["metadata"]["generation"] + 1
    assert read["spec"]["driver"]["nodeSelector"] == change["nodeSelector"]


STATUS = {
    "observedGeneration": 1,
    "state": "Upgrading",
    "progress": "4/9",
    "waitingFor": "PodDisruptionBudget",
    "startedAt": "2026-11-22T10:00:00Z",
    "estimatedCompletion": "2026-11-22T12:00:00Z",
    "targets": [{"daemonSet": "driver", "uid": "u", "revision": 3, "hash": "abc", "nodes": 9, "upToDate": 4}],
    "nodes": {"total": 9, "upToDate": 4, "inProgress": 2, "failed": 1, "pending": 2, "unavailable": 3},
    "states": {"upgrade-done": 4, "drain-required": 2, "upgrade-failed": 1, "upgrade-required": 2},
    "blocked": [{"reason": "NoSlot", "nodes": 2, "example": "n7"}],
    "active": [
        {
            "node": "n1",
            "state": "drain-required",
            "since": "2026-11-22T11:00:00Z",
            "deadline": "2026-11-22T11:05:00Z",
            "reason": "PodDisruptionBudget",
            "message": "1 pods left: a/b",
            "blockers": [{"reason": "PodDisruptionBudget", "namespace": "a", "name": "b", "message": "c needs 2, has 2"}],
        }
    ],
    "failed": [{"node": "n2", "state": "drain-required", "since": "2026-11-22T10:30:00Z", "reason": "DeadlineExceeded"}],
    "conditions": [
        {"type": kind, "status": status, "reason": "Because", "message": "", "lastTransitionTime": "2026-11-22T10:00:00Z"}
        for kind, status in [("Valid", "True"), ("Halted", "False"), ("Progressing", "True")]
    ],
}


async def test_status_is_kept_whole_and_apart_from_the_spec(served: Api, stored: Object):
    body = {"status": STATUS, "spec": {"driver": {"upgradePolicy": {"paused": True}}}}
    read = await served.patch(POLICIES, "stored", body, NAMESPACE, subresource="status")
    assert read["status"] == STATUS
    assert read["spec"] == stored["spec"]


async def test_columns_tell_how_the_rollout_stands(served: Api, stored: Object):
    await served.patch(POLICIES, "stored", {"status": STATUS}, NAMESPACE, subresource="status")
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    async with served.session.get(POLICIES.path(NAMESPACE, "stored"), headers=headers) as response:
        table = await response.json()
    row = dict(zip([column["name"] for column in table["columnDefinitions"]], table["rows"][0]["cells"], strict=True))
    del row["Age"], row["Driver"]  # the one is a clock's, the other is not set here
    assert row == {
        "Name": "stored",
        "State": "Upgrading",
        "UpToDate": "4/9",
        "InProgress": 2,
        "Failed": 1,
        "WaitingFor": "PodDisruptionBudget",
        "Estimated": "2026-11-22T12:00:00Z",
        "Auto": False,
        "Paused": False,
        "Pending": 2,
        "Unavailable": 3,
        "Halted": "False",
        "Valid": "True",
        "Started": "2026-11-22T10:00:00Z",
    }
