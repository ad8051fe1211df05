"""How long a plan takes, by hand-made plans; and what a node took, as its record keeps it."""

from typing import Any

import pytest

from controller.upgrade.decide import decide
from controller.upgrade.fleet import Tally
from controller.upgrade.outlook import Outlook, outlook
from controller.upgrade.plan import PlannedNode
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure, Record
from controller.upgrade.states import State
from tests.unit.upgrade.builders import NOW, driver_pod, node, policy, record, view


def planned(*waves: int) -> list[PlannedNode]:
    return [PlannedNode(f"n{i}", "gpu", "p", wave) for i, wave in enumerate(waves, 1)]


@pytest.mark.parametrize(
    ("slots", "waves", "took", "seconds"),
    [
        (1, (1, 2), {"n1": 10.0, "n2": 20.0}, 30.0),
        (2, (1, 1), {"n1": 10.0, "n2": 20.0}, 20.0),
        (2, (1, 1, 2), {"n1": 10.0, "n2": 20.0, "n3": 5.0}, 20.0),
        (0, (1, 1, 1), {"n1": 10.0, "n2": 20.0, "n3": 5.0}, 20.0),
        (1, (1, 2, 3), {"n1": 10.0, "n3": 20.0}, 50.0),
        (5, (1,), {"n1": 10.0}, 10.0),
        (1, (1, 0), {"n1": 10.0, "n2": 99.0}, 10.0),
        (1, (1,), {}, None),
        (1, (), {}, None),
    ],
    ids=[
        "one after the other",
        "side by side",
        "the free slot is taken",
        "no limit",
        "an unknown one is typical",
        "slots to spare",
        "not started",
        "nothing known",
        "nothing planned",
    ],
)
def test_the_estimate_goes_by_what_the_nodes_took(
    slots: int, waves: tuple[int, ...], took: dict[str, float], seconds: float | None
) -> None:
    assert outlook(policy(maxParallelUpgrades=slots), planned(*waves), took, Tally()).seconds == seconds


@pytest.mark.parametrize(
    ("fields", "at_most"),
    [
        ({}, 1800.0),
        ({"drain": {"enable": True}}, 2100.0),
        ({"drain": {"enable": False, "timeoutSeconds": 0}}, 1800.0),
        ({"drain": {"enable": True, "timeoutSeconds": 0}}, None),
        ({"waitForCompletion": {"podSelector": "a=b", "timeoutSeconds": 60}, "podRestart": {"timeoutSeconds": 40}}, 100.0),
        ({"waitForCompletion": {"podSelector": "a=b"}}, None),
        ({"podDeletion": {"podSelector": "a=b", "timeoutSeconds": 7}, "podRestart": {"timeoutSeconds": 40}}, 47.0),
        ({"validation": {"podSelector": "a=b", "timeoutSeconds": 5}, "podRestart": {"timeoutSeconds": 40}}, 45.0),
    ],
)
def test_the_bound_is_the_sum_of_the_time_outs_that_count(fields: dict[str, Any], at_most: float | None) -> None:
    assert outlook(policy(**fields), planned(1), {}, Tally()).at_most == at_most


def test_the_bound_counts_every_wave() -> None:
    by = policy(podRestart={"timeoutSeconds": 40})
    assert outlook(by, planned(1, 2, 0), {}, Tally()) == Outlook(by.full_name, 2, None, 80.0)


def done(clock_set: float = 0.0, **changes: Any) -> Record:
    """The record of a node that is done now, and was granted 95.4 s ago, before the server's clock was set."""
    granted = NOW - 95.4 - clock_set
    entered = {State.CORDON_REQUIRED: granted, State.UNCORDON_REQUIRED: NOW - 1}
    on = node(
        State.UNCORDON_REQUIRED, record(State.UNCORDON_REQUIRED, claim=True, entered=entered, **changes), cordoned=True
    )
    patch = decide(view(on, driver_pod("new", 2), moved={granted: clock_set}), NOW).patch
    assert patch is not None
    assert patch.record is not None
    assert patch.state is State.UPGRADE_DONE
    return patch.record


def test_a_node_that_is_done_keeps_what_it_took() -> None:
    assert done(took=7).took == 95


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_by_how_much_the_clock_was_set_is_nothing_that_a_node_took(seconds: float) -> None:
    assert done(seconds).took == 95


def test_a_failed_attempt_says_nothing_about_the_next_and_leaves_what_was_known() -> None:
    assert done(took=7, failure=Failure(Reason.FAILED)).took == 7
