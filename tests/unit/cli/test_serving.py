"""The flags that say where and to whom the controller serves."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller import app
from controller.app import Settings
from controller.cli.main import main
from controller.operate.options import Options
from controller.server.http import MetricsAccess

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """The command configures the root logger of the process, which here is the tests'."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--metrics-auth", "--metrics-auth needs a port for the metrics alone: give --metrics-listen"),
        ("--metrics-listen 127.0.0.1:0 --metrics-tls-cert-file /no/such", "--metrics-tls-private-key-file"),
        (
            "--metrics-listen 127.0.0.1:0 --metrics-tls-cert-file /no/such --metrics-tls-private-key-file /nor/this",
            "--metrics-tls-cert-file: /no/such",
        ),
        ("--metrics-listen 8443", "--metrics-listen '8443' is not host:port"),
        ("--listen 8080", "--listen '8080' is not host:port"),
    ],
    ids=["no port", "no key", "no files", "no host", "no host of the probes"],
)
def test_flags_that_cannot_be_served_end_it_with_code_2_and_are_named(flags: str, said: str, tmp_path: Path):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    answer = CliRunner().invoke(main, ["run", "--kubeconfig", str(kubeconfig), "--listen", "127.0.0.1:0", *flags.split()])
    assert answer.exit_code == 2
    assert said in answer.stderr


@pytest.mark.parametrize(
    ("flags", "listen", "expected"),
    [
        ("", "127.0.0.1:8080", MetricsAccess()),
        (
            "--listen :81 --metrics-listen :8443 --metrics-auth --metrics-tls-cert-file a --metrics-tls-private-key-file b",
            ":81",
            MetricsAccess(":8443", auth=True, cert_file="a", key_file="b"),
        ),
    ],
    ids=["defaults", "all"],
)
def test_flags_reach_the_server(flags: str, listen: str, expected: MetricsAccess, monkeypatch: pytest.MonkeyPatch):
    seen: list[Settings] = []

    async def ran(_options: Options, settings: Settings) -> None:
        seen.append(settings)

    monkeypatch.setattr(app, "run", ran)
    assert CliRunner().invoke(main, ["run", *flags.split()]).exit_code == 0
    assert (seen[0].listen, seen[0].metrics) == (listen, expected)
