"""Two environments beside the one of development, each installed from its lock, file by file by hash.

`runtime` is what the image has and nothing else; `tools` has the makers of the bill of materials and the checkers of the
workflows, whose dependencies are none of ours. Both live in `.venv` and are made anew when their lock changes.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.supplychain import lock

HOME: Final = lock.ROOT / ".venv"
_STAMP = ".made-from"


class EnvironmentFailed(RuntimeError):  # noqa: N818 - what happened
    """It could not be installed; the message has pip's last words."""


def runtime() -> Path:
    """The interpreter of an environment with the packages of requirements.lock."""
    return _made("runtime", lock.RUNTIME)


def tool(name: str) -> Path:
    """A program of the tools' environment."""
    return _made("supplychain", lock.TOOLS).parent / name


def _made(name: str, locked: Path) -> Path:
    folder = HOME / name
    python = folder / "bin" / "python"
    wanted = hashlib.sha256(locked.read_bytes() + sys.version.encode()).hexdigest()
    stamp = folder / _STAMP
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    _run([*install, "--require-hashes", "--only-binary", ":all:", "--requirement", str(locked)])
    stamp.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EnvironmentFailed(f"`{' '.join(command)}` failed:\n{(done.stderr or done.stdout).strip()[-800:]}")
