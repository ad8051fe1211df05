"""The benchmark, small: it ends with a line that programs can read, and its broken nodes are. Its figures are not judged."""

import asyncio
import os
import sys
from pathlib import Path

import orjson
import pytest

from tools.bench.broken import measured
from tools.bench.kinds import KINDS
from tools.controlplane.api import Api
from tools.controlplane.cluster import KUBECONFIG_VARIABLE, ControlPlane

ROOT = Path(__file__).parents[2]
SECONDS = 400


async def test_the_last_line_is_json_with_every_figure() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.bench", "--nodes", "6", "--parallel", "2"),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != KUBECONFIG_VARIABLE},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    figures = orjson.loads(output.splitlines()[-1])
    keys = ["nodes", "parallel", "makespan_s", "floor_s", "ratio", "requests_per_node", "peak_rss_mib"]
    assert list(figures) == keys
    assert (figures["nodes"], figures["parallel"]) == (6, 2)
    assert all(figures[key] > 0 for key in keys if figures[key] is not None)
    assert "drain-required" in output.decode()


async def test_every_kind_of_broken_node_is_told_to_be_broken_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a control plane of its own, as the benchmark has it: it refuses to go on where one is not."""
    monkeypatch.delenv(KUBECONFIG_VARIABLE, raising=False)
    async with ControlPlane.start() as cp, Api(cp.access) as api:
        seconds, fates = await measured(cp, api, KINDS, (), SECONDS)
    assert seconds > 0
    assert list(fates) == list(KINDS)
    for kind, each in KINDS.items():
        assert str(each.reason) in fates[kind]
