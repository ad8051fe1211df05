"""What the built image is, and that it works as a cluster runs it: unprivileged, on a root that cannot be written."""

import json
import math
import re
import stat
from pathlib import Path

import pytest

from controller import __version__
from tools.account import Replica
from tools.controllerprocess import USER_AGENT
from tools.controlplane.audit import AuditLog
from tools.controlplane.cluster import ControlPlane
from tools.image import base, container, store
from tools.image.rootfs import LEFT_OUT, UNUSED
from tools.manifests import USER

START_SECONDS = 2.0
MOST_STARTS = 10
PYTHON = "/opt/driver-upgrade/bin/python3"
ROOT = Path(__file__).parents[2]


def said(image: str, program: str) -> str:
    """What a Python program in the image prints."""
    done = container.execute(image, PYTHON, "-c", program)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_is_what_its_labels_and_configuration_say(image: str) -> None:
    config = store.inspect(image)["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/opt/driver-upgrade/bin/driver-upgrade"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {"title", "description", "revision", "created"} <= {label.rpartition(".")[2] for label in labels}


def test_holds_no_shell_no_installer_no_compiler_and_nothing_of_the_build(image: str) -> None:
    with store.mounted(image) as root:
        programs = {path.name for folder in ("bin", "sbin", "local/bin") for path in (root / "usr" / folder).glob("*")}
        assert {re.sub(r"[\d.]+$", "", name) for name in programs} == {"python"}
        (packages,) = (root / "opt/driver-upgrade/lib").glob("python*/site-packages")
        installed = {path.name.partition("-")[0] for path in packages.iterdir()}
        assert not installed & {"pip", "setuptools", "wheel", "hatchling", "pytest"}
        assert not any((packages / name).exists() for name in UNUSED)
        (stdlib,) = (root / "usr").glob("lib*/python3.*")
        assert not {path.name for path in stdlib.iterdir()} & (set(LEFT_OUT) - {"__pycache__"})
        assert {path.name for path in root.iterdir()}.isdisjoint({"src", "build", "wheels", "home", "root"})
        assert not (root / "etc/pip.conf").exists()


def test_has_no_file_that_its_user_could_write_or_that_lends_rights(image: str) -> None:
    with store.mounted(image) as root:
        for path in root.rglob("*"):
            about = path.lstat()
            if not stat.S_ISLNK(about.st_mode) and path != root / "tmp":
                assert (about.st_uid, about.st_gid) == (0, 0), path
                assert not about.st_mode & (stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID), path


def test_every_module_is_compiled_and_taken_unchecked(image: str) -> None:
    with store.mounted(image) as root:
        sources = [path for path in root.rglob("*.py") if path.name.isidentifier() or path.stem.isidentifier()]
        assert len(sources) > 500
        for path in sources:
            (compiled,) = (path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")
            assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01, f"{path} is checked against its source"


def test_records_the_packages_that_its_files_come_from(image: str) -> None:
    with store.mounted(image) as root:
        records = {path.name: path.read_text() for path in (root / "var/lib/dpkg/status.d").iterdir()}
        assert {"libc6", "libssl3"} <= records.keys()
        assert all(re.search(r"^Version: \S+$", record, re.MULTILINE) for record in records.values())
        assert "bookworm" in (root / "etc/os-release").read_text()


def test_size(image: str) -> None:
    with store.mounted(image) as root:
        size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"the image holds {size / 2**20:.0f} MiB")  # noqa: T201 - a figure for whoever asks with -s
    assert size < 120 * 2**20


def test_holds_exactly_the_locked_packages(image: str) -> None:
    listing = (
        "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    )
    found = json.loads(said(image, listing))
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))

    def plain(name: str) -> str:
        return name.lower().replace("_", "-")

    installed = {plain(name): version for name, version in found.items()}
    wanted = {plain(name): version for name, version in locked.items()}
    assert installed.pop("driver-upgrade-controller") == __version__
    assert installed.items() <= wanted.items()
    assert {"aiohttp", "msgspec", "orjson", "kubernetes-asyncio"} <= installed.keys()


def test_runs_as_nobody_who_may_do_anything(image: str) -> None:
    program = (
        "import os, json, pathlib, tempfile\n"
        "status = dict(l.split(':\\t', 1) for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)\n"
        "def writes(path):\n"
        "    try: pathlib.Path(path, 'probe').write_text('')\n"
        "    except OSError: return False\n"
        "    return True\n"
        "print(json.dumps([os.getuid(), os.getgid(), status['CapEff'], status['NoNewPrivs'],"
        " [p for p in ('/', '/tmp', '/opt/driver-upgrade', '/run', '/etc') if writes(p)]]))"
    )
    uid, gid, capabilities, no_new_privileges, writable = json.loads(said(image, program))
    assert (uid, gid, int(capabilities, 16), no_new_privileges) == (10001, 10001, 0, "1")
    assert writable == []


def test_trusts_the_public_authorities(image: str) -> None:
    program = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(said(image, program)) > 50


@pytest.mark.parametrize(("arguments", "expected"), [(("--version",), __version__), ((), "wait-for-safe-load")])
def test_its_entry_point_is_the_command(image: str, arguments: tuple[str, ...], expected: str) -> None:
    done = container.execute(image, *arguments)
    assert expected in done.stdout + done.stderr


def test_prints_its_custom_resource_definitions(image: str) -> None:
    done = container.execute(image, "crd")
    assert done.stdout.count("kind: CustomResourceDefinition") == len(
        list((ROOT / "manifests/crd").glob("*.nvidia.com.yaml"))
    )


async def test_runs_until_ready_and_ends_when_asked(image: str, ours: Replica) -> None:
    async with container.controller(image, ours, "--driver-namespaces=default") as running:
        await running.answers("/readyz")
        assert "driver_upgrade" in await running.answers("/metrics")
    assert running.status == 0, running.lines[-5:]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_is_there_within_2_s(image: str, ours: Replica, path: str) -> None:
    """The best of several, for what else the machine does is not the image's fault; 0.3 s where it does nothing else."""
    taken: list[float] = []
    while len(taken) < MOST_STARTS and min(taken, default=math.inf) > START_SECONDS:
        taken.append(await container.start_seconds(image, ours, path))
    assert min(taken) <= START_SECONDS, f"start to {path}: {taken}"


async def test_is_never_an_administrator(image: str, ours: Replica, control_plane: ControlPlane) -> None:
    if not control_plane.components:
        pytest.skip("a given test cluster does not hand out its audit log")
    audit = AuditLog(control_plane.audit_log)
    audit.skip()
    async with container.controller(image, ours, "--driver-namespaces=default") as running:
        await running.answers("/readyz")
    assert {request.user for request in audit.read() if request.client == USER_AGENT} == {USER}


def test_the_base_is_pinned_by_its_digest() -> None:
    """In full, for no machine need know where short names are found; in the FROM, where Dependabot looks."""
    assert re.fullmatch(r"docker\.io/library/python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base.public_name())
    froms = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert froms == [base.public_name(), "scratch"]
