"""Where images of this project are kept: a store of buildah's own kind in the cache, apart from the machine's.

Base images and the layers of earlier builds stay there, so that a build after a change of our code takes seconds.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.controlplane.build import cache_directory
from tools.image.tooling import run


def buildah(*arguments: str, check: bool = True) -> str:
    """Calls buildah on our store and returns what it wrote to standard output.

    Raises:
        ImageError: it failed.
    """
    store = cache_directory() / "images"
    store.mkdir(parents=True, exist_ok=True)
    return run("buildah", "--root", str(store), "--runroot", str(store / "run"), *arguments, check=check).strip()


def exists(name: str) -> bool:
    """Whether the store has an image of this name."""
    return name in buildah("images", "--noheading", "--format", "{{.Name}}:{{.Tag}}").split()


def inspect(name: str) -> dict[str, Any]:
    """The image's configuration as in the OCI specification: `config`, `architecture`, `history`, …."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]
    return found


def save(name: str, file: Path, tag: str) -> Path:
    """Writes an image into a file that `ctr images import` reads, under the name `tag`."""
    buildah("push", "--quiet", name, f"docker-archive:{file}:{tag}")
    return file


@contextmanager
def mounted(name: str) -> Iterator[Path]:
    """The image's root file system, in a working container of its own, as long as the context is open."""
    container = buildah("from", "--pull-never", name)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("umount", container)
        buildah("rm", container)
