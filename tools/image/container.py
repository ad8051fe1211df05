"""Runs the built image with runc as a cluster does under pod security `restricted`.

The user is the image's, without capabilities or new privileges, on a root file system that cannot be written, and without
any other to write to.

The network is this machine's, so that a control plane on the loopback address is within reach, and the controller finds it
as in a pod: by the two variables of the service and the files of a ServiceAccount.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from tools.account import Replica
from tools.children import die_with_parent, signalled
from tools.controlplane.kubeconfig import Access
from tools.image.store import inspect, mounted
from tools.image.tooling import ImageError
from tools.manifests import NAME

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_NAMESPACES = ("pid", "ipc", "uts", "mount")
_FLAGS = ("nosuid", "noexec", "nodev")
_START_SECONDS = 120.0
_RETRY_SECONDS = 0.01
_OK = 200


def configuration(
    image: Mapping[str, Any], root: Path, command: Sequence[str], files: Mapping[str, Path], env: Sequence[str]
) -> dict[str, Any]:
    """The runtime's configuration for a command in an image; `files` by where they are mounted, read-only."""
    config = image["config"]
    uid, _, gid = config["User"].partition(":")
    devices = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": [*_FLAGS[:2], "mode=755", "size=64k"]}
    mounts = [{"destination": "/proc", "type": "proc", "source": "proc", "options": list(_FLAGS)}, devices]
    mounts += [
        {"destination": target, "type": "bind", "source": str(file), "options": ["bind", "ro", "nosuid", "nodev"]}
        for target, file in files.items()
    ]
    process: dict[str, Any] = {
        "user": {"uid": int(uid), "gid": int(gid)},
        "args": list(command) or [*config["Entrypoint"], *config.get("Cmd", ())],
        "env": [*config["Env"], *env],
        "cwd": config.get("WorkingDir") or "/",
        "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted")},
        "noNewPrivileges": True,
    }
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES]},
    }


@contextmanager
def _bundle(name: str, command: Sequence[str], access: Access | None) -> Iterator[list[str]]:
    """The command line that runs it. What runc keeps of it (state, cgroups) is removed at the end, whatever happened."""
    image, identity = inspect(name), f"driver-upgrade-{secrets.token_hex(6)}"
    with mounted(name) as root, tempfile.TemporaryDirectory() as directory:
        files = _service_account(access, Path(directory), image) if access else {}
        for target in files:  # the root is read-only for the container, so the places to mount on are made here
            (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
        entry = [*image["config"]["Entrypoint"], *command] if command and not command[0].startswith("/") else command
        config = configuration(image, root, entry, files, _service(access))
        (Path(directory) / "config.json").write_text(json.dumps(config))
        runc = ["runc", "--root", f"{directory}/state"]
        try:
            yield [*runc, "run", "--bundle", directory, identity]
        finally:
            subprocess.run([*runc, "delete", "--force", identity], capture_output=True, check=False)


def _service_account(access: Access, directory: Path, image: Mapping[str, Any]) -> dict[str, Path]:
    """What a kubelet mounts, for the image's user only."""
    folder = directory / "serviceaccount"
    folder.mkdir()
    for name, content in {"token": access.token.encode(), "ca.crt": access.ca, "namespace": NAME.encode()}.items():
        (folder / name).write_bytes(content)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o500 if path.is_dir() else 0o400)
        os.chown(path, int(image["config"]["User"].partition(":")[0]), -1)
    return {SERVICE_ACCOUNT: folder}


def _service(access: Access | None) -> list[str]:
    """The variables by which a pod finds the API server."""
    if access is None:
        return []
    url = urlsplit(access.server)
    return [f"KUBERNETES_SERVICE_HOST={url.hostname}", f"KUBERNETES_SERVICE_PORT={url.port}"]


def execute(name: str, *command: str, access: Access | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end: arguments of the entry point, or a program by its path."""
    with _bundle(name, command, access) as line:
        return subprocess.run(line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


class Controller:
    """The running controller: where it serves, and what it has logged."""

    def __init__(self, process: asyncio.subprocess.Process, began: float) -> None:
        self._process = process
        self.began = began
        """When the container was started, by time.monotonic."""
        self.lines: list[str] = []
        self.url = ""
        self.status: int | None = None
        """How it ended, once it has."""

    async def listening(self) -> None:
        """Reads the log up to the line that says where it listens.

        Raises:
            ImageError: it ended first.
        """
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.lines.append(line.decode(errors="replace").rstrip())
            if line.startswith(b"{") and (said := orjson.loads(line)).get("msg") == "listening":
                self.url = f"http://{said['address']}"
                return
        raise ImageError("the controller ended before it listened:\n" + "\n".join(self.lines[-15:]))

    async def answers(self, path: str) -> str:
        """Waits until a path answers with 200 and returns the text.

        Raises:
            TimeoutError: not within a minute.
        """
        async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(self.url + path) as response:
                        if response.status == _OK:
                            return await response.text()
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(_RETRY_SECONDS)

    async def read(self) -> None:
        """Takes in the rest of the log, so that the program never waits for its reader."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.lines.append(line.decode(errors="replace").rstrip())

    async def stop(self) -> None:
        """Asks it to end as a kubelet does."""
        if self._process.returncode is None:
            signalled(self._process, signal.SIGTERM)  # runc hands it on
        self.status = await self._process.wait()


@asynccontextmanager
async def controller(name: str, ours: Replica, *flags: str) -> AsyncIterator[Controller]:
    """Runs `driver-upgrade run` in the image while the context is open, as this replica of the manifests' account.

    Raises:
        ImageError: it does not start.
    """
    command = ("run", "--listen=127.0.0.1:0", "--log-format=json", *ours.flags, *flags)
    with _bundle(name, command, ours.access) as line:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        running = Controller(process, began)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await running.listening()
            reader = asyncio.create_task(running.read(), name="log of the container")
            yield running
            await running.stop()
            await reader
        finally:
            if process.returncode is None:
                signalled(process, signal.SIGKILL)
                await process.wait()


async def start_seconds(name: str, ours: Replica, path: str) -> float:
    """How long from the start of the container until a path answers."""
    async with controller(name, ours, "--driver-namespaces=default") as running:
        await running.answers(path)
        return time.monotonic() - running.began
