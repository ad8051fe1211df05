"""The states of a node's upgrade and the edges between them (design, sections 3 and 6).

The values are the label values of the seed. ``UNKNOWN`` is the absent label.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a node stands in its upgrade."""

    UNKNOWN = ""
    UPGRADE_REQUIRED = "upgrade-required"
    CORDON_REQUIRED = "cordon-required"
    WAIT_FOR_JOBS_REQUIRED = "wait-for-jobs-required"
    POD_DELETION_REQUIRED = "pod-deletion-required"
    DRAIN_REQUIRED = "drain-required"
    POD_RESTART_REQUIRED = "pod-restart-required"
    VALIDATION_REQUIRED = "validation-required"
    UNCORDON_REQUIRED = "uncordon-required"
    UPGRADE_DONE = "upgrade-done"
    UPGRADE_FAILED = "upgrade-failed"


_S = State

IN_PROGRESS = frozenset(
    {
        _S.CORDON_REQUIRED,
        _S.WAIT_FOR_JOBS_REQUIRED,
        _S.POD_DELETION_REQUIRED,
        _S.DRAIN_REQUIRED,
        _S.POD_RESTART_REQUIRED,
        _S.VALIDATION_REQUIRED,
        _S.UNCORDON_REQUIRED,
    },
)
"""From the grant to the end: the states that hold a slot."""

VACATING = frozenset({_S.WAIT_FOR_JOBS_REQUIRED, _S.POD_DELETION_REQUIRED, _S.DRAIN_REQUIRED, _S.POD_RESTART_REQUIRED})
"""The states in which the node must be cordoned, whoever lifts the cordon."""

WATCHING_PODS = VACATING | {_S.VALIDATION_REQUIRED}
"""The states in which all pods of the node are looked at whatever the policy says."""

FINISHING = frozenset({_S.POD_RESTART_REQUIRED, _S.VALIDATION_REQUIRED, _S.UNCORDON_REQUIRED})
"""The states in which the old driver may already be gone."""

PEER_STATES = {
    "node-maintenance-required": _S.DRAIN_REQUIRED,
    "post-maintenance-required": _S.POD_RESTART_REQUIRED,
}
"""States of k8s-operator-libs' requestor mode, and what they are taken over as."""

EDGES: dict[State, frozenset[State]] = {
    _S.UNKNOWN: frozenset({_S.UPGRADE_REQUIRED, _S.UPGRADE_DONE}),
    _S.UPGRADE_DONE: frozenset({_S.UPGRADE_REQUIRED}),
    _S.UPGRADE_REQUIRED: frozenset({_S.CORDON_REQUIRED, _S.UPGRADE_DONE}),
    _S.CORDON_REQUIRED: frozenset(
        {
            _S.WAIT_FOR_JOBS_REQUIRED,
            _S.POD_DELETION_REQUIRED,
            _S.DRAIN_REQUIRED,
            _S.POD_RESTART_REQUIRED,
        },
    ),
    _S.WAIT_FOR_JOBS_REQUIRED: frozenset(
        {_S.POD_DELETION_REQUIRED, _S.DRAIN_REQUIRED, _S.POD_RESTART_REQUIRED, _S.UPGRADE_FAILED},
    ),
    _S.POD_DELETION_REQUIRED: frozenset({_S.DRAIN_REQUIRED, _S.POD_RESTART_REQUIRED, _S.UPGRADE_FAILED}),
    _S.DRAIN_REQUIRED: frozenset({_S.POD_RESTART_REQUIRED, _S.UPGRADE_FAILED}),
    _S.POD_RESTART_REQUIRED: frozenset(
        {_S.DRAIN_REQUIRED, _S.VALIDATION_REQUIRED, _S.UNCORDON_REQUIRED, _S.UPGRADE_DONE, _S.UPGRADE_FAILED},
    ),
    _S.VALIDATION_REQUIRED: frozenset(
        {_S.UNCORDON_REQUIRED, _S.UPGRADE_DONE, _S.UPGRADE_FAILED, _S.POD_RESTART_REQUIRED},
    ),
    _S.UNCORDON_REQUIRED: frozenset({_S.UPGRADE_DONE, _S.POD_RESTART_REQUIRED}),
    _S.UPGRADE_FAILED: frozenset({_S.VALIDATION_REQUIRED, _S.UPGRADE_REQUIRED}),
}
"""What may follow what by our own hand. Putting a node back (any state to UNKNOWN) is apart: design, section 6."""


def parse_state(label: str | None) -> State | None:
    """Return the state that a label value means, None for a value that we do not know."""
    if not label:
        return State.UNKNOWN
    if label in PEER_STATES:
        return PEER_STATES[label]
    try:
        return State(label)
    except ValueError:
        return None
