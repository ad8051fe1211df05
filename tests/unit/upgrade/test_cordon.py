"""Whose cordon it is: the claims of the design's section 6, for one driver and for two."""

import pytest

from controller.upgrade.cordon import Cordon, lifts, release, take, take_again
from controller.upgrade.snapshot import NodeView, OtherDriver, claims_by_label, other_driver
from controller.upgrade.states import State
from tests.unit.upgrade.builders import KEYS, OFED, OLD, node, other, record, view

S = State
OURS, NOT_OURS = record(S.DRAIN_REQUIRED), record(S.DRAIN_REQUIRED, claim=False)
KEY5, OFED_KEY5 = KEYS.initial_unschedulable, OFED.initial_unschedulable
CLAIMS, WITHOUT = other(S.DRAIN_REQUIRED, claim=True), other(S.DRAIN_REQUIRED)
KEEPS = other(S.DRAIN_REQUIRED, claim=True, keeps=True)


def on(*, cordoned: bool, claim: bool, key5: str | None = None, others: tuple[OtherDriver, ...] = ()) -> NodeView:
    notes = {} if key5 is None else {KEY5: key5}
    return view(node(S.DRAIN_REQUIRED, OURS if claim else NOT_OURS, cordoned=cordoned, notes=notes), OLD, others=others)


@pytest.mark.parametrize(
    ("situation", "view", "cordon"),
    [
        ("schedulable", on(cordoned=False, claim=False), Cordon(True, True)),
        ("schedulable, stale key 5", on(cordoned=False, claim=False, key5="true"), Cordon(True, True, {KEY5: None})),
        ("foreign", on(cordoned=True, claim=False), Cordon(False, None, {KEY5: "true"})),
        ("foreign, key 5 there", on(cordoned=True, claim=False, key5="true"), Cordon(False)),
        ("foreign, key 5 odd", on(cordoned=True, claim=False, key5="no"), Cordon(False, None, {KEY5: "true"})),
        ("ours since the failure", on(cordoned=True, claim=True), Cordon(True)),
        ("ours, to be kept", on(cordoned=True, claim=True, key5="true"), Cordon(True)),
        ("the other driver's", on(cordoned=True, claim=False, others=(CLAIMS,)), Cordon(True)),
        (
            "the other driver is there without a claim",
            on(cordoned=True, claim=False, others=(WITHOUT,)),
            Cordon(False, None, {KEY5: "true"}),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_take(situation: str, view: NodeView, cordon: Cordon):
    assert take(view) == cordon


@pytest.mark.parametrize(("key5", "notes"), [(None, {}), ("true", {KEY5: None})])
def test_a_cordon_taken_again_is_ours(key5: str | None, notes: dict[str, None]):
    assert take_again(on(cordoned=False, claim=False, key5=key5)) == Cordon(True, True, notes)


@pytest.mark.parametrize(
    ("situation", "view", "cordon"),
    [
        ("ours", on(cordoned=True, claim=True), Cordon(False, False)),
        ("ours, lifted already", on(cordoned=False, claim=True), Cordon(False)),
        ("ours, to be kept", on(cordoned=True, claim=True, key5="true"), Cordon(False, None, {KEY5: None})),
        ("ours, key 5 odd: rather kept (S5)", on(cordoned=True, claim=True, key5="no"), Cordon(False, None, {KEY5: None})),
        ("foreign", on(cordoned=True, claim=False, key5="true"), Cordon(False, None, {KEY5: None})),
        ("foreign, no key 5", on(cordoned=True, claim=False), Cordon(False)),
        ("not the last claim", on(cordoned=True, claim=True, others=(CLAIMS,)), Cordon(False)),
        ("the last claim", on(cordoned=True, claim=True, others=(WITHOUT,)), Cordon(False, False)),
        (
            "not the last claim, key 5 moves",
            on(cordoned=True, claim=True, key5="true", others=(CLAIMS,)),
            Cordon(False, None, {KEY5: None, OFED_KEY5: "true"}),
        ),
        (
            "key 5 moves also without a claim of ours",
            on(cordoned=True, claim=False, key5="true", others=(CLAIMS,)),
            Cordon(False, None, {KEY5: None, OFED_KEY5: "true"}),
        ),
        (
            "the other driver keeps it already",
            on(cordoned=True, claim=True, key5="true", others=(KEEPS,)),
            Cordon(False, None, {KEY5: None}),
        ),
        ("no heir", on(cordoned=True, claim=True, key5="true", others=(WITHOUT,)), Cordon(False, None, {KEY5: None})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_release(situation: str, view: NodeView, cordon: Cordon):
    assert release(view) == cordon
    assert lifts(view) == (cordon.unschedulable is False)


def test_the_last_of_two_drivers_lifts_the_cordon():
    """Who ends first drops its claim; the other, which sees that, lifts the cordon."""
    first = release(on(cordoned=True, claim=True, others=(CLAIMS,)))
    second = release(on(cordoned=True, claim=True, others=(other(S.UPGRADE_DONE),)))
    assert (first.unschedulable, second.unschedulable) == (None, False)


@pytest.mark.parametrize("state", list(State))
def test_the_peers_cordon_is_ours_from_wait_for_jobs_on(state: State):
    ours = {
        S.WAIT_FOR_JOBS_REQUIRED,
        S.POD_DELETION_REQUIRED,
        S.DRAIN_REQUIRED,
        S.POD_RESTART_REQUIRED,
        S.VALIDATION_REQUIRED,
        S.UNCORDON_REQUIRED,
        S.UPGRADE_FAILED,
    }
    assert claims_by_label(node(state, cordoned=True), KEYS, state) == (state in ours)
    assert not claims_by_label(node(state), KEYS, state)
    assert not claims_by_label(node(state, cordoned=True, notes={KEY5: "true"}), KEYS, state)


@pytest.mark.parametrize("label", ["node-maintenance-required", "post-maintenance-required"])
def test_the_requestor_modes_cordon_is_ours_too(label: str):
    assert claims_by_label(node(label, cordoned=True), KEYS, label)


def test_the_other_drivers_stake_is_read_from_its_record_then_its_label():
    held = other_driver(node(S.DRAIN_REQUIRED, OURS, cordoned=True, notes={KEY5: "true"}), KEYS)
    assert (held.state, held.claim, held.in_progress, held.keeps_cordon) == (S.DRAIN_REQUIRED, True, True, True)
    vanished = other_driver(node(record=OURS, cordoned=True), KEYS)
    assert (vanished.state, vanished.in_progress) == (S.DRAIN_REQUIRED, True)
    peer = other_driver(node(S.DRAIN_REQUIRED, cordoned=True), KEYS)
    assert (peer.claim, peer.in_progress) == (True, True)
    nothing = other_driver(node(), KEYS)
    assert (nothing.state, nothing.claim, nothing.in_progress) == (S.UNKNOWN, False, False)


def test_a_driver_relabelled_to_nonsense_is_in_progress_by_its_record():
    assert other_driver(node("nonsense", OURS, cordoned=True), KEYS).in_progress


def test_a_record_of_another_node_holds_no_claim():
    stale = other_driver(node(S.UPGRADE_DONE, record(S.DRAIN_REQUIRED, node="before"), cordoned=True), KEYS)
    assert (stale.claim, stale.in_progress) == (False, False)
