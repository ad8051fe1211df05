"""Reads and writes kubeconfig files: just enough for one cluster and one user in each.

Every connection verifies the server against a CA; there is no way here to skip that.
"""

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


class KubeconfigError(ValueError):
    """The kubeconfig lacks something, or uses something that these tools do not support."""


@dataclass(frozen=True)
class Access:
    """How to reach an API server as somebody."""

    server: str
    ca: bytes
    """PEM certificates that the server's certificate is verified against."""
    token: str = field(default="", repr=False)
    certificate: Path | None = None
    key: Path | None = None

    def ssl_context(self) -> ssl.SSLContext:
        """A context that trusts this CA alone, with the client's certificate where there is one."""
        context = ssl.create_default_context(cadata=self.ca.decode())
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def write(self, path: Path, user: str = "admin", namespace: str = "") -> Path:
        """Writes a kubeconfig that stands alone (the CA is inside), readable by its owner only."""
        cluster = {"server": self.server, "certificate-authority-data": base64.b64encode(self.ca).decode()}
        context = {"cluster": "local", "user": user} | ({"namespace": namespace} if namespace else {})
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": user, "user": self._user()}],
            "contexts": [{"name": user, "context": context}],
            "current-context": user,
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return path

    def _user(self) -> dict[str, str]:
        if self.certificate is None:
            return {"token": self.token}
        return {"client-certificate": str(self.certificate), "client-key": str(self.key)}


def read(path: Path, scratch: Path) -> Access:
    """Reads the current context of a kubeconfig; client certificates that stand in it are written into `scratch`.

    Raises:
        KubeconfigError: no CA, no credentials, or credentials from a plugin.
    """
    config = yaml.safe_load(path.read_text())
    context = _named(config, "contexts", config.get("current-context", ""), path)["context"]
    cluster = _named(config, "clusters", context["cluster"], path)["cluster"]
    user = _named(config, "users", context["user"], path)["user"]
    ca = _content(cluster, "certificate-authority", path)
    if ca is None:
        raise KubeconfigError(f"{path}: the cluster {context['cluster']!r} has no certificate-authority; add its CA")
    token = user.get("token") or (Path(user["tokenFile"]).read_text().strip() if "tokenFile" in user else "")
    if token:
        return Access(cluster["server"], ca, token)
    certificate, key = _content(user, "client-certificate", path), _content(user, "client-key", path)
    if certificate is None or key is None:
        raise KubeconfigError(
            f"{path}: the user {context['user']!r} has no token and no client certificate; others are not supported"
        )
    return Access(cluster["server"], ca, "", _save(scratch, "client.crt", certificate), _save(scratch, "client.key", key))


def _named(config: Mapping[str, Any], section: str, name: str, path: Path) -> dict[str, Any]:
    for entry in config.get(section) or ():
        if entry["name"] == name:
            return dict(entry)
    raise KubeconfigError(f"{path}: no entry {name!r} in {section}")


def _content(section: Mapping[str, str], key: str, path: Path) -> bytes | None:
    if data := section.get(f"{key}-data"):
        return base64.b64decode(data)
    if file := section.get(key):
        return (path.parent / file).read_bytes()  # relative paths count from the kubeconfig, as in client-go
    return None


def _save(directory: Path, name: str, content: bytes) -> Path:
    path = directory / name
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path
