"""The labels and annotations of one driver, and what they say of a node; written apart from the controller's own."""

import json
from functools import lru_cache
from typing import Any

from tests.checker.events import Obj, Subject
from tests.sim.objects import annotations, labels

ACT = frozenset(
    {
        "cordon-required",
        "wait-for-jobs-required",
        "pod-deletion-required",
        "drain-required",
        "pod-restart-required",
        "validation-required",
        "uncordon-required",
    }
)
YEAR_10000 = 253_402_300_800
HASH = "controller-revision-hash"


@lru_cache(maxsize=16384)
def parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    since = found.get("since", 0.0) if isinstance(found, dict) else None
    well_formed = isinstance(since, float | int) and 0 <= since < YEAR_10000 and isinstance(found.get("state", ""), str)
    return found if well_formed else {}


class Names:
    """The keys of a subject's driver. The answers are never to be changed."""

    def __init__(self, subject: Subject) -> None:
        stem = f"{subject.domain}/{subject.driver}-driver-upgrade"
        self.label = f"{stem}-state"
        self.skip = f"{stem}.skip"
        self.drain_skip = f"{stem}-drain.skip"
        self.note = f"{stem}.record"
        self.keep = f"{stem}.node-initial-state.unschedulable"
        self.safe_load = f"{stem}.driver-wait-for-safe-load"
        self.requested = f"{stem}-requested"
        self.requestor = f"{stem}-requestor-mode"
        self.clocks = (f"{stem}-wait-for-pod-completion-start-time", f"{stem}-validation-start-time")
        self.removed = frozenset({self.safe_load, self.requested, *self.clocks})
        """Marks that we take off, and never put on."""
        self.annotations = frozenset({self.note, self.keep, self.safe_load, self.requested, *self.clocks})

    def state(self, node: Obj | None) -> str:
        """The state label; none where it came with the record of another node of this name."""
        if node is None or (self.any_record(node) and not self.record(node)):
            return ""
        return labels(node).get(self.label, "")

    def record(self, node: Obj | None) -> dict[str, Any]:
        """The record of this very node; empty where there is none that can be read."""
        found = self.any_record(node)
        return found if node and found.get("node", "") in {"", node["metadata"]["uid"]} else {}

    def any_record(self, node: Obj | None) -> dict[str, Any]:
        """The record on the node, of whatever node it is."""
        text = annotations(node).get(self.note) if node else None
        return parsed(text) if isinstance(text, str) and text else {}

    def held(self, node: Obj | None) -> bool:
        """Whether the node is in progress, by label or record."""
        return self.state(node) in ACT or self.record(node).get("state") in ACT

    def claims(self, node: Obj | None) -> bool:
        """Whether this driver's record says that the cordon is ours."""
        return bool(self.record(node).get("claim"))


def cordoned(node: Obj | None) -> bool:
    return bool(node and node["spec"].get("unschedulable"))
