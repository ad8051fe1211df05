"""Command lines of the control plane's programs, and the files they read."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tools.controlplane.binaries import Binaries
from tools.controlplane.kubeconfig import Access

AuditLevel = Literal["Metadata", "RequestResponse"]
STAGES = Path(__file__).parent / "stages"
SERVICE_ADDRESS = "10.0.0.1"
CLIENTS = ("admin", "kube-controller-manager", "kube-scheduler", "kwok", "fake-kubelet")
_CLIENT_QPS = ("--kube-api-qps=1000", "--kube-api-burst=2000")  # the client's limiter is never the bottleneck
# Nothing here has clouds, volumes, autoscaling or kubelets that ask for certificates.
_NO_CONTROLLERS = (
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "cloud-node-lifecycle-controller",
    "horizontal-pod-autoscaler-controller",
    "legacy-serviceaccount-token-cleaner-controller",
    "node-ipam-controller",
    "node-route-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "service-lb-controller",
)


@dataclass(frozen=True)
class Layout:
    """Where the files of one control plane are, which ports it uses, and the secret of each client."""

    directory: Path
    client_port: int
    peer_port: int
    secure_port: int
    tokens: dict[str, str] = field(default_factory=lambda: {name: secrets.token_urlsafe(24) for name in CLIENTS}, repr=False)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://127.0.0.1:{self.secure_port}"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log."""
        return self.directory / "audit.log"

    def access(self, token: str) -> Access:
        """Access for the bearer of a token."""
        return Access(self.server, (self.directory / "ca.crt").read_bytes(), token)

    def kubeconfig(self, client: str) -> Path:
        """The kubeconfig of one of CLIENTS."""
        return self.directory / ("kubeconfig" if client == "admin" else f"{client}.kubeconfig")

    def write(self, audit_level: AuditLevel, stages: Sequence[Path]) -> None:
        """Writes what the programs read; the certificates must be there already."""
        rows = [f'{token},{name},{name},"system:masters"\n' for name, token in self.tokens.items()]
        (self.directory / "tokens.csv").write_text("".join(rows))
        (self.directory / "audit-policy.json").write_text(json.dumps(audit_policy(audit_level)))
        (self.directory / "stages.yaml").write_text("\n---\n".join(path.read_text() for path in sorted(stages)))
        for name, token in self.tokens.items():
            self.access(token).write(self.kubeconfig(name), name)


def audit_policy(level: AuditLevel) -> dict[str, object]:
    """Every request once, when answered; with RequestResponse, the bodies of writes as well. Token reviews stay bare."""
    writes = {"level": level, "verbs": ["create", "update", "patch", "delete", "deletecollection"]}
    tokens = {"level": "Metadata", "resources": [{"group": "", "resources": ["serviceaccounts/token", "secrets"]}]}
    rules = [{"level": "Metadata"}] if level == "Metadata" else [tokens, writes, {"level": "Metadata"}]
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}


def etcd(binaries: Binaries, layout: Layout) -> list[str]:
    """Etcd that never waits for the disk: a crash of the machine ends the control plane anyway."""
    client, peer = f"http://127.0.0.1:{layout.client_port}", f"http://127.0.0.1:{layout.peer_port}"
    return [
        *binaries.etcd,
        f"--data-dir={layout.directory / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]


def kube_apiserver(binaries: Binaries, layout: Layout) -> list[str]:
    """The API server with its own CA, tokens, RBAC, and the audit log."""
    directory = layout.directory
    return [
        *binaries.kube_apiserver,
        f"--etcd-servers=http://127.0.0.1:{layout.client_port}",
        "--bind-address=127.0.0.1",
        f"--secure-port={layout.secure_port}",
        f"--tls-cert-file={directory / 'server.crt'}",
        f"--tls-private-key-file={directory / 'server.key'}",
        f"--cert-dir={directory / 'apiserver'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        f"--service-account-issuer={layout.server}",
        f"--service-account-key-file={directory / 'sa.pub'}",
        f"--service-account-signing-key-file={directory / 'sa.key'}",
        "--authorization-mode=RBAC,Node",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--profiling=false",
        f"--audit-policy-file={directory / 'audit-policy.json'}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-maxsize=4096",  # MB: a rotated log would lose the witness
    ]


def kube_controller_manager(binaries: Binaries, layout: Layout) -> list[str]:
    """The real controllers: DaemonSets, Deployments, budgets, Jobs, garbage, namespaces, node life cycle, …."""
    return [
        *binaries.kube_controller_manager,
        *_client(layout, "kube-controller-manager"),
        *_CLIENT_QPS,
        f"--root-ca-file={layout.directory / 'ca.crt'}",
        f"--service-account-private-key-file={layout.directory / 'sa.key'}",
        f"--controllers=*,{','.join(f'-{name}' for name in _NO_CONTROLLERS)}",
        "--concurrent-deployment-syncs=20",
        "--concurrent-replicaset-syncs=20",
        "--concurrent-job-syncs=20",
    ]


def kube_scheduler(binaries: Binaries, layout: Layout) -> list[str]:
    """The real scheduler."""
    return [*binaries.kube_scheduler, *_client(layout, "kube-scheduler"), *_CLIENT_QPS]


def kwok(binaries: Binaries, layout: Layout) -> list[str]:
    """The kubelets of the fake nodes, and of no others; its client has no rate limit of its own."""
    return [
        *binaries.kwok,
        f"--kubeconfig={layout.kubeconfig('kwok')}",
        f"--config={layout.directory / 'stages.yaml'}",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--node-lease-duration-seconds=40",
        "--cidr=10.128.0.0/9",
    ]


def _client(layout: Layout, name: str) -> list[str]:
    """What the controller-manager and the scheduler share: one replica, no server of their own."""
    path = layout.kubeconfig(name)
    return [
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
    ]
