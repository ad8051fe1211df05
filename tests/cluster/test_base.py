"""What the rendered base does so that the controller stays up, stays small and is let alone: each thing is held here.

Whether it is accepted, and its pods admitted, is tried in `test_manifests.py`; whether it serves, in `tests/e2e`.
"""

from collections.abc import Callable
from typing import Any

import pytest

from controller.kube.leaderelection import LeaderElectionConfig
from controller.kube.writegate import DRAIN_SECONDS
from tools.controlplane.resources import Object
from tools.manifests import MANIFESTS, NAME, built, containers, of_kinds, one

LABELS = {"app.kubernetes.io/name": NAME}
ROOM_SECONDS = 10
"""For a slow node, beyond what a stop may take by itself."""


def deployment() -> Object:
    spec: Object = one(built(), "Deployment", NAME)["spec"]
    return spec


def pod() -> Object:
    spec: Object = deployment()["template"]["spec"]
    return spec


def container() -> Any:
    (found,) = containers(built())
    return found


def port(name: str) -> int:
    return int(next(p["containerPort"] for p in container()["ports"] if p["name"] == name))


def listens(flag: str) -> int:
    return int(next(arg for arg in container()["args"] if arg.startswith(f"--{flag}=")).rpartition(":")[2])


def probed(kind: str, path: str) -> bool:
    return bool(container()[kind]["httpGet"] == {"path": path, "port": "probes"} and port("probes") == listens("listen"))


def budget() -> Any:
    return one(built(), "PodDisruptionBudget", NAME)["spec"]


def network(name: str) -> Any:
    return one(built(), "NetworkPolicy", name)["spec"]


def service() -> Any:
    return one(built(), "Service", NAME)["spec"]


def spread(key: str) -> bool:
    (near,) = pod()["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    found = [near["podAffinityTerm"], *pod()["topologySpreadConstraints"]]
    return any(term["topologyKey"] == key and term["labelSelector"]["matchLabels"] == LABELS for term in found)


def mounted(path: str) -> list[str]:
    """The files of a projected volume, where it is mounted read-only."""
    (name,) = [one["name"] for one in container()["volumeMounts"] if one["mountPath"] == path and one["readOnly"]]
    (volume,) = [one for one in pod()["volumes"] if one["name"] == name]
    made = [next(iter(source.values())) for source in volume["projected"]["sources"]]
    return [str(item["path"]) for source in made for item in source.get("items", [source])]


def stop_seconds() -> float:
    """Writes under way are heard out, then the Lease is given back, within half of the renew deadline."""
    return DRAIN_SECONDS + LeaderElectionConfig(NAME, NAME, NAME).renew_deadline / 2


def said_grace() -> bool:
    text = (MANIFESTS.parent / "docs" / "leader-election.md").read_text()
    return f"terminationGracePeriodSeconds: {pod()['terminationGracePeriodSeconds']}`" in text


SAFEGUARDS: dict[str, Callable[[], bool]] = {
    "two replicas": lambda: deployment()["replicas"] == 2,
    "a new replica is ready before an old one goes": lambda: (
        deployment()["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    ),
    "they elect a leader, by names that the fence knows": lambda: (
        {"--leader-elect", "--pod-name=$(POD_NAME)", "--pod-uid=$(POD_UID)"} <= set(container()["args"])
    ),
    "their names are those of their pods": lambda: (
        {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in container()["env"]}
        == {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid"}
    ),
    "not on one node": lambda: spread("kubernetes.io/hostname"),
    "not in one zone": lambda: spread("topology.kubernetes.io/zone"),
    "not before workloads when room is short": lambda: (
        0 < one(built(), "PriorityClass", pod()["priorityClassName"])["value"] < 1_000_000_000
    ),
    "one at a time is evicted": lambda: budget()["maxUnavailable"] == 1 and budget()["selector"]["matchLabels"] == LABELS,
    "a broken one may always be": lambda: budget()["unhealthyPodEvictionPolicy"] == "AlwaysAllow",
    "the start is waited for": lambda: (
        probed("startupProbe", "/healthz") and container()["startupProbe"]["failureThreshold"] >= 60
    ),
    "one that hangs is restarted": lambda: (
        probed("livenessProbe", "/healthz") and container()["livenessProbe"]["timeoutSeconds"] > 1
    ),
    "readiness is asked for": lambda: (
        probed("readinessProbe", "/readyz") and container()["readinessProbe"]["timeoutSeconds"] > 1
    ),
    "memory is bounded, and asked for": lambda: (
        container()["resources"]["limits"].keys() == {"memory"}
        and container()["resources"]["requests"].keys() == {"cpu", "memory"}
    ),
    "it is its own account, by the token that it mounts itself": lambda: (
        pod()["serviceAccountName"] == NAME
        and pod()["automountServiceAccountToken"] is False
        and mounted("/var/run/secrets/kubernetes.io/serviceaccount") == ["token", "ca.crt", "namespace"]
    ),
    "no privileges": lambda: (
        container()["securityContext"]
        == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    ),
    "no root": lambda: (
        pod()["securityContext"]["runAsNonRoot"] is True
        and pod()["securityContext"]["runAsUser"] > 0
        and pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    ),
    "no host": lambda: (
        not {"hostNetwork", "hostPID", "hostIPC", "hostPath"} & (pod().keys() | {k for v in pod()["volumes"] for k in v})
    ),
    "the namespace is restricted": lambda: (
        one(built(), "Namespace", NAME)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    ),
    "a stop has its time": lambda: pod()["terminationGracePeriodSeconds"] >= stop_seconds() + ROOM_SECONDS,
    "the page says how long": said_grace,
    "nothing comes in or goes out unless it is named": lambda: (
        network("default-deny") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ),
    "Prometheus comes in, to the metrics": lambda: (
        network(NAME)["podSelector"]["matchLabels"] == LABELS
        and network(NAME)["policyTypes"] == ["Ingress", "Egress"]
        and network(NAME)["ingress"]
        == [
            {
                "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
                "ports": [{"port": "metrics"}],
            }
        ]
    ),
    "the API server is let out to": lambda: network(NAME)["egress"] == [{"ports": [{"port": 443}, {"port": 6443}]}],
    "the Service finds the pods and their metrics": lambda: (
        service()["selector"] == LABELS
        and service()["ports"] == [{"name": "metrics", "port": 8443, "targetPort": "metrics"}]
        and port("metrics") == listens("metrics-listen")
    ),
    "metrics are for who may read them": lambda: "--metrics-auth" in container()["args"],
    "selectors choose the pods": lambda: (
        deployment()["selector"]["matchLabels"] == LABELS
        and LABELS.items() <= deployment()["template"]["metadata"]["labels"].items()
    ),
}


@pytest.mark.parametrize("name", SAFEGUARDS)
def test_the_base_has(name: str):
    assert SAFEGUARDS[name]()


def test_nothing_else_is_shipped_that_this_table_would_miss():
    """A kind of object that joins the base needs its row, or a test elsewhere."""
    elsewhere = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount", "CustomResourceDefinition"}
    fence = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "Lease"}
    here = {"Namespace", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "PriorityClass"}
    assert {obj["kind"] for obj in built()} == elsewhere | fence | here
    assert len(of_kinds(built(), {"NetworkPolicy"})) == 2
