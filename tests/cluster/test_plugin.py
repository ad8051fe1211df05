"""The command as kubectl's plugin: `kubectl driver-upgrade`, by the second name under which the package installs it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import orjson

from tools import manifests
from tools.controlplane.cluster import ControlPlane


async def test_kubectl_finds_it_and_hands_it_flags_and_kubeconfig(control_plane: ControlPlane, crds: None):
    found = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [manifests.kubectl(), "driver-upgrade", "status", "-o", "json"]
    environment = {**os.environ, **found, "KUBECONFIG": str(control_plane.kubeconfig)}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout).keys() >= {"time", "policies", "nodes"}
