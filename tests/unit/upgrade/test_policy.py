"""From a custom resource to a policy: the seed's example, defaults, and every bad field named."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from controller.api.meta import ObjectMeta
from controller.api.policy import PolicyObject, UpgradePolicySpec
from controller.upgrade.policy import Policy, resolve
from controller.upgrade.sources import OWN_KIND, seed_kind
from tests.unit.upgrade.builders import policy

SEED = Path(__file__).parents[2] / "fixtures" / "seed-custom-resource.yaml"
PATH = "spec.driver.upgradePolicy"


def test_the_seeds_example():
    obj = msgspec.convert(yaml.safe_load(SEED.read_text()), PolicyObject)
    found = resolve(obj, seed_kind())
    assert found.errors == ()
    assert found.full_name == "CustomResource/nvidia-operator/example-custom-resource"
    assert (found.driver, str(found.pods), str(found.nodes)) == ("gpu", "app=nvidia-driver-daemonset", "")
    assert found.enabled
    assert found.usable
    assert found.spec.max_parallel_upgrades == 0
    assert found.failure_threshold == 1
    drain = found.spec.drain
    assert (drain.enable, drain.force, drain.timeout_seconds, drain.delete_empty_dir) == (True, False, 300, False)
    assert found.drain.empty
    assert (found.jobs, found.deletion, found.validators) == (None, None, None)


def test_defaults_are_the_designs():
    spec = policy().spec
    assert (spec.paused, spec.max_parallel_upgrades, spec.max_unavailable, spec.failure_threshold) == (False, 1, None, None)
    assert spec.cordoned_nodes == "Upgrade"
    assert (spec.wait_for_completion.timeout_seconds, spec.pod_deletion.timeout_seconds) == (0, 300)
    assert (spec.drain.enable, spec.drain.timeout_seconds, spec.drain.grace_period_seconds) == (False, 300, -1)
    assert (spec.pod_restart.timeout_seconds, spec.pod_restart.max_restarts) == (1800, 10)
    assert spec.validation.timeout_seconds == 600
    assert not UpgradePolicySpec().auto_upgrade


def test_an_empty_object_is_disabled_and_says_what_it_lacks():
    found = resolve(PolicyObject(metadata=ObjectMeta(name="gpu", namespace="ops")), OWN_KIND)
    assert not found.enabled
    assert [e.field for e in found.errors] == ["spec.driver.podSelector"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"maxParallelUpgrades": -1}, ".maxParallelUpgrades"),
        ({"maxParallelUpgrades": 100_001}, ".maxParallelUpgrades"),
        ({"maxParallelUpgrades": "3"}, ".maxParallelUpgrades"),
        ({"maxUnavailable": -1}, ".maxUnavailable"),
        ({"maxUnavailable": "101%"}, ".maxUnavailable"),
        ({"maxUnavailable": "5"}, ".maxUnavailable"),
        ({"maxUnavailable": "5%\n"}, ".maxUnavailable"),
        ({"maxUnavailable": True}, ".maxUnavailable"),
        ({"failureThreshold": 0}, ".failureThreshold"),
        ({"cordonedNodes": "skip"}, ".cordonedNodes"),
        ({"paused": "true"}, ".paused"),
        ({"autoUpgrade": "yes"}, ".autoUpgrade"),
        ({"drain": []}, ".drain"),
        ({"drain": {"enable": 1}}, ".drain.enable"),
        ({"drain": {"timeoutSeconds": -1}}, ".drain.timeoutSeconds"),
        ({"drain": {"timeoutSeconds": 604_801}}, ".drain.timeoutSeconds"),
        ({"drain": {"gracePeriodSeconds": -2}}, ".drain.gracePeriodSeconds"),
        ({"drain": {"podSelector": "a=(b"}}, ".drain.podSelector"),
        ({"waitForCompletion": {"podSelector": "=x"}}, ".waitForCompletion.podSelector"),
        ({"podDeletion": {"podSelector": "a in b"}}, ".podDeletion.podSelector"),
        ({"podDeletion": {"resourceNames": ["*"]}}, ".podDeletion.resourceNames[0]"),
        ({"podRestart": {"maxRestarts": 1001}}, ".podRestart.maxRestarts"),
        ({"validation": {"podSelector": "!"}}, ".validation.podSelector"),
    ],
)
def test_a_bad_field_is_named(spec: dict[str, Any], field: str):
    found = policy(**spec)
    assert [e.field for e in found.errors] == [PATH + field]
    assert found.errors[0].message
    assert found.enabled
    assert not found.usable


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ({"maxUnavailable": "101%"}, "a percentage from 0% to 100%"),
        ({"podDeletion": {"resourceNames": ["*"]}}, "not at the start"),
    ],
)
def test_what_breaks_a_pattern_is_told_what_it_must_be(spec: dict[str, Any], remedy: str):
    """Other operators' schemas do not say it: theirs is "an integer or a string"."""
    (error,) = policy(**spec).errors
    assert remedy in error.message
    assert "regex" not in error.message


def test_every_bad_field_is_named_and_the_others_keep_their_values():
    found = policy(
        maxUnavailable="101%", drain={"podSelector": "("}, validation={"timeoutSeconds": -1}, maxParallelUpgrades=7
    )
    assert [e.field.removeprefix(PATH) for e in found.errors] == [
        ".maxUnavailable",
        ".validation.timeoutSeconds",
        ".drain.podSelector",
    ]
    assert found.spec.max_parallel_upgrades == 7


@pytest.mark.parametrize(
    ("driver", "field"),
    [
        ({"podSelector": None}, "spec.driver.podSelector"),
        ({"podSelector": {}}, "spec.driver.podSelector"),
        ({"podSelector": {"matchLabels": {}}}, "spec.driver.podSelector"),
        ({"podSelector": "app=driver"}, "spec.driver.podSelector"),
        ({"podSelector": {"matchLabels": {"a b": "c"}}}, "spec.driver.podSelector"),
        ({"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}, "spec.driver.nodeSelector"),
        ({"name": "GPU"}, "spec.driver.name"),
        ({"name": "a-name-too-long"}, "spec.driver.name"),
        ({"name": "gpu-"}, "spec.driver.name"),
        ({"name": "gpu\n"}, "spec.driver.name"),
        ({"name": 7}, "spec.driver.name"),
    ],
)
def test_a_bad_field_of_the_driver_is_named(driver: dict[str, Any], field: str):
    assert [e.field for e in policy(driver=driver).errors] == [field]


@pytest.mark.parametrize(
    "spec", [{"driver": 7}, {"driver": {"podSelector": {"matchLabels": {"a": "b"}}, "upgradePolicy": []}}]
)
def test_what_is_no_object_is_named_once_and_counts_as_enabled(spec: dict[str, Any]):
    found = resolve(PolicyObject(metadata=ObjectMeta(name="gpu"), spec=spec), OWN_KIND)
    assert "must be an object" in str(found.errors[0])
    assert len({e.field for e in found.errors}) == len(found.errors)
    assert found.enabled


def test_the_drivers_name_is_the_policys_unless_said():
    unnamed: dict[str, Any] = {"driver": {"name": None}}
    assert policy(name="ofed", **unnamed).driver == "ofed"
    assert policy(name="x", driver={"name": "nic"}).driver == "nic"
    wrong = policy(name="my.gpu.policy", **unnamed)
    assert "it was taken from metadata.name, so set it here" in wrong.errors[0].message


def test_the_last_good_version_stands_in():
    good = policy(drain={"enable": True, "timeoutSeconds": 7}, maxParallelUpgrades=3)
    found = policy(drain={"enable": True, "podSelector": "("}, last=good)
    assert found.usable
    assert (found.spec, found.drain) == (good.spec, good.drain)
    assert [e.field for e in found.errors] == [f"{PATH}.drain.podSelector"]
    assert policy(drain={"podSelector": "("}, last=found).spec == good.spec


def test_the_last_good_version_of_another_object_does_not():
    assert not policy(drain={"podSelector": "("}, last=policy(name="other")).usable


def test_disabling_counts_also_where_another_field_is_wrong():
    found = policy(autoUpgrade=False, drain={"podSelector": "("}, last=policy())
    assert not found.enabled
    assert found.errors


@pytest.mark.parametrize(("value", "paused"), [("true", True), ("false", False), ("", False)])
def test_the_annotation_pauses(value: str, paused: bool):
    assert policy(notes={"nvidia.com/driver-upgrade.paused": value}).paused is paused
    assert policy(paused=True, notes={"nvidia.com/driver-upgrade.paused": value}).paused


@pytest.mark.parametrize(
    ("spec", "threshold"),
    [
        ({}, 1),
        ({"maxParallelUpgrades": 5}, 5),
        ({"maxParallelUpgrades": 0}, 1),
        ({"maxParallelUpgrades": 5, "failureThreshold": 2}, 2),
    ],
)
def test_failure_threshold(spec: dict[str, Any], threshold: int):
    assert policy(**spec).failure_threshold == threshold


def test_the_older_has_the_node_then_namespace_and_name():
    def names(*policies: Policy) -> list[str]:
        return [p.name for p in sorted(policies, key=lambda p: p.age_order)]

    assert names(policy(name="b", created=2), policy(name="c", created=1), policy(name="a", created=2)) == ["c", "a", "b"]


def test_null_is_as_good_as_absent():
    assert policy(maxParallelUpgrades=None, drain=None, maxUnavailable=None).spec == policy().spec
