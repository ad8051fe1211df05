"""`--source`: presets, namespaces, files, and what is refused before anything is started."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from controller.cli import main
from controller.cli.sources import sources_of
from controller.operate.options import Options
from controller.upgrade.sources import GPU_CLUSTER_POLICY, OWN_KIND, Source, seed_kind

DOMAIN = "upgrade.example.com"


def sources(*said: str, domain: str = DOMAIN, namespaces: tuple[str, ...] = ()) -> tuple[Source, ...]:
    return sources_of(said, seed_kind("nic", "app=nic"), domain=domain, namespaces=namespaces)


def test_presets_by_name_and_the_seeds_as_its_flags_say():
    assert sources("driver-upgrade-policy", "custom-resource") == (OWN_KIND, seed_kind("nic", "app=nic"))


def test_a_namespace_may_be_given():
    (found,) = sources("gpu-cluster-policy=nvidia")
    assert (found.kind, found.namespace) == ("ClusterPolicy", "nvidia")


def test_namespaces_of_cluster_scoped_sources_are_drivers_namespaces_unless_those_are_given():
    options = Options((), sources("driver-upgrade-policy", "gpu-cluster-policy=nvidia", "nic-cluster-policy=ops"))
    assert options.default_namespaces("ops") == ("ops", "nvidia")
    with pytest.raises(
        click.UsageError, match="looked for in namespace nvidia, which --driver-namespaces \\(ops\\) leaves out"
    ):
        sources("gpu-cluster-policy=nvidia", namespaces=("ops",))
    assert sources("gpu-cluster-policy=nvidia", namespaces=("ops", "nvidia"))


@pytest.mark.parametrize(
    "text", ["preset: gpu-cluster-policy\nnamespace: drivers\n", '{"preset": "gpu-cluster-policy", "namespace": "drivers"}']
)
def test_a_file_is_yaml_or_json(tmp_path: Path, text: str):
    path = tmp_path / "source"
    path.write_text(text)
    (found,) = sources(f"@{path}")
    assert (found.kind, found.namespace, found.defaults) == ("ClusterPolicy", "drivers", GPU_CLUSTER_POLICY.defaults)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"preset: [", "is neither YAML nor JSON"),
        (b"\xff\xfe\xff", "is neither YAML nor JSON"),
        (b"preset: gpu\n", "preset: 'gpu' is none of"),
        (b"", "must hold one object"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "source.yaml"
    path.write_bytes(content)
    with pytest.raises(click.UsageError) as caught:
        sources(f"@{path}")
    assert str(path) in caught.value.message
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--source", "gpu-cluster-policy"], "needs a --label-domain other than nvidia.com"),
        (["--source", "gpu-nvidia-driver"], "needs a --label-domain other than nvidia.com"),
        (["--source", "nic-cluster-policy=ops"], "needs a --label-domain other than nvidia.com"),
        (
            ["--source", "gpu-policy"],
            "there is no 'gpu-policy'; there are driver-upgrade-policy, custom-resource, gpu-cluster-policy",
        ),
        (["--source", "gpu-cluster-policy=A", "--label-domain", DOMAIN], "namespace: 'A' is no legal namespace"),
        (["--source", "custom-resource=ops"], "namespace: only cluster-scoped kinds take one"),
        (["--source", "@/no/such/file"], "No such file"),
        (
            ["--source", "gpu-cluster-policy", "--source", "gpu-cluster-policy=b", "--label-domain", DOMAIN],
            "are both of kind ClusterPolicy",
        ),
    ],
)
def test_run_refuses_with_exit_code_2_and_the_remedy(flags: list[str], message: str):
    result = CliRunner().invoke(main, ["run", *flags])
    assert result.exit_code == 2
    assert message in result.output
