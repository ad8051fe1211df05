"""The controller as users run it: a process started by `python -m controller run`, and watched from outside.

Its log goes to a file, line by line through our hands, so that whoever shows or measures it hears each line when it is
written. Leaving the context asks it to stop (SIGTERM), as a kubelet would, and insists if it does not.
"""

import asyncio
import os
import re
import signal
import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from tools.account import Replica
from tools.children import die_with_parent, signalled

T = TypeVar("T")
Labels = tuple[tuple[str, str], ...]
Samples = Mapping[str, Mapping[Labels, float]]
Heard = Callable[[Mapping[str, Any]], None]
ROOT = Path(__file__).parents[1]
START_SECONDS = 30.0
STOP_SECONDS = 20.0
CRDS = tuple(sorted((ROOT / "manifests" / "crd").glob("*.nvidia.com.yaml")))
USER_AGENT = "driver-upgrade"
"""The controller's name in the API server's audit log."""
_TAIL = 15
_KIB_PER_MIB = 1024


class ControllerError(RuntimeError):
    """The controller did not start, or ended before it was asked to; the message has the end of its log."""


class ControllerProcess:
    """A running controller. Made by `running`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.log = log
        self.url = ""
        """Where it serves /metrics."""
        self.status: int | None = None
        """How it ended, once it has."""
        self._process = process
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._listening = asyncio.Event()
        self._ended = asyncio.create_task(process.wait(), name="controller's end")

    async def alongside(self, work: Awaitable[T]) -> T:
        """Awaits something that only makes sense while the controller runs.

        Raises:
            ControllerError: it ended first.
        """
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ControllerError(self._obituary())
            return task.result()
        finally:
            task.cancel()

    async def listening(self) -> None:
        """Waits until it serves.

        Raises:
            ControllerError: it ended first, or does not serve within half a minute.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.alongside(self._listening.wait())
        except TimeoutError:
            raise ControllerError(f"the controller does not listen after {START_SECONDS:g} s; see {self.log}") from None

    async def metrics(self) -> dict[str, dict[Labels, float]]:
        """What it tells at /metrics: value by sample name and sorted labels."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            response.raise_for_status()
            return parsed(await response.text())

    def peak_memory_mib(self) -> float | None:
        """The most memory that it has held so far (VmHWM); None where the system does not tell (only Linux does)."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) / _KIB_PER_MIB if found else None

    async def read(self, heard: Heard) -> None:
        """Copies its log to the file and tells each line that is a JSON object, until it ends."""
        assert self._process.stderr is not None
        with self.log.open("ab", buffering=0) as file:
            async for line in self._process.stderr:
                file.write(line)
                self._tail.append(line.decode(errors="replace").rstrip())
                if line.startswith(b"{"):
                    self._hear(orjson.loads(line), heard)

    async def stop(self) -> None:
        """Asks it to end, and after a while makes it."""
        if self._process.returncode is None:
            signalled(self._process, signal.SIGTERM)
            await asyncio.wait({self._ended}, timeout=STOP_SECONDS)
        if self._process.returncode is None:
            signalled(self._process, signal.SIGKILL)
        self.status = await self._ended

    def _hear(self, line: Mapping[str, Any], heard: Heard) -> None:
        if line.get("msg") == "listening":
            self.url = f"http://{line['address']}"
            self._listening.set()
        heard(line)

    def _obituary(self) -> str:
        last = "\n".join(self._tail) or "(it said nothing)"
        return f"the controller ended with status {self._process.returncode}; the end of {self.log}:\n{last}"


@asynccontextmanager
async def running(
    ours: Replica, log: Path, *flags: str, heard: Heard = lambda _line: None
) -> AsyncIterator[ControllerProcess]:
    """Runs the controller while the context is open.

    Args:
        ours: who it is: the account of the manifests, and never an administrator.
        log: file that its log is appended to.
        flags: more of the command line.
        heard: called with each line of its log.

    Raises:
        ControllerError: it did not start.
    """
    command = [sys.executable, "-m", "controller", "run", "--kubeconfig", str(ours.kubeconfig), "--log-format", "json"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--listen",
        "127.0.0.1:0",
        *ours.flags,
        *flags,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches us alone, and we stop it
        preexec_fn=die_with_parent,
    )
    controller = ControllerProcess(process, log)
    reader = asyncio.create_task(controller.read(heard), name="controller's log")
    try:
        await controller.listening()
        yield controller
    finally:
        await asyncio.shield(asyncio.create_task(controller.stop()))
        await reader


def parsed(text: str) -> dict[str, dict[Labels, float]]:
    """Prometheus text as values by sample name and sorted labels."""
    samples: dict[str, dict[Labels, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return dict(samples)


def difference(before: Samples, after: Samples) -> dict[str, dict[Labels, float]]:
    """How much each sample grew; what was not there before began at 0."""
    return {
        name: {labels: value - before.get(name, {}).get(labels, 0.0) for labels, value in values.items()}
        for name, values in after.items()
    }
