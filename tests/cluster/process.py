"""The controller as its users run it: a process of its own, judged by its log, its HTTP answers and its exit code."""

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from tools.children import die_with_parent, signalled
from tools.controlplane.api import PATIENCE

ROOT = Path(__file__).parents[2]
TIMEOUT = PATIENCE
Line = dict[str, Any]
_PROSE = frozenset({"detail", "error", "blockers"})
"""Fields of which a part is enough."""


class Process:
    """A running controller. Its log lines are dictionaries; what is no JSON is a line with only a `msg`."""

    def __init__(self, process: asyncio.subprocess.Process, flags: tuple[str, ...] = ()) -> None:
        self._process = process
        self.flags = flags
        self.asked = False
        """Whether it was asked to stop, and not killed before."""
        self.signalled = math.inf
        """When it was first killed, frozen, or asked to stop, in seconds since the epoch."""
        self.synced = math.inf
        """When it knew the cluster, in seconds since the epoch; inf where that has not been."""
        self.over = math.inf
        """When it ended, or was about to."""
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read(), name="log of the controller")
        self.lines: list[Line] = []

    @classmethod
    async def start(cls, kubeconfig: Path, namespace: str, *flags: str, mutant: str = "") -> "Process":
        """Starts `python -m controller run` (or a mutant of it) on a free port; logs everything, as JSON."""
        program = ["tests.faults.mutant", mutant] if mutant else ["controller"]
        command = [sys.executable, "-m", *program, "run", "--listen", "127.0.0.1:0", "--kubeconfig", str(kubeconfig)]
        command += ["--driver-namespaces", namespace, "--log-format", "json", "--log-level", "debug", *flags]
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE, limit=2**20, preexec_fn=die_with_parent
        )
        return cls(process, flags)

    async def logged(self, **fields: str) -> Line:
        """Waits for a log line that has all the fields; see `_PROSE` for those that are compared in part."""
        try:
            async with asyncio.timeout(TIMEOUT), self._news:
                while not (found := self.found(**fields)):
                    assert not self._reader.done(), f"the controller ended without a log line with {fields}"
                    await self._news.wait()
                return found[0]
        except TimeoutError:
            raise AssertionError(f"no log line with {fields} within {TIMEOUT:g} s") from None

    def found(self, **fields: str) -> list[Line]:
        """The lines so far that have all the fields."""
        return [line for line in self.lines if _has(line, fields)]

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of one HTTP answer."""
        address = (await self.logged(msg="listening"))["address"]
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as response:
            return response.status, await response.text()

    async def metrics(self, until: "Callable[[Metrics], bool]" = lambda _: True) -> "Metrics":
        """What /metrics says, when it says so: nothing tells that a figure is another."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                status, text = await self.get("/metrics")
                assert status == 200
                if until(found := Metrics(text)):
                    return found
                await asyncio.sleep(0.05)

    @property
    def identity(self) -> str:
        """What it writes into a Lease; empty where it was not told who it is."""
        told = dict(flag.split("=", 1) for flag in self.flags if flag.startswith("--pod-"))
        return f"{told['--pod-name']}_{told['--pod-uid']}" if told else ""

    @property
    def running(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal: SIGSTOP freezes it, SIGCONT lets it go on."""
        if number != signal.SIGCONT:
            self.signalled = min(self.signalled, time.time())
        signalled(self._process, number)

    def kill(self) -> None:
        """SIGKILL: nothing can be saved."""
        self._end()
        signalled(self._process, signal.SIGKILL)

    def _end(self) -> None:
        self.over = min(self.over, time.time())
        self.signalled = min(self.signalled, self.over)

    async def ended(self) -> int:
        """Waits for the end and returns the exit code."""
        async with asyncio.timeout(TIMEOUT):
            await self._reader
            return await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, as a cluster ends its pods; returns the exit code."""
        if self._process.returncode is None:
            self.asked = self.signalled == math.inf
            self._end()
            signalled(self._process, signal.SIGTERM)
        try:
            return await self.ended()
        except TimeoutError:
            self.kill()
            raise

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            async with self._news:
                self.lines.append(_parsed(raw))
                if self.lines[-1]["msg"] == "caches synced":
                    self.synced = time.time()
                self._news.notify_all()
        self.over = min(self.over, time.time())
        async with self._news:
            self._news.notify_all()


class Metrics:
    """One scrape, asked by name and labels."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        self.names = {sample.name for sample in self._samples}

    def value(self, name: str, /, **labels: str) -> float:
        """The sum of all series of that name which have the labels; 0 where there is none."""
        found = [s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items()]
        return float(sum(found))


@asynccontextmanager
async def running(kubeconfig: Path, namespace: str, *flags: str, mutant: str = "") -> AsyncIterator[Process]:
    """A controller that must end cleanly, and must not have stumbled over anything, unless it was killed."""
    process = await Process.start(kubeconfig, namespace, *flags, mutant=mutant)
    try:
        yield process
    finally:
        code = await process.stop()
    assert code in {0, -signal.SIGKILL}, f"exit code {code}"
    assert not [line for line in process.lines if "exception" in line or "Traceback" in line["msg"]]


def _has(line: Mapping[str, Any], fields: Mapping[str, str]) -> bool:
    found = {name: line.get(name, "") for name in fields}
    return all(value in found[name] if name in _PROSE else value == found[name] for name, value in fields.items())


def _parsed(raw: bytes) -> Line:
    try:
        return dict(orjson.loads(raw))
    except orjson.JSONDecodeError:
        return {"msg": raw.decode(errors="replace").rstrip()}
