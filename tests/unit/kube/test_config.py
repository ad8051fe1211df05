"""Configuration comes from where kubectl and pods have it, and what is wrong with it is said by name."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.kube import config
from controller.kube.errors import ConfigError


def kubeconfig(path: Path, *, user: Any = None, cluster: Any = None, **context: Any) -> str:
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", **context}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {"token": "secret"}}],
    }
    path.write_text(yaml.safe_dump(value))
    return str(path)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files and variables of a pod."""
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    (directory / "token").write_text("one\n")
    (directory / "namespace").write_text("ns-of-pod\n")
    (directory / "ca.crt").write_bytes(Path(_certificate(tmp_path)[0]).read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return directory


def _certificate(directory: Path) -> tuple[str, str]:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program to make a certificate")
    certificate, key = str(directory / "tls.crt"), str(directory / "tls.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key


def _base64(file: str) -> str:
    return base64.b64encode(Path(file).read_bytes()).decode()


async def test_token_and_namespace_of_the_current_context(tmp_path: Path) -> None:
    connection = await config.load(kubeconfig(tmp_path / "kc", namespace="mine"))
    assert (connection.server, connection.namespace, connection.tls) == ("http://127.0.0.1:1", "mine", None)
    assert await connection.authorization() == "Bearer secret"
    assert "secret" not in repr(connection)


async def test_the_variable_counts_where_no_file_is_given_and_the_default_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube" / "config", namespace="from-home")
    assert (await config.load()).namespace == "from-home"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/missing:{kubeconfig(tmp_path / 'kc', namespace='from-variable')}")
    assert (await config.load()).namespace == "from-variable"
    assert (await config.load(kubeconfig(tmp_path / "other"))).namespace == "default"


async def test_a_token_file_is_read_again_after_a_minute_and_after_a_401(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    connection = await config.load(kubeconfig(tmp_path / "kc", user={"tokenFile": str(token)}))
    now = 0.0
    connection.clock, connection._loaded_at = lambda: now, 0.0
    token.write_text("two\n")
    now = 59
    assert await connection.authorization() == "Bearer one"
    now = 60
    assert await connection.authorization() == "Bearer two"
    token.write_text("three\n")
    assert await connection.refresh("Bearer two")
    assert await connection.authorization() == "Bearer three"


async def test_credentials_that_cannot_be_read_again_stay_as_they_are(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    connection = await config.load(kubeconfig(tmp_path / "kc", user={"tokenFile": str(token)}))
    token.unlink()
    assert not await connection.refresh("Bearer one")
    assert await connection.authorization() == "Bearer one"


async def test_exec_plugins_run_again_when_they_expire_or_are_refused(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    counter.write_text("")
    status = {"token": "TOKEN", "expirationTimestamp": "2999-01-01T00:00:00Z"}
    credential = json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\necho x >> {counter}\necho '{credential}' | sed s/TOKEN/t$(wc -l < {counter})/\n")
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    connection = await config.load(kubeconfig(tmp_path / "kc", user=user))
    assert await connection.authorization() == "Bearer t1"
    connection._loaded_at = float("-inf")
    assert await connection.authorization() == "Bearer t1"
    assert await connection.refresh("Bearer t1")
    assert await connection.authorization() == "Bearer t2"


async def test_certificates_authority_and_insecure(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    authority = _base64(certificate)
    user = {"client-certificate": certificate, "client-key": key}
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": authority, "tls-server-name": "kube"}
    connection = await config.load(kubeconfig(tmp_path / "kc", user=user, cluster=cluster))
    assert connection.tls is not None
    assert connection.tls.check_hostname
    assert connection.tls.cert_store_stats()["x509"] == 1
    assert connection.server_name == "kube"
    assert await connection.authorization() is None
    insecure = {"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": True, "proxy-url": "http://127.0.0.1:3128"}
    connection = await config.load(kubeconfig(tmp_path / "kc", cluster=insecure))
    assert connection.tls is not None
    assert not connection.tls.check_hostname
    assert connection.proxy == "http://127.0.0.1:3128"


@pytest.mark.parametrize(
    ("no_proxy", "proxied"),
    [("", True), ("10.0.0.0/8", True), ("127.0.0.0/8", False), ("127.0.0.1", False), ("example.com,127.0.0.1", False)],
)
async def test_proxies_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_proxy: str, proxied: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.2:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    connection = await config.load(kubeconfig(tmp_path / "kc"))
    assert connection.proxy == ("http://127.0.0.2:3128" if proxied else None)


async def test_a_pod_uses_its_service_account(pod: Path) -> None:
    connection = await config.load_in_cluster(pod)
    assert (connection.server, connection.namespace) == ("https://[::1]:443", "ns-of-pod")
    assert await connection.authorization() == "Bearer one"
    (pod / "token").write_text("two\n")
    connection._loaded_at -= 60
    assert await connection.authorization() == "Bearer two"


async def test_in_a_pod_the_service_account_comes_before_the_home_directory(pod: Path) -> None:
    with pytest.raises(ConfigError, match=r"service account in /var/run/secrets.*automountServiceAccountToken"):
        await config.load()


@pytest.mark.parametrize("missing", ["token", "ca.crt", "namespace"])
async def test_an_incomplete_service_account_is_named(pod: Path, missing: str) -> None:
    (pod / missing).unlink()
    with pytest.raises(ConfigError, match="automountServiceAccountToken: true"):
        await config.load_in_cluster(pod)


async def test_mistakes_are_named_with_file_context_and_remedy(tmp_path: Path) -> None:
    good = kubeconfig(tmp_path / "kc")
    broken = tmp_path / "broken"
    broken.write_text("a: [")
    empty = tmp_path / "empty"
    empty.write_text("")
    for paths, context, pattern in [
        (str(tmp_path / "nope"), None, "kubeconfig .*/nope does not exist: name one with --kubeconfig"),
        (good, "other", "kubeconfig .*/kc, context other: .*object with name other.*kubectl config get-contexts"),
        (str(broken), None, "kubeconfig .*/broken, current context: "),
        (str(empty), None, "kubeconfig .*/empty, current context: "),
        (kubeconfig(tmp_path / "k1", user={"tokenFile": "/missing"}), None, "/k1, current context: .*/missing"),
        (kubeconfig(tmp_path / "k2", cluster={"server": ""}), None, "/k2, current context: its cluster names no server"),
        (kubeconfig(tmp_path / "k3", cluster={"proxy-url": "socks5://x"}), None, "socks5://x is not supported: use an http"),
        (kubeconfig(tmp_path / "k4", user={"exec": {"apiVersion": "v1", "command": "/missing"}}), None, "/k4, .*/missing"),
    ]:
        with pytest.raises(ConfigError, match=pattern):
            await config.load(paths, context)


def test_loading_does_not_import_the_generated_models(tmp_path: Path) -> None:
    """They cost 38 MiB. The process is a fresh one, because others here may have imported them."""
    program = (
        "import asyncio, sys; from controller.kube import config; asyncio.run(config.load(sys.argv[1]));"
        "import kubernetes_asyncio.config; print(sum('kubernetes_asyncio.client.models' in m for m in sys.modules))"
    )
    lean = program.replace("import kubernetes_asyncio.config; ", "")
    count = [
        int(subprocess.check_output([sys.executable, "-c", code, kubeconfig(tmp_path / "kc")], env=os.environ))
        for code in (lean, program)
    ]
    assert count[0] == 0
    assert count[1] > 100
