"""What the commands on nodes would write, and when they refuse."""

import pytest

from controller.api.node import Node
from controller.cli import nodes
from controller.cli.common import CommandError
from controller.cli.nodes import Change, Nothing
from controller.upgrade.states import IN_PROGRESS, State
from tests.unit.upgrade.builders import KEYS, node, record

FAILED = node(State.UPGRADE_FAILED, record(State.UPGRADE_FAILED), cordoned=True)
DRAINED = node(State.DRAIN_REQUIRED, record(State.DRAIN_REQUIRED), cordoned=True)
KEPT = {KEYS.initial_unschedulable: "true"}
FOUND_CORDONED = node(State.DRAIN_REQUIRED, record(State.DRAIN_REQUIRED, claim=False), cordoned=True, notes=KEPT)
SKIPPED = {KEYS.skip: "true"}


@pytest.mark.parametrize(
    ("change", "on", "wanted"),
    [
        (nodes._retry, FAILED, {"labels": {KEYS.state: "upgrade-required"}}),
        (nodes._skip, node(), {"labels": SKIPPED}),
        (nodes._skip, node(labels={KEYS.skip: "false"}), {"labels": SKIPPED}),
        (nodes._unskip, node(labels=SKIPPED), {"labels": {KEYS.skip: None}}),
        (nodes._keep, FAILED, {"annotations": KEPT}),
        (nodes._keep, DRAINED, {"annotations": KEPT}),
        (nodes._release, node(notes=KEPT), {"annotations": {KEYS.initial_unschedulable: None}}),
    ],
)
def test_one_label_or_annotation_is_written(change: Change, on: Node, wanted: object):
    assert change(on, KEYS)[0] == wanted


@pytest.mark.parametrize(
    ("change", "on"),
    [
        (nodes._retry, node(State.UPGRADE_REQUIRED)),
        (nodes._skip, node(labels=SKIPPED)),
        (nodes._unskip, node()),
        (nodes._keep, node(State.DRAIN_REQUIRED, cordoned=True, notes=KEPT)),
        (nodes._release, DRAINED),
    ],
)
def test_twice_is_harmless(change: Change, on: Node):
    with pytest.raises(Nothing):
        change(on, KEYS)


@pytest.mark.parametrize("state", sorted({*State} - {State.UPGRADE_FAILED, State.UPGRADE_REQUIRED}))
def test_only_failed_nodes_are_retried(state: State):
    with pytest.raises(CommandError, match="is not failed") as raised:
        nodes._retry(node(state), KEYS)
    assert (KEYS.requested in raised.value.message) == (state not in IN_PROGRESS), "a way where one is open"


@pytest.mark.parametrize(
    "on",
    [
        node(),
        node(cordoned=True),
        node(State.UPGRADE_DONE, cordoned=True),
        node(State.CORDON_REQUIRED, cordoned=True),
        node(State.UPGRADE_FAILED),
    ],
    ids=["unknown", "foreign", "done", "not-yet", "uncordoned"],
)
def test_a_cordon_that_is_not_the_upgrades_is_kubectls_business(on: Node):
    with pytest.raises(CommandError, match="kubectl cordon n1"):
        nodes._keep(on, KEYS)


def test_a_driver_that_does_not_hold_the_cordon_is_not_asked_to_keep_it():
    """It had failed, a person took its cordon away, and another driver has cordoned the node since, and will lift that."""
    lost = node(State.UPGRADE_FAILED, record(State.UPGRADE_FAILED, claim=False), cordoned=True)
    with pytest.raises(CommandError, match="--driver"):
        nodes._keep(lost, KEYS)


def test_a_cordon_from_before_the_upgrade_is_not_promised_to_be_lifted():
    with pytest.raises(CommandError, match="kubectl uncordon n1"):
        nodes._release(FOUND_CORDONED, KEYS)


def test_an_upgrade_under_way_is_said_to_finish():
    assert "finished" in nodes._skip(DRAINED, KEYS)[1]
    assert "finished" not in nodes._skip(node(), KEYS)[1]
