"""One program of the control plane: started so that it cannot outlive us, and killed with certainty.

Three nets, because a left-over controller-manager falsifies every later measurement: the owner kills what it started
(context manager, `atexit`); on Linux the kernel kills the program when the thread that started it ends, however it ends
(PR_SET_PDEATHSIG); and each runs in a process group of its own, so that Ctrl-C in a terminal reaches only the owner,
which then stops everything in order. SIGKILL is the normal way to stop: there is nothing to save.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tools.children import die_with_parent

_PROBE_INTERVAL = 0.03
_ROOT = Path(__file__).parents[2]  # where `python -m tools.…` finds its modules


class ComponentError(RuntimeError):
    """A program of the control plane died or did not become ready; the message has the tail of its log."""


class Component:
    """A program with its command line and its log; can be started again after it was killed."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running program.

        Raises:
            ComponentError: it is not running.
        """
        self.check()
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the program; its output is appended to the log."""
        assert not self.running, f"{self.name} is already running"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - it takes no lock and calls one function of libc
            )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the program's process group (SIGSTOP makes it hang, SIGCONT goes on)."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """Ends the program and whatever it started; nothing happens if it has ended already."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def check(self) -> None:
        """Raises ComponentError if the program is not running."""
        if not self.running:
            status = "was not started" if self._process is None else f"ended with status {self._process.returncode}"
            raise ComponentError(f"{self.name} {status}; the end of {self.log}:\n{self.tail()}")

    def tail(self, lines: int = 20) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    async def ready(self, probe: Callable[[], Awaitable[bool]], timeout: float) -> None:  # noqa: ASYNC109
        """Waits until the probe succeeds; a program that is starting announces nothing, so it is asked again and again.

        Raises:
            ComponentError: the program died, or was not ready after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not await probe():
            self.check()
            if time.monotonic() > deadline:
                raise ComponentError(f"{self.name} is not ready after {timeout:g} s; the end of {self.log}:\n{self.tail()}")
            await asyncio.sleep(_PROBE_INTERVAL)
