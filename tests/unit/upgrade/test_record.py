"""The record: at most 1 KiB whatever legal names it holds, and garbage is no record."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.upgrade.reasons import Reason
from controller.upgrade.record import MAX_BYTES, MAX_MESSAGE, Failure, Record, decode_record, encode_record
from controller.upgrade.states import State
from tests.unit.upgrade.builders import (
    record,
)
from tests.unit.upgrade.strategies import GARBAGE, records

S, R = State, Reason
TIMES = st.floats(1.7e9, 1e10).map(lambda t: round(t, 3))
UIDS = st.sampled_from(["", "f" * 36])
TARGETS = st.integers(0, 10**9).map(lambda r: f"{'f' * 36}@{r}")
longest = st.builds(
    Record,
    state=st.sampled_from(State),
    since=TIMES,
    node=UIDS,
    policy=st.integers(1, 253).map(lambda n: "DriverUpgradePolicy/" + "p" * n),
    namespace=st.integers(1, 63).map(lambda n: "n" * n),
    target=TARGETS,
    replace=UIDS,
    restart_only=st.booleans(),
    attempt=st.integers(0, 99_999),
    claim=st.booleans(),
    recordons=st.integers(0, 5),
    entered=st.dictionaries(st.sampled_from(State), TIMES, min_size=8),
    gone=TIMES,
    failure=st.builds(
        Failure,
        reason=st.sampled_from(Reason),
        state=st.sampled_from(State),
        target=TARGETS,
        pod=UIDS,
        message=st.text(max_size=MAX_MESSAGE),
        earlier=st.booleans(),
    ),
)


@settings(max_examples=200, deadline=None)
@given(longest)
def test_at_most_1_kib_and_nothing_that_decides_is_lost(full: Record):
    text = encode_record(full)
    assert len(text.encode()) <= MAX_BYTES
    kept = decode_record(text)
    assert kept is not None
    assert kept.failure is not None
    assert full.failure is not None
    assert (kept.failure.target, kept.failure.pod) == (full.failure.target, full.failure.pod)
    for state in (
        S.WAIT_FOR_JOBS_REQUIRED,
        S.POD_DELETION_REQUIRED,
        S.DRAIN_REQUIRED,
        S.POD_RESTART_REQUIRED,
        S.VALIDATION_REQUIRED,
    ):
        assert abs(kept.entered.get(state, 0) - full.entered.get(state, 0)) < 1
    same: dict[str, Any] = {"failure": None, "entered": {}, "since": 0.0, "gone": 0.0}
    assert replace(kept, **same) == replace(full, **same)


def test_the_longest_of_all():
    every = dict.fromkeys(State, 1763841774.123)
    failure = Failure(
        R.MULTIPLE_POD_DISRUPTION_BUDGETS, S.WAIT_FOR_JOBS_REQUIRED, f"{'f' * 36}@99999999", "f" * 36, "ü" * 160, True
    )
    full = record(
        S.WAIT_FOR_JOBS_REQUIRED, policy="DriverUpgradePolicy/" + "p" * 253, namespace="n" * 63, gone=1763841774.123
    )
    full = replace(full, node="f" * 36, target=failure.target, replace="f" * 36, restart_only=True, recordons=5, attempt=999)
    text = encode_record(replace(full, entered=every, failure=failure))
    assert 900 < len(text) <= MAX_BYTES


@given(records)
def test_a_short_record_comes_back_as_it_was(written: Record):
    if len(encode_record(written)) < 600:
        assert decode_record(encode_record(written)) == written


@pytest.mark.parametrize("text", [None, *GARBAGE], ids=lambda t: repr(t)[:40])
def test_garbage_is_no_record(text: str | None):
    assert decode_record(text) is None


@given(st.text() | st.binary().map(lambda b: b.decode(errors="surrogateescape")))
def test_any_text_can_be_decoded(text: str):
    assert decode_record(text) is None or isinstance(decode_record(text), Record)


def test_fields_of_a_later_version_are_passed_over():
    assert decode_record('{"state":"drain-required","wave":3}') == Record(S.DRAIN_REQUIRED)


def test_a_pod_is_asked_for_only_where_being_outdated_is_not_the_reason():
    """A version put back before the pod was touched must end the upgrade, not restart a good driver."""
    requested = Record(State.DRAIN_REQUIRED, replace="pod-1")
    assert requested.asked_for == "pod-1"
    outdated = Record(State.DRAIN_REQUIRED, replace="pod-1", restart_only=True)
    assert outdated.asked_for == ""
