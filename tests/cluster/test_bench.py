"""The benchmark, small: it ends with a line that programs can read. What the figures are is not judged here."""

import asyncio
import os
import sys
from pathlib import Path

import orjson

ROOT = Path(__file__).parents[2]
SECONDS = 400


async def test_the_last_line_is_json_with_every_figure() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.bench", "--nodes", "6", "--parallel", "2"),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "DRIVER_UPGRADE_TEST_KUBECONFIG"},
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
