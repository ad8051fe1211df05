"""The demo, small and quick, as a user starts it: it ends by itself, says what happened, and leaves nothing running."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = ("--nodes", "4", "--parallel", "2", "--driver-seconds", "0.2", "--job-seconds", "20")
SECONDS = 300
MARK = "DRIVER_UPGRADE_TEST_MARK"
"""Put into the demo's environment, which everything that it starts inherits: so its processes are known from others'."""


async def play(*arguments: str, mark: str) -> tuple[int, str, str]:
    environment = {**os.environ, MARK: mark}
    environment.pop("DRIVER_UPGRADE_TEST_KUBECONFIG", None)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.demo", *arguments),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


def still_running(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has just ended, or is not ours
            continue
    return found


def removed_logs(output: str) -> set[str]:
    """The names of the logs that the demo kept, which it says where to find; they are removed."""
    kept = re.search(r"Logs of the controller and the control plane: (\S+)", output)
    assert kept, output
    directory = Path(kept[1])
    names = {path.name for path in directory.iterdir()}
    shutil.rmtree(directory)
    return names


async def test_it_upgrades_every_node_and_leaves_nothing_running() -> None:
    code, output, errors = await play(*SMALL, mark="whole")
    assert code == 0, output + errors
    assert re.search(r"Nodes upgraded +4 of 4", output)
    assert re.search(r"at once +at most [12]; the policy allows 2", output)
    assert re.search(r"node-4 .* waits for safe load", output)
    assert "wait-for-jobs-required: JobsRunning" in output
    assert "\x1b" not in output
    assert not still_running("whole")


async def test_a_rollout_that_takes_too_long_ends_with_1_and_says_where_to_look() -> None:
    code, output, errors = await play(*SMALL, "--timeout", "1", mark="late")
    assert code == 1, output + errors
    assert "not over after 1 s" in errors
    assert {"controller.log", "kube-controller-manager.log"} <= removed_logs(output)
    assert not still_running("late")
