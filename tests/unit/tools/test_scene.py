"""Builders of test objects, and the two stand-ins' pure parts."""

import pytest

from tools.controlplane import owner, safeload, scene
from tools.controlplane.commands import audit_policy
from tools.controlplane.resources import DAEMON_SETS, NODES, key


def test_nodes_are_fake_numbered_and_dealt_out_to_zones() -> None:
    made = scene.nodes(12, zones=3)
    assert [node["metadata"]["name"] for node in made][:2] == ["node-01", "node-02"]
    zones = [node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in made]
    assert {zone: zones.count(zone) for zone in zones} == {"zone-a": 4, "zone-b": 4, "zone-c": 4}
    assert all(node["metadata"]["annotations"]["kwok.x-k8s.io/node"] == "fake" for node in made)


def test_driver_daemon_set_waits_for_its_owner_and_runs_everywhere() -> None:
    spec = scene.driver_daemon_set("7")["spec"]
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    assert spec["selector"]["matchLabels"] == {"app": "nvidia-driver-daemonset"}
    assert spec["template"]["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert spec["template"]["spec"]["containers"][0]["image"].endswith(":7")
    assert "initContainers" not in spec["template"]["spec"]


def test_safe_load_adds_the_waiting_container_and_its_label() -> None:
    template = scene.driver_daemon_set(safe_load="ofed")["spec"]["template"]
    assert template["spec"]["initContainers"][0]["name"] == safeload.CONTAINER
    assert template["metadata"]["labels"][safeload.LABEL] == "ofed"
    assert safeload.annotation("ofed") == "nvidia.com/ofed-driver-upgrade.driver-wait-for-safe-load"


def test_builders_share_nothing() -> None:
    one, two = scene.deployment("a"), scene.deployment("a")
    one["spec"]["template"]["spec"]["containers"].clear()
    assert two["spec"]["template"]["spec"]["containers"]


def test_budget_has_the_bound_that_was_given() -> None:
    assert scene.budget("web", min_available=0)["spec"] == {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 0}
    assert scene.budget("web", max_unavailable="10%", labels={"a": "b"})["spec"] == {
        "selector": {"matchLabels": {"a": "b"}},
        "maxUnavailable": "10%",
    }


def test_stage_names_become_annotations() -> None:
    assert scene.stage(ready_delay="2s") == {"stage.driver-upgrade.test/ready-delay": "2s"}


def test_paths_of_objects() -> None:
    assert NODES.path(name="n1", subresource="status") == "/api/v1/nodes/n1/status"
    assert DAEMON_SETS.path("ns", "d") == "/apis/apps/v1/namespaces/ns/daemonsets/d"
    assert DAEMON_SETS.path() == "/apis/apps/v1/daemonsets"
    assert key({"metadata": {"name": "n"}}) == "n"
    assert key(scene.pod("p", "ns")) == "ns/p"


@pytest.mark.parametrize(
    ("current", "driver", "wanted"),
    [
        ("local/driver:1", {"version": "2"}, "local/driver:2"),
        ("local/driver:1", {}, "local/driver:1"),
        ("local/driver:1", {"repository": "other/place", "image": "gpu", "version": "3"}, "other/place/gpu:3"),
        ("host:5000/driver", {"image": "x"}, "host:5000/x:latest"),
        ("driver:1", {"version": "2"}, "driver:2"),
    ],
)
def test_owner_turns_the_policy_into_an_image(current: str, driver: dict[str, str], wanted: str) -> None:
    assert owner.image(current, driver) == wanted


def test_fake_kubelet_ends_the_container_and_starts_the_next() -> None:
    waits = {"name": safeload.CONTAINER, "state": {"running": {"startedAt": "then"}}}
    after = {"name": "after", "state": {"waiting": {"reason": "PodInitializing"}}}
    pod = {"metadata": {}, "spec": {"nodeName": "n"}, "status": {"initContainerStatuses": [waits, after]}}
    assert safeload.is_waiting(pod)
    first, second = safeload.completed(pod, "now")["status"]["initContainerStatuses"]
    assert first["state"]["terminated"]["finishedAt"] == "now"
    assert second["state"] == {"running": {"startedAt": "now"}}
    pod["status"] = {"initContainerStatuses": [waits]}
    assert safeload.completed(pod, "now")["status"]["conditions"][0]["status"] == "True"
    pod["metadata"] = {"deletionTimestamp": "now"}
    assert not safeload.is_waiting(pod)


def test_audit_policy_never_records_secrets() -> None:
    rules = audit_policy("RequestResponse")["rules"]
    assert isinstance(rules, list)
    assert [rule["level"] for rule in rules] == ["Metadata", "RequestResponse", "Metadata"]
    assert "secrets" in rules[0]["resources"][0]["resources"]
