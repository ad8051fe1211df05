"""The commands as people and init containers run them: processes of their own, judged by output and exit code."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tools.children import die_with_parent, signalled
from tools.controlplane.api import PATIENCE

ROOT = Path(__file__).parents[2]
TIMEOUT = PATIENCE


@dataclass(frozen=True)
class Answer:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The output of `-o json`."""
        return orjson.loads(self.out)


class Command:
    """A running command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []

    async def said(self, text: str) -> str:
        """Waits for a line on standard output that has a text."""
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            while line := (await self._process.stdout.readline()).decode():
                self.lines.append(line)
                if text in line:
                    return line
        raise AssertionError(f"ended without {text!r}: {self.lines} {await self.ended()}")

    def terminate(self) -> None:
        """SIGTERM, as a kubelet ends a container."""
        signalled(self._process, signal.SIGTERM)

    async def ended(self) -> Answer:
        """Waits for the end."""
        async with asyncio.timeout(TIMEOUT):
            out, err = await self._process.communicate()
        assert self._process.returncode is not None
        return Answer(self._process.returncode, "".join(self.lines) + out.decode(), err.decode())

    async def stop(self) -> None:
        """Kills it if it still runs."""
        if self._process.returncode is None:
            signalled(self._process, signal.SIGKILL)
            await self._process.wait()


@asynccontextmanager
async def running(kubeconfig: Path, *words: str, **environment: str) -> AsyncIterator[Command]:
    """Starts `driver-upgrade WORDS`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRIVER_UPGRADE")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controller", *words),
        cwd=ROOT,
        env={**kept, "KUBECONFIG": str(kubeconfig), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    command = Command(process)
    try:
        yield command
    finally:
        await command.stop()


async def run(kubeconfig: Path, *words: str) -> Answer:
    """Runs `driver-upgrade WORDS` to its end."""
    async with running(kubeconfig, *words) as command:
        return await command.ended()
