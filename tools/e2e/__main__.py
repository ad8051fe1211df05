"""Command line: `python -m tools.e2e`: build, enter namespaces, run tests/e2e in there, remove everything.

Exit codes: 0 all went well, 1 something did not, 3 this machine cannot run a real node, and nothing was run.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from tools.children import die_with_parent
from tools.controlplane.binaries import resolve
from tools.controlplane.build import COMPONENTS, BuildError, ensure, locked
from tools.controlplane.gotoolchain import ToolchainError
from tools.controlplane.terminal import Reporter
from tools.e2e import cgroups, node
from tools.e2e.images.build import archives
from tools.e2e.inside import places
from tools.e2e.needs import missing, unshare
from tools.image.tooling import ImageError

NOT_RUN = 3
ROOT = Path(__file__).parents[2]


@click.command(context_settings={"ignore_unknown_options": True}, help=__doc__)
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def main(pytest_arguments: tuple[str, ...]) -> None:
    """Entry point."""
    if reasons := missing():
        click.echo("NOT RUN: there can be no real node on this machine:\n  " + "\n  ".join(reasons), err=True)
        sys.exit(NOT_RUN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # everything is removed then, too
    report, began = Reporter(), time.monotonic()
    try:
        with locked("e2e", report):
            _sweep()
            with tempfile.TemporaryDirectory(prefix=cgroups.PREFIX) as directory:
                _build(Path(directory), report)
                built = time.monotonic()
                status = _run(Path(directory), pytest_arguments)
    except (BuildError, ToolchainError, ImageError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    ended = time.monotonic()
    outcome = "all went well" if status == 0 else f"FAILED (pytest ended with status {status})"
    report.line(f"e2e on a real node: {outcome}; built in {built - began:.0f} s, ran for {ended - built:.0f} s; all removed")
    sys.exit(1 if status else 0)


def _sweep() -> None:
    """Removes what earlier runs have left, if they were killed. No other run lives: we hold the lock."""
    cgroups.sweep()
    for left in Path(tempfile.gettempdir()).glob(f"{cgroups.PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def _build(directory: Path, report: Reporter) -> None:
    """Everything that needs the network, which is not there inside."""
    resolve(report)
    ensure(COMPONENTS["kubelet"], report)
    (directory / "images").mkdir()
    archives(directory / "images", report)


def _run(directory: Path, arguments: tuple[str, ...]) -> int:
    name = f"{cgroups.PREFIX}{secrets.token_hex(4)}"
    with cgroups.own(name) as cgroup_root, places():
        tests = [sys.executable, "-m", "pytest", "tests/e2e", "-p", "no:cacheprovider", "-q", "-s", "-x"]
        inside = unshare(sys.executable, "-m", "tools.e2e.inside", str(directory), *tests, *arguments)
        environment = {**os.environ, node.IMAGES_VARIABLE: str(directory / "images"), node.CGROUP_VARIABLE: cgroup_root}
        process = subprocess.Popen(inside, cwd=ROOT, env=environment, preexec_fn=die_with_parent)  # noqa: PLW1509 - no lock
        try:
            return process.wait()
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main(prog_name="python -m tools.e2e")
