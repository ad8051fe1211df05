"""What building and running an image needs from this machine, and how its programs are called."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "runc": "runc"}
"""Debian's package of each program."""
_TAIL = 30


class ImageError(RuntimeError):
    """The image could not be built or run; the message ends with what the program said."""


def missing(programs: Iterable[str] = PACKAGES) -> list[str]:
    """Why images cannot be built or run on this machine; empty where they can. Each line has the remedy."""
    if sys.platform != "linux":
        return [f"this is {sys.platform}: images are built and run on Linux (any container engine can build the Dockerfile)"]
    found = []
    if os.geteuid() != 0:
        found.append("not root: building needs chroot and mounts; run it as root")
    if absent := sorted(PACKAGES[name] for name in programs if shutil.which(name) is None):
        found.append(f"not installed: {', '.join(absent)}; apt-get install --no-install-recommends {' '.join(absent)}")
    return found


def run(*command: str, check: bool = True) -> str:
    """Runs a program to its end and returns what it wrote to standard output.

    Raises:
        ImageError: it failed, unless `check` is off.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-_TAIL:])
        raise ImageError(f"`{' '.join(command)[:300]}` ended with status {done.returncode}:\n{said}")
    return done.stdout
