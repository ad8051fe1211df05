"""Whose cordon it is, and who may lift it (design, section 6).

A cordon belongs to the node. Each driver's record may hold a claim on it; who ends first drops its claim, the last lifts
the cordon. A cordon that no record claims is foreign: it is remembered by key 5 and stays. Cordon and claim always go in
one PATCH, so that a crash between the two cannot happen.
"""

from collections.abc import Mapping

import msgspec

from controller.upgrade.keys import TRUE
from controller.upgrade.snapshot import NodeView


class Cordon(msgspec.Struct, frozen=True):
    """The part of a PATCH that concerns the cordon."""

    claim: bool
    unschedulable: bool | None = None
    annotations: Mapping[str, str | None] = {}


def take(view: NodeView) -> Cordon:
    """Cordon the node, or leave a foreign cordon as it is and remember to leave it at the end.

    On a schedulable node key 5 is what an earlier upgrade, or a cordon lifted since, has left behind.
    """
    if view.foreign_cordon:
        return Cordon(claim=False, annotations={} if view.keeps_cordon else {view.keys.initial_unschedulable: TRUE})
    return Cordon(claim=True) if view.node.unschedulable else take_again(view)


def take_again(view: NodeView) -> Cordon:
    """Cordon a schedulable node: whosever cordon it had before, this one is ours."""
    return Cordon(claim=True, unschedulable=True, annotations=_without(view.keys.initial_unschedulable, view))


def lifts(view: NodeView) -> bool:
    """Whether ending here lifts the cordon: it is ours, nobody else claims it, and nobody asked to keep it."""
    claims = any(o.claim for o in view.others)
    return view.node.unschedulable and view.claimed and not view.annotated(view.keys.initial_unschedulable) and not claims


def release(view: NodeView) -> Cordon:
    """Drop our claim; lift the cordon if it was the last; hand key 5 on to a driver that still claims the node."""
    annotations = _without(view.keys.initial_unschedulable, view)
    if annotations:
        heir = next((o for o in view.others if o.claim and not o.keeps_cordon), None)
        if heir is not None:
            annotations[heir.keys.initial_unschedulable] = TRUE
    return Cordon(claim=False, unschedulable=False if lifts(view) else None, annotations=annotations)


def _without(key: str, view: NodeView) -> dict[str, str | None]:
    return {key: None} if view.annotated(key) else {}
