"""A base image for machines that cannot pull the public one: Debian's own Python, installed by debootstrap.

It stands for the image that the Dockerfile builds on: the same Debian release, the same Python version, pip
and venv. It is packed once into `<cache>/base-<suite>-<digest>/rootfs.tar`, after the rules of
`tools.controlplane.build`: the digest covers what makes it, a directory that exists is complete.
"""

import hashlib
import platform
import re
import shutil
import tempfile
from pathlib import Path

from tools.controlplane.build import cache_directory, locked
from tools.controlplane.terminal import Reporter
from tools.image.tooling import ImageError, run

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"
_UNNEEDED = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")


def public_name() -> str:
    """The base that the Dockerfile names, by digest.

    Raises:
        ImageError: it names none, or one without a digest.
    """
    match = re.search(r"^FROM (\S+@sha256:[0-9a-f]{64}) AS build$", DOCKERFILE.read_text(), re.MULTILINE)
    if match is None:
        raise ImageError(f"{DOCKERFILE.name}: no `FROM name@sha256:… AS build`; pin the base by its digest")
    return match[1]


def digest() -> str:
    """Twelve hex digits that change when the base would."""
    return hashlib.sha256("\0".join((SUITE, platform.machine(), *PACKAGES)).encode()).hexdigest()[:12]


def ensure(report: Reporter) -> Path:
    """Returns the packed root file system of the base, making it if need be. Blocks: about a minute the first time.

    Raises:
        ImageError: debootstrap failed; the message ends with what it said.
    """
    packed = cache_directory() / f"base-{SUITE}-{digest()}" / "rootfs.tar"
    if not packed.exists():
        with locked(f"base-{SUITE}", report):
            if not packed.exists():
                _make(packed, report)
    return packed


def _make(packed: Path, report: Reporter) -> None:
    title = f"Making a base image of Debian {SUITE} (about 1 min, the first time only)"
    with tempfile.TemporaryDirectory(prefix=".base-", dir=cache_directory()) as scratch, report.task(title):
        root, out = Path(scratch) / "root", Path(scratch) / "out"
        try:
            run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root))
        except ImageError as error:
            log = root / "debootstrap" / "debootstrap.log"
            said = log.read_text(errors="replace")[-800:] if log.exists() else ""
            raise ImageError(f"{error}\n{said}") from error
        for name in _UNNEEDED:
            shutil.rmtree(root / name, ignore_errors=True)
        out.mkdir()
        run("tar", "--numeric-owner", "--exclude=./dev/*", "-C", str(root), "-cf", str(out / packed.name), ".")
        shutil.rmtree(packed.parent, ignore_errors=True)
        out.rename(packed.parent)
