"""The part of the cgroup hierarchy that one real node uses. It outlives namespaces, so it is removed by whoever made it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
PREFIX = "driver-upgrade-e2e-"
_REMOVAL_SECONDS = 20.0
_RETRY_SECONDS = 0.05


def hierarchies() -> list[Path]:
    """The one hierarchy of cgroup v2, or those of v1."""
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    return [path for path in MOUNT.iterdir() if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists()]


@contextmanager
def own(name: str) -> Iterator[str]:
    """A group of this name in every hierarchy while the context is open; yields it as kubelet's `cgroupRoot`."""
    for hierarchy in hierarchies():
        _make(hierarchy, name)
    try:
        yield f"/{name}"
    finally:
        for hierarchy in hierarchies():
            _remove(hierarchy / name)


def sweep() -> None:
    """Removes the groups of runs that were killed. Their processes ended with their namespaces; a living run's stay."""
    for hierarchy in hierarchies():
        for left in hierarchy.glob(f"{PREFIX}*"):
            for directory, _, _ in os.walk(left, topdown=False):
                with suppress(OSError):  # somebody is in there
                    Path(directory).rmdir()


def _make(hierarchy: Path, name: str) -> None:
    (hierarchy / name).mkdir(exist_ok=True)
    for file in ("cpuset.cpus", "cpuset.mems"):  # of v1: empty in a new group, and then no process may join
        source, target = hierarchy / file, hierarchy / name / file
        if target.exists() and source.exists() and not target.read_text().strip() and source.read_text().strip():
            target.write_text(source.read_text())


def _remove(top: Path) -> None:
    """Removes a group and those below; what still runs in them was started by us and is killed.

    Raises:
        OSError: something refuses to go; its path is in the message.
    """
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while top.exists():
        try:
            for directory, _, _ in os.walk(top, topdown=False):
                _kill(Path(directory))
                Path(directory).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)  # the kernel is still ending its processes, and announces nothing


def _kill(group: Path) -> None:
    with suppress(FileNotFoundError):
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
