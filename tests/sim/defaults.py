"""Defaults of custom resources, from the schemas that we ship: an API server fills them in with every write."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.sim.objects import Obj

CRDS = Path(__file__).parents[2] / "manifests" / "crd"


@cache
def schema(kind: str) -> Obj:
    """What our own kinds look like; empty for others."""
    path = CRDS / f"{kind}.nvidia.com.yaml"
    if not path.exists():
        return {}
    (version,) = yaml.safe_load(path.read_text())["spec"]["versions"]
    found: Obj = version["schema"]["openAPIV3Schema"]
    return found


def defaulted(kind: str, obj: Obj) -> Obj:
    """The object with the defaults of its kind; the same object where nothing is missing."""
    filled: Obj = _filled(schema(kind), obj)
    return filled


def _filled(kind: Obj, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    new = value
    for name, inner in (kind.get("properties") or {}).items():
        if name not in value and "default" not in inner:
            continue
        before = value.get(name, inner.get("default"))
        after = _filled(inner, before)
        if name not in value or after is not before:
            new = {**new, name: after}
    return new
