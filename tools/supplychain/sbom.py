"""The software bill of materials: CycloneDX 1.6, made and validated by cyclonedx-bom from the environment of the lock."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name

from controller import __version__
from tools.supplychain import environments, lock

SPECIFICATION: Final = "1.6"
Bom = Mapping[str, Any]
_VALIDATE: Final = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
with open(sys.argv[1], encoding="utf-8") as file:
    error = JsonStrictValidator(SchemaVersion.from_version(sys.argv[2])).validate_str(file.read())
sys.exit(str(error) if error else 0)
"""
"""Runs where cyclonedx-bom is installed, which is not where we run."""


class SbomError(RuntimeError):
    """The bill could not be made, or is not of its schema."""


def make() -> Bom:
    """The bill of what runs in the image: the controller, each package with version and licence, and who needs whom.

    Raises:
        SbomError: cyclonedx-bom failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "sbom.json"
        arguments = ["environment", "--pyproject", str(lock.ROOT / "pyproject.toml"), "--sv", SPECIFICATION]
        arguments += ["--output-reproducible", "-o", str(target), str(environments.runtime())]
        _run("cyclonedx-py", *arguments)
        bom: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    # The version is in controller/__init__.py, which pyproject.toml only points to.
    bom["metadata"]["component"]["version"] = __version__
    _add_hashes(bom)
    validate(bom)
    return bom


def validate(bom: Bom) -> None:
    """Holds a bill to the schema of its version.

    Raises:
        SbomError: It is not of that schema; says where.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sbom.json"
        path.write_text(json.dumps(bom), encoding="utf-8")
        _run("python", "-c", _VALIDATE, str(path), SPECIFICATION)


def licences(bom: Bom) -> Iterator[tuple[str, str, str]]:
    """Name, version and licence of each package: SPDX, as its own metadata declares it."""
    for component in bom["components"]:
        said = [_licence(choice) for choice in component.get("licenses", ())]
        # Trove classifiers repeat in other words what an SPDX identifier beside them says.
        spdx = [text for text in said if not text.startswith("License ::")]
        yield canonicalize_name(component["name"]), component["version"], " AND ".join(spdx or said)


def _run(program: str, *arguments: str) -> None:
    command = [str(environments.tool(program)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SbomError(f"{program} on the bill of materials: {done.stderr.strip()[-800:]}")


def _licence(choice: Mapping[str, Any]) -> str:
    if "expression" in choice:
        return str(choice["expression"])
    licence = choice["license"]
    return str(licence.get("id") or licence["name"])


def _add_hashes(bom: Mapping[str, Any]) -> None:
    """Adds what the lock knows and an installed environment no longer: the files that are let in."""
    pins = lock.read()
    for component in bom["components"]:
        pin = pins[canonicalize_name(component["name"])]
        hashes = [{"alg": "SHA-256", "content": value} for value in pin.hashes]
        known = component.setdefault("externalReferences", [])
        known.append({"type": "distribution", "comment": "any of these files", "url": component["purl"], "hashes": hashes})
