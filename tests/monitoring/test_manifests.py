"""manifests/monitoring fits manifests/base: the PodMonitor finds the pods, their port, and a token that may read."""

from typing import Any

import yaml

from tests.monitoring.table import ROOT

MONITORING, BASE = ROOT / "manifests" / "monitoring", ROOT / "manifests" / "base"


def objects(*paths: Any) -> dict[str, dict[str, Any]]:
    """Every object of some files, by kind."""
    return {obj["kind"]: obj for path in paths for obj in yaml.safe_load_all(path.read_text()) if obj}


def test_the_kustomization_names_every_file_but_the_plain_rules():
    names = set(yaml.safe_load((MONITORING / "kustomization.yaml").read_text())["resources"])
    assert names == {path.name for path in MONITORING.glob("*.yaml")} - {"kustomization.yaml", "rules.yaml"}


def test_the_pod_monitor_finds_the_controllers_pods_and_port():
    monitor = objects(MONITORING / "podmonitor.yaml")["PodMonitor"]
    deployment = objects(BASE / "deployment.yaml")["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["metadata"]["namespace"] == deployment["metadata"]["namespace"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    listen = next(a for a in container["args"] if a.startswith("--metrics-listen="))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert int(listen.rpartition(":")[2]) == ports[endpoint["port"]]


def test_the_token_belongs_to_who_may_read_the_metrics_and_nothing_else():
    found = objects(MONITORING / "access.yaml")
    monitor = objects(MONITORING / "podmonitor.yaml")["PodMonitor"]
    secret = monitor["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"]["name"]
    account = found["ServiceAccount"]["metadata"]["name"]
    assert found["Secret"]["metadata"]["name"] == secret
    assert found["Secret"]["metadata"]["annotations"]["kubernetes.io/service-account.name"] == account
    binding = found["ClusterRoleBinding"]
    assert [subject["name"] for subject in binding["subjects"]] == [account]
    role = objects(BASE / "rbac" / "metrics-reader.yaml")["ClusterRole"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
