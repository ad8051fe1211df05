"""The directory of one control plane, and the remains of others.

Every running control plane holds a lock on a file in its directory; the kernel releases it when the owner ends, however
it ends. A directory whose lock is free is therefore a left-over: whatever still runs from it is killed and the directory
removed, before anything new starts. That is the net below `children.die_with_parent`, which works on Linux only.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tools.controlplane.terminal import Reporter

_LOCK = "owner.lock"


class Instance:
    """A fresh directory, locked by this process until `close`."""

    def __init__(self) -> None:
        with _exclusive() as base:
            self.directory = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=base))
            self._lock: TextIO = (self.directory / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self, *, keep: bool = False) -> None:
        """Releases the lock and removes the directory; `keep` leaves it, for whoever wants to read the logs."""
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / _LOCK).unlink(missing_ok=True)  # a kept directory is nobody's left-over
        self._lock.close()


def sweep(report: Reporter) -> None:
    """Ends what earlier control planes left behind, saying so."""
    with _exclusive() as base:
        for directory in base.iterdir():
            try:
                lock = (directory / _LOCK).open("r+")
            except OSError:  # kept on purpose, or being removed this moment
                continue
            with lock:
                if _try_lock(lock):
                    _end(directory, report)


def _end(directory: Path, report: Reporter) -> None:
    pids = _processes_of(directory)
    report.line(f"Removing a control plane left over from another run: {directory}, {len(pids)} processes")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)


def _processes_of(directory: Path) -> list[int]:
    """Processes that have the directory, whose name is unique, in their command line."""
    if shutil.which("ps") is None:  # then this is a slim Linux, where the kernel has killed them already
        return []
    listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.strip().partition(" ") for line in listing.splitlines() if f"{directory}/" in line)
    return [int(pid) for pid, _, _ in rows if int(pid) != os.getpid()]


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _exclusive() -> Iterator[Path]:
    """The directory of all instances, in which nobody else makes or sweeps one meanwhile."""
    base = Path(tempfile.gettempdir()) / f"driver-upgrade-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    with (base / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield base
