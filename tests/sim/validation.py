"""What an API server makes of an object before it stores it: empty fields are absent ones, and some are refused."""

import re

from tests.sim.objects import Obj, annotations, labels

ANNOTATIONS_MOST = 256 * 1024
"""Bytes of all keys and values."""
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
_MAPS = ("labels", "annotations", "finalizers", "ownerReferences")


def trimmed(kind: str, obj: Obj) -> Obj:
    """The object without what its encoding leaves out; the same object where there is nothing of it."""
    meta = obj["metadata"]
    if any(name in meta and not meta[name] for name in _MAPS):
        kept = {name: value for name, value in meta.items() if value or name not in _MAPS}
        obj = {**obj, "metadata": kept}
    if kind == "nodes" and obj["spec"].get("unschedulable") is False:
        obj = {**obj, "spec": {name: value for name, value in obj["spec"].items() if name != "unschedulable"}}
    return obj


def complaint(obj: Obj) -> Obj | None:
    """Why labels and annotations cannot be stored, as a cause of a Status; None where they can."""
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations(obj).items()) > ANNOTATIONS_MOST:
        said = f"Too long: may not be more than {ANNOTATIONS_MOST} bytes"
        return {"reason": "FieldValueTooLong", "message": said, "field": "metadata.annotations"}
    for value in labels(obj).values():
        if not _LABEL.fullmatch(value):
            said = f'Invalid value: "{value}": a valid label must be an empty string or at most 63 characters'
            return {"reason": "FieldValueInvalid", "message": said, "field": "metadata.labels"}
    return None
