"""Every state and every edge of the design's sections 3 and 6, one row for each situation (the ``table_`` modules)."""

from collections import Counter

import pytest

from controller.upgrade.states import EDGES, PEER_STATES, State, parse_state
from tests.unit.upgrade import table_drain, table_marks, table_rest, table_restart, table_vacate
from tests.unit.upgrade.cases import Case, check

ROWS = (*table_rest.ROWS, *table_vacate.ROWS, *table_drain.ROWS, *table_restart.ROWS, *table_marks.ROWS)


def edges() -> set[tuple[State, State]]:
    return {(before, after) for before, followers in EDGES.items() for after in followers}


@pytest.mark.parametrize("case", ROWS, ids=lambda case: f"{case.name} [{case.start}]")
def test_row(case: Case):
    check(case)


def test_the_rows_take_every_edge_and_no_other():
    taken = {(case.start, case.to) for case in ROWS if case.to is not None}
    assert taken == edges()


def test_every_row_says_something_else():
    names = Counter((case.name, case.start) for case in ROWS)
    assert not [name for name, count in names.items() if count > 1]


def test_every_state_is_put_back_restored_and_stays():
    for state in set(State) - {State.UNKNOWN}:
        rows = [case for case in ROWS if case.start is state]
        assert any(case.to is None and not case.does for case in rows), state
        assert any(case.does.startswith("put back") for case in rows), state


@pytest.mark.parametrize("label", ["", None])
def test_the_absent_label_is_unknown(label: str | None):
    assert parse_state(label) is State.UNKNOWN


@pytest.mark.parametrize(("label", "state"), PEER_STATES.items())
def test_the_peers_own_states_are_taken_over(label: str, state: State):
    assert parse_state(label) is state


def test_other_labels_are_not_understood():
    assert [parse_state(x) for x in ("Upgrade-Done", "done", "upgrade-done ", "unknown")] == [None] * 4
